"""The folder of a mesh: who has it, and where things lie in it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import time
from pathlib import Path
from typing import Any

from services.cli.exits import CommandError, Exit

SOCKET_PATH_MAX = 107
"""Bytes that the kernel takes as the path of a unix socket."""
_LONGEST = "run/notification-15.out.sock"


def keep_private() -> None:
    """Let everything that this process and its children make be for its owner alone: databases, logs, sockets."""
    os.umask(0o077)


def default_folder() -> Path:
    """Return where a mesh lives when nobody says: $XDG_STATE_HOME/paymesh."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "paymesh"


class Folder:
    """The paths below DIR, which only its owner may enter."""

    def __init__(self, path: Path) -> None:
        """Name the paths; nothing is made until ``make``."""
        self.path = path.absolute()
        self.run = self.path / "run"
        self.pki = self.path / "pki"
        self.logs = self.path / "logs"
        self.envoy = self.path / "envoy"
        self.providers = self.path / "providers"
        """Keys and books of the providers in the sandbox: made as a whole, by services.sandbox.keys."""
        self.vault_keys = self.path / "vault-keys"
        self.files = self.path / "files"
        self.ca = self.pki / "ca.pem"
        self.tokens = self.pki / "join-tokens.json"
        self.record = self.path / "run.json"
        self.releases = self.path / "releases.json"
        self.control = self.run / "control.sock"
        """Where the supervisor takes orders while it runs."""
        self._lock = self.path / "lock"
        self._held: int | None = None

    def fault(self) -> str | None:
        """Say why a mesh cannot live here; None: it can, as far as the path tells."""
        if len(os.fsencode(self.path / _LONGEST)) > SOCKET_PATH_MAX:
            return (
                f"{self.path} is too long a path: unix sockets below it may have {SOCKET_PATH_MAX} bytes in all. "
                "Give a shorter one with --data."
            )
        return None

    def make(self) -> None:
        """Make the folders, closed to others, and clear what a mesh that was killed left in run/."""
        for each in (self.path, self.run, self.pki, self.logs, self.envoy, self.vault_keys, self.files):
            each.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.chmod(0o700)
        for each in self.run.iterdir():
            if not each.is_dir():
                each.unlink()

    def lock(self) -> None:
        """Hold DIR until this process ends, however it ends. Raises CommandError when another holds it."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if not _locked(descriptor):
            os.close(descriptor)
            raise CommandError(
                Exit.BAD_INPUT,
                f"A mesh runs in {self.path} already (pid {self.holder()}). Stop it with "
                f"`paymesh down --data {self.path}`, or give another folder with --data.",
            )
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        self._held = descriptor

    def unlock(self) -> None:
        """Let others have DIR."""
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def holder(self) -> int | None:
        """Return the pid of who holds DIR; None: nobody."""
        try:
            descriptor = os.open(self._lock, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        with os.fdopen(descriptor) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                text = file.read()
                return int(text) if text.isdecimal() else None
        return None

    def admin(self) -> dict[str, str]:
        """Return the user name and password of the demo operator, made once."""
        path = self.path / "admin.json"
        with contextlib.suppress(FileNotFoundError):
            known: dict[str, str] = json.loads(path.read_text())
            return known
        made = {"username": "operator", "password": secrets.token_urlsafe(18)}
        write_json(path, made)
        return made

    def read_record(self) -> dict[str, Any]:
        """Return run.json of the mesh that runs here. Raises CommandError when none does."""
        if self.holder() is None:
            raise CommandError(Exit.NOT_FOUND, f"No mesh runs in {self.path}. `paymesh up` starts one.")
        try:
            record: dict[str, Any] = json.loads(self.record.read_text())
        except FileNotFoundError:
            raise CommandError(Exit.UNAVAILABLE, f"The mesh in {self.path} is only just starting.") from None
        return record


def _locked(descriptor: int) -> bool:
    """Try to lock, a few times: `holder` of another process has a lock for a moment too."""
    for _ in range(5):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(0.02)
    return False


def write_private(path: Path, text: str) -> None:
    """Write a file for its owner alone; a reader finds the old content or the new one, never a part."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    draft.replace(path)


def write_json(path: Path, content: object) -> None:
    """Write JSON for its owner alone, atomically."""
    write_private(path, json.dumps(content, indent=1) + "\n")
