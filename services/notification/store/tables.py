"""The tables of the notification room."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.mysql import MEDIUMTEXT

from services.notification import states
from services.platform.idempotency import idempotency_table
from services.platform.inbox import inbox_table
from services.platform.outbox import outbox_tables

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
webhook_endpoints = sa.Table(
    "webhook_endpoints",
    metadata,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("url", sa.String(500), nullable=False),
    sa.Column("event_types", sa.String(2000), nullable=False),
    sa.Column("description", sa.String(200), nullable=False),
    sa.Column("enabled", sa.Boolean, nullable=False),
    sa.Column("disable_reason", sa.String(16), nullable=False),
    # Sealed with the room's master key: 32 bytes, a nonce and a tag.
    sa.Column("secret", sa.LargeBinary(200), nullable=False),
    sa.Column("old_secret", sa.LargeBinary(200), nullable=False),
    sa.Column("old_until_ms", sa.BigInteger, nullable=False),
    sa.Column("create_ms", sa.BigInteger, nullable=False),
)
webhook_deliveries = sa.Table(
    "webhook_deliveries",
    metadata,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column(
        "endpoint_id",
        sa.BigInteger,
        sa.ForeignKey("webhook_endpoints.id", name="webhook_deliveries_endpoint", ondelete="CASCADE"),
        nullable=False,
    ),
    sa.Column("event_id", sa.String(80), nullable=False),
    sa.Column("topic", sa.String(64), nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("spent", sa.Integer, nullable=False),
    sa.Column("failure", sa.String(300), nullable=False),
    sa.Column("create_ms", sa.BigInteger, nullable=False),
    sa.Column("begin_ms", sa.BigInteger, nullable=False),
    sa.Column("due_ms", sa.BigInteger, nullable=False),
    sa.Column("deliver_ms", sa.BigInteger),
    # Whatever the code does, an event is delivered to an endpoint once.
    sa.UniqueConstraint("endpoint_id", "event_id", name="webhook_deliveries_event"),
    sa.CheckConstraint(f"status IN {states.WEBHOOK_DELIVERY_CHECK}", name="webhook_deliveries_status"),
    sa.Index("webhook_deliveries_due", "status", "due_ms"),
    sa.Index("webhook_deliveries_listed", "endpoint_id", "id"),
)
outbox, relay_lease = outbox_tables(metadata)
inbox = inbox_table(metadata)
idempotency_keys = idempotency_table(metadata)
