"""RSA signatures as Alipay (RSA2) and WeChat Pay v3 use them: PKCS#1 v1.5 over SHA-256, in base64, and nothing else.

The algorithm is pinned here and never taken from a message: what a sender may choose, a forger chooses.
"""

from __future__ import annotations

import base64
import binascii

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

KEY_BITS_MIN = 2048


def private_key(pem: str) -> RSAPrivateKey:
    """Read our key, PKCS#1 or PKCS#8 PEM without a password. Raises ValueError; the text of the key is never in it."""
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError) as error:
        raise ValueError("not an unencrypted PEM private key") from error
    if not isinstance(key, RSAPrivateKey) or key.key_size < KEY_BITS_MIN:
        raise ValueError(f"not an RSA key of at least {KEY_BITS_MIN} bits")
    return key


def public_key(pem: str) -> RSAPublicKey:
    """Read the provider's key, PEM. Raises ValueError."""
    try:
        key = load_pem_public_key(pem.encode())
    except ValueError as error:
        raise ValueError("not a PEM public key") from error
    return strong(key)


def strong(key: object) -> RSAPublicKey:
    """Return ``key`` if it is an RSA key that is long enough. Raises ValueError."""
    if not isinstance(key, RSAPublicKey) or key.key_size < KEY_BITS_MIN:
        raise ValueError(f"not an RSA key of at least {KEY_BITS_MIN} bits")
    return key


def sign(key: RSAPrivateKey, text: bytes) -> str:
    """Sign ``text``; base64."""
    return base64.b64encode(key.sign(text, PKCS1v15(), SHA256())).decode()


def verified(key: RSAPublicKey, text: bytes, signature: str) -> bool:
    """Whether ``signature`` is ``key``'s under ``text``.

    Only canonical base64 is read: the spare bits of its last character would else make several texts of one signature.
    """
    try:
        raw = base64.b64decode(signature, validate=True)
        if base64.b64encode(raw).decode() != signature:
            return False
        key.verify(raw, text, PKCS1v15(), SHA256())
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True
