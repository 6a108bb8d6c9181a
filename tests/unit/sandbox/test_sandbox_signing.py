"""The sandbox verifies what is right and nothing else: Wycheproof's RSA and HMAC vectors."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from services.sandbox import signing

VECTORS = Path(__file__).parents[4] / "shared" / "vectors" / "wycheproof"
with_vectors = pytest.mark.skipif(
    not VECTORS.is_dir(), reason=f"no Wycheproof vectors in {VECTORS.name} beside the tree"
)


def groups(name: str) -> list[dict[str, Any]]:
    """Test groups of a file of vectors."""
    return list(json.loads((VECTORS / name).read_text())["testGroups"])


def text(value: str) -> str:
    """Hex as base64."""
    return base64.b64encode(bytes.fromhex(value)).decode()


@with_vectors
def test_rsa_verifies_only_what_is_valid() -> None:
    """Every valid signature passes and every invalid one is refused; what is merely acceptable may be either."""
    seen, wrong = 0, []
    for group in groups("rsa_signature_2048_sha256_test.json"):
        key = signing.public_key(group["publicKeyPem"])
        for case in group["tests"]:
            seen += 1
            good = signing.verify(key, bytes.fromhex(case["msg"]), text(case["sig"]))
            if case["result"] in {"valid", "invalid"} and good != (case["result"] == "valid"):
                wrong.append(case["tcId"])
    assert (seen > 200, wrong) == (True, [])


@with_vectors
def test_hmac_verifies_only_what_is_valid() -> None:
    """The same for whole tags; a truncated one is never taken."""
    seen, wrong = 0, []
    for group in groups("hmac_sha256_test.json"):
        for case in group["tests"]:
            seen += 1
            good = signing.authentic(bytes.fromhex(case["key"]), bytes.fromhex(case["msg"]), text(case["tag"]))
            if good != (case["result"] == "valid" and group["tagSize"] == 256):
                wrong.append(case["tcId"])
    assert (seen > 100, wrong) == (True, [])


def test_key_of_another_kind() -> None:
    """Only RSA keys are taken."""
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    ).decode()  # fmt: skip
    with pytest.raises(TypeError):
        signing.private_key(private)
    with pytest.raises(TypeError):
        signing.public_key(public)
