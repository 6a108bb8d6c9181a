"""What the gateway's use cases need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from services.gateway.domain import ApiKey, Limit, MeshHealth, Route
    from services.kernel.caller import Caller
    from services.kernel.clock import Clock
    from services.kernel.idempotency import Answer, IdempotencyKey, Scope, Stored
    from services.kernel.pages import Page
    from services.kernel.signing import PublicKey, SigningKey


class Mesh(Protocol):
    """Who knows how the services are."""

    def health(self, caller: Caller) -> MeshHealth:
        """Ask, within the caller's deadline. Raises DomainError when there is no answer."""
        ...


class Routes(Protocol):
    """Where the methods of the contract are listed."""

    def all(self) -> Sequence[Route]:
        """Every method, by full name."""
        ...


class Quanta(Protocol):
    """The common buckets."""

    def take(self, wanted: Sequence[tuple[str, Limit, int]]) -> Sequence[tuple[int, int, int]] | None:
        """Take from each bucket (key, limit, how many) at most that many.

        Returns how many there were, how many are left, and in how many ms there is one more when none is. None: they
        cannot be reached, and nothing is known to be taken.
        """
        ...


class KeyTransaction(Protocol):
    """One durable change of keys; rolls back unless committed."""

    def stored(self, keys: Iterable[IdempotencyKey | None]) -> Mapping[Scope, Stored]:
        """Return the answers that idempotency keys got."""
        ...

    def keep(self, kept: Sequence[tuple[IdempotencyKey, Answer]], now_ms: int) -> None:
        """Keep answers under their idempotency keys."""
        ...

    def held(self, user_ids: Collection[int], now_ms: int) -> dict[int, int]:
        """Count the keys of users whose time is not over."""
        ...

    def lock(self, key_ids: Collection[int]) -> dict[int, ApiKey]:
        """Read keys and hold them until the end."""
        ...

    def add(self, made: Sequence[ApiKey]) -> None:
        """Write new keys."""
        ...

    def put(self, changed: Sequence[ApiKey]) -> None:
        """Write what changes of a key."""
        ...

    def commit(self) -> None:
        """Make it durable."""
        ...


class KeyStore(Protocol):
    """Where keys are kept."""

    def transaction(self) -> AbstractContextManager[KeyTransaction]:
        """Begin a change."""
        ...

    def list_keys(self, user_id: int, page: Page) -> Sequence[ApiKey]:
        """Read ``page.limit`` keys of a user, newest first."""
        ...

    def revoked(self, now_ms: int) -> Sequence[ApiKey]:
        """Read the keys that are revoked and whose time is not over."""
        ...

    def forget(self, before_ms: int, limit: int) -> int:
        """Delete keys whose time was over before, at most ``limit``; returns how many."""
        ...

    def signing_keys(self) -> list[SigningKey]:
        """Read the signing keys, the newest first."""
        ...

    def keep_signing_key(self, key: SigningKey) -> None:
        """Store a key, unless another instance has stored one of its serial before."""
        ...


class Signer(Protocol):
    """Signs what users show."""

    def make(self, serial: int, now_ms: int) -> SigningKey:
        """Make a key, sealed for the store."""
        ...

    def load(self, keys: Sequence[SigningKey]) -> None:
        """Use these keys, the newest first."""
        ...

    def public_keys(self) -> Sequence[PublicKey]:
        """Return the public halves, the one in use first."""
        ...

    def sign(self, claims: Mapping[str, str | int]) -> str:
        """Return a JWT over ``claims``."""
        ...


class Ids(Protocol):
    """Makes ids that are never used again."""

    def next(self, shard: int) -> int:
        """Return one on ``shard``."""
        ...


class Revocations(Protocol):
    """Tells every service which keys are refused."""

    def push(self, keys: Sequence[ApiKey]) -> None:
        """Tell it."""
        ...

    def missing(self, keys: Sequence[ApiKey]) -> list[ApiKey]:
        """Return those that are not known any more."""
        ...


@dataclass(frozen=True)
class KeyPorts:
    """What the use cases of keys need."""

    store: KeyStore
    signer: Signer
    revocations: Revocations
    ids: Ids
    clock: Clock
    render_created: Callable[[ApiKey, int], bytes]
    """The answer of CreateApiKey at a moment, without what is signed; also what a repeat gets."""
    render_rotated: Callable[[ApiKey, int], bytes]
    business: frozenset[str]
