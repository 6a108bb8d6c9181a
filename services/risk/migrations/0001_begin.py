"""The tables that the risk room begins with, and the rules that are in force until an operator changes them."""

import time

import sqlalchemy as sa
from alembic import op

revision = "risk_0001"
down_revision = None

_DECISION = "decision IN ('review', 'block')"


def upgrade() -> None:
    """Make every table and the first rules."""
    _rules()
    _assessments()
    _platform()
    _seed()


def _rules() -> None:
    op.create_table(
        "rules",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("decision", sa.String(length=8), nullable=False),
        sa.Column("score", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("limit_currency_code", sa.String(length=3), nullable=True),
        sa.Column("limit_minor_units", sa.BigInteger(), nullable=True),
        sa.Column("window_seconds", sa.Integer(), nullable=True),
        sa.Column("payments_max", sa.Integer(), nullable=True),
        sa.Column("create_ms", sa.BigInteger(), nullable=False),
        sa.Column("update_ms", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("decision IN ('approve', 'review', 'block')", name="rules_decision"),
        sa.CheckConstraint(
            "kind IN ('amount_limit', 'velocity_limit', 'block_list', 'unreachable')", name="rules_kind"
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name", name="rules_name"),
    )
    op.create_table(
        "blocked_users",
        sa.Column("user_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("note", sa.String(length=200), nullable=False),
        sa.Column("create_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("user_id"),
    )
    op.create_table(
        "rule_versions",
        sa.Column("name", sa.String(length=16), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )


def _assessments() -> None:
    op.create_table(
        "assessments",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("payment_id", sa.BigInteger(), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("decision", sa.String(length=8), nullable=False),
        sa.Column("score", sa.Integer(), nullable=False),
        sa.Column("rules_hit", sa.Text(), nullable=False),
        sa.Column("currency_code", sa.String(length=3), nullable=False),
        sa.Column("minor_units", sa.BigInteger(), nullable=False),
        sa.Column("create_ms", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(_DECISION, name="assessments_decision"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("payment_id", "decision", name="assessments_payment"),
    )
    op.create_table(
        "alerts",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("assessment_id", sa.BigInteger(), nullable=False),
        sa.Column("payment_id", sa.BigInteger(), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("decision", sa.String(length=8), nullable=False),
        sa.Column("rules_hit", sa.Text(), nullable=False),
        sa.Column("currency_code", sa.String(length=3), nullable=False),
        sa.Column("minor_units", sa.BigInteger(), nullable=False),
        sa.Column("create_ms", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(_DECISION, name="alerts_decision"),
        sa.ForeignKeyConstraint(["assessment_id"], ["assessments.id"], name="alerts_assessment"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("payment_id", name="alerts_payment"),
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


def _seed() -> None:
    """Look at 50,000 CNY and more, stop a user who pays 10 times a second for a minute, refuse whom an operator blocked."""
    names = ("id", "name", "decision", "score", "kind", "limit_currency_code", "limit_minor_units", "window_seconds",
             "payments_max")  # fmt: skip
    seeds = (
        (1, "amount_limit_cny", "review", 40, "amount_limit", "CNY", 5_000_000, None, None),
        (2, "velocity_per_minute", "block", 80, "velocity_limit", None, None, 60, 600),
        (3, "block_list", "block", 100, "block_list", None, None, None, None),
    )
    now_ms = time.time_ns() // 1_000_000
    columns: list[sa.ColumnClause[object]] = [sa.column(name) for name in names]
    extra = [sa.column("enabled", sa.Boolean), sa.column("create_ms"), sa.column("update_ms")]
    op.bulk_insert(
        sa.table("rules", *columns, *extra),
        [dict(zip(names, seed, strict=True), enabled=True, create_ms=now_ms, update_ms=now_ms) for seed in seeds],
    )
    op.bulk_insert(
        sa.table("rule_versions", sa.column("name"), sa.column("version")), [{"name": "rules", "version": 1}]
    )
