"""API keys: made, listed, rotated, revoked. What is signed is told once and stored nowhere; a repeat is signed again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from services.gateway.domain import DAY_MS, ApiKey, check_scopes
from services.kernel.errors import DomainError
from services.kernel.idempotency import Answer, IdempotencyKey, Once
from services.kernel.ids import shard_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from services.gateway.ports import KeyPorts, KeyTransaction
    from services.kernel.caller import Caller
    from services.kernel.pages import Page
    from services.kernel.signing import PublicKey

LIFETIME_DAYS = 90
OVERLAP_S = 24 * 3600
KEYS_MAX = 50
"""Of one user, revoked ones among them until their time is over: the edge must know those."""
ISSUER, AUDIENCE = "paymesh-keys", "paymesh-api"
REVOKE_ANY = "keys:write"
FORGET_MS = 30 * DAY_MS
"""How long a key is listed after its time is over; its answer under an idempotency key is asked for no longer than that."""
_FORGET_MAX = 500


@dataclass(frozen=True, slots=True)
class CreateApiKey:
    """Command: make a key of the caller."""

    caller: Caller
    name: str
    scopes: tuple[str, ...]
    lifetime_days: int
    key: IdempotencyKey


@dataclass(frozen=True, slots=True)
class RotateApiKey:
    """Command: make a key in the place of another, which is taken for ``overlap_s`` more."""

    caller: Caller
    id: int
    overlap_s: int
    lifetime_days: int
    key: IdempotencyKey


@dataclass(frozen=True, slots=True)
class RevokeApiKey:
    """Command: end a key now."""

    caller: Caller
    id: int


C = TypeVar("C", CreateApiKey, RotateApiKey)


@dataclass(slots=True)
class _Batch:
    """What a batch makes and changes. ``held`` are a user's keys whose time is not over."""

    ports: KeyPorts
    now_ms: int
    held: dict[int, int]
    made: list[ApiKey]
    changed: dict[int, ApiKey]

    def make(self, user_id: int, name: str, scopes: tuple[str, ...], lifetime_days: int) -> ApiKey:
        held = self.held.get(user_id, 0)
        if held >= KEYS_MAX:
            raise DomainError("API_KEY_LIMIT_REACHED", limit=KEYS_MAX)
        self.held[user_id] = held + 1
        expire_ms = self.now_ms + lifetime_days * DAY_MS
        made = ApiKey(self.ports.ids.next(shard_of(user_id)), user_id, name, scopes, self.now_ms, expire_ms)
        self.made.append(made)
        return made


def create_api_keys(ports: KeyPorts, commands: Sequence[CreateApiKey]) -> list[Answer]:
    """Make keys. An answer is rendered without what is signed."""

    def decide(batch: _Batch, command: CreateApiKey) -> bytes:
        check_scopes(command.scopes, command.caller.scopes)
        made = batch.make(command.caller.subject, command.name, command.scopes, command.lifetime_days)
        return ports.render_created(made, batch.now_ms)

    return _once(ports, commands, decide, ids=())


def rotate_api_keys(ports: KeyPorts, commands: Sequence[RotateApiKey]) -> list[Answer]:
    """Make keys in the place of others."""

    def decide(batch: _Batch, command: RotateApiKey) -> bytes:
        old = batch.changed.get(command.id)
        if old is None or old.user_id != command.caller.subject:
            raise DomainError("API_KEY_NOT_FOUND", key_id=command.id)
        check_scopes(old.scopes, command.caller.scopes)
        old.rotated(0, 0, batch.now_ms)  # refused before another is made
        made = batch.make(old.user_id, old.name, old.scopes, command.lifetime_days)
        batch.changed[old.id] = old.rotated(made.id, command.overlap_s * 1000, batch.now_ms)
        return ports.render_rotated(made, batch.now_ms)

    return _once(ports, commands, decide, ids=tuple(command.id for command in commands))


