"""Payments and refunds: what they are, and what they refuse."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from services.kernel.errors import DomainError
from services.kernel.money import Money
from services.payment import states
from services.payment.domain.ledger import (
    CLEARING,
    MERCHANT_SETTLEMENT,
    REFUNDS_PAYABLE,
    USER_BALANCE,
    AccountKey,
)

if TYPE_CHECKING:
    from services.payment.domain.attempt import Attempt


class Method(StrEnum):
    """How a payment is paid; SQL stores these words."""

    ALIPAY = "alipay"
    WECHAT = "wechat"
    BANK_CARD = "bank_card"
    BALANCE = "balance"


NOBODY_PAID = frozenset({"PAYMENT_CANCELLED", "PAYMENT_EXPIRED"})
"""Why a payment is closed; whatever else ends one without money makes it failed."""
OPEN = frozenset({states.PENDING, states.AUTHORIZED, states.PROCESSING, states.UNKNOWN})
"""The states in which it is not known yet whether money will be taken."""
TAKEN = frozenset({states.SUCCESS, states.PARTIALLY_REFUNDED, states.REFUNDED})
"""The states in which money was taken, whatever was given back since."""
ENDED = frozenset({states.FAILED, states.CLOSED})
"""The states in which it ended without money."""
AT_REST = TAKEN | ENDED
"""The states that nothing but a contradiction or a further refund changes."""


@dataclass(slots=True)
class Payment:
    """A payment as a batch sees and changes it. ``version`` counts its states from 1, ``events`` those that publish.

    ``refunding`` is what is set aside for refunds that are not done, in minor units as ``captured`` and ``refunded``.
    ``live``: it holds its order, which nobody else can pay meanwhile. ``owed``: its order could not take it, so that all of
    it is to be given back. ``charge`` is what a provider was asked for; a
    payment from a balance has none.
    """

    id: int
    order_id: int
    user_id: int
    amount: Money
    method: Method
    status: str
    version: int
    captured: int
    refunded: int
    failure_reason: str
    create_ms: int
    update_ms: int
    events: int = 1
    refunding: int = 0
    live: bool = True
    owed: bool = False
    charge: Attempt | None = None

    @property
    def payment_no(self) -> str:
        """The public number."""
        return f"P{self.id}"

    @property
    def refundable(self) -> int:
        """Minor units that can still be given back."""
        return self.captured - self.refunded - self.refunding

    @property
    def is_open(self) -> bool:
        """Whether it is not known yet if money will be taken."""
        return self.status in OPEN

    @property
    def balance_account(self) -> AccountKey:
        """The account of the user who pays."""
        return AccountKey(USER_BALANCE, self.user_id, self.amount.currency_code)

    def merchant_account(self, merchant_id: int) -> AccountKey:
        """The account of the merchant who is paid."""
        return AccountKey(MERCHANT_SETTLEMENT, merchant_id, self.amount.currency_code)

    def clearing_account(self, merchant_id: int) -> AccountKey:
        """What the provider owes the merchant."""
        return AccountKey(CLEARING[self.method], merchant_id, self.amount.currency_code)

    def payable_account(self, merchant_id: int) -> AccountKey:
        """What the merchant owes to payers whose refunds are under way."""
        return AccountKey(REFUNDS_PAYABLE, merchant_id, self.amount.currency_code)

    def enter(self, status: str, now_ms: int) -> Step:
        """Move along the published graph; PAYMENT_STATUS_CONFLICT where it has no such way."""
        if status not in states.NEXT[self.status]:
            raise DomainError("PAYMENT_STATUS_CONFLICT", payment_id=self.id, status=self.status)
        self.status, self.version, self.update_ms = status, self.version + 1, now_ms
        self.events += status in states.EVENTS
        self.live = self.live and status not in {states.FAILED, states.CLOSED}
        return self.step()

    def succeed(self, now_ms: int, captured: int | None = None) -> Step:
        """Take ``captured`` minor units; None: the whole amount."""
        step = self.enter(states.SUCCESS, now_ms)
        self.captured = self.amount.minor_units if captured is None else captured
        return step

    def fail(self, reason: str, now_ms: int) -> Step:
        """End without money taken."""
        self.failure_reason = reason
        return self.enter(states.FAILED, now_ms)

    def close(self, reason: str, now_ms: int) -> Step:
        """End without having been paid."""
        self.failure_reason = reason
        return self.enter(states.CLOSED, now_ms)

    def refuse(self, now_ms: int) -> Step:
        """Leave review without money taken: as it had ended before, or as one that was declined."""
        why = self.failure_reason or "PAYMENT_DECLINED"
        return self.close(why, now_ms) if why in NOBODY_PAID else self.fail(why, now_ms)

    def accept(self, now_ms: int) -> Step:
        """Leave review with money that is booked, and hold its order, which nobody else's payment does."""
        self.failure_reason, self.live = "", True
        return self.enter(states.SUCCESS, now_ms)

    def set_aside(self, amount: int) -> None:
        """Keep ``amount`` for a refund that is under way; `check_refundable` was asked before."""
        self.refunding += amount

    def let_go(self, amount: int) -> None:
        """A refund that was under way came to nothing: its amount can be refunded again."""
        self.refunding -= amount

    def refund(self, amount: int, now_ms: int) -> Step:
        """Give back ``amount`` minor units; `check_refundable` was asked before."""
        whole = self.refunded + amount == self.captured
        self.enter(states.REFUNDED if whole else states.PARTIALLY_REFUNDED, now_ms)
        self.refunded += amount
        return self.step()

    def step(self) -> Step:
        """Return the state that the payment is in, for its history."""
        return Step(self.id, self.version, self.status, self.update_ms, self.refunded, self.events)


