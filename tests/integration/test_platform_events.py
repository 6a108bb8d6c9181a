"""Outbox, relay, broker, consumer and inbox against librdkafka's broker and SQLite: at least once out, once in effect."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
import sqlalchemy as sa

from paymesh.order.v1 import order_event_pb2
from paymesh.payment.v1 import payment_event_pb2
from services.kernel.clock import SystemClock
from services.kernel.errors import DomainError
from services.kernel.ids import IdMaker
from services.platform import inbox as inboxes
from services.platform import outbox as outboxes
from services.platform.batcher import Batcher
from services.platform.broker import EventProducer, Record, group_consumer
from services.platform.consumer import EventConsumer, Subscription
from services.platform.database import Database, insert_rows
from services.platform.process import Part
from services.platform.relay import Relay
from tests.conftest import start_broker
from tests.integration.topics import reader

P = TypeVar("P", bound=Part)

metadata = sa.MetaData()
outbox, lease = outboxes.outbox_tables(metadata)
inbox = inboxes.inbox_table(metadata)
effects = sa.Table("effects", metadata, sa.Column("order_id", sa.BigInteger), sa.Column("event_id", sa.String(80)))

CREATED = "order.created"


def eventually(holds: Callable[[], bool], within: float = 15) -> bool:
    """Whether something comes true in time."""
    until = time.monotonic() + within
    while not holds():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


@dataclass
class TurnedClock:
    """The machine's clocks, the wall moved by ``ahead_ms``."""

    ahead_ms: int = 0

    def now_ms(self) -> int:
        """The wall clock, as it was turned."""
        return SystemClock().now_ms() + self.ahead_ms

    def monotonic(self) -> float:
        """Nobody turns this one."""
        return time.monotonic()


class Room:
    """A database with outbox and inbox, its relays, and a consumer of order events whose use case fails as planned."""

    def __init__(self, folder: Path, kafka: str) -> None:
        """Make the tables."""
        self.kafka, self.clock = kafka, TurnedClock()
        self.database = Database(f"sqlite:///{folder / 'room.db'}")
        self.ids = IdMaker(SystemClock(), 1)
        self.parts: list[Part] = []
        self.plan: dict[str, list[Exception]] = {}
        self.tries: Counter[str] = Counter()
        with self.database.write() as connection:
            metadata.create_all(connection)
            connection.commit()

    def relay(self, *, clock: TurnedClock | None = None, unread_max: int = 0) -> Relay:
        """Start a relay of the payment room over this outbox."""
        relay = Relay("payment", self.database, (outbox, lease), self.kafka, clock or self.clock, unread_max=unread_max)
        return self.start(relay)

    def consumer(self) -> EventConsumer:
        """Start the consumer: every subscription leads to ``take``."""
        batcher = self.start(Batcher({"take": self.take}))
        messages = (order_event_pb2.OrderCreated, order_event_pb2.OrderCancelled, order_event_pb2.OrderPaymentRejected)
        subscriptions = tuple(Subscription(m, lambda e, event_id: (e.order_id, event_id), "take") for m in messages)
        return self.start(EventConsumer("payment", subscriptions, batcher, self.kafka))

    def start(self, part: P) -> P:
        """Start a part that is stopped at the end."""
        part.start()
        self.parts.append(part)
        return part

    def stop(self) -> None:
        """Stop what was started."""
        for part in reversed(self.parts):
            part.stop()
        self.database.stop()

    def take(self, items: Sequence[tuple[int, str]]) -> list[object]:
        """A use case: each event has its effect once; those in the plan fail as it says."""
        outcomes: list[object] = []
        with self.database.write() as connection:
            unseen = inboxes.unseen(connection, inbox, [event_id for _, event_id in items])
            for order_id, event_id in items:
                self.tries[event_id] += 1
                if self.plan.get(event_id):
                    outcomes.append(self.plan[event_id].pop(0))
                    continue
                if event_id in unseen:
                    insert_rows(connection, effects, [{"order_id": order_id, "event_id": event_id}])
                    inboxes.mark(connection, inbox, [(event_id, CREATED)], 1)
                outcomes.append(None)
            connection.commit()
        return outcomes

    def taken(self) -> list[str]:
        """The events that had an effect, in the order of the effects."""
        with self.database.read() as connection:
            return list(connection.execute(sa.select(effects.c.event_id).order_by(sa.text("rowid"))).scalars())

    def tell(self, payment_id: int, *versions: int, topic: str = "initiated") -> None:
        """Write events of a payment into the outbox."""
        kind = payment_event_pb2.PaymentInitiated if topic == "initiated" else payment_event_pb2.PaymentSuccess
        with self.database.write() as connection:
            events = [kind(payment_id=payment_id, version=version) for version in versions]
            outboxes.append(connection, outbox, events, self.ids, self.clock.now_ms())
            connection.commit()

    def unpublished(self) -> int:
        """How many events wait for the relay."""
        query = sa.select(sa.func.count()).select_from(outbox).where(outbox.c.published_ms.is_(None))
        with self.database.read() as connection:
            return connection.execute(query).scalar_one()

    def owner(self) -> tuple[str, int]:
        """Who holds the lease, and its fence; nobody yet: "" and 0."""
        with self.database.read() as connection:
            row = connection.execute(sa.select(lease.c.owner, lease.c.fence)).one_or_none()
        return (row.owner, row.fence) if row else ("", 0)

    def publish(self, *records: Record) -> None:
        """Send foreign records."""
        assert all(EventProducer(self.kafka).publish(records))


