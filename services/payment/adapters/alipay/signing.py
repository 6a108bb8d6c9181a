"""RSA2: how Alipay's requests, answers and notifications are signed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.payment.adapters import rsa, strict_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

SIGN_TYPE = "RSA2"


def signed(key: RSAPrivateKey, parameters: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters of a request that are not empty, with their signature."""
    kept = {name: value for name, value in parameters.items() if value}
    return {**kept, "sign": rsa.sign(key, content(kept))}


def content(parameters: Mapping[str, str]) -> bytes:
    """What is signed: ``name=value`` sorted by name and joined by ``&``, values as they are before URL-encoding."""
    return "&".join(f"{name}={parameters[name]}" for name in sorted(parameters)).encode()


def answered(key: RSAPublicKey, body: bytes, method: str) -> strict_json.JsonObject:
    """Return what an answer to ``method`` says, once its signature holds over the very characters that were sent.

    A gateway that does not understand the request at all answers under ``error_response``.

    Raises:
        ValueError: it is no such answer, or not Alipay's.
    """
    parts = strict_json.members(body.decode())
    name = f"{method.replace('.', '_')}_response"
    said = [parts[each] for each in (name, "error_response") if each in parts]
    if len(said) != 1:
        raise ValueError(f"neither {name} nor error_response, or both")
    signature = strict_json.string(strict_json.parse(body.decode()), "sign")
    if not rsa.verified(key, said[0].encode(), signature):
        raise ValueError("the signature does not verify")
    return strict_json.parse(said[0])
