"""What the network says of charges, refunds and days, read strictly: what makes no sense raises ValueError."""

from __future__ import annotations

import csv
import io
import re
from typing import TYPE_CHECKING

from services.kernel.errors import DomainError
from services.kernel.money import Money
from services.payment.adapters import strict_json
from services.payment.adapters.exchange import provider_url
from services.payment.adapters.outcome import VERDICTS
from services.payment.domain.card import TRANS_STATUS, Authentication
from services.payment.ports.provider import BillLine, Charged, Phase, Refunded, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.payment.adapters.strict_json import JsonObject

PHASES = {
    "challenge": Phase.WAITING,
    "processing": Phase.WAITING,
    "authorized": Phase.AUTHORIZED,
    "captured": Phase.CAPTURED,
    "failed": Phase.FAILED,
    "voided": Phase.CLOSED,
}
_REFUNDS = {"succeeded": Verdict.DONE, "failed": Verdict.REFUSED}
_CODE = re.compile(r"[A-Z0-9_]{0,64}", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,16}", re.ASCII)
_COLUMNS = ["kind", "request_id", "charge_request_id", "network_id", "currency", "amount", "fee", "time"]


def charged(found: JsonObject, request_id: str, asked: Money | None = None, *, accept_unavailable: bool) -> Charged:
    """Read how the charge with this id of ours stands; ``asked`` is what it must be of, None: of whatever it is."""
    if strict_json.string(found, "request_id") != request_id:
        raise ValueError("of another charge")
    status, provider_id = strict_json.string(found, "status"), strict_json.string(found, "charge_id")
    phase = PHASES.get(status)
    if phase is None or not provider_id:
        raise ValueError("in a state that is none, or without a number")
    amount, captured, back = _sums(found, status)
    if asked is not None and amount != asked:
        raise ValueError("of another amount")
    code = _code(found)
    verdict = VERDICTS[phase]
    if phase is Phase.WAITING:
        verdict = _waiting(status, strict_json.string(found, "trans_status"))
    elif verdict is Verdict.DONE:
        verdict, code = _authenticated(strict_json.string(found, "trans_status"), accept_unavailable=accept_unavailable)
        phase = Phase.REFUNDED if 0 < captured == back else phase
    paid = Money(amount.currency_code, captured) if captured else amount
    at_ms = strict_json.integer(found, "updated") * 1000
    return Charged(verdict, phase, provider_id, code, paid, _action(found, verdict), at_ms)


def refunded(found: JsonObject, request_id: str, charge_request_id: str | None = None) -> Refunded:
    """Read how the refund with this id of ours stands; ``charge_request_id``: of this charge, None: of any."""
    if strict_json.string(found, "request_id") != request_id:
        raise ValueError("another refund")
    if charge_request_id is not None and strict_json.string(found, "charge_request_id") != charge_request_id:
        raise ValueError("a refund of another charge")
    verdict, provider_id = _REFUNDS.get(strict_json.string(found, "status")), strict_json.string(found, "refund_id")
    if verdict is None or not provider_id:
        raise ValueError("in a state that is none, or without a number")
    at_ms = strict_json.integer(found, "created") * 1000
    return Refunded(verdict, provider_id, _code(found), money(strict_json.nested(found, "amount")), at_ms)


def money(found: Mapping[str, object]) -> Money:
    """Read an amount; the network has none of 0."""
    return _money(strict_json.string(dict(found), "currency"), strict_json.integer(dict(found), "minor_units"))


def bill(content: bytes) -> tuple[BillLine, ...]:
    """Read a bill, CSV in UTF-8."""
    rows = csv.reader(io.StringIO(content.decode(), newline=""), strict=True)
    try:
        if next(rows, []) != _COLUMNS:
            raise ValueError("other columns than a bill has")
        return tuple(_line(dict(zip(_COLUMNS, row, strict=True))) for row in rows)
    except csv.Error as error:
        raise ValueError("not CSV") from error


def _sums(found: JsonObject, status: str) -> tuple[Money, int, int]:
    """Return the amount, what of it was captured, and what of that was given back, if they fit each other and the status."""
    amount = money(strict_json.nested(found, "amount"))
    captured, back = strict_json.integer(found, "captured"), strict_json.integer(found, "refunded")
    if not 0 <= back <= captured <= amount.minor_units or (captured > 0) != (status == "captured"):
        raise ValueError("amounts that do not fit the state")
    return amount, captured, back


def _waiting(status: str, word: str) -> Verdict:
    """Nobody but the payer can end a challenge, so it is pending; what the network still works on is unknown to everyone."""
    if status == "processing":
        return Verdict.UNKNOWN
    if TRANS_STATUS.get(word) is not Authentication.CHALLENGE:
        raise ValueError("a challenge that 3-D Secure did not ask for")
    return Verdict.PENDING


def _authenticated(word: str, *, accept_unavailable: bool) -> tuple[Verdict, str]:
    """Judge money that was taken or set aside by what 3-D Secure said; an empty word: it was not asked.

    Money taken from a payer who was refused is a contradiction: neither paid nor refused, but for someone to look at.
    """
    meaning = TRANS_STATUS.get(word) if word else Authentication.PROCEED
    if meaning is None:
        raise ValueError("no word of 3-D Secure")
    fine = {Authentication.PROCEED, Authentication.INFORMATIONAL}
    if meaning in fine or (meaning is Authentication.UNAVAILABLE and accept_unavailable):
        return Verdict.DONE, ""
    return Verdict.UNKNOWN, f"authentication_{word.lower()}"


def _action(found: JsonObject, verdict: Verdict) -> dict[str, str]:
    """Return where the payer has to go; nowhere, when he confirms elsewhere (decoupled)."""
    url = strict_json.string(found, "challenge_url")
    if verdict is not Verdict.PENDING or not url:
        return {}
    return {"challenge_url": str(provider_url(url))}


def _code(found: JsonObject) -> str:
    code = strict_json.string(found, "code").upper()
    if not _CODE.fullmatch(code):
        raise ValueError("a code that is none")
    return code


def _money(currency: str, minor_units: int) -> Money:
    try:
        amount = Money(currency, minor_units)
    except DomainError as error:
        raise ValueError("not an amount") from error
    if not minor_units:
        raise ValueError("an amount of nothing")
    return amount


def _line(row: Mapping[str, str]) -> BillLine:
    kind, numbers = row["kind"], (row["amount"], row["fee"], row["time"])
    if kind not in {"charge", "refund"} or not all(map(_NUMBER.fullmatch, numbers)):
        raise ValueError("a line of another kind, or a number that is none")
    amount, fee, seconds = map(int, numbers)
    return BillLine(
        kind=kind,
        request_id=row["request_id"],
        charge_request_id=row["charge_request_id"],
        provider_id=row["network_id"],
        amount=_money(row["currency"], amount),
        fee=-fee if kind == "refund" else fee,  # a refund gives it back
        at_ms=seconds * 1000,
    )
