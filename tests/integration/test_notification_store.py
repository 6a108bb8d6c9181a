"""The notification room's store and queue: one suite over the fakes, SQL and Valkey; the schema is what migrations make."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import redis as redispy
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from services.kernel.clock import SystemClock
from services.kernel.idempotency import IdempotencyKey, Scope, Stored
from services.kernel.ids import IdMaker
from services.kernel.pages import page
from services.notification import audit, states
from services.notification.adapters.redis import RedisQueue
from services.notification.domain import (
    Channel,
    Contact,
    Notification,
    WebhookDelivery,
    WebhookEndpoint,
    pending,
    queued,
)
from services.notification.domain.notification import PUSH_AGAIN_MS
from services.notification.domain.webhook import SCHEDULE_MS
from services.notification.ports import Queue, Store
from services.notification.store import SqlStore, metadata
from services.notification.store.tables import notifications, outbox
from services.platform import migrations
from services.platform.audit import Finding
from services.platform.database import Database, Failure, failure_of
from tests.fakes.notification import FakeQueue, FakeStore

NOW = 1_800_000_000_000


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database as the migrations make it, to be copied."""
    path = tmp_path_factory.mktemp("notification") / "notification.db"
    migrations.upgrade("notification", f"sqlite:///{path}")
    return path


@pytest.fixture
def database(migrated: Path, tmp_path: Path) -> Iterator[Database]:
    """An empty database of the newest schema."""
    path = tmp_path / "notification.db"
    path.write_bytes(migrated.read_bytes())
    found = Database(f"sqlite:///{path}")
    yield found
    found.stop()


@pytest.fixture(params=["fake", "sql"])
def store(request: pytest.FixtureRequest) -> Store:
    """Each store in turn."""
    if request.param == "fake":
        return FakeStore()
    return SqlStore(request.getfixturevalue("database"), IdMaker(SystemClock(), 1))


@pytest.fixture(params=["fake", "redis"])
def queue(request: pytest.FixtureRequest) -> Iterator[Queue]:
    """Each queue in turn."""
    if request.param == "fake":
        yield FakeQueue()
        return
    found = RedisQueue(request.getfixturevalue("redis_url"), 1, 1)
    yield found
    found.stop()


def notification(number: int, user_id: int = 7, event_id: str | None = None, now_ms: int = NOW) -> Notification:
    return queued(number, user_id=user_id, channel=Channel.EMAIL, recipient="a@example.com", subject="问候 · Hello",
                  text="多行\ntext", now_ms=now_ms, event_id=event_id)  # fmt: skip


def endpoint(number: int, *, enabled: bool = True) -> WebhookEndpoint:
    return WebhookEndpoint(number, "https://shop.example/hook", ("order.paid", "payment.success"), "店 · shop", enabled,
                           "" if enabled else "gone", b"\x00sealed\xff", b"", 0, NOW)  # fmt: skip


def delivery(number: int, endpoint_id: int = 1, event_id: str = "", now_ms: int = NOW) -> WebhookDelivery:
    event_id = event_id or f"payment-{number}"
    return pending(number, endpoint_id=endpoint_id, event_id=event_id, topic="payment.success", body='{"店":1}',
                   now_ms=now_ms)  # fmt: skip


def post(store: Store, endpoints: Sequence[WebhookEndpoint], deliveries: Sequence[WebhookDelivery] = ()) -> None:
    """Add endpoints and deliveries to them."""
    with store.transaction() as tx:
        tx.add_endpoints(endpoints)
        tx.add_deliveries(deliveries)
        tx.commit()


def locked(store: Store, *delivery_ids: int) -> list[WebhookDelivery]:
    with store.transaction() as tx:
        return list(tx.lock_deliveries(delivery_ids).values())


def add(store: Store, *made: Notification) -> None:
    with store.transaction() as tx:
        tx.add(made)
        tx.commit()


def change(store: Store, *changed: Notification) -> None:
    with store.transaction() as tx:
        tx.put(changed)
        tx.publish_failed([each for each in changed if each.status == states.FAILED], NOW)
        tx.commit()


