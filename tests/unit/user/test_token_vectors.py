"""How tokens are verified against Wycheproof's JSON Web Signatures: ES256 is pinned, so nothing else is a token."""

from __future__ import annotations

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import import_key

from tests.vectors import groups, with_vectors


def accepted(token: str, key: dict[str, str | list[str]]) -> bool:
    """Whether a token verifies with a key, as every reader of our tokens verifies: by ES256 alone."""
    try:
        jws.deserialize_compact(token, import_key(key), algorithms=["ES256"])
    except (JoseError, ValueError):
        return False
    return True


@with_vectors
def test_only_es256_signatures_that_are_valid_are_tokens() -> None:
    """Other algorithms, `none`, keys for encryption, the public key as an HMAC secret, malleable and cut signatures."""
    seen, taken = 0, []
    for group in groups("json_web_signature_test"):
        key = group.get("public") or group["private"]
        for test in group["tests"]:
            seen += 1
            expected = test["result"] == "valid" and key.get("alg") == "ES256"
            found = accepted(test["jws"], key)
            assert found == expected, (test["tcId"], test["comment"])
            taken += [test["tcId"]] * found
    assert (seen, len(taken)) == (401, 2)
