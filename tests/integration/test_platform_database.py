"""The database kit on every engine: rows and texts, what an error means, one state in a read, settings that are refused."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TypeVar

import pytest
import sqlalchemy as sa

from services.kernel.errors import DomainError
from services.kernel.idempotency import IdempotencyKey, Scope
from services.platform import idempotency
from services.platform.database import Database, Failure, failure_of, insert_rows, select_rows, update_rows
from services.platform.durability import check_durable
from services.platform.settings import SettingsError
from tests.integration.engines import ENGINES, MARIADB, POSTGRESQL, SQLITE, Engines, execute

T = TypeVar("T")

schema = sa.MetaData()
things = sa.Table(
    "things",
    schema,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("name", sa.String(20), nullable=False),
    sa.Column("amount", sa.BigInteger),
    sa.Column("hash", sa.LargeBinary(32)),
    sa.UniqueConstraint("name", name="things_name"),
    sa.CheckConstraint("amount >= 0", name="things_amount"),
)
HIGHEST = 2**63 - 1
SERVERS = (MARIADB, POSTGRESQL)
Row = dict[str, object]


def thing(number: int, **other: object) -> Row:
    """A row."""
    return {"id": number, "name": f"n{number}", "amount": number, "hash": None} | other


@pytest.fixture(scope="module")
def urls(engines: Engines) -> Callable[[str], str]:
    """Where a database of each engine is."""
    return cache(engines.empty)


@pytest.fixture
def database(engine: str, urls: Callable[[str], str]) -> Iterator[Database]:
    """A database with two things."""
    made = Database(urls(engine))
    with made.write() as connection:
        schema.drop_all(connection)
        schema.create_all(connection)
        insert_rows(connection, things, [thing(1), thing(2)])
        connection.commit()
    yield made
    made.stop()


def test_rows_come_back_as_they_were_written_and_changed(database: Database) -> None:
    """Whatever a column holds, and whether the driver sends changes one by one or all together."""
    values: list[Row] = [
        {"id": 1, "amount": None, "hash": bytes(range(32))},
        {"id": 2, "amount": HIGHEST, "hash": b""},
        {"id": 9, "amount": 9, "hash": None},
    ]
    with database.write() as connection:
        insert_rows(connection, things, [thing(3, amount=HIGHEST, hash=b"\0\xff"), thing(4, amount=None)])
        assert update_rows(connection, things, ("id",), values) == 2
        assert update_rows(connection, things, ("id",), values) == 2, "rows that are so already are counted, too"
        assert (
            update_rows(connection, things, ("name",), [{"name": "n4", "amount": 5}, {"name": "n5", "amount": 5}]) == 1
        )
        found = select_rows(connection, things, ("id", "amount", "hash"), ("id",), [(n,) for n in range(9)], lock=True)
        assert {row.id: (row.amount, row.hash) for row in found} == {
            1: (None, bytes(range(32))), 2: (HIGHEST, b""), 3: (HIGHEST, b"\0\xff"), 4: (5, None),
        }  # fmt: skip


HARM: list[tuple[tuple[str, ...], Row]] = [
    (ENGINES, {"name": "n2"}),
    (ENGINES, {"id": 2}),
    (ENGINES, {"amount": -1}),
    (ENGINES, {"name": None}),
    (SERVERS, {"name": "n" * 21}),
    (SERVERS, {"amount": HIGHEST + 1}),
    ((MARIADB,), {"hash": b"h" * 256}),  # the others have no length of bytes
]


@pytest.mark.parametrize(("engine", "harm"), [(engine, harm) for engines, harm in HARM for engine in engines], ids=str)
def test_row_that_cannot_be_is_a_breach(database: Database, engine: str, harm: Row) -> None:
    """It is one item's fault, and never cut to fit."""
    with database.write() as connection, pytest.raises(sa.exc.DBAPIError) as caught:
        insert_rows(connection, things, [thing(3) | harm])
    assert failure_of(caught.value) is Failure.BREACH


def add_one(connection: sa.Connection, number: int) -> None:
    """Change a row, under its lock."""
    connection.execute(sa.update(things).where(things.c.id == number).values(amount=things.c.amount + 1))


