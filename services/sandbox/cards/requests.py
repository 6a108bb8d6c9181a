"""What a merchant sends to the network: signed with HMAC, JSON without a field too many."""

from __future__ import annotations

import base64
import re
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

from services.kernel.currencies import EXPONENTS
from services.kernel.money import MINOR_UNITS_MAX
from services.sandbox import signing
from services.sandbox.cards.numbers import luhn

if TYPE_CHECKING:
    from services.sandbox.keys import CardKeys

WINDOW_S = 300
NONCE = re.compile(r"[A-Za-z0-9_-]{8,64}")
REQUEST_ID = r"[A-Za-z0-9_-]{1,64}"


class ApiError(Exception):
    """An answer that is no success. ``signed``: whether the caller is known well enough to sign it for him."""

    def __init__(self, status: int, code: str, message: str, field: str = "", *, signed: bool = True) -> None:
        """Answer ``status`` and `code`."""
        self.status, self.signed = status, signed
        self.body: dict[str, Any] = {"error": {"code": code, "message": message, **({"field": field} if field else {})}}
        super().__init__(code, message)


class Gate:
    """Lets requests of one merchant in, and signs what goes out to him."""

    def __init__(self, held: CardKeys) -> None:
        """Know the merchant by the secrets of ``held``."""
        self._held = held
        self._request_secret = base64.b64decode(held.request_secret)
        self._answer_secret = base64.b64decode(held.answer_secret)
        self._nonces: OrderedDict[str, float] = OrderedDict()

    def admit(self, method: str, target: str, headers: Mapping[str, str], body: bytes, now_s: float) -> None:
        """Verify a request. Raises ApiError."""
        if headers.get("card-merchant") != self._held.merchant_id or headers.get("card-key") != self._held.key_id:
            raise ApiError(401, "unauthorized", "unknown merchant or key", signed=False)
        timestamp, nonce = headers.get("card-timestamp", ""), headers.get("card-nonce", "")
        if not NONCE.fullmatch(nonce):
            raise ApiError(401, "unauthorized", "8 to 64 of A-Za-z0-9_- are wanted", "Card-Nonce")
        if not re.fullmatch(r"[0-9]{10}", timestamp) or abs(now_s - int(timestamp)) >= WINDOW_S:
            raise ApiError(401, "stale_timestamp", "more than 300 s from now", "Card-Timestamp")
        text = f"{method}\n{target}\n{timestamp}\n{nonce}\n".encode() + body + b"\n"
        if not signing.authentic(self._request_secret, text, headers.get("card-signature", "")):
            raise ApiError(401, "bad_signature", "not the signature of these bytes", "Card-Signature")
        while self._nonces and next(iter(self._nonces.values())) < now_s - 2 * WINDOW_S:
            self._nonces.popitem(last=False)
        if nonce in self._nonces:
            raise ApiError(401, "reused_nonce", "this nonce was used", "Card-Nonce")
        self._nonces[nonce] = now_s
        if method == "POST" and not headers.get("content-type", "").startswith("application/json"):
            raise ApiError(400, "invalid_request", "application/json is wanted", "Content-Type")

    def fingerprint(self, *parts: object) -> str:
        """Return what tells contents apart without keeping them: a card number is in them."""
        return signing.authenticate(self._answer_secret, "\n".join(map(str, parts)).encode())[:22]

    def answer_headers(self, status: int, body: bytes, nonce: str, now_s: int, forge: str = "") -> dict[str, str]:
        """Sign an answer to the request of ``nonce``."""
        if forge == "unsigned":
            return {}
        nonce = secrets.token_hex(8) if forge == "nonce" or not NONCE.fullmatch(nonce) else nonce
        return self._signed(f"{status}\n", body, nonce, now_s, forge)

    def callback_headers(self, body: bytes, now_s: int, forge: str = "") -> dict[str, str]:
        """Sign a callback."""
        return {"Card-Key": self._held.key_id, **self._signed("", body, secrets.token_hex(16), now_s, forge)}

    def _signed(self, head: str, body: bytes, nonce: str, now_s: int, forge: str) -> dict[str, str]:
        timestamp = str(now_s - 3_600 if forge == "timestamp" else now_s)
        text = f"{head}{timestamp}\n{nonce}\n".encode() + body + (b" \n" if forge == "signature" else b"\n")
        signature = signing.authenticate(self._answer_secret, text)
        return {"Card-Timestamp": timestamp, "Card-Nonce": nonce, "Card-Signature": signature}


