"""The user room's ports in memory; they pass the suites of the real adapters (tests/integration/test_user_store.py)."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from services.kernel.idempotency import IdempotencyKey, Scope, Stored
from services.platform.database import Conflict
from services.user import usecases
from services.user.domain import (
    Event,
    LockPolicy,
    Profile,
    PublicKey,
    RefreshToken,
    Session,
    SessionPolicy,
    SigningKey,
    User,
    email_key,
    username_key,
)
from services.user.ports import Change, Credentials, Ports
from tests.fakes.order import FakeClock, FakeIds

BUSINESS = frozenset({"USERNAME_TAKEN", "EMAIL_TAKEN"})
MINUTE = 60_000


@dataclass
class Rows:
    """What a database would hold."""

    users: dict[int, User] = field(default_factory=dict)
    sessions: dict[str, Session] = field(default_factory=dict)
    tokens: dict[str, RefreshToken] = field(default_factory=dict)
    answers: dict[Scope, Stored] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)

    def copy(self) -> Rows:
        """Return rows that can be changed without changing these."""
        users, sessions = copy.deepcopy(self.users), copy.deepcopy(self.sessions)
        return Rows(users, sessions, copy.deepcopy(self.tokens), dict(self.answers), list(self.events))


class FakeTransaction:
    """Works on a copy of the rows; `commit` makes it theirs."""

    def __init__(self, store: FakeStore) -> None:
        """Copy the rows of ``store``."""
        self._store, self._rows = store, store.rows.copy()

    def stored(self, keys: Iterable[IdempotencyKey | None]) -> Mapping[Scope, Stored]:
        """Return the answers that ``keys`` got."""
        scopes = {key.scope for key in keys if key}
        return {scope: answer for scope, answer in self._rows.answers.items() if scope in scopes}

    def usernames(self, keys: Iterable[str]) -> dict[str, int]:
        """Return who has these user names, by key."""
        found = {username_key(user.username): user.id for user in self._rows.users.values()}
        return {key: found[key] for key in keys if key in found}

    def emails(self, keys: Iterable[str]) -> dict[str, int]:
        """Return who has these e-mail addresses, by key."""
        found = {email_key(user.email): user.id for user in self._rows.users.values()}
        return {key: found[key] for key in keys if key in found}

    def users(self, ids: Iterable[int]) -> dict[int, User]:
        """Lock users in the order of their ids."""
        return {i: copy.copy(self._rows.users[i]) for i in sorted(ids) if i in self._rows.users}

    def owners(self, token_hashes: Iterable[str]) -> set[int]:
        """Return whose these refresh tokens are."""
        return {token.user_id for token in self.tokens(token_hashes).values()}

    def tokens(self, token_hashes: Iterable[str]) -> dict[str, RefreshToken]:
        """Return refresh tokens."""
        return {h: copy.copy(self._rows.tokens[h]) for h in token_hashes if h in self._rows.tokens}

    def sessions(self, ids: Iterable[str]) -> dict[str, Session]:
        """Return sessions."""
        return {i: copy.copy(self._rows.sessions[i]) for i in ids if i in self._rows.sessions}

    def live_sessions(self, user_ids: Iterable[int], now_ms: int) -> list[Session]:
        """Return the live sessions of users."""
        wanted = set(user_ids)
        return [copy.copy(s) for s in self._rows.sessions.values() if s.user_id in wanted and s.is_live(now_ms)]

    def write(self, change: Change) -> None:
        """Write a change; what a constraint of the database forbids is refused here too."""
        rows = self._rows
        for user in change.new_users:
            assert user.id not in rows.users
            self._check_free(user)
            rows.users[user.id] = copy.copy(user)
        for user in change.changed_users.values():
            self._check_free(user)
            rows.users[user.id] = copy.copy(user)
        for user_id, roles in change.new_roles.items():
            assert rows.users[user_id].roles == roles
        assert not {session.id for session in change.new_sessions} & rows.sessions.keys()
        for session in [*change.new_sessions, *change.changed_sessions.values()]:
            assert session.user_id in rows.users
            rows.sessions[session.id] = copy.copy(session)
        assert not {token.token_hash for token in change.new_tokens} & rows.tokens.keys()
        for token in [*change.new_tokens, *change.used_tokens]:
            assert token.session_id in rows.sessions
            rows.tokens[token.token_hash] = copy.copy(token)
        rows.answers |= {key.scope: Stored(key.fingerprint, answer) for key, answer in change.answers}
        versions = {(event.user_id, event.version) for event in rows.events}
        assert not versions & {(event.user_id, event.version) for event in change.events}
        rows.events += change.events

    def commit(self) -> None:
        """Make it the store's."""
        self._store.rows = self._rows

    def _check_free(self, user: User) -> None:
        for other in self._rows.users.values():
            same = {
                username_key(other.username) == username_key(user.username),
                email_key(other.email) == email_key(user.email),
            }
            if other.id != user.id and True in same:
                raise Conflict("a name or an address is taken")


