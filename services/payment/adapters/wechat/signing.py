"""WECHATPAY2-SHA256-RSA2048: how requests are signed, and how answers and callbacks are verified."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from services.payment.adapters import rsa

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

SCHEME = "WECHATPAY2-SHA256-RSA2048"
AGE_MS_MAX = 300_000
PROBE = "WECHATPAY/SIGNTEST/"
"""A signature that begins so is a test by WeChat Pay whether we refuse what does not verify."""

_SERIAL = re.compile(r"PUB_KEY_ID_[0-9A-Za-z]{1,53}|[0-9A-F]{1,64}", re.ASCII)
_SECONDS = re.compile(r"[0-9]{1,12}", re.ASCII)


class Unverified(Exception):
    """An answer or callback that cannot be shown to be WeChat Pay's. Says why, for the log."""


@dataclass(frozen=True, slots=True)
class Signer:
    """We, as WeChat Pay knows us."""

    mchid: str
    serial_no: str
    key: RSAPrivateKey = field(repr=False)

    def authorization(self, method: str, path: str, body: bytes, *, seconds: int, nonce: str) -> str:
        """Make the Authorization header of a request: ``path`` with its query and ``body`` are the bytes that are sent."""
        text = f"{method}\n{path}\n{seconds}\n{nonce}\n".encode() + body + b"\n"
        return (
            f'{SCHEME} mchid="{self.mchid}",nonce_str="{nonce}",signature="{rsa.sign(self.key, text)}",'
            f'timestamp="{seconds}",serial_no="{self.serial_no}"'
        )

    def pay_sign(self, *lines: str) -> str:
        """Sign what the payer's app hands to WeChat: each line with a line feed behind it."""
        return rsa.sign(self.key, "".join(f"{line}\n" for line in lines).encode())


@dataclass(frozen=True, slots=True)
class Signature:
    """The four headers that an answer or callback brings."""

    serial: str
    seconds: str
    nonce: str
    signature: str

    def check(self, key: RSAPublicKey, body: bytes) -> None:
        """Refuse a signature that is not ``key``'s over time, nonce and body. Raises Unverified."""
        text = f"{self.seconds}\n{self.nonce}\n".encode() + body + b"\n"
        if not rsa.verified(key, text, self.signature):
            raise Unverified("the signature does not verify")


def signature(headers: Mapping[str, str], now_ms: int) -> Signature:
    """Read the headers. Raises Unverified where one is missing or malformed, for a probe, and for what is too old or new."""
    found = Signature(*(headers.get(f"wechatpay-{name}", "") for name in ("serial", "timestamp", "nonce", "signature")))
    if not found.signature or not found.nonce:
        raise Unverified("not signed")
    if found.signature.startswith(PROBE):
        raise Unverified("a probe")
    if headers.get("wechatpay-signature-type", SCHEME) != SCHEME:
        raise Unverified("signed in another way")
    if "\n" in found.nonce or not found.nonce.isascii():
        raise Unverified("a nonce that is none")
    if not _SERIAL.fullmatch(found.serial):
        raise Unverified("a serial that is none")
    if not _SECONDS.fullmatch(found.seconds) or abs(now_ms - int(found.seconds) * 1000) >= AGE_MS_MAX:
        raise Unverified("too old or too new")
    return found


def verify(headers: Mapping[str, str], body: bytes, now_ms: int, find: Callable[[str], RSAPublicKey | None]) -> None:
    """Check that WeChat Pay signed these bytes less than five minutes ago. Raises Unverified.

    What costs nothing is checked first: ``find`` may fetch a certificate that is not known yet.
    """
    found = signature(headers, now_ms)
    key = find(found.serial)
    if key is None:
        raise Unverified("signed with a key that is not known")
    found.check(key, body)
