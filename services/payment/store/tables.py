"""Tables of the payment room. Amounts are minor units, times milliseconds since 1970 UTC, statuses the contract's words."""

from __future__ import annotations

import sqlalchemy as sa

from services.payment import states
from services.payment.domain import Method
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
    sa.CheckConstraint(f"status IN {states.CHECK}", name="payments_status"),
    sa.CheckConstraint(f"payment_method IN {_one_of(Method)}", name="payments_method"),
    sa.CheckConstraint("refunded_minor >= 0 AND refunded_minor <= captured_minor", name="payments_refunded"),
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
    sa.CheckConstraint(f"status IN {states.REFUND_CHECK}", name="refunds_status"),
    sa.CheckConstraint("amount_minor > 0", name="refunds_amount"),
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
