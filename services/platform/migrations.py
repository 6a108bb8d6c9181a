"""Alembic over a room's versions: one environment for all rooms, no ini file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from alembic import command
from alembic.config import Config

from services.platform.database import Database

if TYPE_CHECKING:
    import sqlalchemy as sa

_SERVICES = Path(__file__).parent.parent


def _config(room: str, connection: sa.Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "alembic"))
    config.set_main_option("version_locations", str(_SERVICES / room / "migrations"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    config.attributes["room"] = room
    return config


def upgrade(room: str, url: str, revision: str = "head") -> None:
    """Bring the database of ``room`` at ``url`` to ``revision``; what is done already is passed over."""
    database = Database(url)
    try:
        with database.write() as connection:
            command.upgrade(_config(room, connection), revision)
            connection.commit()
    finally:
        database.stop()