def our_number(request_id: str) -> tuple[str, int]:
    """Read a number as we write it: P and the payment's id, or R and the refund's; ("", 0): it is none of ours."""
    kind, digits = request_id[:1], request_id[1:]
    right = kind in {"P", "R"} and digits.isascii() and digits.isdecimal() and len(digits) <= 19
    found = int(digits) if right else 0
    return (kind, found) if 0 < found < 2**63 and digits == str(found) else ("", 0)


@dataclass(frozen=True, slots=True)
class Step:
    """A state that a payment entered, what was given back until then, and the how many-th event that is, if it is one."""

    payment_id: int
    version: int
    status: str
    at_ms: int
    refunded: int
    event: int


@dataclass(slots=True)
class Refund:
    """Money given back from a payment."""

    id: int
    payment_id: int
    amount: Money
    note: str
    status: str
    create_ms: int
    update_ms: int
    provider_code: str = ""

    @property
    def refund_no(self) -> str:
        """The public number, and our number for it at a provider."""
        return f"R{self.id}"

    def enter(self, status: str, now_ms: int) -> None:
        """Move along the published graph; PAYMENT_STATUS_CONFLICT where it has no such way."""
        if status == self.status:
            return
        if status not in states.REFUND_NEXT[self.status]:
            raise DomainError("PAYMENT_STATUS_CONFLICT", payment_id=self.payment_id, status=self.status)
        self.status, self.update_ms = status, now_ms


@dataclass(frozen=True, slots=True)
class KnownOrder:
    """What payment knows of an order, by its events or by a look-up. ``version`` 1: by look-up or by its first event."""

    id: int
    user_id: int
    amount: Money
    status: str
    expire_ms: int
    version: int


def check_payable(
    order: KnownOrder | None, order_id: int, user_id: int, shown: Money | None, now_ms: int
) -> KnownOrder:
    """Return the order that ``user_id`` may pay now.

    Refuses with ORDER_NOT_FOUND (also another's), ORDER_NOT_PAYABLE, AMOUNT_MISMATCH (``shown`` is what the payer saw).
    """
    if order is None or order.user_id != user_id:
        raise DomainError("ORDER_NOT_FOUND", order_id=order_id)
    if order.status != "pending":
        raise DomainError("ORDER_NOT_PAYABLE", order_id=order_id, status=order.status)
    if order.expire_ms <= now_ms:
        raise DomainError("ORDER_NOT_PAYABLE", order_id=order_id, status="expired")
    if shown is not None and shown != order.amount:
        raise DomainError("AMOUNT_MISMATCH", order_amount=str(order.amount), amount=str(shown))
    return order


def check_refundable(payment: Payment, asked: Money | None) -> int:
    """Return how many minor units a refund of ``asked`` (None: all that is left) gives back.

    Refuses with PAYMENT_STATUS_CONFLICT, CURRENCY_UNSUPPORTED, REFUND_EXCEEDS_CAPTURED.
    """
    if payment.status not in {states.SUCCESS, states.PARTIALLY_REFUNDED}:
        raise DomainError("PAYMENT_STATUS_CONFLICT", payment_id=payment.id, status=payment.status)
    if asked is not None and asked.currency_code != payment.amount.currency_code:
        raise DomainError("CURRENCY_UNSUPPORTED", currency_code=asked.currency_code)
    amount = payment.refundable if asked is None else asked.minor_units
    if not 0 < amount <= payment.refundable:
        left = Money(payment.amount.currency_code, payment.refundable)
        raise DomainError("REFUND_EXCEEDS_CAPTURED", payment_id=payment.id, refundable=str(left))
    return amount


def check_capturable(payment: Payment, asked: Money | None) -> Money:
    """Return how much a capture of ``asked`` (None: all that is held) takes.

    Refuses with PAYMENT_STATUS_CONFLICT, CURRENCY_UNSUPPORTED, CAPTURE_EXCEEDS_AUTHORIZED.
    """
    if payment.status != states.AUTHORIZED:
        raise DomainError("PAYMENT_STATUS_CONFLICT", payment_id=payment.id, status=payment.status)
    if asked is None:
        return payment.amount
    if asked.currency_code != payment.amount.currency_code:
        raise DomainError("CURRENCY_UNSUPPORTED", currency_code=asked.currency_code)
    if not 0 < asked.minor_units <= payment.amount.minor_units:
        raise DomainError("CAPTURE_EXCEEDS_AUTHORIZED", payment_id=payment.id, capturable=str(payment.amount))
    return asked