def _once(
    ports: KeyPorts, commands: Sequence[C], decide: Callable[[_Batch, C], bytes], *, ids: Sequence[int]
) -> list[Answer]:
    """Decide what is new of a batch, in one transaction."""
    now_ms = ports.clock.now_ms()
    with ports.store.transaction() as tx:
        keys = [command.key for command in commands]
        once = Once(keys, tx.stored(keys))
        found = tx.lock(set(ids)) if once.fresh else {}
        users = {commands[place].caller.subject for place in once.fresh}
        batch = _Batch(ports, now_ms, tx.held(users, now_ms), [], dict(found))
        for place in once.fresh:
            once.settle(place, _outcome(decide, batch, commands[place]))
        _write(tx, batch, found)
        tx.keep(once.kept(business=ports.business), now_ms)
        tx.commit()
    return once.done()


def _outcome(decide: Callable[[_Batch, C], bytes], batch: _Batch, command: C) -> Answer:
    try:
        return decide(batch, command)
    except DomainError as refusal:
        return refusal


def _write(tx: KeyTransaction, batch: _Batch, found: dict[int, ApiKey]) -> None:
    tx.add(batch.made)
    tx.put([key for key in batch.changed.values() if key != found[key.id]])


def revoke_api_keys(ports: KeyPorts, commands: Sequence[RevokeApiKey]) -> list[ApiKey | DomainError]:
    """End keys now; once it is durable, the services are told."""
    now_ms, outcomes = ports.clock.now_ms(), list[ApiKey | DomainError]()
    with ports.store.transaction() as tx:
        found = tx.lock({command.id for command in commands})
        changed: dict[int, ApiKey] = {}
        for command in commands:
            key, subject = found.get(command.id), command.caller.owns_or(REVOKE_ANY)
            if key is None or subject not in {None, key.user_id}:
                outcomes.append(DomainError("API_KEY_NOT_FOUND", key_id=command.id))
                continue
            changed[key.id] = key.revoked(now_ms)
            outcomes.append(changed[key.id])
        tx.put([key for key in changed.values() if key != found[key.id]])
        tx.commit()
    ports.revocations.push(list(changed.values()))
    return outcomes


def list_api_keys(ports: KeyPorts, user_id: int, page: Page) -> tuple[Sequence[ApiKey], str]:
    """One page of a user's keys, newest first, and the token of the next."""
    return page.cut(ports.store.list_keys(user_id, page), lambda key: key.id)


def signed(ports: KeyPorts, key: ApiKey) -> str:
    """Return what its owner shows."""
    return ports.signer.sign(
        {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": str(key.user_id),
            "scope": " ".join(key.scopes),
            "jti": str(key.id),
            "iat": key.create_ms // 1000,
            "exp": key.expire_ms // 1000,
        }
    )


def open_keys(ports: KeyPorts) -> None:
    """Load the signing keys. When there is none, make the first; of two instances that do so at once, one's key stays."""
    keys = ports.store.signing_keys()
    if not keys:
        ports.store.keep_signing_key(ports.signer.make(1, ports.clock.now_ms()))
        keys = ports.store.signing_keys()
    ports.signer.load(keys)


def get_api_key_jwks(ports: KeyPorts) -> Sequence[PublicKey]:
    """Return the public keys, the one in use first."""
    return ports.signer.public_keys()


def get_api_key_trust(ports: KeyPorts) -> tuple[Sequence[PublicKey], Sequence[int]]:
    """Return what verifies keys, and the ids of those that must be refused all the same."""
    return ports.signer.public_keys(), [key.id for key in ports.store.revoked(ports.clock.now_ms())]


def remind_revocations(ports: KeyPorts) -> int:
    """Tell the services what they do not know: keys whose overlap ended, or that were told while Redis was away."""
    revoked = ports.store.revoked(ports.clock.now_ms())
    lost = ports.revocations.missing(revoked) if revoked else []
    ports.revocations.push(lost)
    return len(lost)


def forget_api_keys(ports: KeyPorts) -> int:
    """Delete keys whose time has been over for long; returns how many."""
    before, total = ports.clock.now_ms() - FORGET_MS, 0
    while gone := ports.store.forget(before, _FORGET_MAX):
        total += gone
    return total
