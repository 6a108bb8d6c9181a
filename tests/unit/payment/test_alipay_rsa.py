"""RSA2, the signature that Alipay and WeChat Pay share: only PKCS#1 v1.5 over SHA-256, in one text."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric import rsa as keys
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, AsymmetricPadding, PKCS1v15
from cryptography.hazmat.primitives.hashes import MD5, SHA1, SHA256, SHA512, HashAlgorithm
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from services.payment.adapters import rsa
from tests.fakes.provider_vectors import CLOSE_SIGN, MERCHANT_KEY, MERCHANT_PUBLIC_KEY
from tests.vectors import groups, with_vectors

TEXT = (
    b"POST\n/v3/pay/transactions/out-trade-no/P1001/close\n1795478400\n593BEC0C930BF1AFEB40B4A08C8FB242\n"
    b'{"mchid":"1600000001"}\n'
)
PUBLIC = rsa.public_key(MERCHANT_PUBLIC_KEY)


def test_signature_when_compared_with_openssl() -> None:
    """We sign what openssl signs, and verify it."""
    assert rsa.sign(rsa.private_key(MERCHANT_KEY), TEXT) == CLOSE_SIGN
    assert rsa.verified(PUBLIC, TEXT, CLOSE_SIGN)


def test_signature_when_any_character_is_changed() -> None:
    """No other text passes for the signature: not a changed character, not its spare bits, not space around it."""
    for at, char in enumerate(CLOSE_SIGN):
        for other in {"A", "/", "=", "\n", chr(ord(char) ^ 1), char.swapcase()} - {char}:
            assert not rsa.verified(PUBLIC, TEXT, CLOSE_SIGN[:at] + other + CLOSE_SIGN[at + 1 :])
    for changed in (
        "",
        "=",
        CLOSE_SIGN + "=",
        CLOSE_SIGN[:-1],
        f" {CLOSE_SIGN}",
        f"{CLOSE_SIGN}\n",
        CLOSE_SIGN * 2,
        "签",
    ):
        assert not rsa.verified(PUBLIC, TEXT, changed)
    assert not rsa.verified(PUBLIC, TEXT + b"\n", CLOSE_SIGN)


def test_signature_when_its_spare_bits_are_set() -> None:
    """The last character before the padding has four bits that mean nothing: only zeros are taken."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    value = alphabet.index(CLOSE_SIGN[-3])
    assert (CLOSE_SIGN[-2:], value % 16) == ("==", 0)
    for spare in range(1, 16):
        changed = f"{CLOSE_SIGN[:-3]}{alphabet[value + spare]}=="
        assert base64.b64decode(changed) == base64.b64decode(CLOSE_SIGN)
        assert not rsa.verified(PUBLIC, TEXT, changed)


@pytest.mark.parametrize(
    ("padding", "algorithm"),
    [
        (PKCS1v15(), SHA1()),
        (PKCS1v15(), MD5()),
        (PKCS1v15(), SHA512()),
        (PSS(MGF1(SHA256()), 32), SHA256()),
    ],
)
def test_signature_when_of_another_algorithm(padding: AsymmetricPadding, algorithm: HashAlgorithm) -> None:
    """The right key with another hash or padding does not verify."""
    key = load_pem_private_key(MERCHANT_KEY.encode(), None)
    assert isinstance(key, keys.RSAPrivateKey)
    assert not rsa.verified(PUBLIC, TEXT, base64.b64encode(key.sign(TEXT, padding, algorithm)).decode())


@with_vectors
def test_verify_when_wycheproof_tries() -> None:
    """Every vector comes out as it must: bad padding, wrong hash, wrapped numbers and BER are refused.

    The one that is only acceptable (a NULL left out in the padding) is refused too.
    """
    tried = 0
    for group in groups("rsa_signature_2048_sha256_test"):
        key = rsa.public_key(group["publicKeyPem"])
        for test in group["tests"]:
            signature = base64.b64encode(bytes.fromhex(test["sig"])).decode()
            valid = rsa.verified(key, bytes.fromhex(test["msg"]), signature)
            assert valid is (test["result"] == "valid"), (test["tcId"], test["comment"])
            tried += 1
    assert tried == 259


def test_keys_when_they_cannot_be_used() -> None:
    """Short keys, other algorithms and locked keys are said at once, without their text."""
    short = keys.generate_private_key(65537, 1024)
    elliptic = ec.generate_private_key(ec.SECP256R1())
    ours = load_pem_private_key(MERCHANT_KEY.encode(), None)
    texts = [
        each.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode() for each in (short, elliptic)
    ]
    texts.append(ours.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")).decode())
    for text in (*texts, "", "x", MERCHANT_PUBLIC_KEY):
        with pytest.raises(ValueError, match=r"^not an") as raised:
            rsa.private_key(text)
        assert "KEY" not in str(raised.value)
    for key in (short, elliptic):
        with pytest.raises(ValueError, match=r"^not an RSA key"):
            rsa.strong(key.public_key())
