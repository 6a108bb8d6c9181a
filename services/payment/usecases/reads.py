"""Reads: payments, refunds, balances, the ledger's sums."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.kernel.errors import DomainError
from services.kernel.money import Money
from services.payment.domain import AccountKey
from services.payment.domain.ledger import USER_BALANCE
from services.payment.domain.payment import AT_REST

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.kernel.pages import Page
    from services.payment.domain import Payment, Refund, TrialBalanceLine
    from services.payment.ports import Ports


def get_payment(ports: Ports, payment_id: int, owner: int | None) -> Payment:
    """Return a payment; ``owner`` narrows it to one user's. Refuses with PAYMENT_NOT_FOUND."""
    payment = ports.cache.get(payment_id)
    if payment is None:
        payment = ports.store.payment(payment_id, owner)
        if payment is not None and payment.status in AT_REST:
            ports.cache.fill(payment)
    if payment is None or (owner is not None and payment.user_id != owner):
        raise DomainError("PAYMENT_NOT_FOUND", payment_id=payment_id)
    return payment


def list_payments(
    ports: Ports, page: Page, *, owner: int | None, order_id: int | None
) -> tuple[Sequence[Payment], str]:
    """Return a page of payments, newest first, and the token of the next."""
    return page.cut(ports.store.payments_of(user_id=owner, order_id=order_id, page=page), lambda p: p.id)


def list_refunds(ports: Ports, payment_id: int, owner: int | None, page: Page) -> tuple[Sequence[Refund], str]:
    """Return a page of a payment's refunds, newest first. Refuses with PAYMENT_NOT_FOUND."""
    get_payment(ports, payment_id, owner)
    return page.cut(ports.store.refunds_of(payment_id, page), lambda r: r.id)


def get_refund(ports: Ports, refund_id: int, owner: int | None) -> Refund:
    """Return a refund; ``owner`` narrows it to those of one user's payments. Refuses with REFUND_NOT_FOUND."""
    refund = ports.store.refund(refund_id)
    payment = None if refund is None else ports.store.payment(refund.payment_id, owner)
    if refund is None or payment is None:
        raise DomainError("REFUND_NOT_FOUND", refund_id=refund_id)
    return refund


def get_balance(ports: Ports, user_id: int, currency_code: str) -> tuple[AccountKey, int, int]:
    """Return a user's balance and when it last changed. Refuses with CURRENCY_UNSUPPORTED."""
    key = AccountKey(USER_BALANCE, user_id, Money(currency_code or "CNY", 0).currency_code)
    balance, update_ms = ports.store.balance(key)
    return key, balance, update_ms


def get_trial_balance(ports: Ports) -> list[TrialBalanceLine]:
    """Return the sums of the whole ledger by kind of account and currency."""
    return ports.store.trial_balance()
