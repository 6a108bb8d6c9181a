"""I7 and I8 as every room with an outbox has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from services.platform.audit.digest import Rows, differing
from services.platform.audit.finding import SHOWN, Finding
from services.platform.audit.since import PENDING_MS, Range, Since, count, over

if TYPE_CHECKING:
    from collections.abc import Collection


def outbox_published(
    connection: sa.Connection, outbox: sa.Table, now_ms: int, *, settled: bool, since: Since | None = None
) -> Finding:
    """I7, first half: every outbox row is published; younger ones are pending."""
    since = since or Since()
    late_ms = now_ms if settled else now_ms - PENDING_MS - 1
    waits = outbox.c.published_ms.is_(None)
    waiting = count(connection, outbox, waits)
    late = count(connection, outbox, waits, outbox.c.event_ms <= late_ms) if waiting and not settled else waiting
    rows = sa.select(outbox.c.id, outbox.c.topic).where(waits, sa.true() if settled else outbox.c.event_ms <= late_ms)
    breaches = [
        f"event {row.id} of {row.topic} was never published"
        for row in (connection.execute(rows.order_by(outbox.c.id).limit(SHOWN)) if late else ())
    ]
    new = since.new_ids(connection, outbox)
    examined = count(connection, outbox, *((outbox.c.id > new,) if new else ()))
    return Finding("I7", "events published", max(examined, waiting), breaches, waiting - late)


def versions_without_gap(
    connection: sa.Connection, outbox: sa.Table, topics: tuple[str, ...], aggregate: str, since: Since | None = None
) -> Finding:
    """I8: over the ``topics`` of one kind of aggregate, versions ascend from 1 without a gap."""
    since, o = since or Since(), outbox.c
    keys = new_keys(connection, outbox, topics, since)
    n, low, high = sa.func.count().label("n"), sa.func.min(o.version).label("low"), sa.func.max(o.version).label("high")
    grouped = (
        sa.select(o.event_key, n, low, high)
        .where(o.topic.in_(topics))
        .group_by(o.event_key)
        .having(sa.or_(low != 1, high != n, sa.func.count(o.version.distinct()) != n))
    )
    breaches = [
        f"{aggregate} {row.event_key} has {row.n} events with versions {row.low} to {row.high}"
        for row in over(connection, grouped, o.event_key, keys)
    ]
    first = (o.topic.in_(topics), o.version == 1)
    examined = count(connection, outbox, *first) if keys is None else len(keys)
    return Finding("I8", f"versions of each {aggregate}", max(examined, len(breaches)), breaches[:SHOWN])


def events_told(
    connection: sa.Connection, outbox: sa.Table, topics: tuple[str, ...], told: tuple[sa.Column[int], sa.Column[int]]
) -> list[Range]:
    """I8 over everything: return the ranges of ids in which things did not tell events numbered from 1 to what they say.

    ``told`` are the id of a thing and how many events it has told, over all of ``topics``.
    """
    key, n = told
    numbered = n * (n + 1) * (2 * n + 1) // 6 + n  # the sum of v * v + 1 over v from 1 to n
    o = outbox.c
    events = Rows(connection, sa.cast(o.event_key, sa.BigInteger), sa.literal(0), o.version * o.version + 1,
                  where=(o.topic.in_(topics),))  # fmt: skip
    return differing(Rows(connection, key, sa.literal(0), numbered, times=n), events)[0]


def new_keys(
    connection: sa.Connection, outbox: sa.Table, topics: tuple[str, ...], since: Since
) -> Collection[str] | None:
    """Return the keys of the events that are new since the last run; None: of all."""
    new = since.new_ids(connection, outbox)
    if not new:
        return None
    query = sa.select(outbox.c.event_key).distinct().where(outbox.c.topic.in_(topics), outbox.c.id > new)
    return set(connection.execute(query).scalars())


def each_told(
    connection: sa.Connection, outbox: sa.Table, things: sa.FromClause, topic: str, what: str, since: Since,
    *where: sa.ColumnElement[bool]
) -> Finding:  # fmt: skip
    """I7: each row of ``things`` (with an id) for which ``where`` holds has its event of ``topic``, and nothing else has.

    New are things by their ``create_ms``, and events.
    """
    o, thing = outbox.c, things.c
    of_topic, new = o.topic == topic, since.new_ids(connection, outbox)
    made = [*where, thing.create_ms >= since.ms] if since.ms else [*where]
    told = sa.exists().where(of_topic, o.event_key == sa.cast(thing.id, sa.String(64)))
    untold = connection.execute(sa.select(thing.id).where(*made, ~told).limit(SHOWN)).scalars()
    breaches = [f"{what} {each} has no {topic}" for each in untold]
    there = sa.exists().where(*where, thing.id == sa.cast(o.event_key, sa.BigInteger))
    strays = connection.execute(sa.select(o.event_key).where(of_topic, o.id > new, ~there).limit(SHOWN)).scalars()
    breaches += [f"{topic} of {each}, which is no {what}" for each in strays]
    examined = connection.execute(sa.select(sa.func.count()).select_from(things).where(*made)).scalar_one()
    return Finding("I7", f"{what}s with their event", int(examined), breaches[:SHOWN])
