"""Tables of the user room. Times are milliseconds since 1970 UTC (0: never), statuses the contract's words."""

from __future__ import annotations

import sqlalchemy as sa

from services.platform.idempotency import idempotency_table
from services.platform.outbox import outbox_tables
from services.platform.signing import signing_keys_table
from services.user import states

metadata = sa.MetaData()

users = sa.Table(
    "users",
    metadata,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("username", sa.String(50), nullable=False),
    # What is unique is the lower-case form, on every database and whatever its collation.
    sa.Column("username_key", sa.String(50), nullable=False, unique=True),
    sa.Column("email", sa.String(100), nullable=False),
    sa.Column("email_key", sa.String(100), nullable=False, unique=True),
    sa.Column("phone", sa.String(16), nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("password_hash", sa.String(255), nullable=False),
    sa.Column("failed_logins", sa.Integer, nullable=False),
    sa.Column("locked_until_ms", sa.BigInteger, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("create_ms", sa.BigInteger, nullable=False),
    sa.Column("update_ms", sa.BigInteger, nullable=False),
    sa.CheckConstraint(f"status IN {states.CHECK}", name="users_status"),
)

user_roles = sa.Table(
    "user_roles",
    metadata,
    sa.Column("user_id", sa.BigInteger, sa.ForeignKey("users.id"), primary_key=True, autoincrement=False),
    sa.Column("role", sa.String(32), primary_key=True),
)

sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("user_id", sa.BigInteger, sa.ForeignKey("users.id"), nullable=False, index=True),
    sa.Column("create_ms", sa.BigInteger, nullable=False),
    sa.Column("expire_ms", sa.BigInteger, nullable=False, index=True),
    sa.Column("ended_ms", sa.BigInteger, nullable=False, index=True),
    sa.Column("end_reason", sa.String(16), nullable=False),
)

refresh_tokens = sa.Table(
    "refresh_tokens",
    metadata,
    sa.Column("token_hash", sa.String(64), primary_key=True),
    sa.Column("session_id", sa.String(32), sa.ForeignKey("sessions.id"), nullable=False, index=True),
    sa.Column("user_id", sa.BigInteger, nullable=False),
    sa.Column("create_ms", sa.BigInteger, nullable=False),
    sa.Column("used_ms", sa.BigInteger, nullable=False),
)

signing_keys = signing_keys_table(metadata)
idempotency_keys = idempotency_table(metadata)
outbox, relay_lease = outbox_tables(metadata)
