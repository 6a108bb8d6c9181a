"""The order room's ports in memory; they pass the suites of the real adapters (tests/integration/test_order_store.py)."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from services.kernel.idempotency import IdempotencyKey, Scope, Stored
from services.kernel.pages import Page
from services.order import states
from services.order.domain import Order, OrderEvent, OrderPaymentRejected, Stock
from services.order.ports import Change, Ports

BUSINESS = frozenset({"STOCK_NOT_FOUND", "STOCK_INSUFFICIENT", "CURRENCY_MIXED"})


class FakeClock:
    """A clock that stands still until it is moved."""

    def __init__(self, now_ms: int = 1_800_000_000_000) -> None:
        """Start at ``now_ms``."""
        self.ms = now_ms

    def now_ms(self) -> int:
        """Milliseconds since 1970 UTC."""
        return self.ms

    def monotonic(self) -> float:
        """Seconds."""
        return self.ms / 1000


class FakeIds:
    """Counts from 1001."""

    def __init__(self) -> None:
        """Begin."""
        self._last = 1000

    def next(self, shard: int) -> int:
        """Return the next number; the shard is not in it."""
        del shard
        self._last += 1
        return self._last


@dataclass
class Rows:
    """What a database would hold."""

    orders: dict[int, Order] = field(default_factory=dict)
    stock: dict[str, Stock] = field(default_factory=dict)
    answers: dict[Scope, Stored] = field(default_factory=dict)
    taken: list[tuple[str, str]] = field(default_factory=list)
    events: list[OrderEvent] = field(default_factory=list)

    def copy(self) -> Rows:
        """Return rows that can be changed without changing these."""
        orders, stock = copy.deepcopy(self.orders), copy.deepcopy(self.stock)
        return Rows(orders, stock, dict(self.answers), list(self.taken), list(self.events))


class FakeTransaction:
    """Works on a copy of the rows; `commit` makes it theirs."""

    def __init__(self, store: FakeStore) -> None:
        """Copy the rows of ``store``."""
        self._store, self._rows = store, store.rows.copy()

    def stored(self, keys: Iterable[IdempotencyKey | None]) -> Mapping[Scope, Stored]:
        """Return the answers that ``keys`` got."""
        scopes = {key.scope for key in keys if key}
        return {scope: answer for scope, answer in self._rows.answers.items() if scope in scopes}

    def orders(self, ids: Iterable[int]) -> dict[int, Order]:
        """Return those of the orders that exist."""
        return {i: copy.deepcopy(self._rows.orders[i]) for i in sorted(set(ids)) if i in self._rows.orders}

    def stock(self, skus: Iterable[str]) -> dict[str, Stock]:
        """Return those of the items that exist."""
        return {sku: copy.deepcopy(self._rows.stock[sku]) for sku in sorted(set(skus)) if sku in self._rows.stock}

    def unseen(self, event_ids: Sequence[str]) -> set[str]:
        """Return those events that had no effect yet."""
        return set(event_ids) - {event_id for event_id, _ in self._rows.taken}

    def rejected(self, payment_ids: Iterable[int]) -> set[int]:
        """Return those of the payments that an order rejected before."""
        known = {e.payment_id for e in self._rows.events if isinstance(e, OrderPaymentRejected)}
        return known & set(payment_ids)

    def write(self, change: Change) -> None:
        """Write a change; what a constraint of the database forbids is an AssertionError."""
        rows, steps = self._rows, Counter(event.fact.order_id for event in change.events)
        for order in change.new_orders:
            assert order.id not in rows.orders
        for order in change.changed_orders.values():
            assert rows.orders[order.id].version == order.version - steps[order.id]
        for order in change.orders():
            assert (order.status in {states.PAID, states.REFUNDED}) == bool(order.payment_id)
            assert (order.status == states.CANCELLED) == bool(order.cancel_reason)
            rows.orders[order.id] = copy.deepcopy(order)
        for item in change.stock:
            assert item.available >= 0
            assert item.reserved >= 0
            assert item.version == (rows.stock[item.sku].version if item.sku in rows.stock else 0) + 1
            rows.stock[item.sku] = copy.deepcopy(item)
        rows.answers |= {key.scope: Stored(key.fingerprint, answer) for key, answer in change.answers}
        assert not set(change.taken) & set(rows.taken)
        rows.taken += change.taken
        rows.events += change.events

    def commit(self) -> None:
        """Make it the store's."""
        self._store.rows = self._rows


