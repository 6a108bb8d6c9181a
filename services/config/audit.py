"""What `paymesh verify` reads of config: entries, their history and their events agree."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from services.config.store import ENTRIES, HISTORY, OUTBOX
from services.platform.audit import Finding, Since, outbox_published, versions_without_gap

if TYPE_CHECKING:
    from collections.abc import Iterator

_SHOWN = 20


def invariants(
    connection: sa.Connection, now_ms: int, *, settled: bool, since: Since | None = None
) -> Iterator[Finding]:
    """Check config's invariants one by one; entries are few, and all are looked at in every run."""
    since = since or Since()
    yield outbox_published(connection, OUTBOX, now_ms, settled=settled, since=since)
    yield versions_without_gap(connection, OUTBOX, ("config.changed",), "config entry")
    yield _history(connection)


def _history(connection: sa.Connection) -> Finding:
    """I8: every entry is the last version of its history, which has each version from 1 once."""
    e, h = ENTRIES.c, HISTORY.c
    counted = (
        sa.select(h.config_key, sa.func.count().label("n"), sa.func.max(h.version).label("last"))
        .group_by(h.config_key)
        .subquery()
    )
    query = (
        sa.select(e.config_key, e.version, e.value, counted.c.n, counted.c.last, h.value.label("kept"))
        .outerjoin_from(ENTRIES, counted, counted.c.config_key == e.config_key)
        .outerjoin(HISTORY, sa.and_(h.config_key == e.config_key, h.version == e.version))
    )
    examined, breaches = 0, []
    for row in connection.execute(query):
        examined += 1
        if not (row.version == row.n == row.last and row.value == row.kept):
            breaches.append(f"{row.config_key} is at version {row.version}, its history has {row.n} up to {row.last}")
    return Finding("I8", "history of config entries", examined, breaches[:_SHOWN])
