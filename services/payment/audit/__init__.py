"""What `paymesh verify` reads of the payment room: money first. Reads data alone; no running service is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from services.payment.audit import bills, chains, keys, ledger, payments, rest
from services.payment.audit.facts import (
    OrderPayment,
    ProviderPayment,
    ProviderRefund,
    captured_by_providers,
    changed_orders,
    orders_of_other_payments,
    paying_payments,
    payments_by_order,
    payments_counted,
    provider_payments,
    provider_refunds,
)
from services.payment.audit.scope import changed_payments
from services.payment.store import tables as t
from services.platform.audit import Since, outbox_published

if TYPE_CHECKING:
    from collections.abc import Iterator

    from services.platform.audit import Finding

__all__ = [
    "OrderPayment",
    "ProviderPayment",
    "ProviderRefund",
    "begin",
    "captured_by_providers",
    "changed_orders",
    "changed_payments",
    "invariants",
    "orders_of_other_payments",
    "paying_payments",
    "payments_by_order",
    "payments_counted",
    "provider_payments",
    "provider_refunds",
]


def begin(connection: sa.Connection) -> None:
    """See the state of now, and no later one, by ``connection``."""
    connection.execute(sa.select(t.ledger_tail.c.seq)).all()


def invariants(
    connection: sa.Connection, now_ms: int, *, settled: bool, since: Since | None = None
) -> Iterator[Finding]:
    """Check the payment room's invariants one by one; rows are counted, breaches put in words."""
    since = since or Since()
    yield ledger.transactions_balance(connection, since)
    yield ledger.accounts_match(connection, since)
    yield ledger.accounts_follow_payments(connection)
    yield bills.accounts_follow_bills(connection)
    yield payments.one_payment_per_order(connection, since)
    yield ledger.captures_booked(connection, since)
    yield ledger.refunds_booked(connection, since)
    yield rest.payments_at_rest(connection, since, now_ms, settled=settled)
    yield rest.refunds_at_rest(connection, since, now_ms, settled=settled)
    yield rest.attempts_of_the_living(connection, now_ms)
    yield payments.refunds(connection, since)
    yield keys.answers(connection, since, now_ms, settled=settled)
    yield outbox_published(connection, t.outbox, now_ms, settled=settled, since=since)
    yield payments.events(connection, since)
    yield chains.ledger_chain(connection, since)
    yield chains.audit_log(connection, since)
    yield payments.history(connection, since)
    yield payments.charges(connection, since)
    yield payments.refund_states(connection, since)
