"""What `paymesh verify` reads of the order room. Reads data alone; no running service is asked."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa

from services.order import states, store
from services.platform.audit import (
    LESS,
    PENDING_MS,
    SHOWN,
    Finding,
    Rows,
    Since,
    count,
    events_told,
    new_keys,
    outbox_published,
    over,
    pages,
    streamed,
    within,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from services.platform.audit import Found, Query, Range

_TOPICS = (*dict.fromkeys(states.EVENTS.values()), "order.payment_rejected")
_O, _H, _I, _S, _E = store.orders.c, store.order_history.c, store.order_items.c, store.stock.c, store.outbox.c
_CHANGED_MAX = 200_000
"""Ids that are kept in memory; when more changed than that, all are looked at."""


class OrderFact(NamedTuple):
    """What I9 compares with payments: ``payment_id`` 0 where nothing paid the order; ``update_ms`` tells its age."""

    order_id: int
    status: str
    payment_id: int
    amount_minor: int
    currency: str
    update_ms: int


def order_facts(connection: sa.Connection, among: Collection[int] | Range | None = None) -> Iterator[OrderFact]:
    """Yield orders by id, streamed, so that they cost no memory: those of some ids, within a range of ids, or all."""
    query = sa.select(_O.id, _O.status, _O.payment_id, _O.amount_minor, _O.currency, _O.update_ms).order_by(_O.id)
    for row in within(connection, query, _O.id, among):
        yield OrderFact(row.id, row.status, row.payment_id or 0, row.amount_minor, row.currency, row.update_ms)


def orders_counted(connection: sa.Connection) -> int:
    """Return how many orders there are."""
    return count(connection, store.orders)


def paid_orders(connection: sa.Connection) -> Rows:
    """Return the orders that are paid, with their payments, for comparing sums."""
    return Rows(connection, _O.id, sa.literal(0), _O.payment_id % LESS, where=(_O.status == states.PAID,))


def refunded_orders(connection: sa.Connection) -> Iterator[list[int]]:
    """Yield the ids of orders that were refunded, some at a time, so that others can be asked for between."""
    for rows in pages(connection, sa.select(_O.id).where(_O.status == states.REFUNDED), _O.id):
        yield [row.id for row in rows]


def changed_orders(connection: sa.Connection, since: Since) -> frozenset[int] | None:
    """Return the orders that changed since the last run; None: all are looked at."""
    return None if since.full else since.once("orders", lambda: _changed(connection, since))


def _changed(connection: sa.Connection, since: Since) -> frozenset[int] | None:
    keys = new_keys(connection, store.outbox, _TOPICS, since)
    if keys is None:
        return None
    query = sa.select(_O.id).where(_O.update_ms >= since.ms).limit(_CHANGED_MAX + 1)
    found = {*connection.execute(query).scalars(), *(int(key) for key in keys if key.isdecimal())}
    return frozenset(found) if len(found) <= _CHANGED_MAX else None


def rejected_payments(connection: sa.Connection) -> Iterator[tuple[int, int, int]]:
    """Yield (payment id, order id, time in ms) of payments that are to be given back whole."""
    r = store.rejected_payments.c
    for row in streamed(connection, sa.select(r.payment_id, r.order_id, r.at_ms).order_by(r.payment_id)):
        yield row.payment_id, row.order_id, row.at_ms


def invariants(
    connection: sa.Connection, now_ms: int, *, settled: bool, since: Since | None = None
) -> Iterator[Finding]:
    """Check the order room's invariants one by one; rows are counted, breaches put in words."""
    since = since or Since()
    ids = changed_orders(connection, since)
    yield outbox_published(connection, store.outbox, now_ms, settled=settled, since=since)
    yield _every_event_is_there(connection, ids)
    yield _history(connection, ids)
    yield _reserved(connection)
    yield _amounts(connection, ids)
    yield _expired(connection, now_ms, settled=settled)


def _examined(connection: sa.Connection, ids: Collection[int] | None) -> int:
    return count(connection, store.orders) if ids is None else len(ids)


def _shown(
    connection: sa.Connection, query: Query, ids: Collection[int] | None, word: Callable[[Found], str]
) -> list[str]:
    """Put the first rows of ``query``, of orders that are looked at, in words."""
    return [word(row) for row in islice(over(connection, query, _O.id, ids), SHOWN)]


def _every_event_is_there(connection: sa.Connection, ids: Collection[int] | None) -> Finding:
    """I8: an order at version n has told n events, numbered from 1 without a gap, so that none is missing at the end."""
    ours = sa.and_(_E.event_key == sa.cast(_O.id, sa.String(64)), _E.topic.in_(_TOPICS))
    n, low, high = sa.func.count(_E.id).label("n"), sa.func.min(_E.version), sa.func.max(_E.version)
    wrong = (
        sa.select(_O.id, _O.version, n, low.label("low"), high.label("high"))
        .select_from(store.orders.outerjoin(store.outbox, ours))
        .group_by(_O.id, _O.version)
        .having(sa.or_(n != _O.version, low != 1, high != _O.version, sa.func.count(_E.version.distinct()) != n))
    )

    def word(r: Found) -> str:
        return f"order {r.id} is at version {r.version}, but told {r.n} events with versions {r.low} to {r.high}"

    breaches = _shown(connection, wrong, ids, word) if ids is not None else list[str]()
    if ids is None:
        for first, last in events_told(connection, store.outbox, _TOPICS, (_O.id, _O.version))[:SHOWN]:
            found = _shown(connection, wrong.where(_O.id.between(first, last)), None, word)
            breaches += found or [f"there are events of orders from {first} to {last} that none of them told"]
    return Finding("I8", "orders and their events", _examined(connection, ids), breaches[:SHOWN])


