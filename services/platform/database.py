"""SQLAlchemy Core over SQLite, MariaDB / MySQL and PostgreSQL: engines, transactions, bulk rows, what an error means."""

from __future__ import annotations

import contextlib
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Row = dict[str, object]

_RETRY_CODES = frozenset({1213, 1205, 1020})
"""MySQL: deadlock, lock wait time-out, snapshot conflict. The whole transaction is done again."""


class Failure(Enum):
    """What a database error means for the batch that it broke."""

    RETRY = "retry"
    BREACH = "breach"
    UNAVAILABLE = "unavailable"


class Conflict(Exception):
    """Rows were not as this transaction had read them: it is done again as a whole."""


def failure_of(error: BaseException) -> Failure | None:
    """Say what an exception of the database means; None: it is not one of the database."""
    if isinstance(error, Conflict):
        return Failure.RETRY
    if isinstance(error, sa.exc.IntegrityError):
        return Failure.BREACH
    if not isinstance(error, sa.exc.DBAPIError | sa.exc.TimeoutError):
        return None
    code = getattr(getattr(error, "orig", None), "args", (None,))[0]
    state = getattr(getattr(error, "orig", None), "sqlstate", None)
    if code in _RETRY_CODES or state in {"40001", "40P01"} or (isinstance(code, str) and "locked" in code):
        return Failure.RETRY
    return Failure.UNAVAILABLE


class Database:
    """The database of one service.

    ``write()`` and ``read()`` give a Connection inside a transaction that rolls back unless ``commit()`` is called.
    On SQLite a writer takes the write lock at once (BEGIN IMMEDIATE), so two processes wait instead of failing late.
    """

    def __init__(self, url: str, *, readers: int = 8) -> None:
        """Open engines for ``url``; no connection is made yet."""
        self.url = sa.make_url(url)
        self.dialect = self.url.get_backend_name()
        self._writer = self._engine(pool_size=2, begin="BEGIN IMMEDIATE")
        self._reader = self._engine(pool_size=readers, begin="BEGIN")

    def _engine(self, *, pool_size: int, begin: str) -> sa.Engine:
        # Values never stand in an error's text, which is logged: among them are hashes and personal data.
        options: dict[str, Any] = {
            "pool_size": pool_size,
            "max_overflow": 2,
            "pool_timeout": 5,
            "hide_parameters": True,
        }
        if self.dialect != "sqlite":
            return sa.create_engine(self.url, isolation_level="READ COMMITTED", pool_pre_ping=True, **options)
        engine = sa.create_engine(self.url, connect_args={"check_same_thread": False, "timeout": 5}, **options)

        @sa.event.listens_for(engine, "connect")
        def _connect(connection: Any, _record: object) -> None:  # noqa: ANN401 - a DBAPI connection
            connection.isolation_level = None  # the driver must not begin transactions of its own
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
                connection.execute(f"PRAGMA {pragma}")

        @sa.event.listens_for(engine, "begin")
        def _begin(connection: sa.Connection) -> None:
            connection.exec_driver_sql(begin)

        return engine

    @contextlib.contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """Give a Connection for one transaction that changes things."""
        with self._writer.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """Give a Connection for reads."""
        with self._reader.connect() as connection:
            yield connection

    def stop(self) -> None:
        """Close every connection."""
        self._writer.dispose()
        self._reader.dispose()


@lru_cache(maxsize=256)
def _text(table: sa.Table, columns: tuple[str, ...], dialect: str) -> str:
    mark = "?" if dialect == "sqlite" else "%s"
    return f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES ({', '.join(mark for _ in columns)})"  # noqa: S608 - names of our own schema


def insert_rows(connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows that all have the same columns, with one prepared text and the driver's own bulk path.

    The hot path alone wants this: Core's insertmanyvalues costs twice the time. Values go to the driver as they are, so
    columns must hold what drivers take: int, str, bytes, None.
    """
    if rows:
        columns = tuple(rows[0])
        values = [tuple(row[c] for c in columns) for row in rows]
        connection.exec_driver_sql(_text(table, columns, connection.dialect.name), values)


@lru_cache(maxsize=256)
def _update_text(table: sa.Table, changed: tuple[str, ...], by: tuple[str, ...], dialect: str) -> str:
    mark = "?" if dialect == "sqlite" else "%s"
    sets, where = (", ".join(f"{c} = {mark}" for c in changed), " AND ".join(f"{c} = {mark}" for c in by))
    return f"UPDATE {table.name} SET {sets} WHERE {where}"  # noqa: S608 - names of our own schema


def update_rows(
    connection: sa.Connection, table: sa.Table, by: tuple[str, ...], rows: Sequence[Mapping[str, Any]]
) -> int:
    """Update rows found by the columns ``by``, which stand in each row beside the changed ones; returns how many."""
    if not rows:
        return 0
    changed = tuple(c for c in rows[0] if c not in by)
    values = [tuple(row[c] for c in (*changed, *by)) for row in rows]
    text = _update_text(table, changed, by, connection.dialect.name)
    return int(connection.exec_driver_sql(text, values).rowcount)


def for_update(query: sa.Select[Any], dialect: str) -> sa.Select[Any]:
    """Lock the rows read; on SQLite the writer holds the whole database already."""
    return query if dialect == "sqlite" else query.with_for_update()
