"""HMAC-SHA-256 in both directions, a secret each: a request can never be sent back to us as an answer."""

from __future__ import annotations

import base64
import hmac
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

SECRET_BYTES = 32
AGE_MS_MAX = 300_000
_SECONDS = re.compile(r"[0-9]{1,12}", re.ASCII)
_NONCE = re.compile(r"[A-Za-z0-9_-]{8,64}", re.ASCII)


class Unverified(Exception):
    """An answer or callback that cannot be shown to be the network's. Says why, for the log."""


@dataclass(frozen=True, slots=True)
class Secrets:
    """What we and the network share."""

    merchant_id: str
    key_id: str
    request_secret: bytes = field(repr=False)
    answer_secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        """Refuse secrets that are too short, or one for both directions. Raises ValueError."""
        if any(len(secret) != SECRET_BYTES for secret in (self.request_secret, self.answer_secret)):
            raise ValueError(f"a secret has {SECRET_BYTES} bytes")
        if self.request_secret == self.answer_secret:
            raise ValueError("one secret signs in both directions: what we sent could come back as an answer")

    def headers(self, method: str, path: str, body: bytes, *, seconds: int, nonce: str) -> dict[str, str]:
        """Sign a request: ``path`` with its query and ``body`` are the bytes that are sent."""
        text = f"{method}\n{path}\n{seconds}\n{nonce}\n".encode() + body + b"\n"
        return {
            "Card-Merchant": self.merchant_id,
            "Card-Key": self.key_id,
            "Card-Timestamp": str(seconds),
            "Card-Nonce": nonce,
            "Card-Signature": signature(self.request_secret, text),
        }

    def check_answer(self, status: int, headers: Mapping[str, str], body: bytes, nonce: str, now_ms: int) -> None:
        """Check that the network gave these bytes as its answer to the request with this nonce. Raises Unverified."""
        if headers.get("card-nonce", "") != nonce:
            raise Unverified("the answer to another request")
        self._check(f"{status}\n".encode(), headers, body, now_ms)

    def check_callback(self, headers: Mapping[str, str], body: bytes, now_ms: int) -> None:
        """Check that the network sent these bytes less than five minutes ago. Raises Unverified."""
        if headers.get("card-key", "") != self.key_id:
            raise Unverified("signed with a key that is not ours")
        if not _NONCE.fullmatch(headers.get("card-nonce", "")):
            raise Unverified("a nonce that is none")
        self._check(b"", headers, body, now_ms)

    def _check(self, begin: bytes, headers: Mapping[str, str], body: bytes, now_ms: int) -> None:
        seconds, nonce = headers.get("card-timestamp", ""), headers.get("card-nonce", "")
        if not _SECONDS.fullmatch(seconds) or abs(now_ms - int(seconds) * 1000) >= AGE_MS_MAX:
            raise Unverified("too old or too new")
        text = begin + f"{seconds}\n{nonce}\n".encode() + body + b"\n"
        given = headers.get("card-signature", "")
        # As bytes: compare_digest refuses text that is not ASCII, and a forger may send any.
        if not hmac.compare_digest(signature(self.answer_secret, text).encode(), given.encode(errors="replace")):
            raise Unverified("the signature does not verify")


def signature(secret: bytes, text: bytes) -> str:
    """Sign ``text``; base64."""
    return base64.b64encode(hmac.digest(secret, text, "sha256")).decode()
