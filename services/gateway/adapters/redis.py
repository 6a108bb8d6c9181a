"""What the gateway has in Redis: the common buckets of limits, and the keys that every service must refuse."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.platform import revocation
from services.platform.cache import CircuitBreaker

if TYPE_CHECKING:
    from collections.abc import Sequence

    import redis

    from services.gateway.domain import ApiKey, Limit
    from services.kernel.clock import Clock

_TAKE = """
local said = redis.call('TIME')
local now = said[1] * 1000 + math.floor(said[2] / 1000)
local size, per, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local was = redis.call('HMGET', KEYS[1], 'calls', 'at')
local calls, at = tonumber(was[1]) or size, tonumber(was[2]) or now
calls = math.min(size, calls + math.max(0, now - at) * size / per)
local granted = math.min(wanted, math.floor(calls))
calls = calls - granted
redis.call('HSET', KEYS[1], 'calls', string.format('%.6f', calls), 'at', string.format('%.0f', now))
redis.call('PEXPIRE', KEYS[1], per)
local wait = 0
if calls < 1 then wait = math.ceil((1 - calls) * per / size) end
return {granted, math.floor(calls), wait}
"""
"""One step: fill the bucket for the time since, by Redis's own clock, and take. ARGV: its size, in how many ms it fills,
how many calls are wanted. A bucket that nobody asked for while it would have filled is full, and forgotten."""
_PREFIX = "paymesh:limit:"


class RedisQuanta:
    """A hash for each bucket."""

    def __init__(self, client: redis.Redis, clock: Clock) -> None:
        """Count in ``client``."""
        self._redis, self._take = client, client.register_script(_TAKE)
        self._breaker = CircuitBreaker(monotonic=clock.monotonic)

    def take(self, wanted: Sequence[tuple[str, Limit, int]]) -> Sequence[tuple[int, int, int]] | None:
        """Take from each bucket in one go; None, at once, while Redis does not answer."""

        def take() -> list[tuple[int, int, int]]:
            with self._redis.pipeline(transaction=False) as pipe:
                for key, limit, many in wanted:
                    self._take([_PREFIX + key], [limit.requests, limit.per_ms, many], client=pipe)
                return [(granted, left, wait_ms) for granted, left, wait_ms in pipe.execute()]

        taken: list[tuple[int, int, int]] | None = self._breaker.attempt(take, None)
        return taken


class RedisRevocations:
    """Tells every service which keys are refused, as services.platform.revocation hears it."""

    def __init__(self, client: redis.Redis) -> None:
        """Tell it through ``client``."""
        self._redis = client

    def push(self, keys: Sequence[ApiKey]) -> None:
        """Tell it, until the last of them would have expired."""
        if keys:
            revocation.revoke(self._redis, [_name(key) for key in keys], max(key.expire_ms for key in keys))

    def missing(self, keys: Sequence[ApiKey]) -> list[ApiKey]:
        """Return those that were told but are not known any more."""
        lost = set(revocation.unknown(self._redis, [_name(key) for key in keys]))
        return [key for key in keys if _name(key) in lost]


def _name(key: ApiKey) -> str:
    return revocation.of_key(str(key.id))
