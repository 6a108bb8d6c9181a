"""SQL behind the ports: tables, locked reads, guarded writes, events and answers in the transaction of the change."""

from __future__ import annotations

import contextlib
from collections import Counter
from itertools import groupby
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from services.kernel.money import Money
from services.order import mapping, states
from services.order.domain import (
    CANCEL_REASONS,
    REJECT_REASONS,
    Item,
    Order,
    OrderCancelled,
    OrderCreated,
    OrderPaid,
    OrderPaymentRejected,
    OrderRefunded,
    Stock,
)
from services.platform import idempotency
from services.platform import inbox as taken_events
from services.platform import outbox as outgoing
from services.platform.database import Conflict, for_update, insert_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from services.kernel.idempotency import IdempotencyKey, Scope, Stored
    from services.kernel.ids import IdMaker
    from services.kernel.pages import Page
    from services.order.domain import OrderEvent
    from services.order.ports import Change
    from services.platform.database import Database

SKU = (
    sa.String(64)
    .with_variant(mysql.VARCHAR(64, charset="ascii", collation="ascii_bin"), "mysql", "mariadb")
    .with_variant(sa.String(64, collation="C"), "postgresql")
)
"""Compared byte by byte everywhere: `a1` and `A1` are two items, and pages follow one order."""

metadata = sa.MetaData()