def test_notification_is_read_as_it_was_written(store: Store) -> None:
    """Every field, before and after a try; another owner finds nothing."""
    first, second = notification(1, event_id="order-1"), notification(2)
    add(store, first, second)
    assert store.find(1, None) == store.find(1, 7) == first
    assert store.find(1, 8) is None
    assert store.find(3, None) is None
    sent = second.claimed(NOW, "b@example.com").sent(NOW + 5)
    tried = first.claimed(NOW, first.recipient).tried("provider answered 503", NOW)
    change(store, tried, sent)
    assert (store.find(1, None), store.find(2, None)) == (tried, sent)


def test_nothing_is_written_without_a_commit(store: Store) -> None:
    """Rollback is the default."""
    with store.transaction() as tx:
        tx.add([notification(1)])
        tx.put_contacts([Contact(7, "a@example.com", "", 1)])
        tx.mark([("order-1", "order.paid")], NOW)
    assert store.find(1, None) is None
    with store.transaction() as tx:
        assert tx.contacts([7]) == {}
        assert tx.unseen(["order-1"]) == {"order-1"}


def test_contacts_are_replaced(store: Store) -> None:
    """One for each user."""
    for version in (1, 2):
        with store.transaction() as tx:
            tx.put_contacts([Contact(7, f"v{version}@example.com", "", version), Contact(8, "b@example.com", "+86", 1)])
            tx.commit()
    with store.transaction() as tx:
        assert tx.contacts({7, 9}) == {7: Contact(7, "v2@example.com", "", 2)}
        assert tx.contacts(()) == {}


def test_events_and_answers_are_remembered(store: Store) -> None:
    """What was handled is not unseen; what was answered is found under its key."""
    key = IdempotencyKey(Scope(1, "SendSms", "key-0001"), b"f" * 32)
    with store.transaction() as tx:
        tx.mark([("order-1", "order.paid"), ("user-1", "user.created")], NOW)
        tx.keep([(key, b"answer")], NOW)
        tx.commit()
    with store.transaction() as tx:
        assert tx.unseen(["order-1", "order-2"]) == {"order-2"}
        assert tx.stored([None, key]) == {key.scope: Stored(key.fingerprint, b"answer")}


def test_due_is_what_waits_longest(store: Store) -> None:
    """Queued ones alone, and only when their time has come."""
    old, new, done = notification(3, now_ms=NOW - 5), notification(1), notification(2, now_ms=NOW - 9)
    add(store, old, new, done)
    change(store, done.claimed(NOW, "a").sent(NOW))
    assert store.due(NOW + PUSH_AGAIN_MS - 6, 9) == []
    assert store.due(NOW + PUSH_AGAIN_MS, 9) == [3, 1]
    assert store.due(NOW + PUSH_AGAIN_MS, 1) == [3]


def test_list_has_the_newest_first(store: Store) -> None:
    """Of one user, page by page."""
    add(store, *(notification(n) for n in (1, 3, 2)), notification(4, user_id=8))
    rows = store.list_of(7, page(2, ""))
    assert [each.id for each in rows] == [3, 2, 1]
    _, token = page(2, "").cut(rows, lambda each: each.id)
    assert [each.id for each in store.list_of(7, page(2, token))] == [1]


def test_endpoint_is_read_as_it_was_written(store: Store) -> None:
    """Every field, before and after a rotation and a switch; counted, and found among the enabled while it is."""
    first, second = endpoint(1), endpoint(2, enabled=False)
    post(store, [first, second])
    assert list(store.endpoints(page(9, ""))) == [second, first]
    assert (store.has_endpoint(2), store.has_endpoint(3)) == (True, False)
    turned = first.rotated(b"another", NOW).switched(on=False, reason="operator")
    with store.transaction() as tx:
        assert (tx.endpoint_count(), tx.enabled_endpoints()) == (2, [first])
        assert tx.lock_endpoints({2, 9}) == {2: second}
        assert tx.lock_endpoints(()) == {}
        tx.put_endpoints([turned, second.switched(on=True, reason="")])
        tx.commit()
    with store.transaction() as tx:
        assert tx.lock_endpoints({1}) == {1: turned}
        assert [each.id for each in tx.enabled_endpoints()] == [2]