def _history(connection: sa.Connection, ids: Collection[int] | None) -> Finding:
    """I12: each order's history is a path in the published graph, from pending to the state that it is in.

    Versions of a history may have gaps: an event without a change of state takes one.
    """
    steps = [f"{status}>{after}" for status, nexts in states.NEXT.items() for after in nexts]

    def last(name: str, below: sa.ColumnElement[int]) -> sa.ScalarSelect[Any]:
        step = store.order_history.alias(name).c
        of_order = sa.select(step.status).where(step.order_id == _O.id, step.version < below)
        return of_order.order_by(step.version.desc()).limit(1).scalar_subquery()

    was, now = last("before", _H.version), last("latest", _O.version + 1)
    strays = (
        sa.select(_O.id, _O.status, _H.status.label("step"), was.label("was"))
        .select_from(store.orders.join(store.order_history, _H.order_id == _O.id))
        .where(sa.case((was.is_(None), _H.status.not_in(states.INITIAL)), else_=(was + ">" + _H.status).not_in(steps)))
    )
    ends = sa.select(_O.id, _O.status, now.label("step")).where(sa.func.coalesce(now, "") != _O.status)
    breaches = _shown(
        connection, strays, ids, lambda r: f"order {r.id} is {r.status}, its history says {r.was} > {r.step}"
    )
    breaches += _shown(connection, ends, ids, lambda r: f"order {r.id} is {r.status}, its history says {r.step}")
    examined = count(connection, store.order_history) if ids is None else len(ids)
    return Finding("I12", "states of orders", examined, breaches[:SHOWN])


def _reserved(connection: sa.Connection) -> Finding:
    """Stock: what is reserved of each item is what pending orders hold of it, and nothing is below 0."""
    held = (
        sa.select(_I.sku, sa.func.sum(_I.quantity).label("quantity"))
        .select_from(store.order_items.join(store.orders, _O.id == _I.order_id))
        .where(_O.status == states.PENDING)
        .group_by(_I.sku)
        .subquery()
    )
    quantity = sa.func.coalesce(held.c.quantity, 0)
    wrong = (
        sa.select(_S.sku, _S.available, _S.reserved, quantity.label("held"))
        .select_from(store.stock.outerjoin(held, held.c.sku == _S.sku))
        .where(sa.or_(_S.reserved != quantity, _S.reserved < 0, _S.available < 0))
        .limit(SHOWN)
    )
    orphans = sa.select(held.c.sku).where(held.c.sku.not_in(sa.select(_S.sku))).limit(SHOWN)
    breaches = [
        f"{r.sku}: {r.reserved} reserved, {r.available} available, pending orders hold {r.held}"
        for r in connection.execute(wrong)
    ]
    breaches += [
        f"{sku}: held by pending orders, but not in the inventory" for sku in connection.execute(orphans).scalars()
    ]
    return Finding("stock", "items of the inventory", count(connection, store.stock), breaches)


def _amounts(connection: sa.Connection, ids: Collection[int] | None) -> Finding:
    """Order: what an order costs is the sum of its lines."""
    total = sa.func.coalesce(sa.func.sum(_I.quantity * _I.unit_price_minor), 0).label("total")
    wrong = (
        sa.select(_O.id, _O.amount_minor, total)
        .select_from(store.orders.outerjoin(store.order_items, _I.order_id == _O.id))
        .group_by(_O.id, _O.amount_minor)
        .having(sa.or_(_O.amount_minor != total, sa.func.count(_I.line) == 0))
    )
    breaches = _shown(connection, wrong, ids, lambda r: f"order {r.id} costs {r.amount_minor}, its lines say {r.total}")
    return Finding("order", "amounts of orders", _examined(connection, ids), breaches)


def _expired(connection: sa.Connection, now_ms: int, *, settled: bool) -> Finding:
    """Order: nothing is held for an order whose time was over a minute ago."""
    due = (_O.status == states.PENDING, _O.expire_ms <= now_ms)
    overdue = sa.true() if settled else _O.expire_ms < now_ms - PENDING_MS
    rows = connection.execute(sa.select(_O.id, _O.expire_ms).where(*due, overdue).limit(SHOWN)).all()
    breaches = [f"order {row.id} is pending, {(now_ms - row.expire_ms) // 1000} s after its time" for row in rows]
    pending = 0 if settled else count(connection, store.orders, *due, sa.not_(overdue))
    return Finding(
        "order", "expiry of orders", count(connection, store.orders, _O.status == states.PENDING), breaches, pending
    )
