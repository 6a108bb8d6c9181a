"""What a merchant sends: decoded, checked parameter by parameter, its signature verified."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from services.sandbox import signing
from services.sandbox.china import china_ms, fen_of

WINDOW_MS = 600_000
MESSAGES = {
    "10000": "Success",
    "20000": "Service Currently Unavailable",
    "40001": "Missing Required Arguments",
    "40002": "Invalid Arguments",
    "40004": "Business Failed",
}
CHARSETS = {"utf-8": "utf-8", "gbk": "gbk", "gb2312": "gbk"}
_REQUIRED = ("method", "app_id", "sign_type", "sign", "timestamp", "version", "charset")
_SUB_CODES = {"app_id": "app-id", "sign_type": "signature-type", "sign": "signature"}
_METHOD = re.compile(r"[a-z]+(\.[a-z]+)+")


class Refused(Exception):
    """An answer that is not 10000."""

    def __init__(self, code: str, sub_code: str, sub_msg: str, method: str = "", charset: str = "utf-8") -> None:
        """Refuse with the gateway's words; ``method`` and ``charset`` where the request got so far."""
        self.method, self.charset = method, charset
        self.body = {"code": code, "msg": MESSAGES[code], "sub_code": sub_code, "sub_msg": sub_msg}
        super().__init__(code, sub_code, sub_msg)


def business(sub_code: str, sub_msg: str) -> Refused:
    """Return a business refusal, `ACQ.…`."""
    return Refused("40004", f"ACQ.{sub_code}", sub_msg)


@dataclass(frozen=True, slots=True)
class Call:
    """A verified request."""

    method: str
    charset: str
    notify_url: str
    return_url: str
    biz: Biz


class Biz:
    """biz_content. Each reader refuses with ACQ.INVALID_PARAMETER what the method does not take."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        """Read from ``content``."""
        self._content = content

    def text(self, name: str, *, most: int, pattern: str = "", required: bool = True) -> str:
        """Return a text of at most ``most`` characters; "" for one that is not there and need not be."""
        value = self._content.get(name, "")
        if not isinstance(value, str):
            raise self._invalid(name)
        if not value:
            if required:
                raise self._invalid(name, "is missing")
            return ""
        if len(value) > most or (pattern and not re.fullmatch(pattern, value)):
            raise self._invalid(name)
        return value

    def amount(self, name: str) -> int:
        """Return an amount in fen: 0.01 to 100000000, at most two decimals."""
        text = self.text(name, most=12, pattern=r"[0-9]{1,9}(\.[0-9]{1,2})?")
        fen = fen_of(text)
        if not 1 <= fen <= 10_000_000_000:
            raise self._invalid(name)
        return fen

    def one_of(self, name: str, values: Mapping[str, Any] | tuple[str, ...], *, required: bool) -> str:
        """Return a text that is one of ``values``."""
        value = self.text(name, most=64, required=required)
        if value and value not in values:
            raise self._invalid(name)
        return value

    def _invalid(self, name: str, why: str = "is not valid") -> Refused:
        return business("INVALID_PARAMETER", f"{name} {why}")


def decoded(*parts: bytes) -> dict[str, str]:
    """Decode query and form in the charset that they name. A name that comes twice is refused: which one was signed?"""
    try:
        raw = "&".join(part.decode("ascii") for part in parts if part)
        charset = CHARSETS.get(dict(parse_qsl(raw, encoding="latin-1")).get("charset", "").lower(), "utf-8")
        pairs = parse_qsl(raw, keep_blank_values=True, encoding=charset, errors="strict", max_num_fields=100)
    except ValueError:
        raise Refused("40002", "isv.invalid-parameter", "the form cannot be decoded") from None
    params = dict(pairs)
    if len(params) != len(pairs):
        raise Refused("40002", "isv.invalid-parameter", "a parameter comes twice")
    return params


def signed_text(params: Mapping[str, str], *, without: frozenset[str] = frozenset({"sign"})) -> str:
    """Return the text that is signed: non-empty parameters, sorted, joined."""
    return "&".join(f"{name}={params[name]}" for name in sorted(params) if params[name] and name not in without)


def verified(params: Mapping[str, str], app_id: str, key: RSAPublicKey, now_ms: int) -> Call:
    """Check a request down to its biz_content. Raises Refused."""
    method = params.get("method", "")
    named = method if _METHOD.fullmatch(method) else ""
    charset = CHARSETS.get(params.get("charset", "").lower(), "utf-8")

    def refuse(code: str, sub_code: str, sub_msg: str) -> Refused:
        return Refused(code, f"isv.{sub_code}", sub_msg, named if params.get("app_id") == app_id else "", charset)

    for name in _REQUIRED:
        if not params.get(name):
            raise refuse("40001", f"missing-{_SUB_CODES.get(name, name)}", f"{name} is missing")
    valid = {
        "app-id": params["app_id"] == app_id,
        "method": bool(named),
        "signature-type": params["sign_type"] == "RSA2",
        "charset": params["charset"].lower() in CHARSETS,
        "format": params.get("format", "JSON").upper() == "JSON",
        "parameter": params["version"] == "1.0",
        "timestamp": abs((china_ms(params["timestamp"]) or 0) - now_ms) <= WINDOW_MS,
    }
    for sub_code, good in valid.items():
        if not good:
            raise refuse("40002", f"invalid-{sub_code}", f"the {sub_code} is not valid")
    if not signing.verify(key, signed_text(params).encode(charset, errors="replace"), params["sign"]):
        raise refuse(
            "40002", "invalid-signature", "the signature is not the one of the app's key over these parameters"
        )
    try:
        biz = json.loads(params.get("biz_content") or "{}", parse_float=str, parse_int=str, parse_constant=_no_number)
    except (ValueError, RecursionError):
        biz = None
    if not isinstance(biz, dict):
        raise refuse("40002", "invalid-parameter", "biz_content is no JSON object")
    return Call(method, charset, params.get("notify_url", ""), params.get("return_url", ""), Biz(biz))


def _no_number(text: str) -> str:
    raise ValueError(f"{text} is no JSON")
