"""What `paymesh verify` reads of notification."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from services.platform.audit import Finding, outbox_published, versions_without_gap
from services.platform.inbox import inbox_table
from services.platform.outbox import outbox_tables

if TYPE_CHECKING:
    from collections.abc import Iterable

_SHOWN = 20
_SILENT = ("user.updated",)
"""Topics whose effect is no notification."""

_metadata = sa.MetaData()
_outbox, _ = outbox_tables(_metadata)
_inbox = inbox_table(_metadata)
_notifications = sa.table(
    "notifications",
    sa.column("id", sa.BigInteger),
    sa.column("event_id", sa.String),
    sa.column("status", sa.String),
)


def invariants(connection: sa.Connection, settled: bool, now_ms: int) -> Iterable[Finding]:  # noqa: FBT001 - every room's signature
    """I7 and I8 of notification's event, and that every event taken had its effect exactly once."""
    yield outbox_published(connection, _outbox, now_ms, settled=settled)
    yield versions_without_gap(connection, _outbox, ("notification.failed",), "notification")
    yield _told_once(connection)
    yield _given_up(connection)


def _told_once(connection: sa.Connection) -> Finding:
    """I7, second half: each event in the inbox has one notification."""
    count = sa.func.count(_notifications.c.id)
    query = (
        sa.select(_inbox.c.event_id, _inbox.c.topic, count.label("n"))
        .select_from(_inbox.outerjoin(_notifications, _notifications.c.event_id == _inbox.c.event_id))
        .where(_inbox.c.topic.not_in(_SILENT))
        .group_by(_inbox.c.event_id, _inbox.c.topic)
    )
    examined = 0
    breaches: list[str] = []
    for row in connection.execute(query):
        examined += 1
        if row.n != 1 and len(breaches) < _SHOWN:
            breaches.append(f"event {row.event_id} of {row.topic} has {row.n} notifications")
    return Finding("I7", "events told", examined, breaches)


def _given_up(connection: sa.Connection) -> Finding:
    """I7: each notification that failed has its event, and no other has one."""
    failed = sa.select(_notifications.c.id).where(_notifications.c.status == "failed")
    ids = {str(each) for each in connection.execute(failed).scalars()}
    keys = set(connection.execute(sa.select(_outbox.c.event_key)).scalars())
    breaches = [f"notification {each} failed without an event" for each in sorted(ids - keys)]
    breaches += [f"notification {each} has an event and did not fail" for each in sorted(keys - ids)]
    return Finding("I7", "failed notifications with their event", len(ids), breaches[:_SHOWN])
