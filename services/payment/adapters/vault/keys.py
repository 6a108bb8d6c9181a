"""Key-encryption keys in files that only their owner may read, beside the database and never in it."""

from __future__ import annotations

import os
import re
import secrets
from typing import TYPE_CHECKING

from services.payment.adapters.vault.sealing import KEY_BYTES, NONCE_BYTES, SealBroken, seal, unseal
from services.payment.ports.cards import VaultUnusable, WrappedKey

if TYPE_CHECKING:
    from pathlib import Path

_NAME = re.compile(r"kek-([1-9]\d*)\.key")


class FileKeys:
    """A key service over a folder: ``kek-1.key``, ``kek-2.key``, … of 32 random bytes, mode 0600; the highest wraps.

    The first is made at the first use. Every instance over one database needs the same folder. A file may be taken away
    once nothing is wrapped under it.
    """

    def __init__(self, folder: Path) -> None:
        """Keep the keys in ``folder``, which is made with mode 0700."""
        self._folder = folder

    def current(self) -> str:
        """Return the id of the newest key, ``kek-N``."""
        return _id(self._newest() or self._make(1))

    def wrap(self, key: bytes, about: str) -> WrappedKey:
        """Encrypt a key under the newest (AES-256-GCM); the nonce goes ahead of it."""
        kek_id, nonce = self.current(), secrets.token_bytes(NONCE_BYTES)
        return WrappedKey(kek_id, nonce + seal(self._read(kek_id), nonce, key, _bound(kek_id, about)))

    def unwrap(self, wrapped: WrappedKey, about: str) -> bytes:
        """Decrypt a key. Raises VaultUnusable when the file is missing, or not the one that it was wrapped with."""
        nonce, sealed = wrapped.wrapped[:NONCE_BYTES], wrapped.wrapped[NONCE_BYTES:]
        try:
            return unseal(self._read(wrapped.kek_id), nonce, sealed, _bound(wrapped.kek_id, about))
        except SealBroken:
            text = f"{self._path(wrapped.kek_id)} is not the key that {about} was wrapped with: put that one back"
            raise VaultUnusable(text) from None

    def rotate(self) -> str:
        """Make the next key and return its id; of two processes that do at once, one's is everyone's."""
        return _id(self._make(self._newest() + 1))

    def _newest(self) -> int:
        names = (_NAME.fullmatch(path.name) for path in self._folder.glob("kek-*.key"))
        return max((int(name[1]) for name in names if name), default=0)

    def _make(self, number: int) -> int:
        """Write a new key. A link never replaces: of two processes that make it at once, one's stays."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._path(_id(number))
        fresh = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(fresh, path)
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
        self._sync()
        return number

    def _sync(self) -> None:
        """Make the folder's new name durable: a card whose key is lost with the power is lost."""
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _read(self, kek_id: str) -> bytes:
        path = self._path(kek_id)
        try:
            if path.stat().st_mode & 0o077:
                raise VaultUnusable(f"{path} can be read by others: chmod 600 it")
            secret = path.read_bytes()
        except OSError:
            raise VaultUnusable(f"{path} cannot be read: put the file back") from None
        if len(secret) != KEY_BYTES:
            raise VaultUnusable(f"{path} has {len(secret)} bytes and not {KEY_BYTES}: put the right file back")
        return secret

    def _path(self, kek_id: str) -> Path:
        if not _NAME.fullmatch(f"{kek_id}.key"):
            raise VaultUnusable(f"{kek_id!r} is no key of a folder: the keys of this vault are kept elsewhere")
        return self._folder / f"{kek_id}.key"


def _id(number: int) -> str:
    return f"kek-{number}"


def _bound(kek_id: str, about: str) -> bytes:
    return f"paymesh.vault.key|{kek_id}|{about}".encode()
