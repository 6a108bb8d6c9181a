"""Files in a folder, named by what is in them: whole and on disk when ``put`` returns, or not there at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

from services.kernel.errors import DomainError
from services.platform import telemetry


class FolderFiles:
    """A folder for its owner alone. Any number of processes may use it."""

    def __init__(self, folder: Path | str) -> None:
        """Keep files under ``folder``, which is made when the first one comes."""
        self._folder = Path(folder)

    def put(self, content: bytes) -> str:
        """Keep a file for good and return its SHA-256; one that was damaged is made whole. Raises UNAVAILABLE."""
        name = hashlib.sha256(content).hexdigest()
        try:
            if self._read(name) != content:
                self._write(self._path(name), content)
        except OSError as error:
            raise _unavailable("file.not_kept", name, error) from error
        return name

    def get(self, sha256: str) -> bytes | None:
        """Return a file exactly as it was put; None: there is none. Raises UNAVAILABLE, also for one that was damaged."""
        try:
            content = self._read(sha256)
        except OSError as error:
            raise _unavailable("file.not_read", sha256, error) from error
        return None if content is None else checked(content, sha256)

    def _path(self, name: str) -> Path:
        return self._folder / name[:2] / name

    def _read(self, name: str) -> bytes | None:
        try:
            return self._path(name).read_bytes()
        except FileNotFoundError:
            return None

    def _write(self, path: Path, content: bytes) -> None:
        """Write beside, sync, rename, sync the folders: a name never stands for half a file, nor is it lost."""
        for folder in (self._folder, path.parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, beside = tempfile.mkstemp(dir=path.parent, prefix=".new-")  # mode 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(beside).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(beside).unlink()
            raise
        for folder in (path.parent, self._folder, self._folder.parent):
            _sync(folder)


def checked(content: bytes, sha256: str) -> bytes:
    """Return what its name says that it is. Raises UNAVAILABLE for anything else."""
    if hashlib.sha256(content).hexdigest() != sha256:
        raise _unavailable("file.damaged", sha256, "another content than its name says")
    return content


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unavailable(event: str, sha256: str, error: object) -> DomainError:
    telemetry.log.error(event, sha256=sha256, error=str(error))
    return DomainError("UNAVAILABLE")
