"""The cryptography of the providers' protocols: RSA with SHA-256, HMAC-SHA-256 and AES-256-GCM. Nothing weaker verifies."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM


@lru_cache(maxsize=16)
def private_key(pem: str) -> rsa.RSAPrivateKey:
    """Read a private RSA key, once: to check one takes 60 ms. Raises TypeError for another kind of key."""
    key = serialization.load_pem_private_key(pem.encode(), password=None)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise TypeError("not an RSA key")
    return key


def public_key(pem: str) -> rsa.RSAPublicKey:
    """Read a public RSA key. Raises TypeError for another kind of key."""
    key = serialization.load_pem_public_key(pem.encode())
    if not isinstance(key, rsa.RSAPublicKey):
        raise TypeError("not an RSA key")
    return key


def sign(key: rsa.RSAPrivateKey, text: bytes) -> str:
    """Sign with PKCS #1 v1.5 and SHA-256; base64."""
    return base64.b64encode(key.sign(text, padding.PKCS1v15(), hashes.SHA256())).decode()


def sign_sha1(key: rsa.RSAPrivateKey, text: bytes) -> str:
    """Sign with SHA-1, to forge what a careless merchant would take; never verified here."""
    return base64.b64encode(key.sign(text, padding.PKCS1v15(), hashes.SHA1())).decode()  # noqa: S303 - a forgery


def verify(key: rsa.RSAPublicKey, text: bytes, signature: str) -> bool:
    """Tell whether a base64 signature is the key owner's, of exactly these bytes."""
    try:
        key.verify(base64.b64decode(signature, validate=True), text, padding.PKCS1v15(), hashes.SHA256())
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


def authenticate(secret: bytes, text: bytes) -> str:
    """HMAC-SHA-256, base64."""
    return base64.b64encode(hmac.digest(secret, text, hashlib.sha256)).decode()


def authentic(secret: bytes, text: bytes, signature: str) -> bool:
    """Tell whether a base64 HMAC is right, in constant time."""
    return hmac.compare_digest(authenticate(secret, text).encode(), signature.encode(errors="replace"))


def encrypt(key: bytes, text: bytes, *, nonce: str, associated: str) -> str:
    """AES-256-GCM as WeChat Pay writes it: base64 of the ciphertext followed by its 16-byte tag."""
    return base64.b64encode(AESGCM(key).encrypt(nonce.encode(), text, associated.encode())).decode()
