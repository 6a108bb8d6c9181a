"""What a room's audit finds, and the two checks that every room with an outbox shares."""

from __future__ import annotations

from dataclasses import dataclass, field

import sqlalchemy as sa

from services.platform.inbox import inbox_table
from services.platform.outbox import outbox_tables

PENDING_MS = 60_000
"""Items younger than this are on their way; with --settled they are breaches."""
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one invariant in one room: rows examined, breaches in words, items that are still on their way."""

    invariant: str
    what: str
    examined: int
    breaches: list[str] = field(default_factory=list)
    pending: int = 0


def outbox_published(connection: sa.Connection, outbox: sa.Table, now_ms: int, *, settled: bool) -> Finding:
    """I7, first half: every outbox row is published; younger ones are pending."""
    waiting = sa.select(outbox.c.id, outbox.c.topic, outbox.c.event_ms).where(outbox.c.published_ms.is_(None))
    rows = connection.execute(waiting).all()
    late = [row for row in rows if settled or now_ms - row.event_ms > PENDING_MS]
    total = connection.execute(sa.select(sa.func.count()).select_from(outbox)).scalar_one()
    breaches = [f"event {row.id} of {row.topic} was never published" for row in late[:_SHOWN]]
    return Finding("I7", "events published", total, breaches, len(rows) - len(late))


def versions_without_gap(
    connection: sa.Connection, outbox: sa.Table, topics: tuple[str, ...], aggregate: str
) -> Finding:
    """I8: over the ``topics`` of one kind of aggregate, versions ascend from 1 without a gap."""
    o = outbox.c
    count, low, high = sa.func.count(), sa.func.min(o.version), sa.func.max(o.version)
    kinds = sa.func.count(o.version.distinct())
    query = (
        sa.select(o.event_key, count.label("n"), low.label("low"), high.label("high"), kinds.label("kinds"))
        .where(o.topic.in_(topics))
        .group_by(o.event_key)
    )  # fmt: skip
    examined = 0
    breaches: list[str] = []
    for row in connection.execute(query):
        examined += 1
        if not (row.low == 1 and row.high == row.n == row.kinds) and len(breaches) < _SHOWN:
            breaches.append(f"{aggregate} {row.event_key} has {row.n} events with versions {row.low} to {row.high}")
    return Finding("I8", f"versions of each {aggregate}", examined, breaches)


def told(connection: sa.Connection, service: str, topic: str) -> dict[str, int]:
    """Return the events of a topic that a service put into its outbox: CloudEvents id -> time in ms."""
    outbox, _ = outbox_tables(sa.MetaData())
    query = sa.select(outbox.c.id, outbox.c.event_ms).where(outbox.c.topic == topic)
    return {f"{service}-{event_id}": event_ms for event_id, event_ms in connection.execute(query)}


def taken(connection: sa.Connection, topic: str) -> set[str]:
    """Return the ids of a topic's events that had their effect in the consumer that this database belongs to."""
    inbox = inbox_table(sa.MetaData())
    return set(connection.execute(sa.select(inbox.c.event_id).where(inbox.c.topic == topic)).scalars())


def effects(topic: str, consumer: str, out: dict[str, int], seen: set[str], now_ms: int, *, settled: bool) -> Finding:
    """I7, second half: every event of ``out`` had its effect in ``consumer``, and no effect is of an unknown event."""
    waiting = [(event_id, ms) for event_id, ms in out.items() if event_id not in seen]
    late = [event_id for event_id, ms in waiting if settled or now_ms - ms > PENDING_MS]
    breaches = [f"{consumer} never handled {event_id} of {topic}" for event_id in late[:_SHOWN]]
    breaches += [
        f"{consumer} handled {event_id} of {topic}, which nobody told"
        for event_id in sorted(seen - out.keys())[:_SHOWN]
    ]
    return Finding("I7", f"{topic} handled by {consumer}", len(out), breaches, len(waiting) - len(late))
