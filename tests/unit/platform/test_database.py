"""The database kit on SQLite: what an error means, rows found by many keys, turns of writers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from services.kernel.errors import DomainError
from services.kernel.idempotency import IdempotencyKey, Scope
from services.platform import idempotency
from services.platform.database import Conflict, Database, Failure, failure_of, insert_rows, select_rows, update_rows

metadata = sa.MetaData()
things = sa.Table(
    "things",
    metadata,
    sa.Column("owner", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("name", sa.String(20), primary_key=True),
    sa.Column("amount", sa.BigInteger, nullable=False),
)
keys = idempotency.idempotency_table(metadata)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(f"sqlite:///{tmp_path / 'things.db'}")
    with made.write() as connection:
        metadata.create_all(connection)
        connection.commit()
    yield made
    made.stop()


def driver_error(kind: type[sa.exc.DBAPIError], *args: object, sqlstate: str = "") -> sa.exc.DBAPIError:
    """An error as SQLAlchemy wraps it, of a driver that says ``args`` and ``sqlstate``."""
    said = Exception(*args)
    said.sqlstate = sqlstate  # type: ignore[attr-defined]
    return kind("UPDATE things", {}, said)


@pytest.mark.parametrize(("error", "meaning"), [
    (Conflict("again"), Failure.RETRY),
    (driver_error(sa.exc.OperationalError, 1213, "Deadlock found"), Failure.RETRY),
    (driver_error(sa.exc.OperationalError, "database is locked"), Failure.RETRY),
    (driver_error(sa.exc.OperationalError, "canceled", sqlstate="55P03"), Failure.RETRY),
    (driver_error(sa.exc.IntegrityError, 1062, "Duplicate entry"), Failure.BREACH),
    (driver_error(sa.exc.DataError, 1406, "Data too long"), Failure.BREACH),
    (driver_error(sa.exc.OperationalError, 4025, "CONSTRAINT `positive` failed"), Failure.BREACH),
    (driver_error(sa.exc.OperationalError, 2006, "gone away"), Failure.UNAVAILABLE),
    (driver_error(sa.exc.OperationalError, "database or disk is full"), Failure.UNAVAILABLE),
    (driver_error(sa.exc.InterfaceError), Failure.UNAVAILABLE),
    (sa.exc.TimeoutError("pool"), Failure.UNAVAILABLE),
    (ValueError("not the database's"), None),
])  # fmt: skip
def test_error_is_understood(error: Exception, meaning: Failure | None) -> None:
    """Again as a whole, one item's fault, nobody there, or nothing of the database's."""
    assert failure_of(error) is meaning


def test_rows_are_found_by_many_keys(database: Database) -> None:
    """Pairs and single columns, absent and repeated keys, more keys than a statement takes."""
    rows = [{"owner": n % 7, "name": f"n{n}", "amount": n} for n in range(500)]
    with database.write() as connection:
        insert_rows(connection, things, rows)
        wanted = [(n % 7, f"n{n}") for n in (*range(0, 400, 2), 0, 0)] + [(0, "n1"), (99, "absent")]
        found = select_rows(connection, things, ("amount",), ("owner", "name"), wanted)
        assert sorted(row.amount for row in found) == list(range(0, 400, 2))
        by_name = select_rows(connection, things, ("owner", "amount"), ("name",), [(f"n{n}",) for n in range(300)])
        assert {row.amount: row.owner for row in by_name} == {n: n % 7 for n in range(300)}
        assert select_rows(connection, things, ("amount",), ("owner", "name"), []) == []


def test_rows_are_updated_by_their_key(database: Database) -> None:
    """Only those that are there are counted."""
    with database.write() as connection:
        insert_rows(connection, things, [{"owner": 1, "name": "a", "amount": 1}])
        changed = [{"owner": 1, "name": "a", "amount": 2}, {"owner": 1, "name": "b", "amount": 3}]
        assert update_rows(connection, things, ("owner", "name"), changed) == 1
        assert connection.execute(sa.select(things.c.amount)).scalars().all() == [2]


def test_transaction_is_gone_unless_it_is_committed(database: Database) -> None:
    """Rollback is the default."""
    with database.write() as connection:
        insert_rows(connection, things, [{"owner": 1, "name": "a", "amount": 1}])
    with database.read() as connection:
        assert connection.execute(sa.select(things)).all() == []


def test_writers_of_a_process_take_turns(database: Database) -> None:
    """Every increment of ten threads counts, though each reads before it writes."""
    with database.write() as connection:
        insert_rows(connection, things, [{"owner": 1, "name": "a", "amount": 0}])
        connection.commit()

    def add() -> None:
        for _ in range(20):
            with database.write() as connection:
                before = connection.execute(sa.select(things.c.amount)).scalar_one()
                update_rows(connection, things, ("owner", "name"), [{"owner": 1, "name": "a", "amount": before + 1}])
                connection.commit()

    threads = [threading.Thread(target=add) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.read() as connection:
        assert connection.execute(sa.select(things.c.amount)).scalar_one() == 200


def test_answers_are_found_under_their_own_scope_alone(database: Database) -> None:
    """The same key of another subject or method is another key; refusals come back as they were."""
    kept = IdempotencyKey(Scope(1, "Pay", "key-0001"), b"f" * 32)
    refused = IdempotencyKey(Scope(2, "Pay", "key-0001"), b"g" * 32)
    others = [IdempotencyKey(Scope(*scope), b"f" * 32) for scope in ((1, "Refund", "key-0001"), (3, "Pay", "key-0001"))]
    with database.write() as connection:
        idempotency.keep(
            connection, keys, [(kept, b"answer"), (refused, DomainError("ORDER_NOT_FOUND", order_id=1))], 1
        )
        found = idempotency.find(connection, keys, [kept, refused, None, *others])
    assert set(found) == {kept.scope, refused.scope}
    assert found[kept.scope].answer == b"answer"
    assert str(found[refused.scope].answer) == "ORDER_NOT_FOUND order_id=1"


def test_key_of_a_busy_subject_is_found_by_the_index(database: Database) -> None:
    """A subject with very many keys costs no more than another: each key is one search of the whole primary key."""
    asked: list[str] = []
    with database.read() as connection:
        sa.event.listen(connection, "before_cursor_execute", lambda *args: asked.append(args[2]))
        idempotency.find(connection, keys, [IdempotencyKey(Scope(1, "Pay", f"key-{n:04}"), b"") for n in range(64)])
    with database.read() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {asked[-1]}", (1, "Pay", "key") * 64).all()
    searches = [row[3] for row in plan if "idempotency_keys" in row[3]]
    assert len(searches) == 64
    assert all("(subject=? AND method=? AND idempotency_key=?)" in search for search in searches)
