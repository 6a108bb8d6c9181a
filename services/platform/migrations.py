"""Alembic over a room's versions: one environment for all rooms, no ini file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from services.platform.database import Database

if TYPE_CHECKING:
    from sqlalchemy.dialects.mysql.base import MySQLDialect

_SERVICES = Path(__file__).parent.parent


def _config(room: str, connection: sa.Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "alembic"))
    config.set_main_option("version_locations", str(_SERVICES / room / "migrations"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    config.attributes["room"] = room
    return config


def _compare_bytes(connection: sa.Connection) -> None:
    """Make MariaDB and MySQL compare text as the other databases do, in every table that is made from here on.

    Their defaults take `Key-1` for `key-1`, and for `key-1 ` too, so that two idempotency keys would be one; and MariaDB's
    own takes Latin letters alone.
    """
    dialect = cast("MySQLDialect", connection.dialect)
    wanted = "utf8mb4_nopad_bin" if dialect.is_mariadb else "utf8mb4_0900_bin"
    if connection.scalar(sa.text("SELECT @@collation_database")) != wanted:
        connection.exec_driver_sql(f"ALTER DATABASE CHARACTER SET utf8mb4 COLLATE {wanted}")


def _is_beyond(config: Config, connection: sa.Connection) -> bool:
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    return any(head not in known for head in MigrationContext.configure(connection).get_current_heads())


def upgrade(room: str, url: str, revision: str = "head", *, ahead: bool = False) -> None:
    """Bring the database of ``room`` at ``url`` to ``revision``; what is done already is passed over.

    ``ahead``: a newer release may have added to it; it is then at a revision that is not known here, and stays there.
    """
    database = Database(url)
    try:
        with database.write() as connection:
            if database.dialect in {"mysql", "mariadb"}:
                _compare_bytes(connection)
            config = _config(room, connection)
            if ahead and _is_beyond(config, connection):
                return
            command.upgrade(config, revision)
            connection.commit()
    finally:
        database.stop()