def created(order_id: int, event_id: str) -> Record:
    """An order.created as the order room's relay would send it."""
    event = order_event_pb2.OrderCreated(order_id=order_id, version=1)
    return Record(CREATED, str(order_id).encode(), event.SerializeToString(), (("ce_id", event_id.encode()),))


def read(kafka: str, topic: str, count: int, within: float = 10) -> list[Any]:
    """Read ``count`` messages of a topic from its beginning, or what there is in time."""
    consumer = reader(kafka, [topic], within)
    found: list[Any] = []
    until = time.monotonic() + within
    while len(found) < count and time.monotonic() < until:
        found += [m for m in consumer.consume(500, timeout=0.2) if m.error() is None]
    consumer.close()
    return found


@pytest.fixture
def room(tmp_path: Path, kafka: str) -> Iterator[Room]:
    made = Room(tmp_path, kafka)
    yield made
    made.stop()


def test_relay_publishes_exactly_the_outbox_in_the_order_of_each_key(room: Room) -> None:
    """Every row once, the versions of a thing ascending whatever their ids say, marked with the broker that has them."""
    for payment_id in range(1, 31):
        room.tell(payment_id, 3, 1, 2)  # ids descend where clocks of two processes differ
    room.relay()
    assert eventually(lambda: room.unpublished() == 0)
    messages = read(room.kafka, "payment.initiated", 91, within=3)
    assert len(messages) == 90
    seen: dict[bytes, list[int]] = {}
    for message in messages:
        event = payment_event_pb2.PaymentInitiated.FromString(message.value())
        seen.setdefault(message.key(), []).append(event.version)
    assert seen == {str(n).encode(): [1, 2, 3] for n in range(1, 31)}
    assert len({dict(m.headers())["ce_id"] for m in messages}) == 90


def test_relay_waits_while_another_holds_the_lease_and_follows_at_once_when_it_is_released(room: Room) -> None:
    """One publishes; a stop hands over; a relay that vanished is followed within about 5 s, with a higher fence."""
    first = room.relay()
    assert eventually(lambda: room.unpublished() == 0 and room.owner()[0] == first._owner)
    second = room.relay()
    room.tell(1, 1)
    assert eventually(lambda: room.unpublished() == 0)
    assert room.owner() == (first._owner, 1)
    began = time.monotonic()
    first.stop()
    assert eventually(lambda: room.owner()[0] == second._owner, within=3), time.monotonic() - began
    assert room.owner()[1] == 2


