"""Charges and refunds of the network: what happens to them."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from services.sandbox.acquirer import callable_back
from services.sandbox.book import Book, Charge, Refund, State
from services.sandbox.cards.numbers import APPROVED, AUTHENTICATION_CODES, TEST_CARDS, Behaviour, brand
from services.sandbox.cards.requests import REQUEST_ID, ApiError, Gate, Json, expired

if TYPE_CHECKING:
    from services.kernel.clock import Clock

CHALLENGE_MS = 900_000
"""How long a payer has to prove who he is."""
_CHARGE = frozenset({"request_id", "amount", "card", "capture", "description", "notify_url", "return_url", "expire_at"})
_REFUND = frozenset({"request_id", "charge_request_id", "amount", "reason", "notify_url"})
Tell = Callable[[Charge, Refund | None], None]


class Charges:
    """The charges of one merchant. Each method returns how the charge or refund stands, or raises ApiError."""

    def __init__(self, book: Book, clock: Clock, gate: Gate, *, tell: Tell, late: Callable[[Charge], None],
                 lapse: Callable[[Charge], None], expire_later: Callable[[Charge], None]) -> None:  # fmt: skip
        """Keep charges in ``book``; ``tell`` calls the merchant back, ``late`` has a charge decided later."""
        self._book, self._clock, self._gate = book, clock, gate
        self._tell, self._late, self._lapse, self._expire_later = tell, late, lapse, expire_later

    def charge(self, raw: bytes, *, forced_code: str = "") -> Charge:
        """POST /cards/v1/charges; ``forced_code`` declines whatever the card is."""
        body = Json(raw, _CHARGE)
        request_id = body.text("request_id", most=64, pattern=REQUEST_ID)
        (amount, currency), (number, month, year), capture = body.amount(), body.card(), body.flag("capture")
        details = {
            "scene": "card",
            "subject": body.text("description", most=256),
            "notify_url": _url(body, "notify_url", required=True),
            "return_url": _url(body, "return_url", required=False),
            "brand": brand(number),
            "last4": number[-4:],
            "capture": "1" if capture else "",
            "fingerprint": self._gate.fingerprint(amount, currency, number, month, year, capture),
        }
        expire_at = body.number("expire_at")
        known = self._book.get(request_id)
        if known:
            if known.details["fingerprint"] != details["fingerprint"]:
                raise ApiError(409, "request_conflict", "request_id was used for another charge", "request_id")
            self._lapse(known)
            self._book.ask(known)
            return known
        now_ms = self._clock.now_ms()
        behaviour = TEST_CARDS.get(number, APPROVED)
        if forced_code or expired(month, year, now_ms / 1000):
            behaviour = Behaviour(forced_code or "expired_card")
        made = Charge("cards", request_id, f"ch_{secrets.token_hex(12)}", amount, currency, State.PROCESSING, now_ms)
        made.expire_ms, made.details = expire_at * 1000 or now_ms + CHALLENGE_MS, details
        details |= {"trans_status": behaviour.trans_status, "fails_with": behaviour.code, "answer": behaviour.answer,
                    "callbacks": str(behaviour.callbacks)}  # fmt: skip
        self._book.open(made)
        if behaviour.trans_status in {"C", "D"}:
            self._book.move(made, State.CHALLENGE)
            self._expire_later(made)
        elif behaviour.late:
            self._late(made)
        else:
            self.decide(made)
        return made

    def decide(self, charge: Charge) -> None:
        """Approve or fail a charge, and call back."""
        details = charge.details
        code = AUTHENTICATION_CODES.get(details["trans_status"], "") or details["fails_with"]
        if code:
            self._book.end(charge, State.FAILED, code)
        elif details["capture"]:
            details["auth_code"] = f"{secrets.randbelow(10**6):06}"
            self._book.take(charge, charge.amount)
        else:
            details["auth_code"] = f"{secrets.randbelow(10**6):06}"
            self._book.hold(charge)
        self._tell(charge, None)

    def found(self, request_id: str) -> Charge:
        """Return the charge of a request id. Raises ApiError."""
        charge = self._book.get(request_id)
        if charge is None:
            raise ApiError(404, "not_found", "no such charge", "request_id")
        self._lapse(charge)
        return charge

    def capture(self, request_id: str, raw: bytes) -> Charge:
        """POST …/capture: once, the whole or a part."""
        amount, currency = Json(raw, frozenset({"amount"})).amount()
        charge = self.found(request_id)
        if currency != charge.currency:
            raise ApiError(400, "invalid_amount", f"the charge is in {charge.currency}", "amount.currency")
        if charge.state is State.CAPTURED:
            if amount != charge.captured:
                raise ApiError(409, "already_captured", f"{charge.captured} were captured")
            return charge
        if charge.state is not State.AUTHORIZED:
            raise ApiError(409, "not_authorized", f"the charge is {charge.state}")
        if amount > charge.amount:
            raise ApiError(409, "amount_too_large", f"{charge.amount} are authorized", "amount")
        self._book.take(charge, amount)
        self._tell(charge, None)
        return charge

    def void(self, request_id: str, raw: bytes) -> Charge:
        """POST …/void: of what is authorized, or waits for its payer."""
        Json(raw, frozenset())
        charge = self.found(request_id)
        if charge.state is State.VOIDED:
            return charge
        if charge.state not in {State.AUTHORIZED, State.CHALLENGE}:
            raise ApiError(409, "not_authorized", f"the charge is {charge.state}")
        self._book.end(charge, State.VOIDED)
        self._tell(charge, None)
        return charge

    def refund(self, raw: bytes, failing: Callable[[], bool]) -> tuple[Charge, Refund]:
        """POST /cards/v1/refunds; ``failing`` is asked for a new one, and ends it failed."""
        body = Json(raw, _REFUND)
        request_id = body.text("request_id", most=64, pattern=REQUEST_ID)
        amount, currency = body.amount()
        reason = body.text("reason", most=256, required=False)
        notify_url = _url(body, "notify_url", required=False)
        charge = self._book.get(body.text("charge_request_id", most=64, pattern=REQUEST_ID))
        if charge is None:
            raise ApiError(404, "not_found", "no such charge", "charge_request_id")
        known = self._book.of_refund(request_id)
        if known:
            if known[0] is not charge or (known[1].amount, charge.currency) != (amount, currency):
                raise ApiError(409, "request_conflict", "request_id was used for another refund", "request_id")
            known[1].asked += 1
            self._book.note(charge, "refund asked")
            return known
        if currency != charge.currency:
            raise ApiError(400, "invalid_amount", f"the charge is in {charge.currency}", "amount.currency")
        if charge.state is not State.CAPTURED:
            raise ApiError(409, "not_captured", f"the charge is {charge.state}")
        if charge.refunded + amount > charge.captured:
            raise ApiError(409, "amount_too_large", f"{charge.captured - charge.refunded} are left", "amount")
        refund = Refund(request_id, f"re_{secrets.token_hex(12)}", amount, self._clock.now_ms(),
                        "abnormal" if failing() else "succeeded", reason=reason, notify_url=notify_url)  # fmt: skip
        self._book.give_back(charge, refund)
        self._tell(charge, refund)
        return charge, refund

    def found_refund(self, request_id: str) -> tuple[Charge, Refund]:
        """Return the refund of a request id, and its charge. Raises ApiError."""
        found = self._book.of_refund(request_id)
        if found is None:
            raise ApiError(404, "not_found", "no such refund", "request_id")
        return found


def shown(charge: Charge, base_url: str = "") -> dict[str, Any]:
    """Return a charge as answers and callbacks show it; the challenge's URL where ``base_url`` is known."""
    details = charge.details
    challenged = charge.state is State.CHALLENGE and details["trans_status"] == "C" and base_url
    return {
        "request_id": charge.request_id,
        "charge_id": charge.provider_id,
        "status": charge.state.value,
        "amount": {"minor_units": charge.amount, "currency": charge.currency},
        "captured": charge.captured,
        "refunded": charge.refunded,
        "code": charge.code if charge.state is State.FAILED else "",
        "auth_code": details.get("auth_code", ""),
        "trans_status": details["trans_status"],
        "challenge_url": f"{base_url}payer/cards/{charge.request_id}" if challenged else "",
        "brand": details["brand"],
        "last4": details["last4"],
        "created": charge.created_ms // 1000,
        "updated": max(charge.created_ms, charge.paid_ms, charge.ended_ms) // 1000,
    }


def shown_refund(charge: Charge, refund: Refund) -> dict[str, Any]:
    """Return a refund as answers and callbacks show it."""
    succeeded = refund.state == "succeeded"
    return {
        "request_id": refund.request_id,
        "refund_id": refund.provider_id,
        "charge_request_id": charge.request_id,
        "charge_id": charge.provider_id,
        "status": "succeeded" if succeeded else "failed",
        "amount": {"minor_units": refund.amount, "currency": charge.currency},
        "code": "" if succeeded else "refund_failed",
        "created": refund.at_ms // 1000,
    }


def _url(body: Json, name: str, *, required: bool) -> str:
    found = body.text(name, most=256, required=required)
    if found and not callable_back(found):
        raise ApiError(400, "invalid_request", "https, or http on loopback", name)
    return found
