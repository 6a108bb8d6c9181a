"""Payments are noted from their events, so that the velocity series can be made again when Redis lost them."""

import sqlalchemy as sa
from alembic import op

revision = "risk_0002"
down_revision = "risk_0001"


def upgrade() -> None:
    """Make the table of noted payments and the inbox."""
    op.create_table(
        "assessed_payments",
        sa.Column("payment_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("payment_id"),
    )
    op.create_index(op.f("ix_assessed_payments_at_ms"), "assessed_payments", ["at_ms"], unique=False)
    op.create_index("assessed_payments_user", "assessed_payments", ["user_id", "at_ms"], unique=False)
    op.create_table(
        "inbox",
        sa.Column("event_id", sa.String(length=80), nullable=False),
        sa.Column("topic", sa.String(length=64), nullable=False),
        sa.Column("taken_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("event_id"),
    )
    op.create_index(op.f("ix_inbox_taken_ms"), "inbox", ["taken_ms"], unique=False)
