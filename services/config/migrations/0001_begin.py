"""Entries with their history, instances, outbox."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "config_0001"
down_revision = None

_VALUE = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "config_entries",
        sa.Column("config_key", sa.String(64), primary_key=True),
        sa.Column("value", _VALUE, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("updated_by", sa.BigInteger, nullable=False),
        sa.Column("update_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "config_history",
        sa.Column("config_key", sa.String(64), primary_key=True),
        sa.Column("version", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("value", _VALUE, nullable=False),
        sa.Column("updated_by", sa.BigInteger, nullable=False),
        sa.Column("update_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "instances",
        sa.Column("service", sa.String(32), primary_key=True),
        sa.Column("instance", sa.String(64), primary_key=True),
        sa.Column("mesh_address", sa.String(255), nullable=False),
        sa.Column("register_ms", sa.BigInteger, nullable=False),
    )
    _outbox()


def _outbox() -> None:
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
