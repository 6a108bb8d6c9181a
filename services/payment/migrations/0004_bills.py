"""Reconciliation: bills, what they settle, what does not agree; and when the money of an attempt moved.

Adds tables, a column that may be NULL and an index alone: code that does not know them goes on.
"""

import sqlalchemy as sa
from alembic import op

revision = "payment_0004"
down_revision = "payment_0003"


def upgrade() -> None:
    """Make what is new; what was settled before has the time of its booking."""
    op.add_column("attempts", sa.Column("paid_ms", sa.BigInteger(), nullable=True))
    op.execute("UPDATE attempts SET paid_ms = update_ms WHERE point = 'settled' AND kind IN ('charge', 'refund')")
    op.create_index("attempts_paid", "attempts", ["payment_method", "paid_ms"], unique=False)
    op.create_table(
        "bill_differences",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("bill_id", sa.BigInteger(), nullable=False),
        sa.Column("line", sa.Integer(), nullable=False),
        sa.Column("mismatch", sa.String(length=24), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("request_id", sa.String(length=64), nullable=False),
        sa.Column("payment_id", sa.BigInteger(), nullable=False),
        sa.Column("refund_id", sa.BigInteger(), nullable=False),
        sa.Column("currency_code", sa.String(length=3), nullable=False),
        sa.Column("booked_minor", sa.BigInteger(), nullable=True),
        sa.Column("billed_minor", sa.BigInteger(), nullable=True),
        sa.Column("correction_minor", sa.BigInteger(), nullable=False),
        sa.Column("review_id", sa.BigInteger(), nullable=False),
        sa.Column("awaits", sa.BigInteger(), nullable=True),
        sa.Column("create_ms", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "mismatch IN ('amount', 'duplicate', 'missing_at_provider', 'missing_here')",
            name="bill_differences_mismatch",
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_bill_differences_awaits"), "bill_differences", ["awaits"], unique=False)
    op.create_index("bill_differences_of_bill", "bill_differences", ["bill_id", "id"], unique=False)
    op.create_table(
        "bill_settlements",
        sa.Column("bill_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("currency_code", sa.String(length=3), nullable=False),
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("charged_minor", sa.BigInteger(), nullable=False),
        sa.Column("refunded_minor", sa.BigInteger(), nullable=False),
        sa.Column("fees_minor", sa.BigInteger(), nullable=False),
        sa.Column("fees_returned_minor", sa.BigInteger(), nullable=False),
        sa.Column("cleared_minor", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("bill_id", "currency_code"),
        sa.UniqueConstraint("id"),
    )
    op.create_table(
        "bills",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("payment_method", sa.String(length=16), nullable=False),
        sa.Column("serial", sa.Integer(), nullable=False),
        sa.Column("day", sa.String(length=10), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("line_count", sa.Integer(), nullable=False),
        sa.Column("matched_count", sa.Integer(), nullable=False),
        sa.Column("difference_count", sa.Integer(), nullable=False),
        sa.Column("create_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("payment_method", "day", "sha256", name="bills_once"),
        sa.UniqueConstraint("payment_method", "serial", name="bills_in_turn"),
    )
    op.create_table(
        "settled_lines",
        sa.Column("bill_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("line", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("request_id", sa.String(length=64), nullable=False),
        sa.Column("currency_code", sa.String(length=3), nullable=False),
        sa.Column("line_count", sa.Integer(), nullable=False),
        sa.Column("billed_minor", sa.BigInteger(), nullable=False),
        sa.Column("fees_minor", sa.BigInteger(), nullable=False),
        sa.Column("cleared_minor", sa.BigInteger(), nullable=False),
        sa.Column("settles", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("kind IN ('charge', 'refund')", name="settled_lines_kind"),
        sa.CheckConstraint("settles IS NULL OR cleared_minor > 0", name="settled_lines_settles"),
        sa.PrimaryKeyConstraint("bill_id", "line"),
        sa.UniqueConstraint("settles"),
    )
