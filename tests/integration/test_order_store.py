"""The order room's store and cache: one suite over the fakes, SQL and Valkey; the schema is what the migrations make."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa

from services.kernel.clock import SystemClock
from services.kernel.errors import DomainError
from services.kernel.idempotency import IdempotencyKey, Scope
from services.kernel.ids import IdMaker
from services.kernel.money import Money
from services.kernel.pages import page
from services.order import states
from services.order import store as sql
from services.order.adapters import RedisCache
from services.order.domain import Inventory, Item, Order, Stock
from services.order.ports import Cache, Change, Store
from services.platform import cache
from services.platform.cache import CircuitBreaker
from services.platform.database import Database, Failure, failure_of
from tests.fakes.order import FakeCache, FakeStore
from tests.integration.engines import ENGINES, Engines, differences

NOW = 1_800_000_000_000
CNY = Money("CNY", 250)


@pytest.fixture
def database(engine: str, engines: Engines) -> Iterator[Database]:
    """An empty database of the newest schema."""
    found = Database(engines.migrated(engine, "order"))
    yield found
    found.stop()


@pytest.fixture(params=["fake", *ENGINES])
def store(request: pytest.FixtureRequest, engines: Engines) -> Iterator[Store]:
    """Each store in turn."""
    if request.param == "fake":
        yield FakeStore()
        return
    database = Database(engines.migrated(request.param, "order"))
    yield sql.SqlStore(database, IdMaker(SystemClock(), 1))
    database.stop()


@pytest.fixture(params=["fake", "redis"])
def remembered(request: pytest.FixtureRequest) -> Iterator[Cache]:
    """Each cache in turn."""
    if request.param == "fake":
        yield FakeCache()
        return
    client = cache.connect(request.getfixturevalue("redis_url"))
    yield RedisCache(client)
    client.close()


def order(order_id: int, *, user: int = 7, quantity: int = 2, expire_ms: int = NOW + 1000) -> Order:
    items = (Item("tea", "Tea", quantity, CNY), Item("Cup", "杯", 1, Money("CNY", 100)))
    amount = Money("CNY", 250 * quantity + 100)
    return Order(order_id, user, amount, items, states.PENDING, 1, NOW, NOW, expire_ms)


def write(store: Store, change: Change) -> None:
    with store.transaction() as tx:
        tx.write(change)
        tx.commit()


def add_orders(store: Store, *orders: Order) -> None:
    write(store, Change(NOW, new_orders=list(orders), events=[each.created() for each in orders]))


def change_order(store: Store, order_id: int, move: Callable[[Order, Change], None]) -> None:
    """Change an order as a use case would: read under lock, move, write once."""
    change = Change(NOW + 5)
    with store.transaction() as tx:
        found = tx.orders([order_id])[order_id]
        move(found, change)
        change.changed_orders[order_id] = found
        tx.write(change)
        tx.commit()


def test_order_is_read_as_it_was_written(store: Store) -> None:
    """Every field, and the lines in their order; what does not exist is None or left out."""
    add_orders(store, order(2), order(1))
    assert store.order(2) == order(2)
    assert store.order(3) is None
    with store.transaction() as tx:
        assert tx.orders([3, 2, 1]) == {1: order(1), 2: order(2)}
        assert list(tx.orders([2, 1])) == [1, 2]
        assert tx.orders([]) == {}
    assert store.bare_orders([2, 9, 1, 2]) == [dataclasses.replace(order(i), items=()) for i in (1, 2)]


def test_nothing_is_written_without_a_commit(store: Store) -> None:
    """Rollback is the default."""
    with store.transaction() as tx:
        tx.write(Change(NOW, new_orders=[order(1)], stock=[Stock("tea", "Tea", CNY, 1, 0, 1, NOW)]))
    assert store.order(1) is None
    assert store.item("tea") is None


def test_order_goes_through_its_states(store: Store) -> None:
    """Two moves in one transaction are one write; each field is there afterwards."""
    add_orders(store, order(1), order(2))

    def settle(found: Order, change: Change) -> None:
        change.events += [found.pay(9, NOW + 5), found.refund(NOW + 6)]

    def cancel(found: Order, change: Change) -> None:
        change.events += [found.cancel("expired", NOW + 5)]

    change_order(store, 1, settle)
    change_order(store, 2, cancel)
    refunded, cancelled = store.order(1), store.order(2)
    assert refunded is not None
    assert cancelled is not None
    assert (refunded.status, refunded.version, refunded.payment_id, refunded.update_ms) == ("refunded", 3, 9, NOW + 6)
    assert (cancelled.status, cancelled.cancel_reason) == ("cancelled", "expired")


def test_stock_is_made_and_changed(store: Store) -> None:
    """New items and known ones in one write; SKUs differ by case."""
    for _ in range(2):
        with store.transaction() as tx:
            inventory = Inventory(tx.stock(["tea", "Tea", "cup"]))
            tea = inventory.set("tea", "Tea", CNY, 5, NOW)
            tea.reserved = 1
            if "cup" in inventory.stock:
                inventory.set("Tea", "Other", Money("JPY", 3), 1, NOW)
            else:
                inventory.set("cup", "Cup", CNY, 0, NOW)
            tx.write(Change(NOW, stock=list(inventory.changed.values())))
            tx.commit()
    assert store.item("tea") == Stock("tea", "Tea", CNY, 5, 1, 2, NOW)
    assert store.item("Tea") == Stock("Tea", "Other", Money("JPY", 3), 1, 0, 1, NOW)
    assert [s.sku for s in store.items(page(10, ""))] == ["Tea", "cup", "tea"]
    with store.transaction() as tx:
        assert list(tx.stock(["tea", "pot", "cup"])) == ["cup", "tea"]


def test_answers_events_and_rejections_are_known_again(store: Store) -> None:
    """An answer and a refusal under their keys, an event by its id, a payment that was rejected."""
    add_orders(store, order(1))
    keys = [IdempotencyKey(Scope(7, "CreateOrder", key), b"\1" * 32) for key in ("k-answer", "k-refusal", "k-unknown")]
    refusal = DomainError("STOCK_INSUFFICIENT", sku="tea", available=0)

    def reject(found: Order, change: Change) -> None:
        change.events.append(found.reject_payment(9, "amount_mismatch", NOW))
        change.taken.append(("payment-1", "payment.success"))
        change.answers += [(keys[0], b"rendered"), (keys[1], refusal)]

    change_order(store, 1, reject)
    with store.transaction() as tx:
        found = tx.stored([None, *keys])
        assert tx.unseen(["payment-1", "payment-2"]) == {"payment-2"}
        assert tx.rejected([8, 9]) == {9}
        assert (tx.unseen([]), tx.rejected([])) == (set(), set())
    assert found[keys[0].scope].answer == b"rendered"
    again = found[keys[1].scope].answer
    assert isinstance(again, DomainError)
    assert (again.reason, again.metadata) == (refusal.reason, refusal.metadata)
    assert keys[2].scope not in found


def test_lists_are_read_in_pages(store: Store) -> None:
    """A user's orders newest first, one more than the page holds; a token that holds no id is refused."""
    add_orders(store, *(order(i, user=7 + i % 2) for i in range(1, 8)))
    first = store.orders_of(7, page(2, ""))
    assert [o.id for o in first] == [6, 4, 2]
    kept, token = page(2, "").cut(first, lambda o: o.id)
    assert [o.id for o in store.orders_of(7, page(2, token))] == [2]
    assert kept[0] == order(6, user=7)
    for wrong in ("eA", "OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OQ"):
        with pytest.raises(DomainError) as caught:
            store.orders_of(7, page(2, wrong))
        assert caught.value.reason == "PAGE_TOKEN_INVALID"


