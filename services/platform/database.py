"""SQLAlchemy Core over SQLite, MariaDB / MySQL and PostgreSQL: engines, transactions, bulk rows, what an error means."""

from __future__ import annotations

import contextlib
import threading
from enum import Enum
from functools import lru_cache
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from pymysql.constants import ER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

_RETRY_CODES = frozenset({ER.LOCK_DEADLOCK, ER.LOCK_WAIT_TIMEOUT, ER.CHECKREAD})
"""MySQL: deadlock, lock wait time-out, snapshot conflict. The whole transaction is done again."""
_RETRY_STATES = frozenset({"40001", "40P01", "55P03"})
"""PostgreSQL: serialization failure, deadlock, lock wait time-out."""
_BREACH_CODES = frozenset({4025, 3819})
"""A CHECK that failed, in MariaDB and MySQL: PyMySQL calls it an operational error."""
_LOCK_WAIT_S = 5
_SILENCE_S = 5
"""How long a server may take to take a connection."""

_CONNECT: dict[str, dict[str, Any]] = {
    "sqlite": {"check_same_thread": False, "timeout": _LOCK_WAIT_S},
    "mysql": {"connect_timeout": _SILENCE_S, "init_command": f"SET SESSION innodb_lock_wait_timeout={_LOCK_WAIT_S}"},
    "postgresql": {"connect_timeout": _SILENCE_S, "options": f"-c lock_timeout={_LOCK_WAIT_S}s"},
}
_CONNECT["mariadb"] = _CONNECT["mysql"]


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
    if isinstance(error, sa.exc.IntegrityError | sa.exc.DataError):  # a value that does not fit is one item's, too
        return Failure.BREACH
    if not isinstance(error, sa.exc.DBAPIError | sa.exc.TimeoutError):
        return None
    driver = getattr(error, "orig", None)
    code, state = next(iter(getattr(driver, "args", ())), None), getattr(driver, "sqlstate", None)
    if code in _RETRY_CODES or state in _RETRY_STATES or (isinstance(code, str) and "locked" in code):
        return Failure.RETRY
    if code in _BREACH_CODES:
        return Failure.BREACH
    return Failure.UNAVAILABLE


class Database:
    """The database of one service.

    ``write()`` and ``read()`` give a Connection inside a transaction that rolls back unless ``commit()`` is called.
    All that one ``read()`` sees is one state, on every engine; a writer sees what was committed before each statement.
    On SQLite a writer takes the write lock at once (BEGIN IMMEDIATE), so two processes wait instead of failing late;
    writers of one process take turns before, since SQLite makes those who wait sleep up to 100 ms at a time.
    """

    def __init__(self, url: str, *, readers: int = 8) -> None:
        """Open engines for ``url``; no connection is made yet."""
        self.url = sa.make_url(url)
        self.dialect = self.url.get_backend_name()
        self._turn = threading.Lock() if self.dialect == "sqlite" else None
        self._writer = self._engine(pool_size=2, begin="BEGIN IMMEDIATE", isolation="READ COMMITTED")
        self._reader = self._engine(pool_size=readers, begin="BEGIN", isolation="REPEATABLE READ")

    def _engine(self, *, pool_size: int, begin: str, isolation: str) -> sa.Engine:
        # Values never stand in an error's text, which is logged: among them are hashes and personal data.
        options: dict[str, Any] = {
            "pool_size": pool_size,
            "max_overflow": 2,
            "pool_timeout": 5,
            "hide_parameters": True,
            "connect_args": _CONNECT.get(self.dialect, {}),
        }
        if self.dialect != "sqlite":
            return sa.create_engine(self.url, isolation_level=isolation, pool_pre_ping=True, **options)
        engine = sa.create_engine(self.url, **options)

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
        """Give a Connection for one transaction that changes things.

        Raises Conflict when another thread of this process does not end its transaction: wait and do it again.
        """
        if self._turn is not None and not self._turn.acquire(timeout=_LOCK_WAIT_S):
            raise Conflict("another thread writes")
        try:
            with self._writer.connect() as connection:
                yield connection
        finally:
            if self._turn is not None:
                self._turn.release()

    @contextlib.contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """Give a Connection for reads."""
        with self._reader.connect() as connection:
            yield connection

    def stop(self) -> None:
        """Close every connection."""
        self._writer.dispose()
        self._reader.dispose()


def _mark(dialect: str) -> str:
    return "?" if dialect == "sqlite" else "%s"


@lru_cache(maxsize=1024)
def _select_text(
    table: sa.Table, columns: tuple[str, ...], by: tuple[str, ...], count: int, dialect: str, *, lock: bool
) -> str:
    mark = _mark(dialect)
    if len(by) == 1:
        found = f"{by[0]} IN ({', '.join([mark] * count)})"
    else:
        # Not one IN per column, which has the index tried with every combination, nor a row IN, which SQLite scans for.
        one = "(" + " AND ".join(f"{column} = {mark}" for column in by) + ")"
        found = " OR ".join([one] * count)
    end = f" ORDER BY {', '.join(by)} FOR UPDATE" if lock and dialect != "sqlite" else ""
    return f"SELECT {', '.join(columns)} FROM {table.name} WHERE {found}{end}"  # noqa: S608 - names of our own schema


