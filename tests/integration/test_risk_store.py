"""The risk room's store, series and cache: one suite over the fakes, SQL and Valkey; the schema is what migrations make."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis as redispy
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from services.kernel.clock import SystemClock
from services.kernel.idempotency import IdempotencyKey, Scope, Stored
from services.kernel.ids import IdMaker
from services.kernel.money import Money
from services.kernel.pages import page
from services.platform import cache, migrations
from services.platform.audit import Finding
from services.platform.database import Database, Failure, failure_of
from services.risk import audit
from services.risk import store as sql
from services.risk.adapters.redis import RedisRuleCache, RedisVelocity
from services.risk.domain import (
    AlertRaised,
    AmountLimit,
    Assessment,
    Block,
    BlockList,
    Condition,
    Decision,
    Noted,
    Payment,
    PaymentBlocked,
    Rule,
    Snapshot,
    Unreachable,
    VelocityLimit,
    Verdict,
    alert_of,
)
from services.risk.ports import Missing, RuleCache, Store, Velocity
from tests.fakes.risk import FakeRuleCache, FakeStore, FakeVelocity

NOW = 1_800_000_000_000
CONDITIONS: tuple[Condition, ...] = (AmountLimit(Money("JPY", 9)), VelocityLimit(9, 8), BlockList(), Unreachable())


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database as the migrations make it, to be copied."""
    path = tmp_path_factory.mktemp("risk") / "risk.db"
    migrations.upgrade("risk", f"sqlite:///{path}")
    return path


@pytest.fixture
def database(migrated: Path, tmp_path: Path) -> Iterator[Database]:
    """A database of the newest schema, with the seeded rules."""
    path = tmp_path / "risk.db"
    path.write_bytes(migrated.read_bytes())
    found = Database(f"sqlite:///{path}")
    yield found
    found.stop()


@pytest.fixture(params=["fake", "sql"])
def store(request: pytest.FixtureRequest) -> Store:
    """Each store in turn."""
    if request.param == "fake":
        return FakeStore()
    return sql.SqlStore(request.getfixturevalue("database"), IdMaker(SystemClock(), 1))


@pytest.fixture(params=["fake", "redis"])
def velocity(request: pytest.FixtureRequest) -> Iterator[Velocity]:
    """Each series in turn, known to be whole."""
    if request.param == "fake":
        yield whole(FakeVelocity())
        return
    found = RedisVelocity(request.getfixturevalue("redis_url"), 2.0)
    yield whole(found)
    found.stop()


@pytest.fixture(params=["fake", "redis"])
def kept(request: pytest.FixtureRequest) -> Iterator[RuleCache]:
    """Each cache in turn."""
    if request.param == "fake":
        yield FakeRuleCache()
        return
    client = cache.connect(request.getfixturevalue("redis_url"))
    yield RedisRuleCache(client)
    client.close()


def rule(number: int, condition: Condition, name: str = "") -> Rule:
    return Rule(number, name or f"rule_{number}", enabled=True, decision=Decision.BLOCK, score=7, condition=condition,
                create_ms=NOW, update_ms=NOW + 1)  # fmt: skip


def assessment(number: int, payment_id: int, decision: Decision = Decision.BLOCK) -> Assessment:
    return Assessment(number, Payment(payment_id, 5, "CNY", 12), Verdict(decision, 50, ("a", "b")), NOW)


def record(store: Store, made: Assessment, alert_id: int) -> None:
    alert = alert_of(made, alert_id)
    with store.transaction() as tx:
        tx.record([made], [alert], [PaymentBlocked(made), AlertRaised(alert)])
        tx.commit()


def whole(velocity: Velocity) -> Velocity:
    velocity.end_refill(velocity.begin_refill())
    return velocity


def pay(payment_id: int, user_id: int = 5) -> Payment:
    return Payment(payment_id, user_id, "CNY", 1)