def test_expired_orders_are_found_the_oldest_first(store: Store) -> None:
    """Pending alone, and only those whose time is over."""
    add_orders(store, order(1, expire_ms=30), order(2, expire_ms=20), order(3, expire_ms=10), order(4, expire_ms=31))
    change_order(store, 3, lambda found, change: change.events.append(found.cancel("user", NOW)))
    assert store.expired(30, 10) == [2, 1]
    assert store.expired(30, 1) == [2]


def test_newer_entry_is_never_replaced_by_an_older_one(remembered: Cache) -> None:
    """What a slow reader found before the change does not hide the change."""
    old, new = order(1), order(1)
    new.cancel("user", NOW + 5)
    remembered.put([new], [Stock("tea", "茶", CNY, 1, 4, 3, NOW)])
    remembered.put([old], [Stock("tea", "Tea", CNY, 5, 0, 2, NOW)])
    assert remembered.order(1) == new
    assert remembered.item("tea") == Stock("tea", "茶", CNY, 1, 4, 3, NOW)
    remembered.forget([1, 2])
    remembered.forget([])
    assert remembered.order(1) is None
    assert remembered.item("cup") is None


def test_entries_are_hashes_that_run_out(redis_url: str) -> None:
    """Names, kind and life of the entries are what operators were told."""
    client = cache.connect(redis_url)
    RedisCache(client).put([order(1)], [Stock("tea", "Tea", CNY, 1, 4, 3, NOW)])
    assert (client.type("order:1"), client.type("stock:tea")) == (b"hash", b"hash")
    assert all(0 < client.ttl(key) <= 300 for key in ("order:1", "stock:tea"))
    client.hset("order:1", "amount_minor", "x")
    client.hdel("stock:tea", "name")
    assert RedisCache(client).order(1) is None
    assert RedisCache(client).item("tea") is None
    client.close()


