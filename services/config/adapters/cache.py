"""Configuration entries in Redis: a string each, for 24 hours."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import orjson

from services.config.domain import Entry
from services.platform import failpoint
from services.platform.cache import attempt

if TYPE_CHECKING:
    from collections.abc import Iterable

    import redis

TTL_S = 24 * 3600
_PREFIX = "paymesh:config:"

# An older version never replaces a newer one: a slow reader may come after a writer.
_PUT_NEWER = """
local held = redis.call('GET', KEYS[1])
if held and cjson.decode(held).version > tonumber(ARGV[2]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[3])
return 1
"""


class RedisEntries:
    """The port EntryCache.

    What Redis holds is only trusted while every change reached it. At start, and after a change that did not, all
    entries are dropped before any is read again: what a dead process or a lost connection left is never given.
    """

    def __init__(self, client: redis.Redis) -> None:
        """Keep entries at ``client``."""
        self._redis = client
        self._put = client.register_script(_PUT_NEWER)
        self._trusted = False
        self._lock = threading.Lock()

    def get(self, key: str) -> Entry | None:
        """Return an entry; None: it is not there, or Redis does not answer."""
        if not self._ready():
            return None
        held = attempt(lambda: self._redis.get(_PREFIX + key), None)
        return Entry(**orjson.loads(held)) if isinstance(held, bytes) else None

    def put(self, entries: Iterable[Entry]) -> None:
        """Remember entries, unless newer versions are there."""
        failpoint.reach("P19", "entries")
        kept = list(entries)
        if kept and self._ready() and not attempt(lambda: self._send(kept), default=False):
            self._trusted = False

    def _send(self, entries: list[Entry]) -> bool:
        with self._redis.pipeline(transaction=False) as pipe:
            for entry in entries:
                self._put(keys=[_PREFIX + entry.key], args=[orjson.dumps(entry), entry.version, TTL_S], client=pipe)
            pipe.execute()
        return True

    def _ready(self) -> bool:
        with self._lock:
            if not self._trusted:
                self._trusted = attempt(self._drop_all, default=False)
            return self._trusted

    def _drop_all(self) -> bool:
        held = list(self._redis.scan_iter(match=_PREFIX + "*", count=500))
        if held:
            self._redis.delete(*held)
        return True
