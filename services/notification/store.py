"""Notifications and contacts in SQL."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.mysql import MEDIUMTEXT

from services.kernel.idempotency import Answer, IdempotencyKey, Scope, Stored
from services.notification import mapping, states
from services.notification.domain import Channel, Contact, Notification
from services.platform import idempotency
from services.platform import inbox as inbox_rows
from services.platform import outbox as outbox_rows
from services.platform.database import for_update, insert_rows, update_rows
from services.platform.idempotency import idempotency_table
from services.platform.inbox import inbox_table
from services.platform.outbox import outbox_tables

if TYPE_CHECKING:
    from services.kernel.ids import IdMaker
    from services.kernel.pages import Page
    from services.platform.database import Database

metadata = sa.MetaData()

notifications = sa.Table(
    "notifications",
    metadata,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("user_id", sa.BigInteger, nullable=False),
    sa.Column("channel", sa.String(8), nullable=False),
    sa.Column("recipient", sa.String(200), nullable=False),
    sa.Column("subject", sa.String(200), nullable=False),
    # 20,000 characters of 4 bytes do not fit MySQL's TEXT.
    sa.Column("text", sa.Text().with_variant(MEDIUMTEXT(), "mysql", "mariadb"), nullable=False),
    sa.Column("status", sa.String(8), nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("failure", sa.String(300), nullable=False),
    sa.Column("create_ms", sa.BigInteger, nullable=False),
    sa.Column("send_ms", sa.BigInteger),
    sa.Column("not_before_ms", sa.BigInteger, nullable=False),
    sa.Column("push_ms", sa.BigInteger, nullable=False),
    sa.Column("event_id", sa.String(80)),
    sa.UniqueConstraint("event_id", name="notifications_event"),
    sa.CheckConstraint("channel IN ('sms', 'email', 'push')", name="notifications_channel"),
    sa.CheckConstraint(f"status IN {states.CHECK}", name="notifications_status"),
    sa.Index("notifications_due", "status", "push_ms"),
    sa.Index("notifications_user", "user_id", "id"),
)
contacts = sa.Table(
    "contacts",
    metadata,
    sa.Column("user_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("email", sa.String(100), nullable=False),
    sa.Column("phone", sa.String(20), nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
)
outbox, relay_lease = outbox_tables(metadata)
inbox = inbox_table(metadata)
idempotency_keys = idempotency_table(metadata)

_CHANGING = ("recipient", "status", "attempts", "failure", "send_ms", "not_before_ms", "push_ms")


class SqlTransaction:
    """One transaction over a Connection."""

    def __init__(self, connection: sa.Connection, ids: IdMaker) -> None:
        """Work within ``connection``'s transaction; ``ids`` number the events."""
        self._connection, self._ids = connection, ids

    def stored(self, keys: Iterable[IdempotencyKey | None]) -> Mapping[Scope, Stored]:
        """Read the answers that keys got before."""
        return idempotency.find(self._connection, idempotency_keys, keys)

    def keep(self, kept: Sequence[tuple[IdempotencyKey, Answer]], now_ms: int) -> None:
        """Keep answers under their keys."""
        idempotency.keep(self._connection, idempotency_keys, kept, now_ms)

    def unseen(self, event_ids: Sequence[str]) -> set[str]:
        """Return those of the events that had no effect yet."""
        return inbox_rows.unseen(self._connection, inbox, event_ids)

    def mark(self, events: Sequence[tuple[str, str]], now_ms: int) -> None:
        """Note events as handled."""
        inbox_rows.mark(self._connection, inbox, events, now_ms)

    def contacts(self, user_ids: Collection[int]) -> dict[int, Contact]:
        """Read contacts and lock them, in the order of the users."""
        if not user_ids:
            return {}
        query = sa.select(contacts).where(contacts.c.user_id.in_(user_ids)).order_by(contacts.c.user_id)
        rows = self._connection.execute(for_update(query, self._connection.dialect.name))
        return {row.user_id: Contact(row.user_id, row.email, row.phone, row.version) for row in rows}

    def put_contacts(self, newest: Sequence[Contact]) -> None:
        """Replace contacts."""
        if newest:
            users = [each.user_id for each in newest]
            self._connection.execute(sa.delete(contacts).where(contacts.c.user_id.in_(users)))
        rows = [
            {"user_id": each.user_id, "email": each.email, "phone": each.phone, "version": each.version}
            for each in newest
        ]
        insert_rows(self._connection, contacts, rows)

    def add(self, made: Sequence[Notification]) -> None:
        """Insert notifications."""
        insert_rows(self._connection, notifications, [_row(each) for each in made])

    def lock(self, notification_ids: Collection[int]) -> dict[int, Notification]:
        """Read notifications and lock them, in the order of their ids."""
        n = notifications
        query = sa.select(n).where(n.c.id.in_(notification_ids)).order_by(n.c.id)
        rows = self._connection.execute(for_update(query, self._connection.dialect.name))
        return {row.id: _notification(row) for row in rows}

    def put(self, changed: Sequence[Notification]) -> None:
        """Update what changes of a notification."""
        rows = [{"id": each.id, **{name: getattr(each, name) for name in _CHANGING}} for each in changed]
        update_rows(self._connection, notifications, ("id",), rows)

    def publish_failed(self, given_up: Sequence[Notification], now_ms: int) -> None:
        """Put the events into the outbox."""
        messages = [mapping.failed(each, now_ms) for each in given_up]
        outbox_rows.append(self._connection, outbox, messages, self._ids, now_ms)

    def commit(self) -> None:
        """Make it durable."""
        self._connection.commit()


