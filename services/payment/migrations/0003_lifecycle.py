"""The lifecycle of payments through providers: attempts, callbacks, saved cards, reviews, the audit log.

Adds tables, columns with defaults and wider checks alone: code that does not know them goes on.
"""

import sqlalchemy as sa
from alembic import op

revision = "payment_0003"
down_revision = "payment_0002"

_KINDS = (
    "'bank', 'clearing_alipay', 'clearing_bank_card', 'clearing_wechat', 'fees', 'funding_clearing', "
    "'merchant_settlement', 'refunds_payable', 'suspense', 'user_balance'"
)
_MAY_BE_NEGATIVE = _KINDS.replace("'refunds_payable', ", "").replace(", 'user_balance'", "")


def upgrade() -> None:
    """Make what is new, and let old rows have it."""
    op.add_column("payments", sa.Column("events", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("payments", sa.Column("refunding_minor", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("payments", sa.Column("owed", sa.Integer(), server_default="0", nullable=False))
    op.add_column("refunds", sa.Column("provider_code", sa.String(length=64), server_default="", nullable=False))
    op.execute("UPDATE payments SET events = version")  # until now each state published an event
    _checks(
        "payments",
        {
            "payments_refunded": "refunded_minor >= 0 AND refunding_minor >= 0 "
            "AND refunded_minor + refunding_minor <= captured_minor"
        },
        {
            "payments_captured": "captured_minor >= 0 AND captured_minor <= amount_minor",
            "payments_method": "payment_method IN ('alipay', 'balance', 'bank_card', 'wechat')",
            "payments_status": "status IN ('pending', 'authorized', 'processing', 'unknown', 'success', 'failed', "
            "'closed', 'partially_refunded', 'refunded', 'review')",
        },
    )
    _checks(
        "refunds",
        {"refunds_status": "status IN ('pending', 'success', 'failed', 'unknown', 'review')"},
        {"refunds_amount": "amount_minor > 0"},
    )
    _checks(
        "accounts",
        {
            "accounts_kind": f"kind IN ({_KINDS})",
            "accounts_balance": f"balance_minor >= 0 OR kind IN ({_MAY_BE_NEGATIVE})",
        },
        {},
    )
    op.create_table(
        "attempts",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("payment_id", sa.BigInteger(), nullable=False),
        sa.Column("refund_id", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("payment_method", sa.String(length=16), nullable=False),
        sa.Column("request_id", sa.String(length=32), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency_code", sa.String(length=3), nullable=False),
        sa.Column("subject", sa.BigInteger(), nullable=True),
        sa.Column("method", sa.String(length=48), nullable=True),
        sa.Column("idempotency_key", sa.String(length=64), nullable=True),
        sa.Column("scene", sa.String(length=8), nullable=False),
        sa.Column("payer", sa.Text(), nullable=False),
        sa.Column("card", sa.String(length=255), nullable=False),
        sa.Column("capture", sa.Integer(), nullable=False),
        sa.Column("expire_ms", sa.BigInteger(), nullable=False),
        sa.Column("create_ms", sa.BigInteger(), nullable=False),
        sa.Column("point", sa.String(length=16), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("provider_id", sa.String(length=64), nullable=False),
        sa.Column("provider_code", sa.String(length=64), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("owner", sa.Integer(), nullable=False),
        sa.Column("next_ms", sa.BigInteger(), nullable=True),
        sa.Column("update_ms", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("(next_ms IS NULL) = (point = 'settled')", name="attempts_due"),
        sa.CheckConstraint("kind IN ('capture', 'charge', 'close', 'refund', 'void')", name="attempts_kind"),
        sa.CheckConstraint("point IN ('held', 'ready', 'settled', 'unknown', 'waiting')", name="attempts_point"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_attempts_next_ms"), "attempts", ["next_ms"], unique=False)
    op.create_index(op.f("ix_attempts_payment_id"), "attempts", ["payment_id"], unique=False)
    op.create_table(
        "audit_log",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("actor_id", sa.BigInteger(), nullable=False),
        sa.Column("action", sa.String(length=48), nullable=False),
        sa.Column("about_id", sa.BigInteger(), nullable=False),
        sa.Column("detail", sa.String(length=1000), nullable=False),
        sa.Column("hash", sa.LargeBinary(length=32), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
    )
    op.create_table(
        "callbacks",
        sa.Column("provider", sa.String(length=16), nullable=False),
        sa.Column("notice_id", sa.String(length=128), nullable=False),
        sa.Column("request_id", sa.String(length=32), nullable=False),
        sa.Column("taken_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("provider", "notice_id"),
    )
    op.create_index(op.f("ix_callbacks_taken_ms"), "callbacks", ["taken_ms"], unique=False)
    op.create_table(
        "payment_methods",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("default_user_id", sa.BigInteger(), nullable=True),
        sa.Column("token", sa.String(length=48), nullable=False),
        sa.Column("brand", sa.String(length=16), nullable=False),
        sa.Column("first6", sa.String(length=6), nullable=False),
        sa.Column("last4", sa.String(length=4), nullable=False),
        sa.Column("expire_year", sa.Integer(), nullable=False),
        sa.Column("expire_month", sa.Integer(), nullable=False),
        sa.Column("create_ms", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("default_user_id IS NULL OR default_user_id = user_id", name="payment_methods_default"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("default_user_id"),
        sa.UniqueConstraint("user_id", "token", name="payment_methods_once"),
    )
    op.create_index(op.f("ix_payment_methods_token"), "payment_methods", ["token"], unique=False)
    op.create_table(
        "reviews",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("payment_id", sa.BigInteger(), nullable=False),
        sa.Column("refund_id", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.String(length=24), nullable=False),
        sa.Column("detail", sa.String(length=500), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("create_ms", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("decision", sa.String(length=16), nullable=False),
        sa.Column("proposer_id", sa.BigInteger(), nullable=False),
        sa.Column("proposal_note", sa.String(length=500), nullable=False),
        sa.Column("decider_id", sa.BigInteger(), nullable=False),
        sa.Column("decision_note", sa.String(length=500), nullable=False),
        sa.Column("update_ms", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("decision = '' OR decision IN ('accept', 'give_back', 'refuse')", name="reviews_decision"),
        sa.CheckConstraint(
            "reason IN ('amount_mismatch', 'bill_mismatch', 'late_failure', 'late_success', 'refund_contradiction')",
            name="reviews_reason",
        ),
        sa.CheckConstraint("status <> 'decided' OR decider_id <> proposer_id", name="reviews_two_people"),
        sa.CheckConstraint("status IN ('open', 'proposed', 'decided')", name="reviews_status"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_reviews_payment_id"), "reviews", ["payment_id"], unique=False)
    op.create_index(op.f("ix_reviews_status"), "reviews", ["status"], unique=False)


def _checks(table: str, changed: dict[str, str], kept: dict[str, str]) -> None:
    """Replace checks. SQLite has the table made anew, which forgets every check: the ``kept`` ones are said again."""
    if op.get_bind().dialect.name == "sqlite":
        with op.batch_alter_table(table, recreate="always") as batch:
            for name, condition in (changed | kept).items():
                batch.create_check_constraint(name, condition)
        return
    for name, condition in changed.items():
        op.drop_constraint(name, table, type_="check")
        op.create_check_constraint(name, table, condition)
