"""Tables of the payment room. Amounts are minor units, times milliseconds since 1970 UTC, statuses the contract's words."""

from __future__ import annotations

import sqlalchemy as sa

from services.payment import states
from services.payment.domain import Decision, Kind, Method, Point, Reason
from services.payment.domain.ledger import KINDS, MAY_BE_NEGATIVE
from services.platform.idempotency import idempotency_table
from services.platform.inbox import inbox_table
from services.platform.outbox import outbox_tables

metadata = sa.MetaData()


def _one_of(words: object) -> str:
    return "(" + ", ".join(f"'{word}'" for word in sorted(map(str, words))) + ")"  # type: ignore[call-overload]


payments = sa.Table(
    "payments",
    metadata,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("payment_no", sa.String(50), nullable=False, unique=True),
    sa.Column("order_id", sa.BigInteger, nullable=False, index=True),
    sa.Column("live_order_id", sa.BigInteger, unique=True),
    sa.Column("user_id", sa.BigInteger, nullable=False),
    sa.Column("amount_minor", sa.BigInteger, nullable=False),
    sa.Column("captured_minor", sa.BigInteger, nullable=False),
    sa.Column("refunded_minor", sa.BigInteger, nullable=False),
    sa.Column("currency_code", sa.String(3), nullable=False),
    sa.Column("payment_method", sa.String(16), nullable=False),
    sa.Column("status", sa.String(24), nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("failure_reason", sa.String(64), nullable=False),
    sa.Column("create_ms", sa.BigInteger, nullable=False),
    sa.Column("update_ms", sa.BigInteger, nullable=False),
    sa.Column("events", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("refunding_minor", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("owed", sa.Integer, nullable=False, server_default="0"),
    sa.CheckConstraint(f"status IN {states.CHECK}", name="payments_status"),
    sa.CheckConstraint(f"payment_method IN {_one_of(Method)}", name="payments_method"),
    sa.CheckConstraint(
        "refunded_minor >= 0 AND refunding_minor >= 0 AND refunded_minor + refunding_minor <= captured_minor",
        name="payments_refunded",
    ),
    sa.CheckConstraint("captured_minor >= 0 AND captured_minor <= amount_minor", name="payments_captured"),
    sa.Index("payments_of_user", "user_id", "id"),
)

payment_history = sa.Table(
    "payment_history",
    metadata,
    sa.Column("payment_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("version", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("status", sa.String(24), nullable=False),
    sa.Column("at_ms", sa.BigInteger, nullable=False),
)

refunds = sa.Table(
    "refunds",
    metadata,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("refund_no", sa.String(50), nullable=False, unique=True),
    sa.Column("payment_id", sa.BigInteger, nullable=False, index=True),
    sa.Column("amount_minor", sa.BigInteger, nullable=False),
    sa.Column("currency_code", sa.String(3), nullable=False),
    sa.Column("note", sa.String(200), nullable=False),
    sa.Column("status", sa.String(24), nullable=False),
    sa.Column("create_ms", sa.BigInteger, nullable=False),
    sa.Column("update_ms", sa.BigInteger, nullable=False),
    sa.Column("provider_code", sa.String(64), nullable=False, server_default=""),
    sa.CheckConstraint(f"status IN {states.REFUND_CHECK}", name="refunds_status"),
    sa.CheckConstraint("amount_minor > 0", name="refunds_amount"),
)

attempts = sa.Table(
    "attempts",
    metadata,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("payment_id", sa.BigInteger, nullable=False, index=True),
    sa.Column("refund_id", sa.BigInteger, nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("payment_method", sa.String(16), nullable=False),
    sa.Column("request_id", sa.String(32), nullable=False),
    sa.Column("amount_minor", sa.BigInteger, nullable=False),
    sa.Column("currency_code", sa.String(3), nullable=False),
    sa.Column("subject", sa.BigInteger),
    sa.Column("method", sa.String(48)),
    sa.Column("idempotency_key", sa.String(64)),
    sa.Column("scene", sa.String(8), nullable=False),
    sa.Column("payer", sa.Text, nullable=False),
    sa.Column("card", sa.String(255), nullable=False),
    sa.Column("capture", sa.Integer, nullable=False),
    sa.Column("expire_ms", sa.BigInteger, nullable=False),
    sa.Column("create_ms", sa.BigInteger, nullable=False),
    sa.Column("point", sa.String(16), nullable=False),
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Column("provider_id", sa.String(64), nullable=False),
    sa.Column("provider_code", sa.String(64), nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("owner", sa.Integer, nullable=False),
    sa.Column("next_ms", sa.BigInteger, index=True),
    sa.Column("update_ms", sa.BigInteger, nullable=False),
    sa.Column("paid_ms", sa.BigInteger),
    sa.CheckConstraint(f"kind IN {_one_of(Kind)}", name="attempts_kind"),
    sa.CheckConstraint(f"point IN {_one_of(Point)}", name="attempts_point"),
    sa.CheckConstraint("(next_ms IS NULL) = (point = 'settled')", name="attempts_due"),
    sa.Index("attempts_paid", "payment_method", "paid_ms"),
)

callbacks = sa.Table(
    "callbacks",
    metadata,
    sa.Column("provider", sa.String(16), primary_key=True),
    sa.Column("notice_id", sa.String(128), primary_key=True),
    sa.Column("request_id", sa.String(32), nullable=False),
    sa.Column("taken_ms", sa.BigInteger, nullable=False, index=True),
)

payment_methods = sa.Table(
    "payment_methods",
    metadata,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("user_id", sa.BigInteger, nullable=False),
    sa.Column("default_user_id", sa.BigInteger, unique=True),
    sa.Column("token", sa.String(48), nullable=False, index=True),
    sa.Column("brand", sa.String(16), nullable=False),
    sa.Column("first6", sa.String(6), nullable=False),
    sa.Column("last4", sa.String(4), nullable=False),
    sa.Column("expire_year", sa.Integer, nullable=False),
    sa.Column("expire_month", sa.Integer, nullable=False),
    sa.Column("create_ms", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("user_id", "token", name="payment_methods_once"),
    sa.CheckConstraint("default_user_id IS NULL OR default_user_id = user_id", name="payment_methods_default"),
)

reviews = sa.Table(
    "reviews",
    metadata,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("payment_id", sa.BigInteger, nullable=False, index=True),
    sa.Column("refund_id", sa.BigInteger, nullable=False),
    sa.Column("reason", sa.String(24), nullable=False),
    sa.Column("detail", sa.String(500), nullable=False),
    sa.Column("amount_minor", sa.BigInteger, nullable=False),
    sa.Column("create_ms", sa.BigInteger, nullable=False),
    sa.Column("status", sa.String(16), nullable=False, index=True),
    sa.Column("decision", sa.String(16), nullable=False),
    sa.Column("proposer_id", sa.BigInteger, nullable=False),
    sa.Column("proposal_note", sa.String(500), nullable=False),
    sa.Column("decider_id", sa.BigInteger, nullable=False),
    sa.Column("decision_note", sa.String(500), nullable=False),
    sa.Column("update_ms", sa.BigInteger, nullable=False),
    sa.CheckConstraint(f"status IN {states.REVIEW_CHECK}", name="reviews_status"),
    sa.CheckConstraint(f"reason IN {_one_of(Reason)}", name="reviews_reason"),
    sa.CheckConstraint(f"decision = '' OR decision IN {_one_of(Decision)}", name="reviews_decision"),
    sa.CheckConstraint("status <> 'decided' OR decider_id <> proposer_id", name="reviews_two_people"),
)

audit_log = sa.Table(
    "audit_log",
    metadata,
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("at_ms", sa.BigInteger, nullable=False),
    sa.Column("actor_id", sa.BigInteger, nullable=False),
    sa.Column("action", sa.String(48), nullable=False),
    sa.Column("about_id", sa.BigInteger, nullable=False),
    sa.Column("detail", sa.String(1000), nullable=False),
    sa.Column("hash", sa.LargeBinary(32), nullable=False),
)

accounts = sa.Table(
    "accounts",
    metadata,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("kind", sa.String(24), nullable=False),
    sa.Column("owner_id", sa.BigInteger, nullable=False),
    sa.Column("currency_code", sa.String(3), nullable=False),
    sa.Column("balance_minor", sa.BigInteger, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("update_ms", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("owner_id", "kind", "currency_code", name="accounts_key"),
    sa.CheckConstraint(f"kind IN {_one_of(KINDS)}", name="accounts_kind"),
    sa.CheckConstraint(f"balance_minor >= 0 OR kind IN {_one_of(MAY_BE_NEGATIVE)}", name="accounts_balance"),
)

ledger_transactions = sa.Table(
    "ledger_transactions",
    metadata,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("reference_id", sa.BigInteger, nullable=False),
    sa.Column("chain_seq", sa.BigInteger, nullable=False, index=True),
    sa.Column("at_ms", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("reference_id", "kind", name="ledger_transactions_once"),
)

ledger_entries = sa.Table(
    "ledger_entries",
    metadata,
    sa.Column("transaction_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("line", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("account_id", sa.BigInteger, nullable=False, index=True),
    sa.Column("amount_minor", sa.BigInteger, nullable=False),
)

ledger_chain = sa.Table(
    "ledger_chain",
    metadata,
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("hash", sa.LargeBinary(32), nullable=False),
)

ledger_tail = sa.Table(
    "ledger_tail",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("hash", sa.LargeBinary(32), nullable=False),
)

known_orders = sa.Table(
    "known_orders",
    metadata,
    sa.Column("order_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("user_id", sa.BigInteger, nullable=False),
    sa.Column("amount_minor", sa.BigInteger, nullable=False),
    sa.Column("currency_code", sa.String(3), nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("expire_ms", sa.BigInteger, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
)

idempotency_keys = idempotency_table(metadata)
inbox = inbox_table(metadata)
outbox, relay_lease = outbox_tables(metadata)
