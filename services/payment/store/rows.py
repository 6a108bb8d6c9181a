"""Rows <-> domain objects of the payment room."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from services.kernel.money import Money
from services.payment import states
from services.payment.domain import KnownOrder, Method, Payment, Refund

if TYPE_CHECKING:
    from services.payment.domain.payment import Step

Row = dict[str, Any]

_NOT_LIVE = frozenset({states.FAILED, states.CLOSED})


def payment_row(payment: Payment) -> Row:
    """All columns of a payment. ``live_order_id`` is what makes a second live payment of an order impossible."""
    return {
        "id": payment.id,
        "payment_no": payment.payment_no,
        "order_id": payment.order_id,
        "user_id": payment.user_id,
        "amount_minor": payment.amount.minor_units,
        "currency_code": payment.amount.currency_code,
        "payment_method": str(payment.method),
        "create_ms": payment.create_ms,
        **payment_state(payment),
    }


def payment_state(payment: Payment) -> Row:
    """The columns of a payment that change."""
    return {
        "live_order_id": None if payment.status in _NOT_LIVE else payment.order_id,
        "captured_minor": payment.captured,
        "refunded_minor": payment.refunded,
        "status": payment.status,
        "version": payment.version,
        "failure_reason": payment.failure_reason,
        "update_ms": payment.update_ms,
    }


def step_row(step: Step) -> Row:
    """A row of a payment's history."""
    return {"payment_id": step.payment_id, "version": step.version, "status": step.status, "at_ms": step.at_ms}


def refund_row(refund: Refund) -> Row:
    """All columns of a refund."""
    return {
        "id": refund.id,
        "refund_no": refund.refund_no,
        "payment_id": refund.payment_id,
        "amount_minor": refund.amount.minor_units,
        "currency_code": refund.amount.currency_code,
        "note": refund.note,
        "status": refund.status,
        "create_ms": refund.create_ms,
        "update_ms": refund.update_ms,
    }


def payment_of(row: sa.Row[Any]) -> Payment:
    """Read a payment."""
    return Payment(
        id=row.id,
        order_id=row.order_id,
        user_id=row.user_id,
        amount=Money(row.currency_code, row.amount_minor),
        method=Method(row.payment_method),
        status=row.status,
        version=row.version,
        captured=row.captured_minor,
        refunded=row.refunded_minor,
        failure_reason=row.failure_reason,
        create_ms=row.create_ms,
        update_ms=row.update_ms,
    )


def refund_of(row: sa.Row[Any]) -> Refund:
    """Read a refund."""
    amount = Money(row.currency_code, row.amount_minor)
    return Refund(row.id, row.payment_id, amount, row.note, row.status, row.create_ms, row.update_ms)


def order_row(order: KnownOrder) -> Row:
    """All columns of a known order."""
    return {
        "order_id": order.id,
        "user_id": order.user_id,
        "amount_minor": order.amount.minor_units,
        "currency_code": order.amount.currency_code,
        "status": order.status,
        "expire_ms": order.expire_ms,
        "version": order.version,
    }


def order_of(row: sa.Row[Any]) -> KnownOrder:
    """Read a known order."""
    amount = Money(row.currency_code, row.amount_minor)
    return KnownOrder(row.order_id, row.user_id, amount, row.status, row.expire_ms, row.version)
