"""What `paymesh verify` reads of notification."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from services.notification import states
from services.notification.domain.webhook import SCHEDULE_MS
from services.notification.store.tables import inbox, notifications, outbox, webhook_deliveries
from services.platform.audit import Finding, outbox_published, versions_without_gap

if TYPE_CHECKING:
    from collections.abc import Iterable

_SHOWN = 20
_MAILED = ("user.created", "order.paid", "payment.failed", "payment.refunded", "risk.alert", "risk.block")
"""Topics whose effect is a notification, whatever else it is."""


def invariants(connection: sa.Connection, settled: bool, now_ms: int) -> Iterable[Finding]:  # noqa: FBT001 - every room's signature
    """I7 and I8 of notification's event, that every event taken had its effect once, and that deliveries come to rest."""
    yield outbox_published(connection, outbox, now_ms, settled=settled)
    yield versions_without_gap(connection, outbox, ("notification.failed",), "notification")
    yield _told_once(connection)
    yield _given_up(connection)
    yield _delivered(connection, now_ms, settled=settled)


def _told_once(connection: sa.Connection) -> Finding:
    """I7, second half: each event in the inbox has one notification."""
    count = sa.func.count(notifications.c.id)
    query = (
        sa.select(inbox.c.event_id, inbox.c.topic, count.label("n"))
        .select_from(inbox.outerjoin(notifications, notifications.c.event_id == inbox.c.event_id))
        .where(inbox.c.topic.in_(_MAILED))
        .group_by(inbox.c.event_id, inbox.c.topic)
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
    failed = sa.select(notifications.c.id).where(notifications.c.status == "failed")
    ids = {str(each) for each in connection.execute(failed).scalars()}
    keys = set(connection.execute(sa.select(outbox.c.event_key)).scalars())
    breaches = [f"notification {each} failed without an event" for each in sorted(ids - keys)]
    breaches += [f"notification {each} has an event and did not fail" for each in sorted(keys - ids)]
    return Finding("I7", "failed notifications with their event", len(ids), breaches[:_SHOWN])


def _delivered(connection: sa.Connection, now_ms: int, *, settled: bool) -> Finding:
    """I7: each delivery of an event is at rest, or younger than its schedule."""
    d = webhook_deliveries.c
    total = connection.execute(sa.select(sa.func.count()).select_from(webhook_deliveries)).scalar_one()
    waits = sa.select(d.id, d.begin_ms).where(d.status == states.WEBHOOK_DELIVERY_PENDING).order_by(d.begin_ms)
    waiting = connection.execute(waits).all()
    late = [row.id for row in waiting if settled or now_ms - row.begin_ms > SCHEDULE_MS]
    breaches = [f"webhook delivery {each} is still pending" for each in late[:_SHOWN]]
    return Finding("I7", "webhook deliveries at rest", total, breaches, len(waiting) - len(late))
