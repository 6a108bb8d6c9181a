"""What other rooms and the providers' books are held against: payments by order, charges and refunds by provider."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import sqlalchemy as sa

from services.payment import states
from services.payment.audit.ledger import P, R
from services.payment.audit.scope import UNDER_WAY, changed_payments
from services.payment.domain import Method
from services.payment.domain.payment import TAKEN
from services.payment.store import tables as t
from services.platform.audit import LESS, Rows, count, over, pages, within

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from services.platform.audit import Range, Since

_V = t.reviews.c
_TOOK = sa.or_(P.captured_minor > 0, P.status.in_(TAKEN))
_PAYING = sa.and_(P.live_order_id.is_not(None), P.status.in_((states.SUCCESS, states.PARTIALLY_REFUNDED)))
_BY_PROVIDER = P.payment_method != str(Method.BALANCE)


class OrderPayment(NamedTuple):
    """A payment that took money, for I9.

    ``live``: it holds its order; ``excused``: a refund or an open review says that what it keeps is not the last word.
    """

    order_id: int
    payment_id: int
    status: str
    captured: int
    refunded: int
    live: bool
    excused: bool
    update_ms: int


class ProviderPayment(NamedTuple):
    """A payment through a provider, for I3. ``reviewed``: a review of it, or of a refund of it, is open."""

    payment_id: int
    method: str
    status: str
    captured: int
    currency: str
    update_ms: int
    reviewed: bool


class ProviderRefund(NamedTuple):
    """A refund through a provider, for I3."""

    refund_id: int
    payment_id: int
    status: str
    amount: int
    update_ms: int


def changed_orders(connection: sa.Connection, since: Since) -> set[int] | None:
    """Return the orders of payments that changed since the last run; None: of all."""
    ids = changed_payments(connection, since)
    return None if ids is None else {row[0] for row in over(connection, sa.select(P.order_id), P.id, ids)}


def payments_by_order(connection: sa.Connection, among: Collection[int] | Range | None) -> Iterator[OrderPayment]:
    """Yield the payments that took money, by order and id: those of some orders, of a range of orders, or all."""
    under_way = sa.exists().where(R.payment_id == P.id, R.status.in_(UNDER_WAY))
    query = (
        sa.select(
            P.order_id, P.id, P.status, P.captured_minor, P.refunded_minor, P.live_order_id.is_not(None).label("live"),
            sa.or_(_reviewed(), sa.case((P.refunding_minor > 0, under_way), else_=sa.false())).label("excused"),
            P.update_ms,
        )
        .where(_TOOK)
        .order_by(P.order_id, P.id)
    )  # fmt: skip
    for row in within(connection, query, P.order_id, among):
        yield OrderPayment._make(row)


def payments_counted(connection: sa.Connection) -> tuple[int, int]:
    """Return how many payments took money, and how many gave some of it back."""
    return count(connection, t.payments, _TOOK), count(connection, t.payments, P.refunded_minor > 0)


def paying_payments(connection: sa.Connection) -> Rows:
    """Return the payments whose orders are to be paid, for comparing sums."""
    return Rows(connection, P.order_id, sa.literal(0), P.id % LESS, where=(_PAYING,))


def orders_of_other_payments(connection: sa.Connection) -> Iterator[list[int]]:
    """Yield the orders of payments that took money and are no `paying_payments`, some at a time."""
    query = sa.select(P.id, P.order_id).where(_TOOK, sa.not_(_PAYING))
    for rows in pages(connection, query, P.id):
        yield [row.order_id for row in rows]


def provider_payments(connection: sa.Connection, among: Collection[int] | Range) -> Iterator[ProviderPayment]:
    """Yield payments through providers by id: some, or those within a range of ids."""
    query = sa.select(
        P.id, P.payment_method, P.status, P.captured_minor, P.currency_code, P.update_ms, _reviewed().label("reviewed")
    )
    for row in within(connection, query.where(_BY_PROVIDER).order_by(P.id), P.id, among):
        yield ProviderPayment._make(row)


def captured_by_providers(connection: sa.Connection) -> Rows:
    """Return what was captured through providers, by method and currency ("wechat CNY"), for comparing sums."""
    kind = P.payment_method + " " + P.currency_code
    return Rows(connection, P.id, kind, P.captured_minor % LESS, where=(_BY_PROVIDER, P.captured_minor > 0))


def provider_refunds(connection: sa.Connection, payment_ids: Collection[int] | None) -> Iterator[ProviderRefund]:
    """Yield refunds through providers by id: those of payments, or all."""
    query = (
        sa.select(R.id, R.payment_id, R.status, R.amount_minor, R.update_ms)
        .join_from(t.refunds, t.payments, P.id == R.payment_id)
        .where(_BY_PROVIDER)
        .order_by(R.id)
    )
    for row in over(connection, query, R.payment_id, payment_ids):
        yield ProviderRefund._make(row)


def _reviewed() -> sa.Exists:
    return sa.exists().where(_V.payment_id == P.id, _V.status != states.REVIEW_DECIDED)