def test_transaction_that_read_what_is_no_more_is_done_again(database: Database) -> None:
    """It is told so instead of writing over what another committed meanwhile."""
    with database.read() as connection:
        assert connection.execute(sa.select(things.c.amount)).scalars().all() == [1, 2]
        with database.write() as other:
            add_one(other, 1)
            other.commit()
        assert connection.execute(sa.select(things.c.amount)).scalars().all() == [1, 2], "one read is of one state"
        with pytest.raises(sa.exc.DBAPIError) as caught:
            add_one(connection, 1)
    assert failure_of(caught.value) is Failure.RETRY


@pytest.mark.parametrize("engine", SERVERS)
def test_one_of_two_that_wait_for_each_other_is_done_again(database: Database, engine: str) -> None:
    """The engine ends a deadlock, and the one that it ends knows what to do. SQLite's writers take turns."""
    both, ended = threading.Barrier(2), list[Failure | None]()

    def change(first: int, second: int) -> None:
        with database.write() as connection:
            add_one(connection, first)
            both.wait(10)
            try:
                add_one(connection, second)
                connection.commit()
                ended.append(None)
            except sa.exc.DBAPIError as error:
                ended.append(failure_of(error))

    threads = [threading.Thread(target=change, args=pair) for pair in ((1, 2), (2, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(map(str, ended)) == ["Failure.RETRY", "None"]


@pytest.mark.parametrize("engine", SERVERS)
def test_lock_is_not_waited_for_for_ever(database: Database, engine: str) -> None:
    """A row that another holds: tried again after a while, and not an outage."""
    patience = {MARIADB: "SET innodb_lock_wait_timeout = 1", POSTGRESQL: "SET lock_timeout = '100ms'"}
    with database.write() as holder, database.write() as waiting:
        add_one(holder, 1)
        waiting.exec_driver_sql(patience[engine])
        with pytest.raises(sa.exc.DBAPIError) as caught:
            add_one(waiting, 1)
    assert failure_of(caught.value) is Failure.RETRY


@pytest.mark.parametrize("engine", SERVERS)
def test_server_that_is_gone_is_an_outage_until_it_is_back(database: Database, engine: str) -> None:
    """In the middle of a transaction, and at the connection; afterwards the pool gives connections that work."""
    end = {MARIADB: "KILL CONNECTION_ID()", POSTGRESQL: "SELECT pg_terminate_backend(pg_backend_pid())"}
    with database.write() as connection:
        add_one(connection, 1)
        with pytest.raises(sa.exc.DBAPIError) as caught:
            connection.exec_driver_sql(end[engine])
    assert failure_of(caught.value) is Failure.UNAVAILABLE
    with database.write() as connection:
        assert connection.execute(sa.select(things.c.amount).where(things.c.id == 1)).scalar_one() == 1
    query = {key: f"{value}.gone" for key, value in database.url.query.items()}
    gone = Database(database.url.set(query=query).render_as_string(hide_password=False))
    with pytest.raises(sa.exc.OperationalError) as refused, gone.read():
        pass
    assert failure_of(refused.value) is Failure.UNAVAILABLE


def test_keys_are_their_bytes(engine: str, engines: Engines) -> None:
    """Upper case, lower case, a space at the end, an accent: each is a key of its own."""
    database, table = Database(engines.migrated(engine, "payment")), idempotency.idempotency_table(sa.MetaData())
    texts = ["key-0001", "Key-0001", "key-0001 ", "kéy-0001", "鑰匙-0001", "🔑-0001"]
    keys = [IdempotencyKey(Scope(7, "CreatePayment", text), bytes([n]) * 32) for n, text in enumerate(texts)]
    with database.write() as connection:
        for n, key in enumerate(keys):
            assert idempotency.find(connection, table, [key]) == {}
            idempotency.keep(connection, table, [(key, b"\0" * n if n % 2 else DomainError("ORDER_NOT_FOUND", n=n))], 1)
        stored = idempotency.find(connection, table, keys)
        assert [stored[key.scope].fingerprint for key in keys] == [key.fingerprint for key in keys]
    database.stop()


def test_durable_database_is_accepted(database: Database) -> None:
    """As the engines are here, and as SQLite is made by us."""
    for _ in range(2):
        check_durable(database)
    assert database.dialect in {SQLITE, POSTGRESQL, "mysql"}


SET = {MARIADB: "SET GLOBAL {} = {}", POSTGRESQL: "ALTER SYSTEM SET {} = {}"}
LAX = [
    (MARIADB, "innodb_flush_log_at_trx_commit", "2", "1", "is 2; it must be 1,"),
    (MARIADB, "sync_binlog", "0", "1", "is 0; it must be 1 where log_bin is on,"),
    (MARIADB, "sql_mode", "'ANSI_QUOTES'", "DEFAULT", "is 'ANSI_QUOTES'; it must be strict (STRICT_TRANS_TABLES),"),
    (POSTGRESQL, "synchronous_commit", "off", "DEFAULT", "is off; it must be on,"),
    (POSTGRESQL, "fsync", "off", "DEFAULT", "is off; it must be on,"),
    (POSTGRESQL, "full_page_writes", "off", "DEFAULT", "is off; it must be on,"),
]


@pytest.mark.parametrize(("engine", "name", "lax", "strict", "said"), LAX, ids=lambda value: value)
def test_lax_database_is_refused(database: Database, engine: str, name: str, lax: str, strict: str, said: str) -> None:
    """The message names the setting, what it is and what it must be; made strict again it is accepted."""
    reload = ["SELECT pg_reload_conf()"] if engine == POSTGRESQL else []
    try:
        execute(database.url, SET[engine].format(name, lax), *reload)
        assert until(lambda: faults(database.url)) == [
            f"{name} of the database {said} or what was answered may be lost."
        ]
    finally:
        execute(database.url, SET[engine].format(name, strict), *reload)
    assert until(lambda: not faults(database.url))


def faults(url: sa.URL) -> list[str]:
    """What a service that starts now would say of its database."""
    database = Database(url.render_as_string(hide_password=False))
    try:
        check_durable(database)
    except SettingsError as error:
        return error.faults
    else:
        return []
    finally:
        database.stop()


def until(ask: Callable[[], T]) -> T:
    """Ask until there is an answer: PostgreSQL reads its settings in its own time."""
    end = time.monotonic() + 5
    while not (answer := ask()) and time.monotonic() < end:
        time.sleep(0.02)
    return answer


@pytest.mark.parametrize("engine", [MARIADB])
def test_table_that_knows_no_transactions_is_refused(database: Database, engine: str) -> None:
    """Whoever made it: what is half written there stays so."""
    execute(database.url, "CREATE TABLE old (id INT) ENGINE = MyISAM")
    assert faults(database.url)[0].startswith("ENGINE of table old of the database is MyISAM; it must be InnoDB,")
    execute(database.url, "DROP TABLE old")
    assert faults(database.url) == []


@pytest.mark.parametrize("engine", [SQLITE])
def test_sqlite_that_does_not_wait_for_the_disk_is_refused(database: Database, engine: str) -> None:
    """Though we ask it to at each connection, it is what it says that counts."""
    database.stop()
    for pragma, said in (
        ("synchronous = NORMAL", "synchronous of the database is 1"),
        ("journal_mode = OFF", "is off"),
    ):
        lax = Database(database.url.render_as_string())
        sa.event.listen(lax._reader, "connect", lambda made, _, pragma=pragma: made.execute(f"PRAGMA {pragma}"))
        with pytest.raises(SettingsError, match=said):
            check_durable(lax)
        lax.stop()


@pytest.mark.parametrize("engine", [MARIADB])
def test_payment_does_not_start_over_a_lax_database(engines: Engines, tmp_path: Path, engine: str) -> None:
    """The process says what is wrong as it does of its own settings, and ends with 3."""
    url = engines.migrated(engine, "payment")
    given = {"DATA": tmp_path, "LISTEN": f"unix:{tmp_path}/p.sock", "DATABASE_URL": url}
    environ = os.environ | {f"PAYMESH_{name}": str(value) for name, value in given.items()}
    try:
        execute(sa.make_url(url), "SET GLOBAL innodb_flush_log_at_trx_commit = 0")
        command = [sys.executable, "-m", "services.payment"]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    finally:
        execute(sa.make_url(url), "SET GLOBAL innodb_flush_log_at_trx_commit = 1")
    assert done.returncode == 3
    assert "paymesh payment cannot start:\n  - innodb_flush_log_at_trx_commit of the database is 0" in done.stderr
    assert "Traceback" not in done.stderr
