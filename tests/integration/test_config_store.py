"""The store's suite, over memory and SQL; the cache over a real Valkey."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from paymesh.config.v1 import config_event_pb2
from services.config import audit
from services.config.adapters.cache import RedisEntries
from services.config.domain import Entry, Name
from services.config.store import ENTRIES, HISTORY, METADATA, OUTBOX, SqlStore
from services.kernel import pages
from services.kernel.ids import IdMaker
from services.platform import cache, migrations
from services.platform.database import Database
from tests.fakes.config import FakeClock, FakeStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from services.config.ports import Store

P1, P2 = Name("payment", "payment-1"), Name("payment", "payment-2")
V1, V2 = Entry("a.b", "1", 1, 7, 100), Entry("a.b", "2", 2, 8, 200)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """A new SQLite database at the head of the migrations."""
    url = f"sqlite:///{tmp_path}/config.db"
    migrations.upgrade("config", url)
    database = Database(url)
    yield database
    database.stop()


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest) -> Store:
    """A store, in memory and in SQL."""
    if request.param == "memory":
        return FakeStore()
    clock = FakeClock()
    return SqlStore(request.getfixturevalue("database"), IdMaker(clock, 1), clock)


def _save(store: Store, *changes: Entry) -> None:
    with store.write() as tx:
        tx.save_entries(changes)
        tx.commit()


def test_entry_is_its_last_version(store: Store) -> None:
    """Several versions in one change and a later one: read back as the newest."""
    _save(store, V1, V2)
    assert store.entry("a.b") == V2
    third = Entry("a.b", "3" * 65_536, 3, 9, 300)
    _save(store, third, Entry("c.d", "", 1, 9, 300))
    assert store.entry("a.b") == third
    with store.write() as tx:
        assert tx.entries(["a.b", "no.such"]) == {"a.b": third}
    assert store.entry("no.such") is None


def test_change_without_commit_is_no_change(store: Store) -> None:
    """Rollback is the default."""
    with store.write() as tx:
        tx.save_entries([V1])
        tx.keep_instances({P1: "h:1"})
    assert store.entry("a.b") is None
    with store.write() as tx:
        assert tx.instances() == {}


def test_entries_are_listed_by_key_after_a_key_with_a_prefix(store: Store) -> None:
    """One more than the page holds; `_` and `%` in a prefix are letters."""
    _save(store, *(Entry(key, "1", 1, 7, 100) for key in ("a.k1", "a.k2", "a.k3", "a_k", "abk")))
    assert [e.key for e in store.list_entries("a.", pages.Page(1, "a.k1"))] == ["a.k2", "a.k3"]
    assert [e.key for e in store.list_entries("a_", pages.Page(10, ""))] == ["a_k"]


def test_instances_are_kept_moved_and_forgotten(store: Store) -> None:
    """The address is that of the last registration."""
    with store.write() as tx:
        tx.keep_instances({P1: "h:1", P2: "h:2"})
        tx.commit()
    with store.write() as tx:
        tx.keep_instances({P1: "h:3"})
        tx.forget_instances([P2])
        tx.commit()
    with store.write() as tx:
        assert tx.instances() == {P1: "h:3"}


def test_history_and_events_are_in_the_transaction(database: Database) -> None:
    """Every version once, in the history with its value and in the outbox without it."""
    clock = FakeClock()
    _save(SqlStore(database, IdMaker(clock, 1), clock), V1, V2)
    with database.read() as connection:
        kept = connection.execute(sa.select(HISTORY.c.version, HISTORY.c.value).order_by(HISTORY.c.version)).all()
        events = connection.execute(sa.select(OUTBOX).order_by(OUTBOX.c.version)).all()
    assert [tuple(row) for row in kept] == [(1, "1"), (2, "2")]
    assert [(e.topic, e.event_key, e.version) for e in events] == [
        ("config.changed", "a.b", 1),
        ("config.changed", "a.b", 2),
    ]
    told = config_event_pb2.ConfigChanged.FromString(events[1].payload)
    assert (told.key, told.version, told.updated_by, told.event_time.ToMilliseconds()) == ("a.b", 2, 8, 200)


@pytest.mark.parametrize("breach", ["none", "entry behind", "gap in events"])
def test_audit_finds_a_planted_breach(database: Database, breach: str) -> None:
    """What agrees is found whole; an entry that differs from its history, or a lost event, is named."""
    clock = FakeClock()
    _save(SqlStore(database, IdMaker(clock, 1), clock), V1, V2)
    with database.write() as connection:
        if breach == "entry behind":
            connection.execute(sa.update(ENTRIES).values(version=1))
        if breach == "gap in events":
            connection.execute(sa.delete(OUTBOX).where(OUTBOX.c.version == 1))
        connection.commit()
        found = list(audit.invariants(connection, clock.now_ms(), settled=False))
    breaches = [text for finding in found for text in finding.breaches]
    assert bool(breaches) == (breach != "none")
    assert all("a.b" in text for text in breaches)
    assert all(finding.examined for finding in found)


def test_schema_of_the_migrations_is_that_of_the_store(database: Database) -> None:
    """Tables, columns and keys are declared twice; they are the same."""
    with database.read() as connection:
        found = sa.inspect(connection)
        for table in METADATA.tables.values():
            columns = {c["name"]: c["nullable"] for c in found.get_columns(table.name)}
            assert columns == {c.name: bool(c.nullable) for c in table.columns}
            key = found.get_pk_constraint(table.name)["constrained_columns"]
            assert key == [c.name for c in table.primary_key.columns]


def test_cache_gives_what_it_was_told_and_may_lose_it(redis_url: str) -> None:
    """For 24 hours at most; an older version never replaces a newer one."""
    client = cache.connect(redis_url)
    entries = RedisEntries(client)
    assert entries.get("a.b") is None
    entries.put([V2])
    entries.put([V1])
    assert entries.get("a.b") == V2
    assert 86_000 < int(client.ttl("paymesh:config:a.b")) <= 86_400
    client.flushall()
    assert entries.get("a.b") is None


def test_cache_of_a_dead_process_is_not_believed(redis_url: str) -> None:
    """A change may have been committed and not have reached it: everything is dropped before the first read."""
    RedisEntries(cache.connect(redis_url)).put([V1])
    assert RedisEntries(cache.connect(redis_url)).get("a.b") is None


def test_cache_that_missed_a_change_is_not_believed(redis_url: str) -> None:
    """While Redis was away an entry changed: what it still holds is dropped when it is back."""
    client = cache.connect(redis_url)
    entries = RedisEntries(client)
    entries.put([V1])
    pool, client.connection_pool = client.connection_pool, cache.connect("redis://127.0.0.1:1/0").connection_pool
    entries.put([V2])
    client.connection_pool = pool
    assert entries.get("a.b") is None
