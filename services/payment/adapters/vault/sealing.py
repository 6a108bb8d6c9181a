"""The two primitives of the vault, each in one size alone: AES-256-GCM with a 96-bit nonce, HMAC-SHA-256."""

from __future__ import annotations

import hmac

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
NONCE_BYTES = 12
_TAG_BYTES = 16


class SealBroken(Exception):
    """What was sealed does not open: another key, another nonce, other bytes, or it is about something else."""


def seal(key: bytes, nonce: bytes, plain: bytes, about: bytes) -> bytes:
    """Encrypt and bind to ``about``. A nonce is random and used once: two of one key would give both plaintexts away."""
    return _cipher(key, nonce).encrypt(nonce, plain, about)


def unseal(key: bytes, nonce: bytes, sealed: bytes, about: bytes) -> bytes:
    """Decrypt what was sealed ``about`` the same thing. Raises SealBroken."""
    if len(sealed) < _TAG_BYTES:
        raise SealBroken
    try:
        return _cipher(key, nonce).decrypt(nonce, sealed, about)
    except InvalidTag:
        raise SealBroken from None


def fingerprint(key: bytes, message: bytes) -> bytes:
    """Return HMAC-SHA-256 of a message, all 32 bytes of it."""
    return hmac.digest(key, message, "sha256")


def _cipher(key: bytes, nonce: bytes) -> AESGCM:
    if len(key) != KEY_BYTES or len(nonce) != NONCE_BYTES:
        raise SealBroken
    return AESGCM(key)
