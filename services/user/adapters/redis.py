"""What Redis remembers of users and sessions: strings, hashes and sets, each rebuilt from SQL when lost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from services.platform import revocation
from services.platform.cache import CircuitBreaker, attempt
from services.user.domain import Profile

if TYPE_CHECKING:
    import redis

    from services.kernel.clock import Clock
    from services.user.domain import Session

USER_TTL_MS = 5 * 60 * 1000
"""A change that Redis missed is seen after this at the latest."""
SESSION_TTL_MS = 30 * 60 * 1000

_ENDED = b"ended"
_NONE = "-"
"""Stands in the set of who has no permission: Redis has no empty sets."""

_PUT_USER = """
local known = redis.call('HGET', KEYS[1], 'version')
if known and tonumber(known) > tonumber(ARGV[1]) then return 0 end
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('HSET', KEYS[1], 'version', ARGV[1], unpack(ARGV, 4 + ARGV[3]))
redis.call('SADD', KEYS[2], unpack(ARGV, 4, 3 + ARGV[3]))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return 1
"""
"""Both keys in one step, and a newer version is never replaced: a reader of before a commit may come after it.
ARGV: version, time to live in ms, number of scopes, scopes, then fields and values of the hash."""


class RedisCache:
    """``user:{id}`` (hash) and ``permissions:{id}`` (set) for 5 minutes, ``session:{id}`` (string) for 30.

    A session's string is its user's id, or ``ended``.
    """

    def __init__(self, client: redis.Redis, clock: Clock) -> None:
        """Remember in ``client``."""
        self._redis = client
        self._put_user = client.register_script(_PUT_USER)
        self._breaker = CircuitBreaker(monotonic=clock.monotonic)

    def user(self, user_id: int) -> Profile | None:
        """Return a user's details, if they are remembered."""
        found: dict[bytes, bytes] | None = self._breaker.attempt(lambda: self._redis.hgetall(f"user:{user_id}"), None)
        if not found:
            return None
        text = {key.decode(): value.decode() for key, value in found.items()}
        return Profile(user_id, text["username"], text["email"], text["phone"], text["status"],
                       tuple(text["roles"].split()), int(text["version"]), int(text["create_ms"]),
                       int(text["update_ms"]))  # fmt: skip

    def permissions(self, user_id: int) -> frozenset[str] | None:
        """Return a user's scopes, if they are remembered."""
        found: set[bytes] | None = self._breaker.attempt(lambda: self._redis.smembers(f"permissions:{user_id}"), None)
        return frozenset(member.decode() for member in found) - {_NONE} if found else None

    def put_users(self, profiles: Iterable[Profile]) -> None:
        """Remember details and permissions, unless a newer version is there."""

        def put() -> None:
            with self._redis.pipeline(transaction=False) as pipe:
                for profile in profiles:
                    keys = [f"user:{profile.id}", f"permissions:{profile.id}"]
                    self._put_user(keys, _arguments(profile), client=pipe)
                pipe.execute()

        attempt(put, None)

    def session(self, session_id: str) -> bool | None:
        """Return whether a session is live; None: it is not remembered."""
        found: bytes | None = self._breaker.attempt(lambda: self._redis.get(f"session:{session_id}"), None)
        return None if found is None else found != _ENDED

    def fill_session(self, session: Session, now_ms: int) -> None:
        """Remember a session that was read. NX: a commit that came in between has put something newer."""
        value, ttl = _session(session, now_ms)
        attempt(lambda: self._redis.set(f"session:{session.id}", value, px=ttl, nx=True), None)

    def put_sessions(self, sessions: Iterable[Session], now_ms: int) -> None:
        """Remember sessions as they were just committed, also that they ended."""
        with self._redis.pipeline(transaction=False) as pipe:
            for session in sessions:
                value, ttl = _session(session, now_ms)
                pipe.set(f"session:{session.id}", value, px=ttl)
            attempt(pipe.execute, None)


class RedisRevocations:
    """Tells every service that sessions ended, as services.platform.revocation hears it."""

    def __init__(self, client: redis.Redis) -> None:
        """Tell it through ``client``."""
        self._redis = client

    def push(self, session_ids: Sequence[str], until_ms: int) -> None:
        """Tell it; ``until_ms`` is when the last access token of theirs ends."""
        revocation.revoke(self._redis, list(session_ids), until_ms)

    def missing(self, session_ids: Sequence[str]) -> list[str]:
        """Return those that were told but are not known any more."""
        return revocation.unknown(self._redis, session_ids)


def _arguments(profile: Profile) -> list[str | int]:
    scopes = sorted(profile.scopes) or [_NONE]
    fields: dict[str, str | int] = {
        "username": profile.username,
        "email": profile.email,
        "phone": profile.phone,
        "status": profile.status,
        "roles": " ".join(profile.roles),
        "create_ms": profile.create_ms,
        "update_ms": profile.update_ms,
    }
    pairs = [part for pair in fields.items() for part in pair]
    return [profile.version, USER_TTL_MS, len(scopes), *scopes, *pairs]


def _session(session: Session, now_ms: int) -> tuple[bytes, int]:
    """Return a session's value and its time to live in ms; a live one is forgotten when it expires."""
    if not session.is_live(now_ms):
        return _ENDED, SESSION_TTL_MS
    return str(session.user_id).encode(), min(session.expire_ms - now_ms, SESSION_TTL_MS)