def test_payments_are_noted_once_and_forgotten(store: Store) -> None:
    """By user or page by page, later than a time; an event that had its effect is known."""
    noted = [Noted(n, 5 + n % 2, NOW + n) for n in range(1, 6)]
    with store.transaction() as tx:
        assert tx.unseen(["payment-1", "payment-2"]) == {"payment-1", "payment-2"}
        tx.note(noted, [("payment-1", "payment.initiated")], NOW)
        tx.commit()
    assert sorted(store.noted_of({6, 99}, NOW + 1, 10)) == [noted[2], noted[4]]
    assert len(store.noted_of({5, 6}, NOW, 3)) == 3
    assert store.noted_since(NOW + 1, 0, 2) == noted[1:3]
    assert store.noted_since(NOW, 3, 9) == noted[3:]
    with store.transaction() as tx:
        assert tx.unseen(["payment-1", "payment-2"]) == {"payment-2"}
        assert (tx.forget(NOW + 4, 3), tx.forget(NOW + 4, 3), tx.forget(NOW + 4, 3)) == (3, 1, 0)
        tx.commit()
    assert store.noted_since(NOW, 0, 9) == [noted[4]]


def test_first_rules_are_there(store: Store) -> None:
    """What the first migration seeds: a limit, a velocity and the block list, all enabled."""
    version, rules, blocked = store.snapshot()
    assert version == store.version() == 1
    assert blocked == frozenset()
    assert {(r.name, r.condition, r.decision, r.enabled) for r in rules} == {
        ("amount_limit_cny", AmountLimit(Money("CNY", 5_000_000)), Decision.REVIEW, True),
        ("velocity_per_minute", VelocityLimit(60, 600), Decision.BLOCK, True),
        ("block_list", BlockList(), Decision.BLOCK, True),
    }


def test_rules_are_read_as_they_were_written(store: Store) -> None:
    """Every kind of condition, made and changed into every other; each change raises the version."""
    made = [rule(100 + n, condition) for n, condition in enumerate(CONDITIONS)]
    with store.transaction() as tx:
        tx.add_rules(made)
        tx.commit()
    changed = [dataclasses.replace(each, condition=CONDITIONS[n - 1], enabled=False) for n, each in enumerate(made)]
    with store.transaction() as tx:
        assert tx.rules({100, 101, 102, 103, 999}) == {each.id: each for each in made}
        assert tx.names_taken(["rule_100", "rule_999"]) == {"rule_100"}
        tx.put_rules(changed)
        tx.commit()
    assert [each for each in store.snapshot().rules if each.id >= 100] == changed
    assert store.version() == 3


def test_nothing_is_written_without_a_commit(store: Store) -> None:
    """Rollback is the default."""
    with store.transaction() as tx:
        tx.add_rules([rule(100, BlockList())])
        tx.put_blocks({7: Block(7, "x", NOW)})
        tx.record([assessment(1, 1)], [], [])
    assert store.version() == 1
    assert len(store.snapshot().rules) == 3
    with store.transaction() as tx:
        assert tx.assessed([1]) == ({}, set())


def test_assessments_are_known_by_payment_and_decision(store: Store) -> None:
    """And alerts by payment; others' are not told."""
    record(store, assessment(1, 11), 2)
    with store.transaction() as tx:
        assert tx.assessed({11, 12}) == ({(11, Decision.BLOCK): 1}, {11})
        assert tx.assessed({12}) == ({}, set())
        tx.record([assessment(3, 11, Decision.REVIEW)], [], [])
        tx.commit()
    with store.transaction() as tx:
        assert tx.assessed([11])[0] == {(11, Decision.BLOCK): 1, (11, Decision.REVIEW): 3}


def test_alerts_are_listed_newest_first(store: Store) -> None:
    """As they were written, page by page."""
    for number in (10, 20, 30):
        record(store, assessment(number, number), number + 1)
    newest = store.list_alerts(page(2, ""))
    assert [alert.id for alert in newest] == [31, 21, 11]  # one more than the page holds
    assert newest[0] == alert_of(assessment(30, 30), 31)
    kept_page, token = page(2, "").cut(newest, lambda alert: alert.id)
    assert len(kept_page) == 2
    assert [alert.id for alert in store.list_alerts(page(2, token))] == [11]


def test_block_list_is_changed_and_listed(store: Store) -> None:
    """Put on, noted anew, taken off; by user, page by page."""
    with store.transaction() as tx:
        tx.put_blocks({n: Block(n, f"no {n}", NOW) for n in (3, 1, 2)})
        tx.commit()
    with store.transaction() as tx:
        assert tx.blocks([1, 9]) == {1: Block(1, "no 1", NOW)}
        tx.put_blocks({1: None, 2: Block(2, "again", NOW), 9: None})
        tx.commit()
    assert store.snapshot().blocked == {2, 3}
    assert store.list_blocks(page(1, "")) == [Block(2, "again", NOW), Block(3, "no 3", NOW)]
    assert [b.user_id for b in store.list_blocks(page(1, page(1, "").cut([2, 3], lambda n: n)[1]))] == [3]


