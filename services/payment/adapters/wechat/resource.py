"""AEAD_AES_256_GCM: how WeChat Pay encrypts what a callback says and the certificates that it hands out."""

from __future__ import annotations

import base64

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from services.payment.adapters import strict_json

ALGORITHM = "AEAD_AES_256_GCM"
KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16


def decrypted(key: bytes, nonce: bytes, associated_data: bytes, ciphertext: bytes) -> bytes:
    """Return the text of ``ciphertext``, whose last 16 bytes are the tag.

    Raises:
        ValueError: wrong key, nonce, associated data or text, or a key or nonce of another size.
    """
    if len(key) != KEY_BYTES or len(nonce) != NONCE_BYTES or len(ciphertext) < TAG_BYTES:
        raise ValueError("a key, nonce or ciphertext of the wrong size")
    try:
        return AESGCM(key).decrypt(nonce, ciphertext, associated_data)
    except InvalidTag as error:
        raise ValueError("does not decrypt") from error


def opened(key: bytes, resource: strict_json.JsonObject) -> str:
    """Decrypt an object {algorithm, ciphertext, nonce, associated_data}. Raises ValueError."""
    if strict_json.string(resource, "algorithm") != ALGORITHM:
        raise ValueError(f"not {ALGORITHM}")
    return decrypted(
        key,
        strict_json.string(resource, "nonce").encode(),
        strict_json.string(resource, "associated_data").encode(),
        base64.b64decode(strict_json.string(resource, "ciphertext"), validate=True),
    ).decode()