class FakeStore:
    """The database of the order room, in memory."""

    def __init__(self) -> None:
        """Begin empty."""
        self.rows = Rows()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[FakeTransaction]:
        """Begin a transaction; it is lost unless it is committed."""
        yield FakeTransaction(self)

    def order(self, order_id: int) -> Order | None:
        """Read an order."""
        return copy.deepcopy(self.rows.orders.get(order_id))

    def orders_of(self, user_id: int, page: Page) -> list[Order]:
        """Read a page of a user's orders, newest first."""
        after = page.after_id()
        mine = [o for i, o in sorted(self.rows.orders.items(), reverse=True) if after is None or i < after]
        return copy.deepcopy([order for order in mine if order.user_id == user_id][: page.limit])

    def bare_orders(self, ids: Sequence[int]) -> list[Order]:
        """Read orders without their items."""
        found = [self.rows.orders[i] for i in sorted(set(ids)) if i in self.rows.orders]
        return [dataclasses.replace(order, items=()) for order in found]

    def expired(self, now_ms: int, limit: int) -> list[int]:
        """Return ids of pending orders whose time is over."""
        pending = [o for o in self.rows.orders.values() if o.status == states.PENDING and o.expire_ms <= now_ms]
        return [o.id for o in sorted(pending, key=lambda o: o.expire_ms)][:limit]

    def item(self, sku: str) -> Stock | None:
        """Read an item."""
        return copy.deepcopy(self.rows.stock.get(sku))

    def items(self, page: Page) -> list[Stock]:
        """Read a page of the inventory."""
        return copy.deepcopy([s for sku, s in sorted(self.rows.stock.items()) if sku > page.after][: page.limit])


class FakeCache:
    """Never forgets unless it is told to."""

    def __init__(self) -> None:
        """Begin empty."""
        self.orders: dict[int, Order] = {}
        self.stock: dict[str, Stock] = {}

    def order(self, order_id: int) -> Order | None:
        """Return an order, if it is remembered."""
        return copy.deepcopy(self.orders.get(order_id))

    def item(self, sku: str) -> Stock | None:
        """Return an item, if it is remembered."""
        return copy.deepcopy(self.stock.get(sku))

    def forget(self, order_ids: Iterable[int]) -> None:
        """Drop orders."""
        for order_id in order_ids:
            self.orders.pop(order_id, None)

    def put(self, orders: Iterable[Order], stock: Iterable[Stock]) -> None:
        """Remember, unless something newer is there."""
        for order in orders:
            if order.id not in self.orders or self.orders[order.id].version <= order.version:
                self.orders[order.id] = copy.deepcopy(order)
        for item in stock:
            if item.sku not in self.stock or self.stock[item.sku].version <= item.version:
                self.stock[item.sku] = copy.deepcopy(item)


class FakeOrders:
    """The ports over fakes, ready to be handed to use cases."""

    def __init__(self) -> None:
        """Make them."""
        self.store, self.cache, self.clock, self.nudges = FakeStore(), FakeCache(), FakeClock(), 0
        self.ports = Ports(
            store=self.store,
            cache=self.cache,
            ids=FakeIds(),
            clock=self.clock,
            render=lambda order: repr(order).encode(),
            published=self._nudge,
            business=BUSINESS,
            hold_ms=1_800_000,
        )

    def _nudge(self) -> None:
        self.nudges += 1
