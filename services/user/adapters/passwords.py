"""argon2id by pwdlib."""

from __future__ import annotations

import secrets

from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher


class Argon2Passwords:
    """Hashes with argon2id, one lane: a server has other work for its other cores."""

    def __init__(self, memory_kib: int, passes: int) -> None:
        """Hash over ``memory_kib`` of memory, ``passes`` times. Takes one hash's time: nobody's password is made here."""
        self._hasher = Argon2Hasher(time_cost=passes, memory_cost=memory_kib, parallelism=1)
        self._hashes = PasswordHash((self._hasher,))
        self._nobody = self._hashes.hash(secrets.token_urlsafe())

    def hash(self, password: str) -> str:
        """Return the hash that is stored, with its salt and parameters in it."""
        return self._hashes.hash(password)

    def verify(self, password: str, stored: str | None) -> bool:
        """Whether the password is the stored one. None, for nobody's: False, and it takes as long."""
        return self._hashes.verify(password, stored or self._nobody) and stored is not None

    def is_outdated(self, stored: str) -> bool:
        """Whether a stored hash was made with other parameters than today's."""
        return self._hasher.check_needs_rehash(stored)