@pytest.mark.parametrize("ahead_ms", [0, -600_000, 600_000])
def test_lease_of_a_dead_relay_is_taken_over_in_time_whatever_the_wall_clock_says(room: Room, ahead_ms: int) -> None:
    """A kill leaves a lease behind. It ends after 5 s, also when the clock was turned back ten minutes meanwhile."""
    with room.database.write() as connection:
        until = room.clock.now_ms() + 5_000
        insert_rows(connection, lease, [{"name": "outbox", "owner": "the dead", "fence": 7, "until_ms": until}])
        connection.commit()
    room.tell(1, 1)
    began = time.monotonic()
    room.relay(clock=TurnedClock(ahead_ms))
    assert eventually(lambda: room.unpublished() == 0, within=8)
    took = time.monotonic() - began
    assert took > 4 if ahead_ms <= 0 else took < 4
    assert room.owner()[1] == 8


def test_new_broker_gets_everything_again_and_consumers_take_it_once(room: Room) -> None:
    """The embedded broker forgets all; young events are published again, and the inbox knows them."""
    for payment_id in range(1, 11):
        room.tell(payment_id, 1)
    relay = room.relay()
    assert eventually(lambda: room.unpublished() == 0)
    first = {dict(m.headers())["ce_id"] for m in read(room.kafka, "payment.initiated", 10)}
    relay.stop()
    room.tell(11, 1)
    with start_broker() as room.kafka:
        room.relay()
        assert eventually(lambda: room.unpublished() == 0)
        second = {dict(m.headers())["ce_id"] for m in read(room.kafka, "payment.initiated", 11)}
        assert first < second
        assert len(second) == 11
        room.consumer()
        room.publish(created(1, "order-1"))
        assert eventually(lambda: room.taken() == ["order-1"])
        with start_broker() as newer:
            again = Room.__new__(Room)
            again.__dict__.update(room.__dict__, kafka=newer)
            again.publish(created(1, "order-1"), created(2, "order-2"))
            again.consumer()
            assert eventually(lambda: "order-2" in room.taken())
            assert sorted(room.taken()) == ["order-1", "order-2"]


def test_old_events_are_not_told_to_a_new_broker(room: Room) -> None:
    """Inboxes forget after 14 days; what is older than 7 stays published."""
    room.clock.ahead_ms = -8 * 24 * 3600 * 1000
    room.tell(1, 1)
    room.clock.ahead_ms = 0
    room.tell(2, 1)
    with room.database.write() as connection:
        connection.execute(sa.update(outbox).values(published_ms=1, broker_id="a broker that is gone"))
        connection.commit()
    room.relay()
    assert eventually(lambda: len(read(room.kafka, "payment.initiated", 1, within=1)) == 1)
    assert [m.key() for m in read(room.kafka, "payment.initiated", 2, within=2)] == [b"2"]


def test_relay_holds_back_while_a_consumer_is_away(room: Room) -> None:
    """No partition gets far more unread than the embedded broker keeps; other topics go on; with the consumer all flows."""
    for n in range(1, 401):
        room.tell(7, n, topic="success")  # one key: one partition
    room.tell(8, 1)
    room.relay(unread_max=100)
    assert eventually(lambda: room.unpublished() <= 300)
    time.sleep(1.5)
    assert 250 <= room.unpublished() <= 300  # at most 100 unread, and a batch of 50 on its way
    assert len(read(room.kafka, "payment.initiated", 1)) == 1
    groups = [group_consumer(room.kafka, f"paymesh.{name}") for name in ("order", "notification")]
    seen: list[list[int]] = [[], []]
    for group in groups:  # both that the contract names: the slowest one bounds the relay
        group.list_topics("payment.success", timeout=5)
        group.subscribe(["payment.success"])

    def follow() -> bool:
        for group, versions in zip(groups, seen, strict=True):
            messages = [m for m in group.consume(100, timeout=0.1) if m.error() is None]
            versions.extend(payment_event_pb2.PaymentSuccess.FromString(m.value() or b"").version for m in messages)
            if messages:
                group.commit(asynchronous=False)
        return min(map(len, seen)) >= 400

    assert eventually(follow, within=30)
    for group in groups:
        group.close()
    assert seen == [list(range(1, 401))] * 2
    assert eventually(lambda: room.unpublished() == 0)