class FakeStore:
    """The database of the user room, in memory."""

    def __init__(self) -> None:
        """Begin empty."""
        self.rows = Rows()
        self.keys: dict[int, SigningKey] = {}

    @contextlib.contextmanager
    def transaction(self) -> Iterator[FakeTransaction]:
        """Begin a transaction; it is lost unless it is committed."""
        yield FakeTransaction(self)

    def credentials(self, name: str) -> Credentials | None:
        """Read what a user name or an e-mail address, of any case, logs in with."""
        for user in self.rows.users.values():
            if name.lower() in {username_key(user.username), email_key(user.email)}:
                return Credentials(user.id, user.password_hash, user.locked_until_ms)
        return None

    def credentials_of(self, user_id: int) -> Credentials | None:
        """Read what a user logs in with."""
        user = self.rows.users.get(user_id)
        return Credentials(user.id, user.password_hash, user.locked_until_ms) if user else None

    def user(self, user_id: int) -> Profile | None:
        """Read a user."""
        user = self.rows.users.get(user_id)
        return user.profile() if user else None

    def session(self, session_id: str) -> Session | None:
        """Read a session."""
        return copy.copy(self.rows.sessions.get(session_id))

    def ended_since(self, since_ms: int) -> dict[str, int]:
        """Read the sessions that were ended after a time: id -> when."""
        return {s.id: s.ended_ms for s in self.rows.sessions.values() if s.ended_ms > since_ms}

    def signing_keys(self) -> list[SigningKey]:
        """Read the signing keys, the newest first."""
        return [self.keys[serial] for serial in sorted(self.keys, reverse=True)]

    def keep_signing_key(self, key: SigningKey) -> None:
        """Store a key, unless another instance has stored one of its serial before."""
        self.keys.setdefault(key.serial, key)

    def forget_sessions(self, before_ms: int, limit: int) -> int:
        """Delete sessions that expired before a time, with their tokens, at most ``limit``; returns how many."""
        gone = [s.id for s in self.rows.sessions.values() if s.expire_ms < before_ms][:limit]
        for session_id in gone:
            del self.rows.sessions[session_id]
        self.rows.tokens = {h: token for h, token in self.rows.tokens.items() if token.session_id not in gone}
        return len(gone)


class FakeCache:
    """Remembers what it is told, until `lose`."""

    def __init__(self) -> None:
        """Begin empty."""
        self.profiles: dict[int, Profile] = {}
        self.sessions: dict[str, bool] = {}

    def lose(self) -> None:
        """Forget everything, as a new Redis has."""
        self.profiles.clear()
        self.sessions.clear()

    def user(self, user_id: int) -> Profile | None:
        """Return a user's details, if they are remembered."""
        return self.profiles.get(user_id)

    def permissions(self, user_id: int) -> frozenset[str] | None:
        """Return a user's scopes, if they are remembered."""
        found = self.profiles.get(user_id)
        return found.scopes if found else None

    def put_users(self, profiles: Iterable[Profile]) -> None:
        """Remember details and permissions, unless a newer version is there."""
        for profile in profiles:
            known = self.profiles.get(profile.id)
            if known is None or known.version <= profile.version:
                self.profiles[profile.id] = profile

    def session(self, session_id: str) -> bool | None:
        """Return whether a session is live; None: it is not remembered."""
        return self.sessions.get(session_id)

    def fill_session(self, session: Session, now_ms: int) -> None:
        """Remember a session that was read, unless something newer is there."""
        self.sessions.setdefault(session.id, session.is_live(now_ms))

    def put_sessions(self, sessions: Iterable[Session], now_ms: int) -> None:
        """Remember sessions as they were just committed."""
        self.sessions |= {session.id: session.is_live(now_ms) for session in sessions}


