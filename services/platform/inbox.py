"""The inbox: a consumer writes an event's id in the transaction of its effect, so that a repeat finds it and does nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from services.platform.database import insert_rows, select_rows

if TYPE_CHECKING:
    from collections.abc import Sequence


def inbox_table(metadata: sa.MetaData) -> sa.Table:
    """Declare the table ``inbox`` in a room's metadata. Rows are kept for 14 days."""
    return sa.Table(
        "inbox",
        metadata,
        sa.Column("event_id", sa.String(80), primary_key=True),
        sa.Column("topic", sa.String(64), nullable=False),
        sa.Column("taken_ms", sa.BigInteger, nullable=False, index=True),
    )


def unseen(connection: sa.Connection, inbox: sa.Table, event_ids: Sequence[str]) -> set[str]:
    """Return those of ``event_ids`` that were not handled yet."""
    rows = select_rows(connection, inbox, ("event_id",), ("event_id",), [(event_id,) for event_id in event_ids])
    return set(event_ids) - {row[0] for row in rows}


def mark(connection: sa.Connection, inbox: sa.Table, events: Sequence[tuple[str, str]], now_ms: int) -> None:
    """Record (event id, topic) pairs as handled, within the caller's transaction; each once."""
    rows = [{"event_id": event_id, "topic": topic, "taken_ms": now_ms} for event_id, topic in dict.fromkeys(events)]
    insert_rows(connection, inbox, rows)