def test_answers_are_kept_under_their_keys(store: Store) -> None:
    """With the fingerprint of what they answered."""
    key = IdempotencyKey(Scope(1, "CreateRule", "key-0001"), b"f" * 32)
    with store.transaction() as tx:
        tx.keep([(key, b"answer")], NOW)
        tx.commit()
    with store.transaction() as tx:
        assert tx.stored([key, None]) == {key.scope: Stored(key.fingerprint, b"answer")}


def test_schema_is_what_the_migrations_make(database: Database) -> None:
    """No difference between the tables in code and a migrated database."""
    with database.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), sql.metadata) == []


def test_second_alert_of_a_payment_breaks_the_database(database: Database) -> None:
    """Even if two instances were to race past each other, SQL does not let them."""
    store = sql.SqlStore(database, IdMaker(SystemClock(), 1))
    record(store, assessment(1, 11), 2)
    with pytest.raises(sa.exc.IntegrityError) as raised:
        record(store, assessment(3, 11, Decision.REVIEW), 4)
    assert failure_of(raised.value) is Failure.BREACH


def test_audit_finds_an_alert_without_its_event(database: Database) -> None:
    """It holds over what the room writes, and breaks when a row is missing."""
    store = sql.SqlStore(database, IdMaker(SystemClock(), 1))
    record(store, assessment(1, 11), 2)

    def findings() -> list[Finding]:
        with database.read() as connection:
            return list(audit.invariants(connection, settled=False, now_ms=NOW))

    assert [f.breaches for f in findings()] == [[]] * 5
    assert sum(f.examined for f in findings()) == 6  # two events, an aggregate each, one alert, one block
    with database.write() as connection:
        connection.execute(sa.delete(sql.outbox).where(sql.outbox.c.topic == "risk.alert"))
        connection.commit()
    assert [b for f in findings() for b in f.breaches] == ["alert 2 has no risk.alert"]


def test_payments_are_counted_in_their_windows(velocity: Velocity) -> None:
    """In order within a batch, each user by himself, this payment counted."""
    windows = (1_000, 60_000)
    assert velocity.count([pay(1), pay(2), pay(3, user_id=6)], windows, NOW) == [[1, 1], [2, 2], [1, 1]]
    assert velocity.count([pay(4)], windows, NOW + 1_000) == [[1, 3]]
    assert velocity.count([pay(5)], windows, NOW + 60_000) == [[1, 2]]
    assert velocity.peek(5, windows, NOW + 60_000) == [1, 2]
    assert velocity.peek(99, windows, NOW) == [0, 0]


def test_repeat_counts_once_and_keeps_its_time(velocity: Velocity) -> None:
    """However often and late a payment is assessed again."""
    assert velocity.count([pay(1), pay(1)], (60_000,), NOW) == [[1], [1]]
    assert velocity.count([pay(1)], (60_000,), NOW + 30_000) == [[1]]
    assert velocity.peek(5, (60_000,), NOW + 59_999) == [1]
    assert velocity.peek(5, (60_000,), NOW + 60_000) == [0]


def test_payments_that_are_put_back_keep_their_time(velocity: Velocity) -> None:
    """Those that are there already keep theirs."""
    velocity.count([pay(1)], (60_000,), NOW)
    assert velocity.put([Noted(1, 5, NOW - 9), Noted(2, 5, NOW - 9), Noted(3, 6, NOW)], 60_000)
    assert velocity.peek(5, (60_000, 9), NOW) == [2, 1]
    assert velocity.peek(6, (60_000,), NOW) == [1]


