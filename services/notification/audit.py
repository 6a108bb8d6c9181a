"""What `paymesh verify` reads of notification."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from services.platform.audit import SHOWN, Finding, Since, count, outbox_published, versions_without_gap
from services.platform.inbox import inbox_table
from services.platform.outbox import outbox_tables

if TYPE_CHECKING:
    from collections.abc import Iterable

_SILENT = ("user.updated",)
"""Topics whose effect is no notification."""
_FAILED = "notification.failed"

_metadata = sa.MetaData()
_outbox, _ = outbox_tables(_metadata)
_inbox = inbox_table(_metadata)
_notifications = sa.table(
    "notifications",
    sa.column("id", sa.BigInteger),
    sa.column("event_id", sa.String),
    sa.column("status", sa.String),
)


def invariants(
    connection: sa.Connection,
    settled: bool,  # noqa: FBT001 - every room's signature
    now_ms: int,
    since: Since | None = None,
) -> Iterable[Finding]:
    """I7 and I8 of notification's event, and that every event taken had its effect exactly once."""
    since = since or Since()
    yield outbox_published(connection, _outbox, now_ms, settled=settled, since=since)
    yield versions_without_gap(connection, _outbox, (_FAILED,), "notification", since)
    yield _told_once(connection, since)
    yield _given_up(connection, since)


def _told_once(connection: sa.Connection, since: Since) -> Finding:
    """I7, second half: each event in the inbox has one notification."""
    n = sa.func.count(_notifications.c.id).label("n")
    new = (_inbox.c.topic.not_in(_SILENT), _inbox.c.taken_ms >= since.ms)
    query = (
        sa.select(_inbox.c.event_id, _inbox.c.topic, n)
        .select_from(_inbox.outerjoin(_notifications, _notifications.c.event_id == _inbox.c.event_id))
        .where(*new)
        .group_by(_inbox.c.event_id, _inbox.c.topic)
        .having(n != 1)
    )
    rows = connection.execute(query.limit(SHOWN))
    breaches = [f"event {row.event_id} of {row.topic} has {row.n} notifications" for row in rows]
    return Finding("I7", "events told", count(connection, _inbox, *new), breaches)


def _given_up(connection: sa.Connection, since: Since) -> Finding:
    """I7: each notification that failed has its event, and no other has one. All that failed are looked at."""
    n, o = _notifications.c, _outbox.c
    failed = n.status == "failed"
    told = sa.exists().where(o.event_key == sa.cast(n.id, sa.String(64)), o.topic == _FAILED)
    untold = connection.execute(sa.select(n.id).where(failed, ~told).limit(SHOWN)).scalars()
    breaches = [f"notification {each} failed without an event" for each in untold]
    there = sa.exists().where(failed, n.id == sa.cast(o.event_key, sa.BigInteger))
    new = o.id > since.new_ids(connection, _outbox)
    strays = connection.execute(sa.select(o.event_key).where(o.topic == _FAILED, new, ~there).limit(SHOWN)).scalars()
    breaches += [f"notification {each} has an event and did not fail" for each in strays]
    examined = connection.execute(sa.select(sa.func.count()).select_from(_notifications).where(failed)).scalar_one()
    return Finding("I7", "failed notifications with their event", int(examined), breaches[:SHOWN])
