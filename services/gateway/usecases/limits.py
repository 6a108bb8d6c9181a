"""What all edges count together: answered from what is in hand, which is taken from the common bucket in quanta."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from typing import TYPE_CHECKING

from services.gateway.domain import Bucket, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.gateway import ports
    from services.gateway.domain import Ask
    from services.kernel.clock import Clock

_KNOWN_MAX = 100_000
"""Buckets that are remembered; the one not asked for longest is forgotten first, with what was in hand."""


class Limits:
    """Decides. Safe to use from threads; nothing waits within the lock."""

    def __init__(self, quanta: ports.Quanta, clock: Clock) -> None:
        """Take from ``quanta``."""
        self._quanta, self._clock = quanta, clock
        self._known: OrderedDict[str, Bucket] = OrderedDict()
        self._lock = threading.Lock()

    def at_hand(self, ask: Ask) -> Verdict | None:
        """Answer without asking anybody; None: `decide` must."""
        with self._lock:
            bucket = self._known.get(ask.key)
            if bucket is None:
                return None
            self._known.move_to_end(ask.key)
            return bucket.spend(ask.hits, self._clock.monotonic())

    def decide(self, asks: Sequence[Ask]) -> list[Verdict | None]:
        """Answer each, in order; all quanta are taken at once. None: nobody knows now, and nobody may rely on it."""
        verdicts = [self.at_hand(ask) for ask in asks]
        open_asks = [ask for ask, verdict in zip(asks, verdicts, strict=True) if verdict is None]
        if open_asks and not self._take(open_asks):
            return verdicts
        return [verdict or self._now(ask) for ask, verdict in zip(asks, verdicts, strict=True)]

    def _take(self, asks: Sequence[Ask]) -> bool:
        """Fill the buckets of these asks, each once, with a quantum or as much as is asked for at once; whether it went."""
        hits: Counter[str] = Counter()
        for ask in asks:
            hits[ask.key] += ask.hits
        wanted = {ask.key: (ask.key, ask.limit, max(ask.limit.quantum, hits[ask.key])) for ask in asks}
        asked_at = self._clock.monotonic()
        taken = self._quanta.take(list(wanted.values()))
        if taken is None:
            return False
        with self._lock:
            for (key, limit, _), (granted, left, wait_ms) in zip(wanted.values(), taken, strict=True):
                bucket = self._known.setdefault(key, Bucket())
                bucket.fill(granted, left, wait_ms, limit, asked_at)
                self._known.move_to_end(key)
            while len(self._known) > _KNOWN_MAX:
                self._known.popitem(last=False)
        return True

    def _now(self, ask: Ask) -> Verdict:
        """Answer after a take; who still gets none comes too late by a moment, or asks for more than there is."""
        return self.at_hand(ask) or Verdict(allowed=False, remaining=0, retry_after_s=1)
