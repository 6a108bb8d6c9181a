"""The relay: publishes outbox rows in batches, one relay per database by a lease, and marks what arrived."""

from __future__ import annotations

import datetime as dt
import threading
import uuid
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from confluent_kafka import KafkaException

from services.contract.load import contract
from services.platform import telemetry
from services.platform.broker import Backlog, EventProducer, Record
from services.platform.database import failure_of

if TYPE_CHECKING:
    from services.kernel.clock import Clock
    from services.platform.database import Database

LEASE_MS = 5_000
BATCH_MAX = 500
REPUBLISH_MS = 7 * 24 * 3600 * 1000
"""Rows younger than this are published again on a new broker; inboxes remember twice as long."""


class Relay:
    """Moves one database's outbox to the broker. A thread; ``nudge`` wakes it after a commit."""

    def __init__(
        self,
        service: str,
        database: Database,
        tables: tuple[sa.Table, sa.Table],
        servers: str,
        clock: Clock,
        *,
        unread_max: int = 0,
    ) -> None:
        """Relay ``tables`` (outbox, relay_lease) of ``service``; ``unread_max`` as in ServiceSettings."""
        self._service, self._database, self._clock = service, database, clock
        self._outbox, self._lease = tables
        self._servers, self._unread_max = servers, unread_max
        self._owner = uuid.uuid4().hex
        self._wake, self._stopping = threading.Event(), False
        self._thread = threading.Thread(target=self._work, name="relay", daemon=True)
        self._sent: dict[str, int] = defaultdict(int)
        self._broker = ""
        events = {e.topic: e.consumers for e in contract().events.values() if e.service == service}
        self._groups = {topic: [f"paymesh.{c}" for c in consumers] for topic, consumers in events.items()}

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; what is not published stays in the outbox."""
        self._stopping = True
        self._wake.set()
        self._thread.join(timeout=10)

    def nudge(self) -> None:
        """Say that there is something to publish. Callable from any thread."""
        self._wake.set()

    def _work(self) -> None:
        producer = EventProducer(self._servers)
        backlog = Backlog(self._servers, sorted({g for gs in self._groups.values() for g in gs}))
        while not self._stopping:
            moved = 0
            try:
                if self._hold_lease():
                    self._broker = self._broker or self._greet(producer)
                    moved = self._move(producer, backlog)
            except KafkaException:
                self._broker = ""  # ask again who it is: it may be a new one
                telemetry.log.warning("relay.broker_unavailable", service=self._service)
            except Exception as error:
                if failure_of(error) is None:
                    telemetry.log.exception("relay.failed", service=self._service)
            if not moved:
                self._wake.wait(0.25)
                self._wake.clear()
        producer.stop()
        backlog.stop()

    def _hold_lease(self) -> bool:
        """Take or prolong the lease; the fence ascends with each new owner."""
        now, lease = self._clock.now_ms(), self._lease
        with self._database.read() as tx:
            held = tx.execute(sa.select(lease.c.owner, lease.c.until_ms, lease.c.fence)).first()
        if held and held.owner != self._owner and held.until_ms > now:
            return False
        if held and held.owner == self._owner and held.until_ms - now > LEASE_MS // 2:
            return True
        with self._database.write() as tx:
            if held is None:
                row = {"name": "outbox", "owner": self._owner, "fence": 1, "until_ms": now + LEASE_MS}
                tx.execute(sa.insert(lease).values(row))
                taken = 1
            else:
                fence = held.fence + (held.owner != self._owner)
                mine = sa.and_(lease.c.fence == held.fence, lease.c.owner == held.owner)
                change = sa.update(lease).where(mine).values(owner=self._owner, fence=fence, until_ms=now + LEASE_MS)
                taken = tx.execute(change).rowcount
            tx.commit()
        return taken == 1

    def _greet(self, producer: EventProducer) -> str:
        """Learn which broker this is; rows that only another one has are unpublished again."""
        broker, o = producer.broker_id(), self._outbox
        stale = sa.and_(
            o.c.published_ms.is_not(None),
            o.c.broker_id != broker,
            o.c.event_ms > self._clock.now_ms() - REPUBLISH_MS,
        )
        with self._database.write() as tx:
            again = tx.execute(sa.update(o).where(stale).values(published_ms=None)).rowcount
            tx.commit()
        if again:
            telemetry.log.info("relay.republish", service=self._service, events=again)
        return broker

    def _move(self, producer: EventProducer, backlog: Backlog) -> int:
        o = self._outbox
        full = [topic for topic in self._groups if self._is_full(topic, backlog)]
        query = sa.select(o).where(o.c.published_ms.is_(None), o.c.topic.not_in(full)).order_by(o.c.id).limit(BATCH_MAX)
        with self._database.read() as tx:
            rows = tx.execute(query).all()
        telemetry.OUTBOX_LAG.set(len(rows))
        if not rows:
            return 0
        arrived = producer.publish([self._record(row) for row in rows])
        ids = [row.id for row, has in zip(rows, arrived, strict=True) if has]
        for row in rows:
            self._sent[row.topic] += 1
        with self._database.write() as tx:
            done = {"published_ms": self._clock.now_ms(), "broker_id": self._broker}
            tx.execute(sa.update(o).where(o.c.id.in_(ids)).values(done))
            tx.commit()
        if len(ids) < len(rows):
            raise KafkaException(f"{len(rows) - len(ids)} of {len(rows)} events did not arrive")
        return len(rows)

    def _is_full(self, topic: str, backlog: Backlog) -> bool:
        """Whether a topic has as much unread as the embedded broker keeps safely; asked only after enough was sent."""
        if not self._unread_max or self._sent[topic] < self._unread_max // 2:
            return False
        if backlog.unread(topic, self._groups[topic]) >= self._unread_max:
            return True
        self._sent[topic] = 0
        return False

    def _record(self, row: Any) -> Record:  # noqa: ANN401 - a SQLAlchemy Row
        """Render a row as a CloudEvents 1.0 message in Kafka's binary mode."""
        time = dt.datetime.fromtimestamp(row.event_ms / 1000, dt.UTC).isoformat(timespec="milliseconds")
        headers = {
            "ce_specversion": "1.0",
            "ce_id": f"{self._service}-{row.id}",
            "ce_source": f"/paymesh/{self._service}",
            "ce_type": row.topic,
            "ce_subject": row.event_key,
            "ce_time": time,
            "content-type": "application/protobuf",
            "traceparent": row.traceparent,
        }
        encoded = tuple((key, value.encode()) for key, value in headers.items() if value)
        return Record(row.topic, row.event_key.encode(), row.payload, encoded)
