"""Orders, their items and history, the inventory, and the furniture of events and repeats."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "order_0001"
down_revision = None
branch_labels = None
depends_on = None

SKU = (
    sa.String(64)
    .with_variant(mysql.VARCHAR(64, charset="ascii", collation="ascii_bin"), "mysql", "mariadb")
    .with_variant(sa.String(64, collation="C"), "postgresql")
)
STATUSES = "('pending', 'paid', 'cancelled', 'refunded')"


def upgrade() -> None:
    """Expand."""
    _orders()
    _inventory()
    _events()
    _repeats()


def _orders() -> None:
    op.create_table(
        "orders",
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("user_id", sa.BigInteger, nullable=False),
        sa.Column("order_no", sa.String(50), nullable=False, unique=True),
        sa.Column("amount_minor", sa.BigInteger, nullable=False),
        sa.Column("currency", sa.CHAR(3), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("payment_id", sa.BigInteger, unique=True),
        sa.Column("cancel_reason", sa.String(16), nullable=False),
        sa.Column("create_ms", sa.BigInteger, nullable=False),
        sa.Column("update_ms", sa.BigInteger, nullable=False),
        sa.Column("expire_ms", sa.BigInteger, nullable=False),
        sa.CheckConstraint(f"status IN {STATUSES}", name="orders_status"),
        sa.CheckConstraint("cancel_reason IN ('', 'user', 'operator', 'expired')", name="orders_cancel_reason"),
        sa.CheckConstraint("(status = 'cancelled') = (cancel_reason <> '')", name="orders_cancelled"),
        sa.CheckConstraint("(status IN ('paid', 'refunded')) = (payment_id IS NOT NULL)", name="orders_paid"),
        sa.CheckConstraint("amount_minor >= 0", name="orders_amount"),
    )
    op.create_index("orders_of_user", "orders", ["user_id", "id"])
    op.create_index("orders_expiry", "orders", ["status", "expire_ms"])
    op.create_table(
        "order_items",
        sa.Column("order_id", sa.BigInteger, sa.ForeignKey("orders.id"), primary_key=True, autoincrement=False),
        sa.Column("line", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("sku", SKU, nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("quantity", sa.Integer, nullable=False),
        sa.Column("unit_price_minor", sa.BigInteger, nullable=False),
        sa.CheckConstraint("quantity > 0", name="order_items_quantity"),
    )
    op.create_table(
        "order_history",
        sa.Column("order_id", sa.BigInteger, sa.ForeignKey("orders.id"), primary_key=True, autoincrement=False),
        sa.Column("version", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.CheckConstraint(f"status IN {STATUSES}", name="order_history_status"),
    )
    reasons = "('order_cancelled', 'order_paid', 'amount_mismatch')"
    op.create_table(
        "rejected_payments",
        sa.Column("payment_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("order_id", sa.BigInteger, sa.ForeignKey("orders.id"), nullable=False, index=True),
        sa.Column("reject_reason", sa.String(16), nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.CheckConstraint(f"reject_reason IN {reasons}", name="rejected_payments_reason"),
    )


def _inventory() -> None:
    op.create_table(
        "stock",
        sa.Column("sku", SKU, primary_key=True),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("unit_price_minor", sa.BigInteger, nullable=False),
        sa.Column("currency", sa.CHAR(3), nullable=False),
        sa.Column("available", sa.BigInteger, nullable=False),
        sa.Column("reserved", sa.BigInteger, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("update_ms", sa.BigInteger, nullable=False),
        sa.CheckConstraint("available >= 0", name="stock_available"),
        sa.CheckConstraint("reserved >= 0", name="stock_reserved"),
        sa.CheckConstraint("unit_price_minor >= 0", name="stock_unit_price"),
    )


def _events() -> None:
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("topic", sa.String(64), nullable=False),
        sa.Column("event_key", sa.String(64), nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.Column("event_ms", sa.BigInteger, nullable=False),
        sa.Column("traceparent", sa.String(55), nullable=False, server_default=""),
        sa.Column("published_ms", sa.BigInteger),
        sa.Column("broker_id", sa.String(64)),
        sa.UniqueConstraint("topic", "event_key", "version", name="outbox_version"),
    )
    op.create_index("outbox_unpublished", "outbox", ["published_ms", "id"])
    op.create_table(
        "relay_lease",
        sa.Column("name", sa.String(16), primary_key=True),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("fence", sa.BigInteger, nullable=False),
        sa.Column("until_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "inbox",
        sa.Column("event_id", sa.String(80), primary_key=True),
        sa.Column("topic", sa.String(64), nullable=False),
        sa.Column("taken_ms", sa.BigInteger, nullable=False, index=True),
    )


def _repeats() -> None:
    op.create_table(
        "idempotency_keys",
        sa.Column("subject", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("method", sa.String(48), primary_key=True),
        sa.Column("idempotency_key", sa.String(64), primary_key=True),
        sa.Column("fingerprint", sa.LargeBinary(32), nullable=False),
        sa.Column("response", sa.LargeBinary),
        sa.Column("refusal", sa.String(1000)),
        sa.Column("create_ms", sa.BigInteger, nullable=False, index=True),
    )
