"""Payments and refunds: what they are, and what they refuse."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from services.kernel.errors import DomainError
from services.kernel.money import Money
from services.payment import states
from services.payment.domain.ledger import MERCHANT_SETTLEMENT, USER_BALANCE, AccountKey


class Method(StrEnum):
    """How a payment is paid; SQL stores these words."""

    ALIPAY = "alipay"
    WECHAT = "wechat"
    BANK_CARD = "bank_card"
    BALANCE = "balance"


OFFERED = frozenset({Method.BALANCE})
"""The methods that can be paid with now."""


@dataclass(slots=True)
class Payment:
    """A payment as a batch sees and changes it. ``version`` counts its states from 1."""

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

    @property
    def payment_no(self) -> str:
        """The public number."""
        return f"P{self.id}"

    @property
    def refundable(self) -> int:
        """Minor units that can still be given back."""
        return self.captured - self.refunded

    @property
    def balance_account(self) -> AccountKey:
        """The account of the user who pays."""
        return AccountKey(USER_BALANCE, self.user_id, self.amount.currency_code)

    def merchant_account(self, merchant_id: int) -> AccountKey:
        """The account of the merchant who is paid."""
        return AccountKey(MERCHANT_SETTLEMENT, merchant_id, self.amount.currency_code)

    def enter(self, status: str, now_ms: int) -> Step:
        """Move along the published graph; PAYMENT_STATUS_CONFLICT where it has no such way."""
        if status not in states.NEXT[self.status]:
            raise DomainError("PAYMENT_STATUS_CONFLICT", payment_id=self.id, status=self.status)
        self.status, self.version, self.update_ms = status, self.version + 1, now_ms
        return self.step()

    def succeed(self, now_ms: int) -> Step:
        """Take the whole amount."""
        step = self.enter(states.SUCCESS, now_ms)
        self.captured = self.amount.minor_units
        return step

    def fail(self, reason: str, now_ms: int) -> Step:
        """End without money taken."""
        step = self.enter(states.FAILED, now_ms)
        self.failure_reason = reason
        return step

    def refund(self, amount: int, now_ms: int) -> Step:
        """Give back ``amount`` minor units; `check_refundable` was asked before."""
        whole = self.refunded + amount == self.captured
        self.enter(states.REFUNDED if whole else states.PARTIALLY_REFUNDED, now_ms)
        self.refunded += amount
        return self.step()

    def step(self) -> Step:
        """Return the state that the payment is in, for its history."""
        return Step(self.id, self.version, self.status, self.update_ms, self.refunded)


@dataclass(frozen=True, slots=True)
class Step:
    """A state that a payment entered, and what was given back until then."""

    payment_id: int
    version: int
    status: str
    at_ms: int
    refunded: int


@dataclass(frozen=True, slots=True)
class Refund:
    """Money given back from a payment."""

    id: int
    payment_id: int
    amount: Money
    note: str
    status: str
    create_ms: int
    update_ms: int

    @property
    def refund_no(self) -> str:
        """The public number."""
        return f"R{self.id}"


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
