"""A room's master key: a file that only its owner may read, beside the database and never in it."""

from __future__ import annotations

import hmac
import os
import secrets
from functools import cached_property
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

if TYPE_CHECKING:
    from pathlib import Path

_BYTES = 32
_NONCE = 12


class MasterKeyUnusable(Exception):
    """The file is not as it must be, or not the one that the database was written with."""


class MasterKey:
    """Seals what the database keeps secret. Made at the first use; every instance over one database needs the same file."""

    def __init__(self, folder: Path, room: str) -> None:
        """Use the file of ``room`` in ``folder``: 32 random bytes, mode 0600."""
        self._path, self._room = folder / f"{room}.key", room

    def seal(self, plain: bytes, about: str) -> bytes:
        """Encrypt (AES-256-GCM); it opens only as what it is ``about``."""
        nonce = secrets.token_bytes(_NONCE)
        return nonce + self._cipher.encrypt(nonce, plain, about.encode())

    def unseal(self, sealed: bytes, about: str) -> bytes:
        """Decrypt. Raises MasterKeyUnusable when it was sealed with another key."""
        try:
            return self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], about.encode())
        except InvalidTag:
            text = f"{self._path} is not the key that the database was written with: put that one back"
            raise MasterKeyUnusable(text) from None

    def fingerprint(self, digest: bytes) -> bytes:
        """Return HMAC-SHA-256 of a digest: worth nothing to who has the database without this file."""
        return hmac.digest(self._mac_key, digest, "sha256")

    @cached_property
    def _cipher(self) -> AESGCM:
        return AESGCM(self._derive("seal"))

    @cached_property
    def _mac_key(self) -> bytes:
        return self._derive("fingerprint")

    def _derive(self, purpose: str) -> bytes:
        hkdf = HKDF(
            algorithm=hashes.SHA256(), length=_BYTES, salt=None, info=f"paymesh.{self._room}.{purpose}".encode()
        )
        return hkdf.derive(self._secret)

    @cached_property
    def _secret(self) -> bytes:
        """Read the file, or make it. A link never replaces: of two processes that make it at once, one's stays."""
        path = self._path
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fresh = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(secrets.token_bytes(_BYTES))
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(fresh, path)
            except FileExistsError:
                pass
            finally:
                fresh.unlink()
        if path.stat().st_mode & 0o077:
            raise MasterKeyUnusable(f"{path} can be read by others: chmod 600 it")
        secret = path.read_bytes()
        if len(secret) != _BYTES:
            raise MasterKeyUnusable(f"{path} has {len(secret)} bytes and not {_BYTES}: put the right file back")
        return secret
