"""The relay: publishes outbox rows in batches, one relay per database by a lease, and marks what arrived."""

from __future__ import annotations

import datetime as dt
import threading
import uuid
from collections import defaultdict
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from confluent_kafka import KafkaException

from services.contract.load import contract
from services.platform import failpoint, telemetry
from services.platform.broker import Backlog, EventProducer, Header, Record
from services.platform.database import failure_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.kernel.clock import Clock
    from services.platform.database import Database

LEASE_MS = 5_000
BATCH_MAX = 500
REPUBLISH_MS = 7 * 24 * 3600 * 1000
"""Rows younger than this are published again on a new broker; inboxes remember twice as long."""
_TICK_S = 0.25
_PACE_S = 0.05
"""Between two batches that were not full: under load a batch then carries many commits, and costs one itself."""
_REPUBLISH_ROWS = 2_000


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
        self._batch_max = min(BATCH_MAX, max(1, unread_max // 2)) if unread_max else BATCH_MAX
        self._owner = uuid.uuid4().hex
        self._renew_at = 0.0
        """Until when, on the monotonic clock, the lease is ours without asking."""
        self._seen: tuple[object, float] = (None, 0.0)
        """The lease as another holds it, and since when it is so, on the monotonic clock."""
        self._wake, self._stopping = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="relay", daemon=True)
        self._sent: dict[str, int] = defaultdict(int)
        self._broker = ""
        self._headers: tuple[Header, ...] = (
            ("ce_specversion", b"1.0"),
            ("ce_source", f"/paymesh/{service}".encode()),
            ("content-type", b"application/protobuf"),
        )
        events = {e.topic: e.consumers for e in contract().events.values() if e.service == service}
        self._groups = {topic: [f"paymesh.{c}" for c in consumers] for topic, consumers in events.items()}

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; what is not published stays in the outbox, for whoever takes the lease next."""
        self._stopping.set()
        self._wake.set()
        self._thread.join(timeout=10)

    def nudge(self) -> None:
        """Say that there is something to publish. Callable from any thread."""
        self._wake.set()

    def _work(self) -> None:
        producer, backlog = EventProducer(self._servers), Backlog(self._servers)
        while not self._stopping.is_set():
            moved = 0
            try:
                if not self._hold_lease():
                    self._broker = ""  # it may be another one when our turn comes
                elif self._broker:
                    moved = self._move(producer, backlog)
                else:
                    self._broker = self._greet(producer)
                    continue
            except KafkaException as error:
                telemetry.log.warning("relay.broker_unavailable", service=self._service, error=str(error))
                self._broker = ""  # ask again who it is: it may be a new one
                producer = EventProducer(self._servers)  # what this one holds is sent anew; it may be beyond repair
            except Exception as error:  # noqa: BLE001 - the relay outlives whatever it met
                if failure_of(error) is None:
                    telemetry.log.exception("relay.failed", service=self._service)
                else:
                    telemetry.log.warning("relay.database_unavailable", service=self._service, error=str(error))
            if moved < self._batch_max:
                self._wait(moved)
        self._release()
        producer.stop()
        backlog.stop()

    def _wait(self, moved: int) -> None:
        """Wait for something to do; after a batch, at least so long that the next one is worth it."""
        if moved:
            self._stopping.wait(_PACE_S)
        self._wake.wait(_TICK_S)
        self._wake.clear()

    def _hold_lease(self) -> bool:
        """Take or prolong the lease; the fence ascends with each new owner."""
        began, lease = self._clock.monotonic(), self._lease
        if began < self._renew_at:
            return True
        with self._database.read() as tx:
            held = tx.execute(sa.select(lease.c.owner, lease.c.until_ms, lease.c.fence)).first()
        if held and held.owner != self._owner and not self._is_vacant(held):
            return False
        until_ms = self._clock.now_ms() + LEASE_MS
        with self._database.write() as tx:
            if held is None:
                row = {"name": "outbox", "owner": self._owner, "fence": 1, "until_ms": until_ms}
                tx.execute(sa.insert(lease).values(row))
                taken = 1
            else:
                fence = held.fence + (held.owner != self._owner)
                same = sa.and_(lease.c.fence == held.fence, lease.c.owner == held.owner)
                change = sa.update(lease).where(same).values(owner=self._owner, fence=fence, until_ms=until_ms)
                taken = tx.execute(change).rowcount
            tx.commit()
        self._renew_at = began + LEASE_MS / 2000 if taken else 0.0
        return bool(taken)

    def _is_vacant(self, held: sa.Row[Any, Any, Any]) -> bool:
        """Whether another's lease is over: by its own time, or, since wall clocks jump, unchanged for as long as it lasts."""
        now, state = self._clock.monotonic(), (held.owner, held.fence, held.until_ms)
        if self._seen[0] != state:
            self._seen = (state, now)
        return bool(held.until_ms <= self._clock.now_ms()) or now - self._seen[1] >= LEASE_MS / 1000

    def _release(self) -> None:
        """Leave the lease to the next one at once."""
        ours = sa.update(self._lease).where(self._lease.c.owner == self._owner).values(until_ms=0)
        try:
            with self._database.write() as tx:
                tx.execute(ours)
                tx.commit()
        except Exception as error:  # noqa: BLE001 - the lease ends by itself
            telemetry.log.info("relay.lease_not_released", service=self._service, error=type(error).__name__)

    def _greet(self, producer: EventProducer) -> str:
        """Learn which broker this is; rows that only another one has are unpublished again, some at a time.

        Returns "" when the lease was lost over it: the next greeting goes on.
        """
        broker, o = producer.broker_id(), self._outbox
        stale = sa.and_(
            o.c.published_ms.is_not(None),
            o.c.broker_id != broker,
            o.c.event_ms > self._clock.now_ms() - REPUBLISH_MS,
        )
        last, again = 0, 0
        while True:
            if self._stopping.is_set() or not self._hold_lease():
                return ""
            query = sa.select(o.c.id).where(stale, o.c.id > last).order_by(o.c.id).limit(_REPUBLISH_ROWS)
            with self._database.write() as tx:
                ids = tx.execute(query).scalars().all()
                tx.execute(sa.update(o).where(o.c.id.in_(ids)).values(published_ms=None))
                tx.commit()
            again += len(ids)
            if len(ids) < _REPUBLISH_ROWS:
                break
            last = ids[-1]
        if again:
            telemetry.log.info("relay.republish", service=self._service, events=again)
        return broker

    def _move(self, producer: EventProducer, backlog: Backlog) -> int:
        o = self._outbox
        full = [topic for topic in self._groups if self._is_full(topic, backlog)]
        waiting = sa.select(o).where(o.c.published_ms.is_(None), o.c.topic.not_in(full))
        with self._database.read() as tx:
            found = tx.execute(waiting.order_by(o.c.id).limit(self._batch_max)).all()
        telemetry.OUTBOX_LAG.set(len(found))
        if not found:
            return 0
        # Ids of two processes do not tell which event of a thing came first; versions do.
        rows = sorted(found, key=lambda row: row.version)
        arrived = producer.publish([self._record(row) for row in rows])
        failpoint.reach("P12", self._service)
        self._mark([row for row, has in zip(rows, arrived, strict=True) if has])
        if not all(arrived):
            raise KafkaException(f"{arrived.count(False)} of {len(rows)} events did not arrive")
        return len(rows)

    def _mark(self, rows: Sequence[sa.Row[Any]]) -> None:
        """Write down that the broker has ``rows``."""
        o = self._outbox
        for row in rows:
            self._sent[row.topic] += 1
        if rows:
            done = {"published_ms": self._clock.now_ms(), "broker_id": self._broker}
            with self._database.write() as tx:
                tx.execute(sa.update(o).where(o.c.id.in_([row.id for row in rows])).values(done))
                tx.commit()

    def _is_full(self, topic: str, backlog: Backlog) -> bool:
        """Whether a topic has as much unread as the embedded broker keeps safely; asked only after enough was sent."""
        if not self._unread_max or self._sent[topic] < self._unread_max // 2:
            return False
        if backlog.unread(topic, self._groups[topic]) >= self._unread_max:
            return True
        self._sent[topic] = 0
        return False

    def _record(self, row: sa.Row[Any]) -> Record:
        """Render a row as a CloudEvents 1.0 message in Kafka's binary mode."""
        key = row.event_key.encode()
        headers = (
            *self._headers,
            ("ce_id", f"{self._service}-{row.id}".encode()),
            ("ce_type", row.topic.encode()),
            ("ce_subject", key),
            ("ce_time", _time(row.event_ms)),
        )
        if row.traceparent:
            headers = (*headers, ("traceparent", row.traceparent.encode()))
        return Record(row.topic, key, row.payload, headers)


@lru_cache(maxsize=64)
def _time(ms: int) -> bytes:
    """Render a time as CloudEvents has it (RFC 3339). The events of a batch share theirs."""
    return dt.datetime.fromtimestamp(ms / 1000, dt.UTC).isoformat(timespec="milliseconds").encode()
