"""The outbox: events are rows in the transaction of the change, and a relay publishes them afterwards.

At least once: a row is marked when the broker has it. One relay per database holds a lease; it selects unpublished rows,
never "ids above the last one", since a transaction that began earlier may commit later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from services.contract.load import contract
from services.platform.database import insert_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from google.protobuf.message import Message

    from services.kernel.ids import IdMaker


def outbox_tables(metadata: sa.MetaData) -> tuple[sa.Table, sa.Table]:
    """Declare the tables ``outbox`` and ``relay_lease`` in a room's metadata."""
    outbox = sa.Table(
        "outbox",
        metadata,
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("topic", sa.String(64), nullable=False),
        sa.Column("event_key", sa.String(64), nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.Column("event_ms", sa.BigInteger, nullable=False),
        sa.Column("traceparent", sa.String(55), nullable=False, server_default=""),
        sa.Column("published_ms", sa.BigInteger),
        sa.Column("broker_id", sa.String(64)),
        sa.Index("outbox_unpublished", "published_ms", "id"),
        sa.UniqueConstraint("topic", "event_key", "version", name="outbox_version"),
    )
    lease = sa.Table(
        "relay_lease",
        metadata,
        sa.Column("name", sa.String(16), primary_key=True),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("fence", sa.BigInteger, nullable=False),
        sa.Column("until_ms", sa.BigInteger, nullable=False),
    )
    return outbox, lease


def append(connection: sa.Connection, outbox: sa.Table, events: Sequence[Message], ids: IdMaker, now_ms: int) -> None:
    """Write event messages of the contract into the outbox, in order, within the caller's transaction."""
    known = contract().events
    rows: list[dict[str, Any]] = []
    for event in events:
        policy = known[event.DESCRIPTOR.full_name]
        rows.append(
            {
                "id": ids.next(0),
                "topic": policy.topic,
                "event_key": str(getattr(event, policy.key)),
                "version": getattr(event, policy.version),
                "payload": event.SerializeToString(),
                "event_ms": now_ms,
            }
        )
    insert_rows(connection, outbox, rows)