class Json:
    """A JSON object whose fields are all named. Each reader refuses with 400."""

    def __init__(self, raw: bytes, fields: frozenset[str]) -> None:
        """Read ``raw``, which has no field but ``fields``."""
        try:
            found = orjson.loads(raw)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise ApiError(400, "invalid_request", "a JSON object is wanted")
        if extra := sorted(found.keys() - fields):
            raise ApiError(400, "invalid_request", "no such field", extra[0])
        self._content = found

    def text(self, name: str, *, most: int, pattern: str = "", required: bool = True) -> str:
        """Return a string of at most ``most`` characters; "" for one that is not there and need not be."""
        value = self._content.get(name, "")
        if not required and value == "":
            return ""
        if not isinstance(value, str) or not 1 <= len(value) <= most or (pattern and not re.fullmatch(pattern, value)):
            raise ApiError(400, "invalid_request", "missing or malformed", name)
        return value

    def flag(self, name: str) -> bool:
        """Return true or false, which must be there."""
        value = self._content.get(name)
        if not isinstance(value, bool):
            raise ApiError(400, "invalid_request", "true or false is wanted", name)
        return value

    def number(self, name: str) -> int:
        """Return a whole number; 0 for one that is not there."""
        value = self._content.get(name, 0)
        if type(value) is not int or not 0 <= value <= MINOR_UNITS_MAX:
            raise ApiError(400, "invalid_request", "a whole number is wanted", name)
        return value

    def amount(self) -> tuple[int, str]:
        """Return minor units and currency."""
        found = self._content.get("amount")
        if not isinstance(found, dict) or found.keys() != {"minor_units", "currency"}:
            raise ApiError(400, "invalid_amount", "minor_units and currency are wanted", "amount")
        units, currency = found["minor_units"], found["currency"]
        if type(units) is not int or not 1 <= units <= MINOR_UNITS_MAX:
            raise ApiError(400, "invalid_amount", f"1 to {MINOR_UNITS_MAX}", "amount.minor_units")
        if not isinstance(currency, str) or currency not in EXPONENTS:
            raise ApiError(400, "invalid_amount", "not a currency of ISO 4217", "amount.currency")
        return units, currency

    def card(self) -> tuple[str, int, int]:
        """Return number, month and year; the CVC is looked at and forgotten."""
        found = self._content.get("card")
        if not isinstance(found, dict) or found.keys() - {"number", "exp_month", "exp_year", "cvc"}:
            raise ApiError(400, "invalid_request", "number, exp_month, exp_year and cvc are wanted", "card")
        number, month, year, cvc = (found.get(name) for name in ("number", "exp_month", "exp_year", "cvc"))
        if not isinstance(number, str) or not luhn(number):
            raise ApiError(400, "invalid_number", "no card has this number", "card.number")
        if type(month) is not int or type(year) is not int or not (1 <= month <= 12 and 2000 <= year <= 2099):
            raise ApiError(400, "invalid_expiry", "month and four-digit year are wanted", "card.exp_month")
        if cvc is not None and not (isinstance(cvc, str) and re.fullmatch(r"[0-9]{3,4}", cvc)):
            raise ApiError(400, "invalid_request", "three or four digits", "card.cvc")
        return number, month, year


def expired(month: int, year: int, now_s: float) -> bool:
    """Tell whether a card of this expiry is past: it is good until the end of the month."""
    now = datetime.fromtimestamp(now_s, UTC)
    return (year, month) < (now.year, now.month)
