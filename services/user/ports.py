"""What the use cases of the user room need of the world."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from services.kernel.clock import Clock
from services.kernel.idempotency import Answer, IdempotencyKey, Scope, Stored
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
)


class Ids(Protocol):
    """Makes ids."""

    def next(self, shard: int) -> int:
        """Return the next id on a shard."""
        ...


class Secrets(Protocol):
    """Makes what nobody can guess."""

    def token(self) -> str:
        """Return 256 random bits in base64url, 43 characters."""
        ...

    def session_id(self) -> str:
        """Return 128 random bits in hexadecimal, 32 characters."""
        ...


class Passwords(Protocol):
    """Hashes passwords; takes tens of milliseconds by intent, so it never runs in the Batcher's thread."""

    def hash(self, password: str) -> str:
        """Return the hash that is stored."""
        ...

    def verify(self, password: str, stored: str | None) -> bool:
        """Whether the password is the stored one. None, for nobody's: False, and it takes as long."""
        ...

    def is_outdated(self, stored: str) -> bool:
        """Whether a stored hash was made with weaker parameters than today's."""
        ...


class Signer(Protocol):
    """Signs access tokens with the newest of the keys that it was given."""

    def make(self, serial: int, now_ms: int) -> SigningKey:
        """Make a key; it is not used before it is loaded."""
        ...

    def load(self, keys: Sequence[SigningKey]) -> None:
        """Use these keys."""
        ...

    def public_keys(self) -> Sequence[PublicKey]:
        """Return the public halves, the one in use first."""
        ...

    def sign(self, claims: Mapping[str, str | int]) -> str:
        """Return a JWT over ``claims``."""
        ...


class Cache(Protocol):
    """What Redis remembers of users and sessions. It may forget anything at any time, and then SQL is asked."""

    def user(self, user_id: int) -> Profile | None:
        """Return a user's details, if they are remembered."""
        ...

    def permissions(self, user_id: int) -> frozenset[str] | None:
        """Return a user's scopes, if they are remembered."""
        ...

    def put_users(self, profiles: Iterable[Profile]) -> None:
        """Remember details and permissions, unless a newer version is there."""
        ...

    def session(self, session_id: str) -> bool | None:
        """Return whether a session is live; None: it is not remembered."""
        ...

    def fill_session(self, session: Session, now_ms: int) -> None:
        """Remember a session that was read, unless something newer is there."""
        ...

    def put_sessions(self, sessions: Iterable[Session], now_ms: int) -> None:
        """Remember sessions as they were just committed, also that they ended."""
        ...


class Revocations(Protocol):
    """Tells every service that sessions ended."""

    def push(self, session_ids: Sequence[str], until_ms: int) -> None:
        """Tell it; ``until_ms`` is when the last access token of theirs ends."""
        ...

    def missing(self, session_ids: Sequence[str]) -> list[str]:
        """Return those that were told but are not known any more."""
        ...


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a log-in is checked against."""

    user_id: int
    password_hash: str = field(repr=False)
    locked_until_ms: int


@dataclass(slots=True)
class Change:
    """All that one transaction writes."""

    now_ms: int
    new_users: list[User] = field(default_factory=list)
    changed_users: dict[int, User] = field(default_factory=dict)
    new_roles: dict[int, tuple[str, ...]] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    new_sessions: list[Session] = field(default_factory=list)
    changed_sessions: dict[str, Session] = field(default_factory=dict)
    new_tokens: list[RefreshToken] = field(default_factory=list)
    used_tokens: list[RefreshToken] = field(default_factory=list)
    answers: list[tuple[IdempotencyKey, Answer]] = field(default_factory=list)


class Transaction(Protocol):
    """One transaction; it rolls back unless ``commit`` is called.

    A user's row is the lock of all that is the user's: sessions and tokens are changed only by who holds it.
    """

    def stored(self, keys: Iterable[IdempotencyKey | None]) -> Mapping[Scope, Stored]:
        """Return the answers that ``keys`` got."""
        ...

    def usernames(self, keys: Iterable[str]) -> dict[str, int]:
        """Return who has these user names, by key."""
        ...

    def emails(self, keys: Iterable[str]) -> dict[str, int]:
        """Return who has these e-mail addresses, by key."""
        ...

    def users(self, ids: Iterable[int]) -> dict[int, User]:
        """Lock users in the order of their ids."""
        ...

    def owners(self, token_hashes: Iterable[str]) -> set[int]:
        """Return whose these refresh tokens are; locks nothing."""
        ...

    def tokens(self, token_hashes: Iterable[str]) -> dict[str, RefreshToken]:
        """Return refresh tokens of locked users."""
        ...

    def sessions(self, ids: Iterable[str]) -> dict[str, Session]:
        """Return sessions of locked users."""
        ...

    def live_sessions(self, user_ids: Iterable[int], now_ms: int) -> list[Session]:
        """Return the live sessions of locked users."""
        ...

    def write(self, change: Change) -> None:
        """Write a change: rows, roles, sessions, tokens, events, answers."""
        ...

    def commit(self) -> None:
        """Make it durable."""
        ...


class Store(Protocol):
    """The user room's database."""

    def transaction(self) -> AbstractContextManager[Transaction]:
        """Begin a transaction."""
        ...

    def credentials(self, name: str) -> Credentials | None:
        """Read what a user name or an e-mail address, of any case, logs in with."""
        ...

    def credentials_of(self, user_id: int) -> Credentials | None:
        """Read what a user logs in with."""
        ...

    def user(self, user_id: int) -> Profile | None:
        """Read a user."""
        ...

    def session(self, session_id: str) -> Session | None:
        """Read a session."""
        ...

    def ended_since(self, since_ms: int) -> dict[str, int]:
        """Read the sessions that were ended after a time: id -> when."""
        ...

    def signing_keys(self) -> list[SigningKey]:
        """Read the signing keys, the newest first."""
        ...

    def keep_signing_key(self, key: SigningKey) -> None:
        """Store a key, unless another instance has stored one of its serial before."""
        ...

    def forget_sessions(self, before_ms: int, limit: int) -> int:
        """Delete sessions that expired before a time, with their tokens, at most ``limit``; returns how many."""
        ...


@dataclass(frozen=True, slots=True)
class Ports:
    """Everything that the use cases are given."""

    store: Store
    cache: Cache
    revocations: Revocations
    passwords: Passwords
    signer: Signer
    secrets: Secrets
    ids: Ids
    clock: Clock
    render_registered: Callable[[Profile], bytes]
    business: frozenset[str]
    lock: LockPolicy
    sessions: SessionPolicy
    committed: Callable[[], None]