def test_delivery_is_read_as_it_was_written(store: Store) -> None:
    """Every field, through failure, resend and success; pages have the newest first."""
    post(store, [endpoint(1), endpoint(2)], [delivery(1), delivery(3), delivery(2), delivery(4, 2, "payment-1")])
    rows = store.deliveries_of(1, page(2, ""))
    assert list(rows) == [delivery(3), delivery(2), delivery(1)]
    _, token = page(2, "").cut(rows, lambda each: each.id)
    assert list(store.deliveries_of(1, page(2, token))) == [delivery(1)]
    failed = delivery(1).claimed(NOW).given_up("answered 410")
    again, taken = failed.resent(NOW + 7), delivery(2).claimed(NOW).delivered(NOW + 5)
    for changed in ([failed, taken], [again]):
        with store.transaction() as tx:
            tx.put_deliveries(changed)
            tx.commit()
    assert locked(store, 1, 2, 9) == [again, taken]


def test_due_deliveries_are_what_waits_longest(store: Store) -> None:
    """Pending ones alone, when their time has come, and none to endpoints that have enough in work."""
    old, new, done = delivery(3, now_ms=NOW - 5), delivery(1), delivery(2, now_ms=NOW - 9)
    post(store, [endpoint(1), endpoint(2)], [old, new, done, delivery(4, 2, now_ms=NOW + 5)])
    with store.transaction() as tx:
        tx.put_deliveries([done.claimed(NOW).delivered(NOW)])
        tx.commit()
    assert store.due_deliveries(NOW - 6, 9, ()) == []
    assert store.due_deliveries(NOW + 5, 9, ()) == [(3, 1), (1, 1), (4, 2)]
    assert store.due_deliveries(NOW + 5, 1, (2,)) == [(3, 1)]
    assert store.due_deliveries(NOW + 5, 9, [1]) == [(4, 2)]


def test_pending_deliveries_are_given_up_together(store: Store) -> None:
    """Those to some endpoints; what is at rest stays as it is."""
    taken = delivery(2).claimed(NOW).delivered(NOW)
    post(store, [endpoint(1), endpoint(2)], [delivery(1), delivery(2), delivery(3, 2)])
    with store.transaction() as tx:
        tx.put_deliveries([taken])
        tx.give_up_deliveries([1], "disabled")
        tx.give_up_deliveries([], "never")
        tx.commit()
    assert locked(store, 1, 2, 3) == [delivery(1).given_up("disabled"), taken, delivery(3, 2)]


def test_endpoint_is_removed_with_its_deliveries(store: Store) -> None:
    """And no other."""
    post(store, [endpoint(1), endpoint(2)], [delivery(1), delivery(2, 2)])
    with store.transaction() as tx:
        tx.remove_endpoints([1])
        tx.remove_endpoints([])
        tx.commit()
    assert not store.has_endpoint(1)
    assert locked(store, 1, 2) == [delivery(2, 2)]


def test_second_delivery_of_an_event_breaks_the_database(database: Database) -> None:
    """Whatever the code does, an event goes to an endpoint once; and to none that is not there."""
    store = SqlStore(database, IdMaker(SystemClock(), 1))
    post(store, [endpoint(1)], [delivery(1)])
    for wrong in (delivery(2, event_id="payment-1"), delivery(3, 9)):
        with pytest.raises(sa.exc.IntegrityError) as raised:
            post(store, [], [wrong])
        assert failure_of(raised.value) is Failure.BREACH


