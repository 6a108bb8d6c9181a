"""The card vault: numbers as ciphertext, keys as they are wrapped. Adds tables alone."""

import sqlalchemy as sa
from alembic import op

revision = "payment_0002"
down_revision = "payment_0001"


def upgrade() -> None:
    """Make both tables."""
    op.create_table(
        "card_keys",
        sa.Column("id", sa.String(length=24), nullable=False),
        sa.Column("purpose", sa.String(length=8), nullable=False),
        sa.Column("serial", sa.Integer(), nullable=False),
        sa.Column("kek_id", sa.String(length=64), nullable=False),
        sa.Column("wrapped", sa.LargeBinary(length=255), nullable=False),
        sa.Column("create_ms", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("purpose IN ('data', 'lookup')", name="card_keys_purpose"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "cards",
        sa.Column("token", sa.String(length=48), nullable=False),
        sa.Column("merchant_id", sa.BigInteger(), nullable=False),
        sa.Column("ciphertext", sa.LargeBinary(length=64), nullable=False),
        sa.Column("nonce", sa.LargeBinary(length=12), nullable=False),
        sa.Column("key_id", sa.String(length=24), nullable=False),
        sa.Column("lookup", sa.String(length=64), nullable=False),
        sa.Column("brand", sa.String(length=16), nullable=False),
        sa.Column("first6", sa.String(length=6), nullable=False),
        sa.Column("last4", sa.String(length=4), nullable=False),
        sa.Column("expire_year", sa.Integer(), nullable=False),
        sa.Column("expire_month", sa.Integer(), nullable=False),
        sa.Column("create_ms", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("length(first6) <= 6 AND length(last4) = 4", name="cards_shown"),
        sa.CheckConstraint("expire_month BETWEEN 1 AND 12", name="cards_expiry"),
        sa.ForeignKeyConstraint(["key_id"], ["card_keys.id"], name="cards_key"),
        sa.PrimaryKeyConstraint("token"),
        sa.UniqueConstraint("merchant_id", "lookup", "expire_year", "expire_month", name="cards_known"),
    )
    op.create_index(op.f("ix_cards_key_id"), "cards", ["key_id"], unique=False)
