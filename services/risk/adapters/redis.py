"""Redis: the velocity series (sorted sets), copies of the rules (a string) and of the block list (a set)."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, Final

import orjson
import redis

from services.kernel.money import Money
from services.platform import cache
from services.platform.cache import CircuitBreaker
from services.risk.domain import AmountLimit, BlockList, Condition, Decision, Rule, Snapshot, Unreachable, VelocityLimit
from services.risk.ports import Missing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.risk.domain import Noted, Payment

_REST_S: Final = 0.5
"""Shorter than elsewhere: while the series rests, payments go unjudged."""
_CHUNK: Final = 10_000
"""Members of one SADD."""

_EPOCH: Final = "velocity:epoch"
"""Is there for as long as the series hold all that they should: a Redis that lost its keys lost this one too."""
_REFILL_S: Final = 600
"""How long a refill may take."""

_COUNT = """
-- KEYS: the epoch, the series of each payment's user.
-- ARGV: 1: the series were refilled, now, longest window, number of windows, the windows, the payments.
if ARGV[1] == '0' and redis.call('EXISTS', KEYS[1]) == 0 then return '' end
local now, longest, windows = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local counts = {}
for place = 2, #KEYS do
  local key = KEYS[place]
  redis.call('ZADD', key, 'NX', now, ARGV[3 + windows + place])
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now - longest)
  redis.call('PEXPIRE', key, longest)
  for window = 1, windows do
    counts[#counts + 1] = redis.call('ZCOUNT', key, '(' .. (now - ARGV[4 + window]), '+inf')
  end
end
return table.concat(counts, ' ')
"""
"""One command for the batch: a pipeline of the same four commands a payment costs this process six times as much."""

_END_REFILL = """
if redis.call('DEL', KEYS[1]) == 0 then return 0 end
redis.call('SET', KEYS[2], 1)
return 1
"""
"""KEYS: the refill's own key, which a loss meanwhile takes along; the epoch."""


class RedisVelocity:
    """The sorted sets ``velocity:{user id}``: member = payment, score = milliseconds when it was first assessed.

    They count as lost when ``velocity:epoch`` is gone, and for this process also after Redis did not answer: what it was
    told meanwhile is missing, even if Redis has all else.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        """Wait at most ``timeout_s`` for Redis at ``url``, never twice: the caller's own deadline is near."""
        options: dict[str, Any] = {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s, "retry": None}
        self._client = redis.Redis.from_url(url, **options)
        self._count = self._client.register_script(_COUNT)
        self._end = self._client.register_script(_END_REFILL)
        self._breaker = CircuitBreaker(_REST_S)
        self._mended = self._begun = 0
        """The breaker's failures when the refill that ended last had begun, and when the newest began."""

    def count(
        self, payments: Sequence[Payment], windows_ms: Sequence[int], now_ms: int, *, refilled: bool = False
    ) -> list[Sequence[int]] | Missing:
        """Put payments down and count, in one round trip."""
        if missing := self._missing(refilled=refilled):
            return missing
        keys = [_EPOCH.encode(), *(b"velocity:%d" % payment.user_id for payment in payments)]
        members = [payment.payment_id for payment in payments]
        arguments = [int(refilled), now_ms, max(windows_ms), len(windows_ms), *windows_ms, *members]
        answer = self._breaker.attempt(lambda: self._count(keys, arguments), None)
        if not answer:
            return Missing.SILENT if answer is None else Missing.LOST
        counts = [int(each) for each in answer.split()]
        step = len(windows_ms)
        return [counts[at : at + step] for at in range(0, len(counts), step)]

    def peek(
        self, user_id: int, windows_ms: Sequence[int], now_ms: int, *, refilled: bool = False
    ) -> Sequence[int] | Missing:
        """Count only."""
        if missing := self._missing(refilled=refilled):
            return missing

        def ask() -> tuple[bool, list[int]]:
            with self._client.pipeline(transaction=False) as pipe:
                pipe.exists(_EPOCH)
                for window in windows_ms:
                    pipe.zcount(f"velocity:{user_id}", f"({now_ms - window}", "+inf")
                whole, *counts = pipe.execute()
            return bool(whole), [int(each) for each in counts]

        answer: tuple[bool, list[int]] | None = self._breaker.attempt(ask, None)
        if answer is None:
            return Missing.SILENT
        return answer[1] if answer[0] or refilled else Missing.LOST

    def put(self, noted: Sequence[Noted], longest_ms: int) -> bool:
        """Put payments down at their times; those that are there keep theirs."""
        series: dict[int, dict[str, int]] = {}
        for each in noted:
            series.setdefault(each.user_id, {})[str(each.payment_id)] = each.at_ms

        def add() -> bool:
            with self._client.pipeline(transaction=False) as pipe:
                for user_id, members in series.items():
                    pipe.zadd(f"velocity:{user_id}", members, nx=True)
                    pipe.pexpire(f"velocity:{user_id}", longest_ms)
                pipe.execute()
            return True

        return bool(self._breaker.attempt(add, default=False))

    def begin_refill(self) -> str:
        """Look for the epoch; without it, or after a failure, begin a refill, of which every process is told."""
        failures, name = self._breaker.failures, uuid.uuid4().hex

        def ask() -> str:
            if failures == self._mended and self._client.exists(_EPOCH):
                return ""
            with self._client.pipeline(transaction=True) as pipe:
                pipe.delete(_EPOCH)
                pipe.set(_refill_key(name), 1, ex=_REFILL_S)
                pipe.execute()
            return name

        begun = str(self._breaker.attempt(ask, ""))
        if begun:
            self._begun = failures
        return begun

    def end_refill(self, name: str) -> None:
        """Set the epoch, unless the refill was lost itself."""
        if self._breaker.attempt(lambda: self._end([_refill_key(name), _EPOCH]), 0):
            self._mended = self._begun

    def stop(self) -> None:
        """Close the connections."""
        self._client.close()

    def _missing(self, *, refilled: bool) -> Missing | None:
        """Say what is known without asking."""
        if self._breaker.is_open:
            return Missing.SILENT
        return None if refilled or self._mended == self._breaker.failures else Missing.LOST


def _refill_key(name: str) -> str:
    return f"velocity:refill:{name}"


class RedisRuleCache:
    """String ``risk:rules`` (JSON, with the version) and set ``risk:blocked``, both for an hour.

    ``risk:blocked:version`` says of which version the set is and how many members it has to have: an empty set does not
    exist in Redis, and a set that lost members must not pass for a whole one.
    """

    RULES, BLOCKED, MARK = "risk:rules", "risk:blocked", "risk:blocked:version"
    KEEP_S = 3600

    def __init__(self, client: redis.Redis) -> None:
        """Keep copies through ``client``."""
        self._client = client

    def load(self, version: int) -> Snapshot | None:
        """Read the copy of a version."""
        found = cache.attempt(self._read, None)
        return found if found is not None and found.version == version else None

    def save(self, snapshot: Snapshot) -> None:
        """Replace the copies in one step."""
        blocked = sorted(snapshot.blocked)
        text = orjson.dumps({"version": snapshot.version, "rules": [_document(rule) for rule in snapshot.rules]})

        def put() -> None:
            with self._client.pipeline(transaction=True) as pipe:
                pipe.set(self.RULES, text, ex=self.KEEP_S)
                pipe.delete(self.BLOCKED)
                for at in range(0, len(blocked), _CHUNK):
                    pipe.sadd(self.BLOCKED, *blocked[at : at + _CHUNK])
                pipe.expire(self.BLOCKED, self.KEEP_S)
                pipe.set(self.MARK, _mark(snapshot.version, len(blocked)), ex=self.KEEP_S)
                pipe.execute()

        cache.attempt(put, None)

    def holds(self, snapshot: Snapshot) -> bool:
        """Ask whether all three keys are there and of this version."""

        def ask() -> bool:
            with self._client.pipeline(transaction=False) as pipe:
                pipe.getrange(self.RULES, 0, 40)
                pipe.scard(self.BLOCKED)
                pipe.get(self.MARK)
                head, count, mark = pipe.execute()
            whole = _mark(snapshot.version, len(snapshot.blocked))
            return bool(
                head.startswith(b'{"version":%d,' % snapshot.version)
                and mark == whole
                and count == len(snapshot.blocked)
            )

        return cache.attempt(ask, default=True)

    def _read(self) -> Snapshot | None:
        with self._client.pipeline(transaction=True) as pipe:
            pipe.get(self.RULES)
            pipe.smembers(self.BLOCKED)
            pipe.get(self.MARK)
            text, members, mark = pipe.execute()
        if text is None:
            return None
        found = orjson.loads(text)
        if mark != _mark(found["version"], len(members)):
            return None
        rules = tuple(_rule(document) for document in found["rules"])
        return Snapshot(found["version"], rules, frozenset(int(member) for member in members))


def _mark(version: int, count: int) -> bytes:
    return b"%d:%d" % (version, count)


def _document(rule: Rule) -> dict[str, Any]:
    condition: list[Any]
    if isinstance(rule.condition, AmountLimit):
        condition = ["amount_limit", rule.condition.limit.currency_code, rule.condition.limit.minor_units]
    elif isinstance(rule.condition, VelocityLimit):
        condition = ["velocity_limit", rule.condition.window_seconds, rule.condition.payments_max]
    else:
        condition = ["block_list" if isinstance(rule.condition, BlockList) else "unreachable"]
    return {
        "id": rule.id,
        "name": rule.name,
        "enabled": rule.enabled,
        "decision": rule.decision.word,
        "score": rule.score,
        "condition": condition,
        "create_ms": rule.create_ms,
        "update_ms": rule.update_ms,
    }


def _rule(document: dict[str, Any]) -> Rule:
    values = document | {"decision": Decision.of(document["decision"]), "condition": _condition(*document["condition"])}
    return Rule(**values)


def _condition(kind: str, *values: Any) -> Condition:  # noqa: ANN401 - parsed JSON
    if kind == "amount_limit":
        return AmountLimit(Money(*values))
    if kind == "velocity_limit":
        return VelocityLimit(*values)
    return BlockList() if kind == "block_list" else Unreachable()
