"""Limits that all edges count together: buckets of calls, of which this process has a few in hand."""

from __future__ import annotations

import math
from dataclasses import dataclass

_QUANTA = 20
"""A limit is handed out in so many parts: what an instance keeps and does not use is missed elsewhere for that long."""


@dataclass(frozen=True, slots=True)
class Limit:
    """``requests`` in ``per_ms``: a bucket of that many calls, which fills evenly, as it does in each Envoy."""

    requests: int
    per_ms: int

    @property
    def quantum(self) -> int:
        """How many calls are taken from the common bucket at a time."""
        return max(1, self.requests // _QUANTA)

    @property
    def quantum_s(self) -> float:
        """How long a quantum is good for: until the bucket has filled by as much."""
        return self.quantum * self.per_ms / self.requests / 1000


@dataclass(frozen=True, slots=True)
class Ask:
    """May ``hits`` more calls be let through? ``key`` tells whose: the method, and what it counts by."""

    key: str
    limit: Limit
    hits: int = 1


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer: whether, how many are left (at least), and in how many seconds there is one again if there is none."""

    allowed: bool
    remaining: int
    retry_after_s: int = 0


@dataclass(slots=True)
class Bucket:
    """What this process knows of a common bucket: calls ``in_hand`` until a time, or that there are none until a time.

    Times are monotonic seconds.
    """

    in_hand: int = 0
    until: float = 0.0
    left: int = 0
    empty_until: float = 0.0

    def spend(self, hits: int, now: float) -> Verdict | None:
        """Take ``hits`` of what is in hand; None: the common bucket has to be asked."""
        if now < self.until and self.in_hand >= hits:
            self.in_hand -= hits
            return Verdict(allowed=True, remaining=self.in_hand + self.left)
        if now < self.empty_until:
            return Verdict(allowed=False, remaining=0, retry_after_s=max(1, math.ceil(self.empty_until - now)))
        return None

    def fill(self, granted: int, left: int, wait_ms: int, limit: Limit, asked_at: float) -> None:
        """Note what the common bucket gave when it was asked: calls, how many are left in it, the wait for one more."""
        kept = self.in_hand if asked_at < self.until else 0
        self.in_hand, self.left, self.until = kept + granted, left, asked_at + limit.quantum_s
        self.empty_until = asked_at + wait_ms / 1000
