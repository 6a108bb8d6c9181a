"""The tables that the notification room begins with."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.mysql import MEDIUMTEXT

revision = "notification_0001"
down_revision = None


def upgrade() -> None:
    """Make every table."""
    _notifications()
    _platform()


def _notifications() -> None:
    op.create_table(
        "notifications",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("channel", sa.String(length=8), nullable=False),
        sa.Column("recipient", sa.String(length=200), nullable=False),
        sa.Column("subject", sa.String(length=200), nullable=False),
        sa.Column("text", sa.Text().with_variant(MEDIUMTEXT(), "mysql", "mariadb"), nullable=False),
        sa.Column("status", sa.String(length=8), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("failure", sa.String(length=300), nullable=False),
        sa.Column("create_ms", sa.BigInteger(), nullable=False),
        sa.Column("send_ms", sa.BigInteger(), nullable=True),
        sa.Column("not_before_ms", sa.BigInteger(), nullable=False),
        sa.Column("push_ms", sa.BigInteger(), nullable=False),
        sa.Column("event_id", sa.String(length=80), nullable=True),
        sa.CheckConstraint("channel IN ('sms', 'email', 'push')", name="notifications_channel"),
        sa.CheckConstraint("status IN ('queued', 'sent', 'failed')", name="notifications_status"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("event_id", name="notifications_event"),
    )
    op.create_index("notifications_due", "notifications", ["status", "push_ms"], unique=False)
    op.create_index("notifications_user", "notifications", ["user_id", "id"], unique=False)
    op.create_table(
        "contacts",
        sa.Column("user_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("email", sa.String(length=100), nullable=False),
        sa.Column("phone", sa.String(length=20), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("user_id"),
    )


def _platform() -> None:
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("topic", sa.String(length=64), nullable=False),
        sa.Column("event_key", sa.String(length=64), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("event_ms", sa.BigInteger(), nullable=False),
        sa.Column("traceparent", sa.String(length=55), server_default="", nullable=False),
        sa.Column("published_ms", sa.BigInteger(), nullable=True),
        sa.Column("broker_id", sa.String(length=64), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("topic", "event_key", "version", name="outbox_version"),
    )
    op.create_index("outbox_unpublished", "outbox", ["published_ms", "id"], unique=False)
    op.create_table(
        "relay_lease",
        sa.Column("name", sa.String(length=16), nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("until_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "inbox",
        sa.Column("event_id", sa.String(length=80), nullable=False),
        sa.Column("topic", sa.String(length=64), nullable=False),
        sa.Column("taken_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("event_id"),
    )
    op.create_index(op.f("ix_inbox_taken_ms"), "inbox", ["taken_ms"], unique=False)
    op.create_table(
        "idempotency_keys",
        sa.Column("subject", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("method", sa.String(length=48), nullable=False),
        sa.Column("idempotency_key", sa.String(length=64), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(length=32), nullable=False),
        sa.Column("response", sa.LargeBinary(), nullable=True),
        sa.Column("refusal", sa.String(length=1000), nullable=True),
        sa.Column("create_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("subject", "method", "idempotency_key"),
    )
    op.create_index(op.f("ix_idempotency_keys_create_ms"), "idempotency_keys", ["create_ms"], unique=False)
