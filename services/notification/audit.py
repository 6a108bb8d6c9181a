"""What `paymesh verify` reads of notification."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from services.notification import states
from services.notification.domain.webhook import SCHEDULE_MS
from services.notification.store.tables import inbox as _inbox
from services.notification.store.tables import notifications as _notifications
from services.notification.store.tables import outbox as _outbox
from services.notification.store.tables import webhook_deliveries
from services.platform.audit import SHOWN, Finding, Since, count, outbox_published, versions_without_gap

if TYPE_CHECKING:
    from collections.abc import Iterable

_MAILED = ("user.created", "order.paid", "payment.failed", "payment.refunded", "risk.alert", "risk.block")
"""Topics whose effect is a notification, whatever else it is."""
_FAILED = "notification.failed"


def invariants(
    connection: sa.Connection,
    settled: bool,  # noqa: FBT001 - every room's signature
    now_ms: int,
    since: Since | None = None,
) -> Iterable[Finding]:
    """I7 and I8 of notification's event, that every event taken had its effect once, and that deliveries come to rest."""
    since = since or Since()
    yield outbox_published(connection, _outbox, now_ms, settled=settled, since=since)
    yield versions_without_gap(connection, _outbox, (_FAILED,), "notification", since)
    yield _told_once(connection, since)
    yield _given_up(connection, since)
    yield _delivered(connection, now_ms, settled=settled)


def _told_once(connection: sa.Connection, since: Since) -> Finding:
    """I7, second half: each event in the inbox has one notification."""
    n = sa.func.count(_notifications.c.id).label("n")
    new = (_inbox.c.topic.in_(_MAILED), _inbox.c.taken_ms >= since.ms)
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


def _delivered(connection: sa.Connection, now_ms: int, *, settled: bool) -> Finding:
    """I7: each delivery of an event is at rest, or younger than its schedule."""
    d = webhook_deliveries.c
    waits = sa.select(d.id, d.begin_ms).where(d.status == states.WEBHOOK_DELIVERY_PENDING).order_by(d.begin_ms)
    waiting = connection.execute(waits).all()
    late = [row.id for row in waiting if settled or now_ms - row.begin_ms > SCHEDULE_MS]
    breaches = [f"webhook delivery {each} is still pending" for each in late[:SHOWN]]
    pending = len(waiting) - len(late)
    return Finding("I7", "webhook deliveries at rest", count(connection, webhook_deliveries), breaches, pending)