def test_silent_redis_is_asked_once_a_second_and_own_writes_are_not_believed_from_it(redis_url: str) -> None:
    """Without Redis a read finds nothing, quickly; when it is back, what could not be written to it is not read."""
    client, gone = cache.connect(redis_url), cache.connect("redis://127.0.0.1:1/0")
    remembered = RedisCache(client)
    remembered.put([order(1)], [])
    remembered._client, changed = gone, order(1)
    changed.cancel("user", NOW)
    began = time.monotonic()
    for _ in range(200):
        remembered.put([changed], [])
        assert remembered.order(1) is None
    assert time.monotonic() - began < 1
    remembered._client, remembered._breaker = client, CircuitBreaker()
    assert remembered.order(1) is None
    remembered.put([changed], [])
    assert remembered.order(1) == changed
    client.close()


def test_migrated_schema_is_the_declared_one(database: Database) -> None:
    """Alembic finds nothing to change, and the checks of states are in the database."""
    with database.read() as connection:
        assert differences(connection, sql.metadata) == []
        declared = {
            (table.name, constraint.name)
            for table in sql.metadata.tables.values()
            for constraint in table.constraints
            if isinstance(constraint, sa.CheckConstraint)
        }
        inspector = sa.inspect(connection)
        made = {(t, check["name"]) for t in inspector.get_table_names() for check in inspector.get_check_constraints(t)}
    assert declared == made


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE stock SET available = -1",
        "UPDATE stock SET reserved = -1",
        "UPDATE orders SET status = 'lost'",
        "UPDATE orders SET status = 'paid'",
        "UPDATE orders SET payment_id = 9",
        "UPDATE orders SET status = 'cancelled'",
    ],
)
def test_database_itself_refuses_what_must_not_be(database: Database, damage: str) -> None:
    """Whatever the code does: nothing below 0, no unknown state, paid with its payment, cancelled with its reason."""
    store = sql.SqlStore(database, IdMaker(SystemClock(), 1))
    add_orders(store, order(1))
    write(store, Change(NOW, stock=[Stock("tea", "Tea", CNY, 1, 0, 1, NOW)]))
    with database.write() as connection, pytest.raises(sa.exc.DBAPIError) as caught:
        connection.execute(sa.text(damage))
    assert failure_of(caught.value) is Failure.BREACH