_KEYS_MAX = 128
"""Keys of one statement; SQLite takes expressions 1000 deep."""


def select_rows(
    connection: sa.Connection,
    table: sa.Table,
    columns: tuple[str, ...],
    by: tuple[str, ...],
    keys: Iterable[tuple[Any, ...]],
    *,
    lock: bool = False,
) -> list[Any]:
    """Read the rows whose columns ``by`` equal one of ``keys``, through the index on them; rows have names.

    ``lock`` keeps them until the transaction ends, taken in the order of the keys. The hot path alone wants this: Core
    expands an IN with every statement. A statement's text is that of the next power of two, so that drivers and
    databases know it again; the last key fills it up.
    """
    wanted, dialect = sorted(set(keys)), connection.dialect.name
    found: list[Any] = []
    for begin in range(0, len(wanted), _KEYS_MAX):
        some = wanted[begin : begin + _KEYS_MAX]
        some += some[-1:] * ((1 << (len(some) - 1).bit_length()) - len(some))
        text = _select_text(table, columns, by, len(some), dialect, lock=lock)
        found += connection.exec_driver_sql(text, tuple(chain.from_iterable(some))).all()
    return found


@lru_cache(maxsize=256)
def _insert_text(table: sa.Table, columns: tuple[str, ...], dialect: str) -> str:
    mark = _mark(dialect)
    return f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES ({', '.join(mark for _ in columns)})"  # noqa: S608 - names of our own schema


def insert_rows(connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows that all have the same columns, with one prepared text and the driver's own bulk path.

    The hot path alone wants this: Core's insertmanyvalues costs twice the time. Values go to the driver as they are, so
    columns must hold what drivers take: int, str, bytes, None.
    """
    if rows:
        columns = tuple(rows[0])
        text = _insert_text(table, columns, connection.dialect.name)
        connection.exec_driver_sql(text, list(map(_picker(columns), rows)))


@lru_cache(maxsize=256)
def _update_text(table: sa.Table, changed: tuple[str, ...], by: tuple[str, ...], dialect: str) -> str:
    mark = _mark(dialect)
    sets, where = (", ".join(f"{c} = {mark}" for c in changed), " AND ".join(f"{c} = {mark}" for c in by))
    return f"UPDATE {table.name} SET {sets} WHERE {where}"  # noqa: S608 - names of our own schema


def update_rows(
    connection: sa.Connection, table: sa.Table, by: tuple[str, ...], rows: Sequence[Mapping[str, Any]]
) -> int:
    """Update rows found by the columns ``by``, which stand in each row beside the changed ones; returns how many."""
    if not rows:
        return 0
    changed, dialect = tuple(c for c in rows[0] if c not in by), connection.dialect.name
    values = list(map(_picker((*changed, *by)), rows))
    if dialect not in {"mysql", "mariadb"} or not all(isinstance(rows[0][c], int) for c in by):
        return int(connection.exec_driver_sql(_update_text(table, changed, by, dialect), values).rowcount)
    # PyMySQL sends updates one by one: joined with their new values they go together. Not by text, whose collations clash.
    found = 0
    for begin in range(0, len(values), _KEYS_MAX):
        some = values[begin : begin + _KEYS_MAX]
        text = _joined_update_text(table, changed, by, len(some))
        found += int(connection.exec_driver_sql(text, tuple(chain.from_iterable(some))).rowcount)
    return found


@lru_cache(maxsize=1024)
def _joined_update_text(table: sa.Table, changed: tuple[str, ...], by: tuple[str, ...], count: int) -> str:
    first = "SELECT " + ", ".join(f"%s AS {c}" for c in (*changed, *by))
    more = " UNION ALL SELECT " + ", ".join("%s" for _ in (*changed, *by))
    sets, found = (", ".join(f"t.{c} = v.{c}" for c in changed), " AND ".join(f"t.{c} = v.{c}" for c in by))
    return f"UPDATE {table.name} t JOIN ({first}{more * (count - 1)}) v ON {found} SET {sets}"  # noqa: S608 - names of our own schema


def _picker(columns: tuple[str, ...]) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
    """Return what takes ``columns`` out of a row, as a tuple."""
    if len(columns) == 1:
        return lambda row: (row[columns[0]],)
    return itemgetter(*columns)


def for_update(query: sa.Select[Any], dialect: str) -> sa.Select[Any]:
    """Lock the rows read; on SQLite the writer holds the whole database already."""
    return query if dialect == "sqlite" else query.with_for_update()