orders = sa.Table(
    "orders",
    metadata,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("user_id", sa.BigInteger, nullable=False),
    sa.Column("order_no", sa.String(50), nullable=False, unique=True),
    sa.Column("amount_minor", sa.BigInteger, nullable=False),
    sa.Column("currency", sa.CHAR(3), nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("payment_id", sa.BigInteger, unique=True),
    sa.Column("cancel_reason", sa.String(16), nullable=False),
    sa.Column("create_ms", sa.BigInteger, nullable=False),
    sa.Column("update_ms", sa.BigInteger, nullable=False),
    sa.Column("expire_ms", sa.BigInteger, nullable=False),
    sa.CheckConstraint(f"status IN {states.CHECK}", name="orders_status"),
    sa.CheckConstraint(f"cancel_reason IN {('', *CANCEL_REASONS)}", name="orders_cancel_reason"),
    sa.CheckConstraint("(status = 'cancelled') = (cancel_reason <> '')", name="orders_cancelled"),
    sa.CheckConstraint("(status IN ('paid', 'refunded')) = (payment_id IS NOT NULL)", name="orders_paid"),
    sa.CheckConstraint("amount_minor >= 0", name="orders_amount"),
    sa.Index("orders_of_user", "user_id", "id"),
    sa.Index("orders_expiry", "status", "expire_ms"),
)

order_items = sa.Table(
    "order_items",
    metadata,
    sa.Column("order_id", sa.BigInteger, sa.ForeignKey("orders.id"), primary_key=True, autoincrement=False),
    sa.Column("line", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("sku", SKU, nullable=False),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("quantity", sa.Integer, nullable=False),
    sa.Column("unit_price_minor", sa.BigInteger, nullable=False),
    sa.CheckConstraint("quantity > 0", name="order_items_quantity"),
)

order_history = sa.Table(
    "order_history",
    metadata,
    sa.Column("order_id", sa.BigInteger, sa.ForeignKey("orders.id"), primary_key=True, autoincrement=False),
    sa.Column("version", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("at_ms", sa.BigInteger, nullable=False),
    sa.CheckConstraint(f"status IN {states.CHECK}", name="order_history_status"),
)

rejected_payments = sa.Table(
    "rejected_payments",
    metadata,
    sa.Column("payment_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("order_id", sa.BigInteger, sa.ForeignKey("orders.id"), nullable=False, index=True),
    sa.Column("reject_reason", sa.String(16), nullable=False),
    sa.Column("at_ms", sa.BigInteger, nullable=False),
    sa.CheckConstraint(f"reject_reason IN {REJECT_REASONS}", name="rejected_payments_reason"),
)

stock = sa.Table(
    "stock",
    metadata,
    sa.Column("sku", SKU, primary_key=True),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("unit_price_minor", sa.BigInteger, nullable=False),
    sa.Column("currency", sa.CHAR(3), nullable=False),
    sa.Column("available", sa.BigInteger, nullable=False),
    sa.Column("reserved", sa.BigInteger, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("update_ms", sa.BigInteger, nullable=False),
    sa.CheckConstraint("available >= 0", name="stock_available"),
    sa.CheckConstraint("reserved >= 0", name="stock_reserved"),
    sa.CheckConstraint("unit_price_minor >= 0", name="stock_unit_price"),
)

outbox, relay_lease = outgoing.outbox_tables(metadata)
inbox = taken_events.inbox_table(metadata)
idempotency_keys = idempotency.idempotency_table(metadata)

_STATUS_AFTER = {
    OrderCreated: states.PENDING,
    OrderPaid: states.PAID,
    OrderCancelled: states.CANCELLED,
    OrderRefunded: states.REFUNDED,
}

_CHANGE_ORDER = (
    sa.update(orders)
    .where(orders.c.id == sa.bindparam("key"), orders.c.version == sa.bindparam("was"))
    .values(
        {
            name: sa.bindparam(f"new_{name}")
            for name in ("status", "version", "payment_id", "cancel_reason", "update_ms")
        }
    )
)
_STOCK_VALUES = ("name", "unit_price_minor", "currency", "available", "reserved", "version", "update_ms")
_CHANGE_STOCK = (
    sa.update(stock)
    .where(stock.c.sku == sa.bindparam("key"), stock.c.version == sa.bindparam("was"))
    .values({name: sa.bindparam(f"new_{name}") for name in _STOCK_VALUES})
)


class SqlTransaction:
    """A transaction on one connection."""

    def __init__(self, connection: sa.Connection, ids: IdMaker) -> None:
        """Work on ``connection``; outbox rows get ``ids``."""
        self._connection, self._ids = connection, ids

    def stored(self, keys: Iterable[IdempotencyKey | None]) -> Mapping[Scope, Stored]:
        """Return the answers that ``keys`` got."""
        return idempotency.find(self._connection, idempotency_keys, keys)

    def orders(self, ids: Iterable[int]) -> dict[int, Order]:
        """Lock those of the orders that exist, in the order of their ids, with their items."""
        wanted = sorted(set(ids))
        query = sa.select(orders).where(orders.c.id.in_(wanted)).order_by(orders.c.id)
        return {order.id: order for order in _with_items(self._connection, self._locked(query))} if wanted else {}

    def stock(self, skus: Iterable[str]) -> dict[str, Stock]:
        """Lock those of the items that exist, in SKU order."""
        wanted = sorted(set(skus))
        query = sa.select(stock).where(stock.c.sku.in_(wanted)).order_by(stock.c.sku)
        return {row.sku: _stock(row) for row in self._locked(query)} if wanted else {}

    def unseen(self, event_ids: Sequence[str]) -> set[str]:
        """Return those events that had no effect yet."""
        return taken_events.unseen(self._connection, inbox, event_ids) if event_ids else set()

    def rejected(self, payment_ids: Iterable[int]) -> set[int]:
        """Return those of the payments that an order rejected before."""
        wanted = sorted(set(payment_ids))
        query = sa.select(rejected_payments.c.payment_id).where(rejected_payments.c.payment_id.in_(wanted))
        return set(self._connection.execute(query).scalars()) if wanted else set()

    def write(self, change: Change) -> None:
        """Write a change."""
        insert_rows(self._connection, orders, [_order_row(order) for order in change.new_orders])
        insert_rows(self._connection, order_items, [row for order in change.new_orders for row in _item_rows(order)])
        self._change_orders(change)
        self._change_stock(change.stock)
        self._tell(change.events, change.now_ms)
        idempotency.keep(self._connection, idempotency_keys, change.answers, change.now_ms)
        taken_events.mark(self._connection, inbox, change.taken, change.now_ms)

    def commit(self) -> None:
        """Make it durable."""
        self._connection.commit()

    def _locked(self, query: sa.Select[Any]) -> Sequence[sa.Row[Any]]:
        return self._connection.execute(for_update(query, self._connection.dialect.name)).all()

    def _change_orders(self, change: Change) -> None:
        steps = Counter(event.fact.order_id for event in change.events)
        rows = [
            {
                "key": order.id,
                "was": order.version - steps[order.id],
                "new_status": order.status,
                "new_version": order.version,
                "new_payment_id": order.payment_id or None,
                "new_cancel_reason": order.cancel_reason,
                "new_update_ms": order.update_ms,
            }
            for order in change.changed_orders.values()
        ]
        if rows:
            self._guarded(_CHANGE_ORDER, rows)

    def _change_stock(self, changed: Sequence[Stock]) -> None:
        rows = [_stock_row(item) for item in sorted(changed, key=lambda item: item.sku)]
        insert_rows(self._connection, stock, [row for row in rows if row["version"] == 1])
        known = [
            {"key": row["sku"], "was": row["version"] - 1, **{f"new_{name}": row[name] for name in _STOCK_VALUES}}
            for row in rows
            if row["version"] > 1
        ]
        if known:
            self._guarded(_CHANGE_STOCK, known)

    def _guarded(self, update: sa.Update, rows: Sequence[Mapping[str, Any]]) -> None:
        """Update rows that are still at the version that was read; the whole batch is done again when one is not."""
        if self._connection.execute(update, rows).rowcount != len(rows):
            raise Conflict("a row changed under its lock")

    def _tell(self, events: Sequence[OrderEvent], now_ms: int) -> None:
        """Write what happened: the history of states, rejected payments, and the events themselves."""
        steps = [
            {
                "order_id": e.fact.order_id,
                "version": e.fact.version,
                "status": _STATUS_AFTER[type(e)],
                "at_ms": e.fact.at_ms,
            }
            for e in events
            if not isinstance(e, OrderPaymentRejected)
        ]
        rejections = [
            {
                "payment_id": e.payment_id,
                "order_id": e.fact.order_id,
                "reject_reason": e.reject_reason,
                "at_ms": e.fact.at_ms,
            }
            for e in events
            if isinstance(e, OrderPaymentRejected)
        ]
        insert_rows(self._connection, order_history, steps)
        insert_rows(self._connection, rejected_payments, rejections)
        outgoing.append(self._connection, outbox, [mapping.event(e) for e in events], self._ids, now_ms)


class SqlStore:
    """The order room's database."""

    def __init__(self, database: Database, ids: IdMaker) -> None:
        """Work on ``database``; outbox rows get ``ids``."""
        self._database, self._ids = database, ids

    @contextlib.contextmanager
    def transaction(self) -> Iterator[SqlTransaction]:
        """Begin a transaction; it rolls back unless it is committed."""
        with self._database.write() as connection:
            yield SqlTransaction(connection, self._ids)

    def order(self, order_id: int) -> Order | None:
        """Read an order with its items."""
        found = self._orders(sa.select(orders).where(orders.c.id == order_id))
        return found[0] if found else None

    def orders_of(self, user_id: int, page: Page) -> list[Order]:
        """Read a page of a user's orders with their items, newest first, one more than it holds."""
        query = sa.select(orders).where(orders.c.user_id == user_id)
        if (after := page.after_id()) is not None:
            query = query.where(orders.c.id < after)
        return self._orders(query.order_by(orders.c.id.desc()).limit(page.limit))

    def bare_orders(self, ids: Sequence[int]) -> list[Order]:
        """Read those of the orders that exist, without their items."""
        with self._database.read() as connection:
            rows = connection.execute(sa.select(orders).where(orders.c.id.in_(set(ids))).order_by(orders.c.id)).all()
        return [_order(row, ()) for row in rows]

    def expired(self, now_ms: int, limit: int) -> list[int]:
        """Return ids of pending orders whose time is over, the longest ago first."""
        due = sa.and_(orders.c.status == states.PENDING, orders.c.expire_ms <= now_ms)
        with self._database.read() as connection:
            query = sa.select(orders.c.id).where(due).order_by(orders.c.expire_ms).limit(limit)
            return list(connection.execute(query).scalars())

    def item(self, sku: str) -> Stock | None:
        """Read an item of the inventory."""
        with self._database.read() as connection:
            row = connection.execute(sa.select(stock).where(stock.c.sku == sku)).first()
        return _stock(row) if row else None

    def items(self, page: Page) -> list[Stock]:
        """Read a page of the inventory by SKU, one more than it holds."""
        query = sa.select(stock).where(stock.c.sku > page.after).order_by(stock.c.sku).limit(page.limit)
        with self._database.read() as connection:
            return [_stock(row) for row in connection.execute(query)]

    def _orders(self, query: sa.Select[Any]) -> list[Order]:
        with self._database.read() as connection:
            return _with_items(connection, connection.execute(query).all())


def _with_items(connection: sa.Connection, rows: Sequence[sa.Row[Any]]) -> list[Order]:
    """Read the items of order rows and make orders of both."""
    i = order_items.c
    query = sa.select(order_items).where(i.order_id.in_([row.id for row in rows])).order_by(i.order_id, i.line)
    lines = groupby(connection.execute(query), key=lambda line: line.order_id) if rows else ()
    by_order = {order_id: tuple(each) for order_id, each in lines}
    return [_order(row, by_order.get(row.id, ())) for row in rows]


def _order(row: sa.Row[Any], lines: Sequence[sa.Row[Any]]) -> Order:
    items = tuple(Item(i.sku, i.name, i.quantity, Money(row.currency, i.unit_price_minor)) for i in lines)
    return Order(
        row.id,
        row.user_id,
        Money(row.currency, row.amount_minor),
        items,
        row.status,
        row.version,
        row.create_ms,
        row.update_ms,
        row.expire_ms,
        row.payment_id or 0,
        row.cancel_reason,
    )


def _order_row(order: Order) -> dict[str, Any]:
    return {
        "id": order.id,
        "user_id": order.user_id,
        "order_no": order.order_no,
        "amount_minor": order.amount.minor_units,
        "currency": order.amount.currency_code,
        "status": order.status,
        "version": order.version,
        "payment_id": order.payment_id or None,
        "cancel_reason": order.cancel_reason,
        "create_ms": order.create_ms,
        "update_ms": order.update_ms,
        "expire_ms": order.expire_ms,
    }


def _item_rows(order: Order) -> Iterator[dict[str, Any]]:
    for line, item in enumerate(order.items):
        yield {
            "order_id": order.id,
            "line": line,
            "sku": item.sku,
            "name": item.name,
            "quantity": item.quantity,
            "unit_price_minor": item.unit_price.minor_units,
        }


def _stock(row: sa.Row[Any]) -> Stock:
    price = Money(row.currency, row.unit_price_minor)
    return Stock(row.sku, row.name, price, row.available, row.reserved, row.version, row.update_ms)


def _stock_row(item: Stock) -> dict[str, Any]:
    return {
        "sku": item.sku,
        "name": item.name,
        "unit_price_minor": item.unit_price.minor_units,
        "currency": item.unit_price.currency_code,
        "available": item.available,
        "reserved": item.reserved,
        "version": item.version,
        "update_ms": item.update_ms,
    }