def test_duplicates_and_disorder_have_one_effect_each(room: Room) -> None:
    """The same event twice in a batch, in two batches, before and after its neighbour: once."""
    room.consumer()
    room.publish(created(2, "order-2"), created(1, "order-1"), created(2, "order-2"), created(2, "order-2"))
    assert eventually(lambda: len(room.taken()) == 2)
    room.publish(created(1, "order-1"), created(2, "order-2"), created(3, "order-3"))
    assert eventually(lambda: len(room.taken()) == 3)
    assert sorted(room.taken()) == ["order-1", "order-2", "order-3"]


def test_event_that_fails_three_times_has_its_effect_at_last(room: Room) -> None:
    """A fault that passes costs time, not the event."""
    room.plan["order-1"] = [RuntimeError("not yet")] * 3
    room.consumer()
    room.publish(created(1, "order-1"))
    assert eventually(lambda: room.taken() == ["order-1"])
    assert room.tries["order-1"] == 4


def test_poison_goes_to_the_dead_letters_and_the_partition_goes_on(room: Room) -> None:
    """No message, no id, a use case that always fails: after 5 tries at most, within 5 s, with what was sent and why."""
    room.plan["order-bad"] = [RuntimeError("never")] * 99
    garbage = Record(CREATED, b"1", b"\xff\xff", (("ce_id", b"order-garbage"),))
    nameless = Record(CREATED, b"1", b"", ())
    room.consumer()
    began = time.monotonic()
    room.publish(garbage, created(1, "order-bad"), nameless, created(1, "order-good"))
    room.publish(created(1, "order-next"))
    assert eventually(lambda: room.taken() == ["order-good", "order-next"])
    assert time.monotonic() - began < 10
    assert room.tries["order-bad"] == 5
    dead = read(room.kafka, f"{CREATED}.dead_letter", 3)
    failures = {dict(m.headers()).get("ce_id", b""): dict(m.headers())["paymesh_failure"].decode() for m in dead}
    assert failures.keys() == {b"order-garbage", b"order-bad", b""}
    assert failures[b"order-bad"] == "never"
    assert {m.value() for m in dead} >= {b"\xff\xff", b""}


def test_event_waits_while_the_database_is_away_for_that_is_not_its_fault(room: Room) -> None:
    """UNAVAILABLE is no poison: however often it comes, the event has its effect when it is over."""
    room.plan["order-1"] = [DomainError("UNAVAILABLE")] * 7
    room.consumer()
    room.publish(created(1, "order-1"))
    assert eventually(lambda: room.taken() == ["order-1"], within=30)
    assert read(room.kafka, f"{CREATED}.dead_letter", 1, within=1) == []


def test_batch_comes_again_when_the_consumer_ended_before_its_offsets(room: Room) -> None:
    """A stop in the middle loses nothing and repeats nothing."""
    room.plan["order-1"] = [RuntimeError("not yet")] * 3
    consumer = room.consumer()
    room.publish(created(1, "order-1"), created(2, "order-2"))
    assert eventually(lambda: room.taken() == ["order-2"])
    consumer.stop()
    room.plan.clear()
    room.consumer()
    assert eventually(lambda: sorted(room.taken()) == ["order-1", "order-2"])
