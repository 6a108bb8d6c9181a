"""Notifications, contacts, endpoints and deliveries in SQL."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from services.kernel.idempotency import Answer, IdempotencyKey, Scope, Stored
from services.notification import mapping, states
from services.notification.domain import Contact, Notification, WebhookDelivery, WebhookEndpoint
from services.notification.store import rows
from services.notification.store.tables import (
    contacts,
    idempotency_keys,
    inbox,
    notifications,
    outbox,
    webhook_deliveries,
    webhook_endpoints,
)
from services.platform import idempotency
from services.platform import inbox as inbox_rows
from services.platform import outbox as outbox_rows
from services.platform.database import for_update, insert_rows, update_rows

if TYPE_CHECKING:
    from services.kernel.ids import IdMaker
    from services.kernel.pages import Page
    from services.platform.database import Database

_CHANGING = ("recipient", "status", "attempts", "failure", "send_ms", "not_before_ms", "push_ms")
_SWITCHING = ("enabled", "disable_reason", "secret", "old_secret", "old_until_ms")
_TRYING = ("status", "attempts", "spent", "failure", "begin_ms", "due_ms", "deliver_ms")


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
        found = self._connection.execute(for_update(query, self._connection.dialect.name))
        return {row.user_id: Contact(row.user_id, row.email, row.phone, row.version) for row in found}

    def put_contacts(self, newest: Sequence[Contact]) -> None:
        """Replace contacts."""
        if newest:
            users = [each.user_id for each in newest]
            self._connection.execute(sa.delete(contacts).where(contacts.c.user_id.in_(users)))
        replaced = [
            {"user_id": each.user_id, "email": each.email, "phone": each.phone, "version": each.version}
            for each in newest
        ]
        insert_rows(self._connection, contacts, replaced)

    def add(self, made: Sequence[Notification]) -> None:
        """Insert notifications."""
        insert_rows(self._connection, notifications, [rows.notification_row(each) for each in made])

    def lock(self, notification_ids: Collection[int]) -> dict[int, Notification]:
        """Read notifications and lock them, in the order of their ids."""
        return {row.id: rows.notification(row) for row in self._locked(notifications, notification_ids)}

    def put(self, changed: Sequence[Notification]) -> None:
        """Update what changes of a notification."""
        self._update(notifications, _CHANGING, changed)

    def endpoint_count(self) -> int:
        """Count endpoints."""
        query = sa.select(sa.func.count()).select_from(webhook_endpoints)
        return int(self._connection.execute(query).scalar_one())

    def enabled_endpoints(self) -> list[WebhookEndpoint]:
        """Read the endpoints that are enabled."""
        e = webhook_endpoints
        return [rows.endpoint(row) for row in self._connection.execute(sa.select(e).where(e.c.enabled))]

    def lock_endpoints(self, endpoint_ids: Collection[int]) -> dict[int, WebhookEndpoint]:
        """Read endpoints and lock them, in the order of their ids."""
        return {row.id: rows.endpoint(row) for row in self._locked(webhook_endpoints, endpoint_ids)}

    def add_endpoints(self, made: Sequence[WebhookEndpoint]) -> None:
        """Insert endpoints."""
        insert_rows(self._connection, webhook_endpoints, [rows.endpoint_row(each) for each in made])

    def put_endpoints(self, changed: Sequence[WebhookEndpoint]) -> None:
        """Update what changes of an endpoint."""
        self._update(webhook_endpoints, _SWITCHING, changed)

    def remove_endpoints(self, endpoint_ids: Sequence[int]) -> None:
        """Delete endpoints; the database deletes their deliveries with them."""
        e = webhook_endpoints
        if endpoint_ids:
            self._connection.execute(sa.delete(e).where(e.c.id.in_(endpoint_ids)))

    def add_deliveries(self, made: Sequence[WebhookDelivery]) -> None:
        """Insert deliveries."""
        insert_rows(self._connection, webhook_deliveries, [rows.delivery_row(each) for each in made])

    def lock_deliveries(self, delivery_ids: Collection[int]) -> dict[int, WebhookDelivery]:
        """Read deliveries and lock them, in the order of their ids."""
        return {row.id: rows.delivery(row) for row in self._locked(webhook_deliveries, delivery_ids)}

    def put_deliveries(self, changed: Sequence[WebhookDelivery]) -> None:
        """Update what changes of a delivery."""
        self._update(webhook_deliveries, _TRYING, changed)

    def give_up_deliveries(self, endpoint_ids: Sequence[int], failure: str) -> None:
        """Make pending deliveries failed ones, without reading them: they may be many."""
        d = webhook_deliveries
        if endpoint_ids:
            waiting = d.c.endpoint_id.in_(endpoint_ids) & (d.c.status == states.WEBHOOK_DELIVERY_PENDING)
            given_up = {"status": states.WEBHOOK_DELIVERY_FAILED, "failure": failure}
            self._connection.execute(sa.update(d).where(waiting).values(given_up))

    def publish_failed(self, given_up: Sequence[Notification], now_ms: int) -> None:
        """Put the events into the outbox."""
        messages = [mapping.failed(each, now_ms) for each in given_up]
        outbox_rows.append(self._connection, outbox, messages, self._ids, now_ms)

    def commit(self) -> None:
        """Make it durable."""
        self._connection.commit()

    def _locked(self, table: sa.Table, ids: Collection[int]) -> Sequence[sa.Row[Any]]:
        if not ids:
            return ()
        query = sa.select(table).where(table.c.id.in_(ids)).order_by(table.c.id)
        return self._connection.execute(for_update(query, self._connection.dialect.name)).all()

    def _update(self, table: sa.Table, columns: tuple[str, ...], changed: Sequence[Any]) -> None:
        made = [{"id": each.id, **{name: getattr(each, name) for name in columns}} for each in changed]
        update_rows(self._connection, table, ("id",), made)


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
        return None if row is None else rows.notification(row)

    def list_of(self, user_id: int, page: Page) -> Sequence[Notification]:
        """Read the notifications to a user, newest first."""
        n = notifications
        query = sa.select(n).where(n.c.user_id == user_id)
        return [rows.notification(row) for row in self._newest(query, n, page)]

    def due(self, now_ms: int, most: int) -> list[int]:
        """Read ids of queued notifications whose time to be pushed has come."""
        n = notifications.c
        query = sa.select(n.id).where(n.status == states.QUEUED, n.push_ms <= now_ms).order_by(n.push_ms).limit(most)
        with self._database.read() as connection:
            return list(connection.execute(query).scalars())

    def has_endpoint(self, endpoint_id: int) -> bool:
        """Look for an endpoint."""
        e = webhook_endpoints.c
        with self._database.read() as connection:
            return connection.execute(sa.select(e.id).where(e.id == endpoint_id)).first() is not None

    def endpoints(self, page: Page) -> Sequence[WebhookEndpoint]:
        """Read endpoints, newest first."""
        return [rows.endpoint(row) for row in self._newest(sa.select(webhook_endpoints), webhook_endpoints, page)]

    def deliveries_of(self, endpoint_id: int, page: Page) -> Sequence[WebhookDelivery]:
        """Read the deliveries to an endpoint, newest first."""
        d = webhook_deliveries
        query = sa.select(d).where(d.c.endpoint_id == endpoint_id)
        return [rows.delivery(row) for row in self._newest(query, d, page)]

    def due_deliveries(self, now_ms: int, most: int, without: Collection[int]) -> list[tuple[int, int]]:
        """Read ids of pending deliveries whose time has come."""
        d = webhook_deliveries.c
        query = sa.select(d.id, d.endpoint_id).where(d.status == states.WEBHOOK_DELIVERY_PENDING, d.due_ms <= now_ms)
        if without:
            query = query.where(d.endpoint_id.not_in(without))
        with self._database.read() as connection:
            return [(row.id, row.endpoint_id) for row in connection.execute(query.order_by(d.due_ms).limit(most))]

    def _newest(self, query: sa.Select[Any], table: sa.Table, page: Page) -> Sequence[sa.Row[Any]]:
        after = page.after_id()
        if after is not None:
            query = query.where(table.c.id < after)
        with self._database.read() as connection:
            return connection.execute(query.order_by(table.c.id.desc()).limit(page.limit)).all()
