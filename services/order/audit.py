"""What `paymesh verify` reads of the order room. Reads data alone; no running service is asked."""

from __future__ import annotations

from itertools import groupby, pairwise
from typing import TYPE_CHECKING, NamedTuple

import sqlalchemy as sa

from services.order import states, store
from services.platform.audit import PENDING_MS, Finding, outbox_published, versions_without_gap

if TYPE_CHECKING:
    from collections.abc import Iterator

_TOPICS = (*dict.fromkeys(states.EVENTS.values()), "order.payment_rejected")
_SHOWN = 20


class OrderFact(NamedTuple):
    """What I9 compares with payments: ``payment_id`` 0 where nothing paid the order; ``update_ms`` tells its age."""

    order_id: int
    status: str
    payment_id: int
    amount_minor: int
    currency: str
    update_ms: int


def order_facts(connection: sa.Connection) -> Iterator[OrderFact]:
    """Yield every order by id, streamed, so that it costs no memory."""
    o = store.orders.c
    query = sa.select(o.id, o.status, o.payment_id, o.amount_minor, o.currency, o.update_ms).order_by(o.id)
    for row in connection.execute(query.execution_options(yield_per=1000)):
        yield OrderFact(row.id, row.status, row.payment_id or 0, row.amount_minor, row.currency, row.update_ms)


def rejected_payments(connection: sa.Connection) -> Iterator[tuple[int, int, int]]:
    """Yield (payment id, order id, time in ms) of payments that are to be given back whole."""
    r = store.rejected_payments.c
    query = sa.select(r.payment_id, r.order_id, r.at_ms).order_by(r.payment_id)
    for row in connection.execute(query.execution_options(yield_per=1000)):
        yield row.payment_id, row.order_id, row.at_ms


def invariants(connection: sa.Connection, now_ms: int, *, settled: bool) -> Iterator[Finding]:
    """Check the order room's invariants one by one; rows are counted, breaches put in words."""
    yield outbox_published(connection, store.outbox, now_ms, settled=settled)
    yield versions_without_gap(connection, store.outbox, _TOPICS, "order")
    yield _every_event_is_there(connection)
    yield _history(connection)
    yield _reserved(connection)
    yield _amounts(connection)
    yield _expired(connection, now_ms, settled=settled)


def _count(connection: sa.Connection, table: sa.Table) -> int:
    return connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()


def _every_event_is_there(connection: sa.Connection) -> Finding:
    """I8: an order at version n has told n events, so that none is missing at the end either."""
    o, e = store.orders.c, store.outbox.c
    key = sa.cast(e.event_key, sa.BigInteger).label("order_id")
    told = sa.select(key, sa.func.count().label("events")).where(e.topic.in_(_TOPICS)).group_by(e.event_key).subquery()
    events = sa.func.coalesce(told.c.events, 0)
    wrong = (
        sa.select(o.id, o.version, events.label("events"))
        .select_from(store.orders.outerjoin(told, told.c.order_id == o.id))
        .where(o.version != events)
        .limit(_SHOWN)
    )
    breaches = [
        f"order {r.id} is at version {r.version}, but told {r.events} events" for r in connection.execute(wrong)
    ]
    return Finding("I8", "orders and their events", _count(connection, store.orders), breaches)


def _history(connection: sa.Connection) -> Finding:
    """I12: each order's history is a path in the published graph, from pending to the state that it is in."""
    h, o = store.order_history.c, store.orders.c
    query = (
        sa.select(o.id, o.status.label("now"), h.status)
        .select_from(store.orders.outerjoin(store.order_history, h.order_id == o.id))
        .order_by(o.id, h.version)
    )
    examined, breaches = 0, list[str]()
    rows = connection.execute(query.execution_options(yield_per=1000))
    for order_id, steps in groupby(rows, key=lambda row: row.id):
        found = list(steps)
        examined += len(found)
        path = [row.status for row in found]
        allowed = path[0] in states.INITIAL and all(b in states.NEXT[a] for a, b in pairwise(path))
        if not (allowed and path[-1] == found[-1].now) and len(breaches) < _SHOWN:
            breaches.append(f"order {order_id} is {found[-1].now}, its history says {' > '.join(map(str, path))}")
    return Finding("I12", "states of orders", examined, breaches)


def _reserved(connection: sa.Connection) -> Finding:
    """Stock: what is reserved of each item is what pending orders hold of it, and nothing is below 0."""
    o, i, s = store.orders.c, store.order_items.c, store.stock.c
    held = (
        sa.select(i.sku, sa.func.sum(i.quantity).label("quantity"))
        .select_from(store.order_items.join(store.orders, o.id == i.order_id))
        .where(o.status == states.PENDING)
        .group_by(i.sku)
        .subquery()
    )
    quantity = sa.func.coalesce(held.c.quantity, 0)
    wrong = (
        sa.select(s.sku, s.available, s.reserved, quantity.label("held"))
        .select_from(store.stock.outerjoin(held, held.c.sku == s.sku))
        .where(sa.or_(s.reserved != quantity, s.reserved < 0, s.available < 0))
        .limit(_SHOWN)
    )
    orphans = sa.select(held.c.sku).where(held.c.sku.not_in(sa.select(s.sku))).limit(_SHOWN)
    breaches = [
        f"{r.sku}: {r.reserved} reserved, {r.available} available, pending orders hold {r.held}"
        for r in connection.execute(wrong)
    ]
    breaches += [
        f"{sku}: held by pending orders, but not in the inventory" for sku in connection.execute(orphans).scalars()
    ]
    return Finding("stock", "items of the inventory", _count(connection, store.stock), breaches)


def _amounts(connection: sa.Connection) -> Finding:
    """Order: what an order costs is the sum of its lines."""
    o, i = store.orders.c, store.order_items.c
    total = sa.func.coalesce(sa.func.sum(i.quantity * i.unit_price_minor), 0)
    wrong = (
        sa.select(o.id, o.amount_minor, total.label("total"))
        .select_from(store.orders.outerjoin(store.order_items, i.order_id == o.id))
        .group_by(o.id, o.amount_minor)
        .having(sa.or_(o.amount_minor != total, sa.func.count(i.line) == 0))
        .limit(_SHOWN)
    )
    breaches = [f"order {r.id} costs {r.amount_minor}, its lines say {r.total}" for r in connection.execute(wrong)]
    return Finding("order", "amounts of orders", _count(connection, store.orders), breaches)


def _expired(connection: sa.Connection, now_ms: int, *, settled: bool) -> Finding:
    """Order: nothing is held for an order whose time was over a minute ago."""
    o = store.orders.c
    late = sa.select(o.id, o.expire_ms).where(o.status == states.PENDING, o.expire_ms <= now_ms)
    rows = connection.execute(late).all()
    overdue = [row for row in rows if settled or now_ms - row.expire_ms > PENDING_MS]
    breaches = [
        f"order {row.id} is pending, {(now_ms - row.expire_ms) // 1000} s after its time" for row in overdue[:_SHOWN]
    ]
    return Finding("order", "expiry of orders", _count(connection, store.orders), breaches, len(rows) - len(overdue))
