"""What a database must be set to, so that what it took is kept whole when the machine falls. Read back, never assumed."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from services.platform.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import sqlalchemy as sa

    from services.platform.database import Database


class _Wrong(NamedTuple):
    name: str
    found: object
    wanted: str


def check_durable(database: Database) -> None:
    """Refuse a database that may lose or cut what it said it has. Raises SettingsError, a sentence per setting.

    Asked of a connection of the room's own, since users, databases and sessions may have settings of theirs.
    """
    wrong = _WRONG[database.dialect]
    with database.read() as connection:
        faults = [
            f"{each.name} of the database is {each.found}; it must be {each.wanted}, or what was answered may be lost."
            for each in wrong(connection)
        ]
    if faults:
        raise SettingsError(faults)


def _of_mariadb(connection: sa.Connection) -> Iterator[_Wrong]:
    """MariaDB and MySQL: the log is on disk at each commit, the binary log too, and no value is cut to fit."""
    names = ("innodb_flush_log_at_trx_commit", "log_bin", "sync_binlog", "sql_mode")
    flush, log_bin, sync, mode = connection.exec_driver_sql(f"SELECT {', '.join(f'@@{name}' for name in names)}").one()
    if flush != 1:
        yield _Wrong("innodb_flush_log_at_trx_commit", flush, "1")
    if log_bin and sync != 1:  # what is not in it after a fall is rolled back
        yield _Wrong("sync_binlog", sync, "1 where log_bin is on")
    if not {"STRICT_TRANS_TABLES", "STRICT_ALL_TABLES"} & set(mode.split(",")):
        yield _Wrong("sql_mode", repr(mode), "strict (STRICT_TRANS_TABLES)")
    others = "SELECT table_name, engine FROM information_schema.tables WHERE table_schema = DATABASE() AND engine <> 'InnoDB'"
    for table, engine in connection.exec_driver_sql(others):
        yield _Wrong(f"ENGINE of table {table}", engine, "InnoDB")


def _of_postgresql(connection: sa.Connection) -> Iterator[_Wrong]:
    """PostgreSQL: the log is on disk at each commit, and pages that were half written can be mended from it."""
    for name in ("fsync", "synchronous_commit", "full_page_writes"):
        found = connection.exec_driver_sql(f"SHOW {name}").scalar_one()
        if found == "off":  # the other values of synchronous_commit wait for more than our own disk
            yield _Wrong(name, found, "on")


def _of_sqlite(connection: sa.Connection) -> Iterator[_Wrong]:
    """SQLite: as Database sets it, on file systems that let it."""
    synchronous = connection.exec_driver_sql("PRAGMA synchronous").scalar_one()
    if synchronous < 2:
        yield _Wrong("PRAGMA synchronous", synchronous, "2 (FULL)")
    journal = connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()
    if journal in {"off", "memory"}:
        yield _Wrong("PRAGMA journal_mode", journal, "wal")


_WRONG = {"sqlite": _of_sqlite, "mariadb": _of_mariadb, "mysql": _of_mariadb, "postgresql": _of_postgresql}