def test_audit_finds_deliveries_that_do_not_come_to_rest(database: Database) -> None:
    """Pending longer than the whole schedule is a breach; with --settled, pending at all."""
    store = SqlStore(database, IdMaker(SystemClock(), 1))
    post(store, [endpoint(1)], [delivery(1), delivery(2), delivery(3, now_ms=NOW + 10)])
    with store.transaction() as tx:
        tx.put_deliveries([delivery(1).claimed(NOW).delivered(NOW)])
        tx.commit()

    def finding(now_ms: int, *, settled: bool = False) -> Finding:
        with database.read() as connection:
            return list(audit.invariants(connection, settled=settled, now_ms=now_ms))[-1]

    assert finding(NOW + SCHEDULE_MS) == Finding("I7", "webhook deliveries at rest", 3, [], 2)
    late = finding(NOW + SCHEDULE_MS + 1)
    assert (late.breaches, late.pending) == (["webhook delivery 2 is still pending"], 1)
    assert len(finding(NOW, settled=True).breaches) == 2


def test_schema_is_what_the_migrations_make(database: Database) -> None:
    """No difference between the tables in code and a migrated database."""
    with database.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_second_notification_of_an_event_breaks_the_database(database: Database) -> None:
    """Whatever the code does, an event is told once."""
    store = SqlStore(database, IdMaker(SystemClock(), 1))
    add(store, notification(1, event_id="order-1"))
    with pytest.raises(sa.exc.IntegrityError) as raised:
        add(store, notification(2, event_id="order-1"))
    assert failure_of(raised.value) is Failure.BREACH


def test_audit_finds_what_was_not_told(database: Database) -> None:
    """It holds over what the room writes, and breaks for an event without notification or a failure without event."""
    store = SqlStore(database, IdMaker(SystemClock(), 1))
    add(store, notification(1, event_id="order-1"))
    with store.transaction() as tx:
        tx.mark([("order-1", "order.paid"), ("user-2", "user.updated")], NOW)
        tx.commit()
    change(store, dataclasses.replace(store.find(1, None) or notification(1), status=states.FAILED))

    def findings() -> list[Finding]:
        with database.read() as connection:
            return list(audit.invariants(connection, settled=False, now_ms=NOW))

    assert [f.breaches for f in findings()] == [[]] * 5
    assert [f.examined for f in findings()] == [1, 1, 1, 1, 0]
    with database.write() as connection:
        connection.execute(sa.delete(outbox))
        connection.execute(sa.update(notifications).values(event_id=None))
        connection.commit()
    assert [b for f in findings() for b in f.breaches] == [
        "event order-1 of order.paid has 0 notifications",
        "notification 1 failed without an event",
    ]


def test_queue_keeps_the_order(queue: Queue) -> None:
    """First in, first out; what is in work is not taken twice."""
    queue.push([1, 2])
    queue.push([3])
    queue.push([])
    assert queue.take(2, 1) == [1, 2]
    assert queue.take(9, 1) == [3]
    queue.done([1, 2, 3])
    assert queue.take(9, 1) == []


def test_what_was_in_work_comes_back_first(queue: Queue) -> None:
    """After a crash, once; what was done stays done."""
    queue.push([1, 2, 3])
    queue.take(2, 1)
    queue.done([1])
    queue.recover()
    assert queue.take(9, 1) == [2, 3]


def test_queue_is_the_list_that_operators_know(redis_url: str) -> None:
    """And each instance has its own list of what is in work."""
    queue = RedisQueue(redis_url, 3, 1)
    queue.push([1, 2])
    with redispy.Redis.from_url(redis_url) as client:
        assert client.lrange("notifications:queue", 0, -1) == [b"2", b"1"]
        queue.take(1, 1)
        assert client.lrange("notifications:processing:3", 0, -1) == [b"1"]
        queue.done([1])
        assert client.keys("notifications:processing:*") == []
    queue.stop()


def test_queue_without_redis_works_within_the_process() -> None:
    """It takes what it was given, and otherwise waits as it was told."""
    queue = RedisQueue("redis://127.0.0.1:1/0", 1, 1)
    queue.push([1, 2, 3])
    queue.recover()
    assert queue.take(2, 1) == [1, 2]
    assert queue.take(2, 1) == [3]
    queue.done([1, 2, 3])
    began = time.monotonic()
    assert queue.take(2, 1) == []
    assert 0.9 < time.monotonic() - began < 3
    queue.stop()
