"""The user room's store and cache: one suite over the fakes, SQL and Valkey; the schema is what the migrations make."""

from __future__ import annotations

import dataclasses
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
from services.platform import cache, migrations
from services.platform.database import Conflict, Database
from services.user import audit, states
from services.user.adapters.redis import RedisCache, RedisRevocations
from services.user.domain import Event, PublicKey, RefreshToken, Session, SigningKey, User, UserLogin, UserUpdated
from services.user.ports import Cache, Change, Revocations, Store
from services.user.store import SqlStore
from services.user.store import tables as t
from tests.fakes.user import FakeCache, FakeRevocations, FakeStore

NOW = 1_800_000_000_000
HOUR = 3_600_000
ANSWERED = IdempotencyKey(Scope(0, "RegisterUser", "key-1"), b"f" * 32)


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database as the migrations make it, to be copied."""
    path = tmp_path_factory.mktemp("user") / "user.db"
    migrations.upgrade("user", f"sqlite:///{path}")
    return path


@pytest.fixture
def database(migrated: Path, tmp_path: Path) -> Iterator[Database]:
    """An empty database of the newest schema."""
    path = tmp_path / "user.db"
    path.write_bytes(migrated.read_bytes())
    found = Database(f"sqlite:///{path}")
    yield found
    found.stop()


@pytest.fixture(params=["fake", "sql"])
def store(request: pytest.FixtureRequest) -> Store:
    """Each store in turn."""
    if request.param == "fake":
        return FakeStore()
    return SqlStore(request.getfixturevalue("database"), IdMaker(SystemClock(), 1))


@pytest.fixture
def client(redis_url: str) -> Iterator[redispy.Redis]:
    """A client of an empty Valkey."""
    with cache.connect(redis_url) as found:
        yield found


@pytest.fixture(params=["fake", "redis"])
def remembered(request: pytest.FixtureRequest) -> Cache:
    """Each cache in turn."""
    return FakeCache() if request.param == "fake" else RedisCache(request.getfixturevalue("client"), SystemClock())


def account(user_id: int, name: str = "", **changed: object) -> User:
    """An account, as it was just made."""
    name = name or f"user{user_id}"
    email, roles = f"{name}@example.com", ("customer",)
    user = User(user_id, name, email, "", states.ACTIVE, roles, f"$argon2id${name}", 0, 0, 1, NOW, NOW)
    for field, value in changed.items():
        setattr(user, field, value)
    return user


def registered(*users: User) -> Change:
    """What makes these accounts."""
    roles = {user.id: user.roles for user in users}
    return Change(NOW, new_users=list(users), new_roles=roles, events=[user.created() for user in users])


def write(store: Store, change: Change) -> None:
    """Write in a transaction of its own."""
    with store.transaction() as tx:
        tx.write(change)
        tx.commit()


def with_sessions(store: Store, *sessions: Session) -> None:
    """Make the accounts 1 and 2 with these sessions, each with a token that is called after it."""
    write(store, registered(account(1), account(2)))
    tokens = [RefreshToken(session.id.rjust(64, "0"), session.id, session.user_id, NOW) for session in sessions]
    write(store, Change(NOW, new_sessions=list(sessions), new_tokens=tokens))


def test_account_is_read_as_it_was_written(store: Store) -> None:
    """By id, by name and address of any case, under lock and without."""
    user = account(1, "Alice", roles=("customer", "support"), phone="+8613800000000")
    write(store, registered(user, account(2)))
    assert store.user(1) == user.profile()
    assert store.user(3) is None
    for name in ("alice", "ALICE", "aLiCe@EXAMPLE.com"):
        found = store.credentials(name)
        assert found is not None
        assert (found.user_id, found.password_hash, found.locked_until_ms) == (1, "$argon2id$Alice", 0)
    assert store.credentials("nobody") is store.credentials("nobody@example.com") is store.credentials_of(3) is None
    with store.transaction() as tx:
        assert tx.users([2, 1, 3]) == {1: user, 2: account(2)}
        assert tx.users([]) == {}
        assert tx.usernames(["alice", "carol"]) == {"alice": 1}
        assert tx.emails(["alice@example.com", "user2@example.com", "x@example.com"]) == {
            "alice@example.com": 1,
            "user2@example.com": 2,
        }


def test_change_is_kept_whole_or_not_at_all(store: Store) -> None:
    """Without a commit nothing of it is there; with it all of it is."""
    write(store, registered(account(1)))
    changed = account(1, email="New@Example.com", failed_logins=3, locked_until_ms=NOW + 9, version=2, update_ms=NOW + 1,
                      roles=("operator", "support"))  # fmt: skip
    events: list[Event] = [UserUpdated(1, 2, NOW + 1, changed.email, "", changed.roles)]
    change = Change(NOW + 1, changed_users={1: changed}, new_roles={1: changed.roles}, events=events,
                    answers=[(ANSWERED, b"answer")])  # fmt: skip
    with store.transaction() as tx:
        tx.write(change)
    assert store.user(1) == account(1).profile()
    write(store, change)
    assert store.user(1) == changed.profile()
    with store.transaction() as tx:
        assert tx.users([1]) == {1: changed}
        assert tx.stored([ANSWERED, None]) == {ANSWERED.scope: Stored(ANSWERED.fingerprint, b"answer")}


@pytest.mark.parametrize("taken", [{"username": "USER1"}, {"email": "USER1@EXAMPLE.COM"}])
def test_name_and_address_are_unique_whatever_the_case(store: Store, taken: dict[str, str]) -> None:
    """Who comes between the read and the write is found by the database, and the transaction is done again."""
    write(store, registered(account(1)))
    with pytest.raises(Conflict):
        write(store, registered(account(2, **taken)))
    write(store, registered(account(2)))
    if "email" in taken:
        with pytest.raises(Conflict):
            write(store, Change(NOW, changed_users={2: account(2, **taken)}))
    assert store.user(2) == account(2).profile()


def test_session_and_token_are_read_as_they_were_written(store: Store) -> None:
    """Live ones by user; a token by its hash, with whose it is; what is used and ended stays so."""
    live, other = Session("a", 1, NOW, NOW + HOUR), Session("b", 2, NOW, NOW + HOUR)
    ended, expired = Session("c", 1, NOW, NOW + HOUR, NOW, "logout"), Session("d", 1, NOW, NOW)
    with_sessions(store, live, other, ended, expired)
    assert store.session("a") == live
    assert store.session("z") is None
    hashes = [name.rjust(64, "0") for name in "abz"]
    with store.transaction() as tx:
        assert tx.owners(hashes) == {1, 2}
        assert {token.session_id for token in tx.tokens(hashes).values()} == {"a", "b"}
        assert tx.sessions(["a", "c", "z"]) == {"a": live, "c": ended}
        assert tx.live_sessions([1], NOW) == [live]
        assert {s.id for s in tx.live_sessions([1, 2, 3], NOW)} == {"a", "b"}
        assert tx.live_sessions([], NOW) == []
    later = dataclasses.replace(live, expire_ms=NOW + 2 * HOUR)
    other.end("new_password", NOW + 5)
    used = RefreshToken(hashes[0], "a", 1, NOW, NOW + 5)
    write(store, Change(NOW + 5, changed_sessions={"a": later, "b": other}, used_tokens=[used]))
    assert (store.session("a"), store.session("b")) == (later, other)
    assert store.ended_since(NOW) == {"b": NOW + 5}
    assert store.ended_since(NOW - 1) == {"b": NOW + 5, "c": NOW}
    with store.transaction() as tx:
        assert tx.tokens(hashes[:1]) == {hashes[0]: used}


def test_sessions_are_forgotten_with_their_tokens(store: Store) -> None:
    """At most so many at a time; later ones stay."""
    with_sessions(store, *(Session(name, 1, NOW, NOW + n) for n, name in enumerate("abcd")))
    assert [store.forget_sessions(NOW + 3, 2) for _ in range(3)] == [2, 1, 0]
    assert [store.session(name) is None for name in "abcd"] == [True, True, True, False]
    with store.transaction() as tx:
        assert tx.owners([name.rjust(64, "0") for name in "abc"]) == set()


def test_signing_key_of_a_serial_is_the_first_one(store: Store) -> None:
    """Of two that are made at once, one is there; the newest comes first."""
    first, late = (SigningKey(1, PublicKey(kid, "x", "y"), b"sealed", NOW) for kid in ("first", "late"))
    second = SigningKey(2, PublicKey("second", "x", "y"), b"sealed", NOW)
    for key in (first, late, second):
        store.keep_signing_key(key)
    assert store.signing_keys() == [second, first]


def test_schema_is_what_the_migrations_make(database: Database) -> None:
    """No table, column, index or constraint differs."""
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, t.metadata) == []


def test_database_refuses_a_status_that_the_contract_does_not_know(database: Database) -> None:
    """Whoever writes it."""
    with database.write() as connection, pytest.raises(sa.exc.IntegrityError):
        connection.execute(sa.insert(t.users).values(id=1, username="a", username_key="a", email="a", email_key="a", phone="",
                                                     status="banned", password_hash="", failed_logins=0, locked_until_ms=0,
                                                     version=1, create_ms=0, update_ms=0))  # fmt: skip


def findings(database: Database, now_ms: int = NOW, *, settled: bool = False) -> dict[str, list[str]]:
    """Breaches by what was examined."""
    with database.read() as connection:
        return {found.what: found.breaches for found in audit.invariants(connection, now_ms, settled=settled)}


def test_audit_holds_over_what_the_store_writes(database: Database) -> None:
    """Nothing is found wrong, and every invariant has looked at rows; what is not published is late in the end."""
    store = SqlStore(database, IdMaker(SystemClock(), 1))
    with_sessions(store, Session("a", 1, NOW, NOW + HOUR))
    write(store, Change(NOW, changed_users={1: account(1, version=2)}, events=[UserLogin(1, 2, NOW, "a", "")]))
    assert [breaches for breaches in findings(database).values() if breaches] == []
    with database.read() as connection:
        assert all(found.examined for found in audit.invariants(connection, NOW, settled=False))
    assert len(findings(database, settled=True)["events published"]) == 3


@pytest.mark.parametrize(
    ("harm", "what"),
    [
        ("DELETE FROM outbox WHERE topic = 'user.created'", "versions of each user"),
        ("UPDATE users SET version = 5", "accounts and their events"),
        ("UPDATE users SET password_hash = 'in clear'", "password hashes"),
        ("UPDATE refresh_tokens SET token_hash = 'a token'", "refresh tokens"),
        ("UPDATE refresh_tokens SET used_ms = 1", "sessions and their next token"),
    ],
)
def test_audit_finds_what_is_wrong(database: Database, harm: str, what: str) -> None:
    """Each invariant can fail."""
    store = SqlStore(database, IdMaker(SystemClock(), 1))
    with_sessions(store, Session("a", 1, NOW, NOW + HOUR))
    write(store, Change(NOW, changed_users={1: account(1, version=2)}, events=[UserLogin(1, 2, NOW, "a", "")]))
    with database.write() as connection:
        connection.exec_driver_sql(harm)
        connection.commit()
    assert findings(database)[what]


def test_cache_keeps_the_newest_of_an_account(remembered: Cache) -> None:
    """A reader of before a commit who comes after it does not bring the old back."""
    old, new = account(1).profile(), account(1, version=2, phone="+8613800000000", roles=("operator",)).profile()
    assert (remembered.user(1), remembered.permissions(1)) == (None, None)
    remembered.put_users([old, account(2, roles=("support",)).profile()])
    assert (remembered.user(1), remembered.permissions(1)) == (old, frozenset())
    remembered.put_users([new])
    remembered.put_users([old])
    assert (remembered.user(1), remembered.permissions(1)) == (new, new.scopes)
    assert remembered.permissions(2) == account(2, roles=("support",)).profile().scopes


def test_cache_never_brings_an_ended_session_back(remembered: Cache) -> None:
    """What was read before the end is not remembered after it; a slide is."""
    session = Session("a", 1, NOW, NOW + HOUR)
    assert remembered.session("a") is None
    remembered.fill_session(session, NOW)
    assert remembered.session("a") is True
    ended = dataclasses.replace(session, ended_ms=NOW, end_reason="logout")
    remembered.put_sessions([ended], NOW)
    remembered.fill_session(session, NOW)
    assert remembered.session("a") is False


def test_cache_forgets_in_time(client: redispy.Redis) -> None:
    """Sessions after 30 minutes or when they expire, accounts after 5: what Redis missed is seen then."""
    found = RedisCache(client, SystemClock())
    found.put_users([account(1).profile()])
    found.put_sessions([Session("a", 1, NOW, NOW + HOUR), Session("b", 1, NOW, NOW + 1000)], NOW)
    assert client.type("session:a") == b"string"
    assert client.type("user:1") == b"hash"
    assert client.type("permissions:1") == b"set"
    for key, most in {"session:a": 1_800_000, "session:b": 1000, "user:1": 300_000, "permissions:1": 300_000}.items():
        left = int(client.pttl(key))
        assert most - 1000 < left <= most
    assert "argon" not in str(client.hvals("user:1"))


def test_cache_is_passed_over_when_redis_is_away() -> None:
    """Every question is answered with "not known", and only the first waits for it."""
    found = RedisCache(cache.connect("redis://127.0.0.1:9/0"), SystemClock())
    asked: list[object] = [found.user(1), found.permissions(1), found.session("a")]
    found.put_users([account(1).profile()])
    found.put_sessions([Session("a", 1, NOW, NOW + HOUR)], NOW)
    assert asked == [None, None, None]


@pytest.fixture(params=["fake", "redis"])
def revocations(request: pytest.FixtureRequest) -> Revocations:
    """Each in turn."""
    return FakeRevocations() if request.param == "fake" else RedisRevocations(request.getfixturevalue("client"))


def test_revocations_know_what_they_were_told(revocations: Revocations) -> None:
    """What was never told, or lost, is missing."""
    revocations.push(["a", "b"], SystemClock().now_ms() + HOUR)
    assert revocations.missing(["a", "c", "b"]) == ["c"]
    assert revocations.missing([]) == []
