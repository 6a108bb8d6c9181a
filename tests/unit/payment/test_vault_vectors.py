"""The vault's primitives against Wycheproof: AES-256-GCM and HMAC-SHA-256, each in one size alone."""

from __future__ import annotations

from typing import Any

import pytest

from services.payment.adapters.vault.sealing import KEY_BYTES, NONCE_BYTES, SealBroken, fingerprint, seal, unseal
from tests.vectors import groups, with_vectors


def raw(test: dict[str, Any], *names: str) -> list[bytes]:
    """Members that are written in hexadecimal."""
    return [bytes.fromhex(test[name]) for name in names]


@with_vectors
def test_seal_is_that_of_wycheproof() -> None:
    """In our one size what is valid opens and is made again, and what is not does not open."""
    seen = {"valid": 0, "invalid": 0}
    for group in groups("aes_gcm_test"):
        if (group["keySize"], group["ivSize"], group["tagSize"]) != (KEY_BYTES * 8, NONCE_BYTES * 8, 128):
            continue
        for test in group["tests"]:
            key, nonce, about, plain, ciphertext, tag = raw(test, "key", "iv", "aad", "msg", "ct", "tag")
            seen[test["result"]] += 1
            if test["result"] == "valid":
                assert unseal(key, nonce, ciphertext + tag, about) == plain, test["tcId"]
                assert seal(key, nonce, plain, about) == ciphertext + tag, test["tcId"]
            else:
                with pytest.raises(SealBroken):
                    unseal(key, nonce, ciphertext + tag, about)
    assert seen == {"valid": 39, "invalid": 27}


@with_vectors
def test_seal_takes_no_other_size() -> None:
    """Shorter keys and other nonces are refused, valid as they may be elsewhere."""
    refused = 0
    for group in groups("aes_gcm_test"):
        if (group["keySize"], group["ivSize"]) == (KEY_BYTES * 8, NONCE_BYTES * 8):
            continue
        for test in group["tests"]:
            key, nonce, about, plain, ciphertext, tag = raw(test, "key", "iv", "aad", "msg", "ct", "tag")
            with pytest.raises(SealBroken):
                unseal(key, nonce, ciphertext + tag, about)
            with pytest.raises(SealBroken):
                seal(key, nonce, plain, about)
            refused += 1
    assert refused == 250


@with_vectors
def test_fingerprint_is_that_of_wycheproof() -> None:
    """Valid tags are ours, cut ones their beginning; invalid ones never are."""
    seen = 0
    for group in groups("hmac_sha256_test"):
        for test in group["tests"]:
            key, message, tag = raw(test, "key", "msg", "tag")
            made = fingerprint(key, message)
            assert len(made) == 32
            assert (made[: len(tag)] == tag) == (test["result"] == "valid"), test["tcId"]
            seen += 1
    assert seen == 174


@pytest.mark.parametrize("size", [0, 1, 15])
def test_less_than_a_tag_does_not_open(size: int) -> None:
    """What is too short to have one is broken, not an error of the library."""
    with pytest.raises(SealBroken):
        unseal(bytes(KEY_BYTES), bytes(NONCE_BYTES), bytes(size), b"")