class FakeRevocations:
    """Keeps what it was told."""

    def __init__(self) -> None:
        """Begin empty."""
        self.until: dict[str, int] = {}

    def push(self, session_ids: Sequence[str], until_ms: int) -> None:
        """Keep it."""
        self.until |= dict.fromkeys(session_ids, until_ms)

    def missing(self, session_ids: Sequence[str]) -> list[str]:
        """Return those that are not kept."""
        return [session_id for session_id in session_ids if session_id not in self.until]


class FakePasswords:
    """Hashes by writing ``argon:`` before; counts how often it was asked to verify."""

    def __init__(self) -> None:
        """Begin with hashes that are as strong as today's."""
        self.verified = 0
        self.prefix = "argon:"

    def hash(self, password: str) -> str:
        """Return the hash that is stored."""
        return self.prefix + password

    def verify(self, password: str, stored: str | None) -> bool:
        """Whether the password is the stored one."""
        self.verified += 1
        return stored is not None and stored.split(":", 1)[1] == password

    def is_outdated(self, stored: str) -> bool:
        """Whether a stored hash was made with another prefix."""
        return not stored.startswith(self.prefix)


class FakeSigner:
    """Signs by keeping the claims."""

    def __init__(self, name: str = "key") -> None:
        """Make keys that are called ``name`` and their serial."""
        self._name = name
        self.loaded: tuple[SigningKey, ...] = ()
        self.claims: list[dict[str, str | int]] = []

    def make(self, serial: int, now_ms: int) -> SigningKey:
        """Make a key."""
        return SigningKey(serial, PublicKey(f"{self._name}-{serial}", "x", "y"), b"sealed", now_ms)

    def load(self, keys: Sequence[SigningKey]) -> None:
        """Use these keys."""
        self.loaded = tuple(keys)

    def public_keys(self) -> Sequence[PublicKey]:
        """Return the public halves."""
        return tuple(key.public for key in self.loaded)

    def sign(self, claims: Mapping[str, str | int]) -> str:
        """Keep the claims."""
        self.claims.append(dict(claims))
        return f"jwt-{len(self.claims)}"


class FakeSecrets:
    """Counts."""

    def __init__(self) -> None:
        """Begin at 1."""
        self._tokens = self._sessions = 0

    def token(self) -> str:
        """Return the next token."""
        self._tokens += 1
        return f"refresh-token-{self._tokens:04}"

    def session_id(self) -> str:
        """Return the next session id."""
        self._sessions += 1
        return f"{self._sessions:032x}"


@dataclass
class World:
    """A user room in memory: the ports, and the fakes behind them."""

    store: FakeStore = field(default_factory=FakeStore)
    cache: FakeCache = field(default_factory=FakeCache)
    revocations: FakeRevocations = field(default_factory=FakeRevocations)
    passwords: FakePasswords = field(default_factory=FakePasswords)
    signer: FakeSigner = field(default_factory=FakeSigner)
    clock: FakeClock = field(default_factory=FakeClock)
    nudges: int = 0

    def __post_init__(self) -> None:
        """Wire the ports."""
        self.ports = Ports(
            store=self.store,
            cache=self.cache,
            revocations=self.revocations,
            passwords=self.passwords,
            signer=self.signer,
            secrets=FakeSecrets(),
            ids=FakeIds(),
            clock=self.clock,
            render_registered=lambda profile: str(profile.id).encode(),
            business=BUSINESS,
            lock=LockPolicy(5, 15 * MINUTE),
            sessions=SessionPolicy(15 * MINUTE, 30 * MINUTE, 12 * 60 * MINUTE),
            committed=self._nudge,
        )

    def _nudge(self) -> None:
        self.nudges += 1

    def register(
        self, name: str = "alice", password: str = "a password", roles: tuple[str, ...] = ("customer",)
    ) -> User:
        """Make an account."""
        command = usecases.RegisterUser(None, name, f"{name}@example.com", "", f"argon:{password}", roles)
        answer = usecases.register_users(self.ports, [command])[0]
        assert isinstance(answer, bytes), answer
        return self.store.rows.users[int(answer)]
