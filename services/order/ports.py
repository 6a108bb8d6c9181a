"""What the use cases need of the world."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from services.kernel.idempotency import Answer, IdempotencyKey, Scope, Stored
from services.kernel.pages import Page
from services.order.domain import Order, OrderEvent, Stock


class Ids(Protocol):
    """Makes ids."""

    def next(self, shard: int) -> int:
        """Return the next id on a shard."""
        ...


class Clock(Protocol):
    """Tells the time."""

    def now_ms(self) -> int:
        """Milliseconds since 1970 UTC."""
        ...


@dataclass(slots=True)
class Change:
    """All that one transaction writes."""

    now_ms: int
    new_orders: list[Order] = field(default_factory=list)
    changed_orders: dict[int, Order] = field(default_factory=dict)
    stock: list[Stock] = field(default_factory=list)
    events: list[OrderEvent] = field(default_factory=list)
    answers: list[tuple[IdempotencyKey, Answer]] = field(default_factory=list)
    taken: list[tuple[str, str]] = field(default_factory=list)
    """(event id, topic) of the events that had their effect."""

    def orders(self) -> list[Order]:
        """Every order that the change writes."""
        return [*self.new_orders, *self.changed_orders.values()]


class Transaction(Protocol):
    """One transaction; it rolls back unless ``commit`` is called. Orders and stock that it reads stay locked.

    Orders are locked before stock, each in the order of its key, so that two transactions never wait for each other.
    """

    def stored(self, keys: Iterable[IdempotencyKey | None]) -> Mapping[Scope, Stored]:
        """Return the answers that ``keys`` got."""
        ...

    def orders(self, ids: Iterable[int]) -> dict[int, Order]:
        """Lock those of the orders that exist, with their items."""
        ...

    def stock(self, skus: Iterable[str]) -> dict[str, Stock]:
        """Lock those of the items that exist."""
        ...

    def unseen(self, event_ids: Sequence[str]) -> set[str]:
        """Return those events that had no effect yet."""
        ...

    def rejected(self, payment_ids: Iterable[int]) -> set[int]:
        """Return those of the payments that an order rejected before."""
        ...

    def write(self, change: Change) -> None:
        """Write a change: rows, history, events, answers, inbox. Nothing of an order or item may be changed after it."""
        ...

    def commit(self) -> None:
        """Make it durable."""
        ...


class Store(Protocol):
    """The order room's database."""

    def transaction(self) -> AbstractContextManager[Transaction]:
        """Begin a transaction."""
        ...

    def order(self, order_id: int) -> Order | None:
        """Read an order with its items."""
        ...

    def orders_of(self, user_id: int, page: Page) -> list[Order]:
        """Read a page of a user's orders with their items, newest first, one more than it holds."""
        ...

    def bare_orders(self, ids: Sequence[int]) -> list[Order]:
        """Read those of the orders that exist, without their items."""
        ...

    def expired(self, now_ms: int, limit: int) -> list[int]:
        """Return ids of pending orders whose time is over, the longest ago first."""
        ...

    def item(self, sku: str) -> Stock | None:
        """Read an item of the inventory."""
        ...

    def items(self, page: Page) -> list[Stock]:
        """Read a page of the inventory by SKU, one more than it holds."""
        ...


class Cache(Protocol):
    """Orders and stock for five minutes. It may forget anything at any time, and never shows older than it showed."""

    def order(self, order_id: int) -> Order | None:
        """Return an order, if it is remembered."""
        ...

    def item(self, sku: str) -> Stock | None:
        """Return an item of the inventory, if it is remembered."""
        ...

    def forget(self, order_ids: Iterable[int]) -> None:
        """Drop orders that are about to change, so that a crash after the commit leaves nothing old."""
        ...

    def put(self, orders: Iterable[Order], stock: Iterable[Stock]) -> None:
        """Remember what was committed or read, unless something newer is there."""
        ...


@dataclass(frozen=True, slots=True)
class Ports:
    """Everything that the use cases are given. ``business``: the reasons that are kept under an idempotency key."""

    store: Store
    cache: Cache
    ids: Ids
    clock: Clock
    render: Callable[[Order], bytes]
    published: Callable[[], None]
    business: frozenset[str]
    hold_ms: int
