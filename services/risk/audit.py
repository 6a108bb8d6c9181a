"""What `paymesh verify` reads of risk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from services.platform.audit import Finding, Since, each_told, outbox_published, versions_without_gap
from services.platform.outbox import outbox_tables

if TYPE_CHECKING:
    from collections.abc import Iterable

_outbox, _ = outbox_tables(sa.MetaData())
_MADE = ("id", "create_ms")
_assessments = sa.table(
    "assessments", *(sa.column(name, sa.BigInteger) for name in _MADE), sa.column("decision", sa.String)
)
_alerts = sa.table("alerts", *(sa.column(name, sa.BigInteger) for name in _MADE))


def invariants(
    connection: sa.Connection,
    settled: bool,  # noqa: FBT001 - every room's signature
    now_ms: int,
    since: Since | None = None,
) -> Iterable[Finding]:
    """I7 and I8 of risk's events, and that every alert and every block has its event."""
    since = since or Since()
    yield outbox_published(connection, _outbox, now_ms, settled=settled, since=since)
    yield versions_without_gap(connection, _outbox, ("risk.alert",), "alert", since)
    yield versions_without_gap(connection, _outbox, ("risk.block",), "assessment", since)
    yield each_told(connection, _outbox, _alerts, "risk.alert", "alert", since)
    blocks = _assessments.c.decision == "block"
    yield each_told(connection, _outbox, _assessments, "risk.block", "blocking assessment", since, blocks)
