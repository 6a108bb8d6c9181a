"""What `paymesh verify` reads of risk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from services.platform.audit import Finding, outbox_published, versions_without_gap
from services.platform.outbox import outbox_tables

if TYPE_CHECKING:
    from collections.abc import Iterable

_SHOWN = 20

_outbox, _ = outbox_tables(sa.MetaData())
_assessments = sa.table("assessments", sa.column("id", sa.BigInteger), sa.column("decision", sa.String))
_alerts = sa.table("alerts", sa.column("id", sa.BigInteger), sa.column("assessment_id", sa.BigInteger))


def invariants(connection: sa.Connection, settled: bool, now_ms: int) -> Iterable[Finding]:  # noqa: FBT001 - every room's signature
    """I7 and I8 of risk's events, and that every alert and every block has its event."""
    yield outbox_published(connection, _outbox, now_ms, settled=settled)
    yield versions_without_gap(connection, _outbox, ("risk.alert",), "alert")
    yield versions_without_gap(connection, _outbox, ("risk.block",), "assessment")
    yield _evented(connection, sa.select(_alerts.c.id), "risk.alert", "alert")
    blocked = sa.select(_assessments.c.id).where(_assessments.c.decision == "block")
    yield _evented(connection, blocked, "risk.block", "blocking assessment")


def _evented(connection: sa.Connection, things: sa.Select[tuple[int]], topic: str, what: str) -> Finding:
    """I7: each of ``things`` (a query of ids) has its event of ``topic``, and no event is of something else."""
    ids = {str(each) for each in connection.execute(things).scalars()}
    keys = set(connection.execute(sa.select(_outbox.c.event_key).where(_outbox.c.topic == topic)).scalars())
    breaches = [f"{what} {each} has no {topic}" for each in sorted(ids - keys)]
    breaches += [f"{topic} of {each}, which is no {what}" for each in sorted(keys - ids)]
    return Finding("I7", f"{what}s with their event", len(ids), breaches[:_SHOWN])