class SqlStore:
    """Notification's part of the database."""

    def __init__(self, database: Database, ids: IdMaker) -> None:
        """Keep everything in ``database``."""
        self._database, self._ids = database, ids

    @contextmanager
    def transaction(self) -> Iterator[SqlTransaction]:
        """Begin a change; it is rolled back unless committed."""
        with self._database.write() as connection:
            yield SqlTransaction(connection, self._ids)

    def find(self, notification_id: int, owner: int | None) -> Notification | None:
        """Read a notification."""
        n = notifications
        query = sa.select(n).where(n.c.id == notification_id)
        if owner is not None:
            query = query.where(n.c.user_id == owner)
        with self._database.read() as connection:
            row = connection.execute(query).first()
        return None if row is None else _notification(row)

    def list_of(self, user_id: int, page: Page) -> Sequence[Notification]:
        """Read the notifications to a user, newest first."""
        n, after = notifications, page.after_id()
        query = sa.select(n).where(n.c.user_id == user_id).order_by(n.c.id.desc()).limit(page.limit)
        if after is not None:
            query = query.where(n.c.id < after)
        with self._database.read() as connection:
            return [_notification(row) for row in connection.execute(query)]

    def due(self, now_ms: int, most: int) -> list[int]:
        """Read ids of queued notifications whose time to be pushed has come."""
        n = notifications.c
        query = sa.select(n.id).where(n.status == states.QUEUED, n.push_ms <= now_ms).order_by(n.push_ms).limit(most)
        with self._database.read() as connection:
            return list(connection.execute(query).scalars())


def _row(each: Notification) -> dict[str, Any]:
    return {
        "id": each.id,
        "user_id": each.user_id,
        "channel": each.channel.value,
        "recipient": each.recipient,
        "subject": each.subject,
        "text": each.text,
        "status": each.status,
        "attempts": each.attempts,
        "failure": each.failure,
        "create_ms": each.create_ms,
        "send_ms": each.send_ms,
        "not_before_ms": each.not_before_ms,
        "push_ms": each.push_ms,
        "event_id": each.event_id,
    }


def _notification(row: Any) -> Notification:  # noqa: ANN401 - a SQLAlchemy Row
    return Notification(
        id=row.id,
        user_id=row.user_id,
        channel=Channel(row.channel),
        recipient=row.recipient,
        subject=row.subject,
        text=row.text,
        status=row.status,
        attempts=row.attempts,
        failure=row.failure,
        create_ms=row.create_ms,
        send_ms=row.send_ms,
        not_before_ms=row.not_before_ms,
        push_ms=row.push_ms,
        event_id=row.event_id,
    )