def test_lost_series_are_not_counted_until_they_are_refilled(redis_url: str) -> None:
    """A Redis that lost its keys says so by the epoch; a loss during the refill is a loss still."""
    velocity, other = RedisVelocity(redis_url, 2.0), RedisVelocity(redis_url, 2.0)
    whole(velocity)
    assert (velocity.begin_refill(), other.begin_refill()) == ("", "")
    assert other.count([pay(1)], (1_000,), NOW) == [[1]]
    with redispy.Redis.from_url(redis_url) as client:
        client.flushall()
        assert velocity.count([pay(1)], (1_000,), NOW) is Missing.LOST
        assert velocity.peek(5, (1_000,), NOW) is Missing.LOST
        assert client.keys("*") == []
        assert velocity.count([pay(1)], (1_000,), NOW, refilled=True) == [[1]]
        assert velocity.peek(5, (1_000,), NOW, refilled=True) == [1]
        name = velocity.begin_refill()
        client.flushall()
        velocity.end_refill(name)
        assert other.peek(5, (1_000,), NOW) is Missing.LOST
        whole(other)
        assert velocity.count([pay(1)], (1_000,), NOW) == [[1]]
    velocity.stop()
    other.stop()


def test_series_that_did_not_answer_count_as_lost(redis_url: str) -> None:
    """What this process told them meanwhile is missing, though Redis kept all else."""
    velocity = RedisVelocity(redis_url, 2.0)
    whole(velocity)
    with redispy.Redis.from_url(redis_url) as client:
        client.set("velocity:5", "of another type")
        assert velocity.count([pay(1)], (1_000,), NOW) is Missing.SILENT
        assert velocity.begin_refill() == ""
        client.delete("velocity:5")
    time.sleep(0.5)
    assert velocity.count([pay(2)], (1_000,), NOW) is Missing.LOST
    whole(velocity)
    assert velocity.count([pay(2)], (1_000,), NOW) == [[1]]
    velocity.stop()


def test_series_is_trimmed_and_expires(redis_url: str) -> None:
    """A user who stops paying leaves nothing behind; one who goes on leaves what the longest window needs."""
    velocity = RedisVelocity(redis_url, 2.0)
    whole(velocity)
    velocity.count([pay(n) for n in range(5)], (1_000, 9_000), NOW)
    velocity.count([pay(9)], (1_000, 9_000), NOW + 9_000)
    with redispy.Redis.from_url(redis_url) as client:
        assert client.zrange("velocity:5", 0, -1) == [b"9"]
        assert 8_000 < client.pttl("velocity:5") <= 9_000
        client.script_flush()  # what a restarted server has forgotten is loaded again
    assert velocity.count([pay(10)], (9_000,), NOW + 9_000) == [[2]]
    velocity.stop()


def test_dead_series_is_left_alone_for_a_moment() -> None:
    """One time-out, then an answer at once: payments wait for it no longer."""
    velocity = RedisVelocity("redis://127.0.0.1:1/0", 0.05)
    assert velocity.count([pay(1)], (1_000,), NOW) is Missing.SILENT
    began = time.monotonic()
    for _ in range(1_000):
        assert velocity.count([pay(1)], (1_000,), NOW) is Missing.SILENT
        assert velocity.peek(5, (1_000,), NOW) is Missing.SILENT
    assert time.monotonic() - began < 5  # 2,000 time-outs would take 100 s
    velocity.stop()


def test_snapshot_is_kept_and_replaced(kept: RuleCache) -> None:
    """Only for its version, with every kind of rule and every blocked user."""
    snapshot = Snapshot(4, tuple(rule(n, condition) for n, condition in enumerate(CONDITIONS)), frozenset({1, 2}))
    assert kept.load(4) is None
    assert not kept.holds(snapshot)
    kept.save(snapshot)
    assert kept.load(4) == snapshot
    assert kept.load(5) is None
    assert kept.holds(snapshot)
    nobody = Snapshot(5, (), frozenset())
    kept.save(nobody)
    assert kept.load(5) == nobody
    assert kept.holds(nobody)
    assert not kept.holds(snapshot)


@pytest.mark.parametrize("key", ["risk:rules", "risk:blocked", "risk:blocked:version"])
def test_cache_that_lost_a_key_is_no_cache(redis_url: str, key: str) -> None:
    """A block list that lost its members must not pass for an empty one. Everything goes after an hour at the latest."""
    client = cache.connect(redis_url)
    kept, snapshot = RedisRuleCache(client), Snapshot(4, (rule(1, BlockList()),), frozenset({1, 2}))
    kept.save(snapshot)
    assert client.smembers("risk:blocked") == {b"1", b"2"}
    assert 3_500 < client.ttl(key) <= 3_600
    client.delete(key)
    assert kept.load(4) is None
    assert not kept.holds(snapshot)
    client.close()
