"""What the gateway's use cases need, in memory."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING

from services.gateway import mapping
from services.gateway.domain import Status
from services.gateway.ports import KeyPorts
from services.kernel.idempotency import Stored
from services.kernel.signing import PublicKey, SigningKey
from services.platform.idempotency import business_reasons

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from services.gateway.domain import ApiKey, Limit
    from services.gateway.ports import KeyStore
    from services.kernel.idempotency import Answer, IdempotencyKey, Scope
    from services.kernel.pages import Page


class FakeClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        """Begin somewhere."""
        self.ms = 1_800_000_000_000

    def now_ms(self) -> int:
        """Return milliseconds since 1970 UTC."""
        return self.ms

    def monotonic(self) -> float:
        """Return the same in seconds."""
        return self.ms / 1000


class FakeQuanta:
    """The port Quanta: buckets that do not fill; ``asked`` counts how often somebody came."""

    def __init__(self) -> None:
        """Begin with full buckets."""
        self.taken: dict[str, int] = {}
        self.asked = 0
        self.down = False

    def take(self, wanted: Sequence[tuple[str, Limit, int]]) -> Sequence[tuple[int, int, int]] | None:
        """Take what there is; the next call comes in a hundredth of the time."""
        self.asked += 1
        return None if self.down else [self._one(key, limit, many) for key, limit, many in wanted]

    def _one(self, key: str, limit: Limit, many: int) -> tuple[int, int, int]:
        left = limit.requests - self.taken.get(key, 0)
        granted = min(left, many)
        self.taken[key] = self.taken.get(key, 0) + granted
        return granted, left - granted, 0 if left > granted else limit.per_ms // limit.requests


class FakeStore:
    """The ports KeyStore and KeyTransaction over dictionaries; a transaction is undone unless committed."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.keys: dict[int, ApiKey] = {}
        self.answers: dict[Scope, Stored] = {}
        self.signing: dict[int, SigningKey] = {}
        self._committed = False

    @contextmanager
    def transaction(self) -> Iterator[FakeStore]:
        """Begin a change."""
        before, self._committed = (dict(self.keys), dict(self.answers)), False
        yield self
        if not self._committed:
            self.keys, self.answers = before

    def commit(self) -> None:
        """Keep it."""
        self._committed = True

    def stored(self, keys: Iterable[IdempotencyKey | None]) -> Mapping[Scope, Stored]:
        """Return answers."""
        return {key.scope: self.answers[key.scope] for key in keys if key and key.scope in self.answers}

    def keep(self, kept: Sequence[tuple[IdempotencyKey, Answer]], now_ms: int) -> None:
        """Keep answers."""
        assert now_ms
        self.answers |= {key.scope: Stored(key.fingerprint, answer) for key, answer in kept}

    def held(self, user_ids: Collection[int], now_ms: int) -> dict[int, int]:
        """Count keys whose time is not over."""
        return dict(Counter(k.user_id for k in self.keys.values() if k.user_id in user_ids and k.expire_ms > now_ms))

    def lock(self, key_ids: Collection[int]) -> dict[int, ApiKey]:
        """Return those of the keys that exist."""
        return {key_id: self.keys[key_id] for key_id in key_ids if key_id in self.keys}

    def add(self, made: Sequence[ApiKey]) -> None:
        """Store new keys."""
        assert not {key.id for key in made} & self.keys.keys()
        self.keys |= {key.id: key for key in made}

    def put(self, changed: Sequence[ApiKey]) -> None:
        """Store changed keys."""
        assert {key.id for key in changed} <= self.keys.keys()
        self.keys |= {key.id: key for key in changed}

    def list_keys(self, user_id: int, page: Page) -> Sequence[ApiKey]:
        """Return a user's keys, newest first."""
        after = page.after_id()
        own = [k for k in self.keys.values() if k.user_id == user_id and (after is None or k.id < after)]
        return sorted(own, key=lambda key: -key.id)[: page.limit]

    def revoked(self, now_ms: int) -> Sequence[ApiKey]:
        """Return what must be refused."""
        return [key for _, key in sorted(self.keys.items()) if key.status(now_ms) is Status.REVOKED]

    def forget(self, before_ms: int, limit: int) -> int:
        """Forget what is over for long."""
        gone = [key.id for key in self.keys.values() if key.expire_ms < before_ms][:limit]
        for key_id in gone:
            del self.keys[key_id]
        return len(gone)

    def signing_keys(self) -> list[SigningKey]:
        """Return the signing keys, the newest first."""
        return [self.signing[serial] for serial in sorted(self.signing, reverse=True)]

    def keep_signing_key(self, key: SigningKey) -> None:
        """Store a key, unless there is one of its serial."""
        self.signing.setdefault(key.serial, key)


class FakeSigner:
    """The port Signer: a token is its claims as JSON."""

    def __init__(self) -> None:
        """Begin without a key."""
        self.loaded: tuple[SigningKey, ...] = ()

    def make(self, serial: int, now_ms: int) -> SigningKey:
        """Make a key that signs nothing."""
        return SigningKey(serial, PublicKey(f"k{serial}", "x", "y"), b"sealed", now_ms)

    def load(self, keys: Sequence[SigningKey]) -> None:
        """Remember."""
        self.loaded = tuple(keys)

    def public_keys(self) -> Sequence[PublicKey]:
        """Return what was loaded."""
        return [key.public for key in self.loaded]

    def sign(self, claims: Mapping[str, str | int]) -> str:
        """Return the claims."""
        return json.dumps(dict(claims))


class FakeRevocations:
    """The port Revocations: a set."""

    def __init__(self) -> None:
        """Begin with none."""
        self.told: set[int] = set()

    def push(self, keys: Sequence[ApiKey]) -> None:
        """Remember."""
        self.told |= {key.id for key in keys}

    def missing(self, keys: Sequence[ApiKey]) -> list[ApiKey]:
        """Return what was not told."""
        return [key for key in keys if key.id not in self.told]


class FakeIds:
    """The port Ids: one after the other."""

    def __init__(self) -> None:
        """Begin at a thousand."""
        self._next = count(1000)

    def next(self, shard: int) -> int:
        """Return the next."""
        assert shard >= 0
        return next(self._next)


class Keys:
    """The use cases' ports, with what a test looks at."""

    def __init__(self, store: KeyStore | None = None) -> None:
        """Keep in ``store``."""
        self.clock, self.revocations, self.signer = FakeClock(), FakeRevocations(), FakeSigner()
        self.store: KeyStore = store or FakeStore()
        self.ports = KeyPorts(
            store=self.store,
            signer=self.signer,
            revocations=self.revocations,
            ids=FakeIds(),
            clock=self.clock,
            render_created=mapping.created,
            render_rotated=mapping.rotated,
            business=business_reasons(),
        )
