"""Verification values on their way to one authorization, in memory alone."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.kernel.clock import Clock
    from services.payment.domain.card import Cvv

HELD_MAX = 10_000
"""Above it the oldest is forgotten: that authorization goes without, the issuer decides."""


class MemoryCvvRelay:
    """Holds values for ``hold_s`` seconds at most; what was not taken by then is forgotten by ``sweep`` or the next ``put``."""

    def __init__(self, clock: Clock, hold_s: float = 120.0) -> None:
        """Measure by the monotonic ``clock``."""
        self._clock, self._hold_s = clock, hold_s
        self._lock = threading.Lock()
        self._held: dict[str, tuple[Cvv, float]] = {}

    def put(self, request_id: str, cvv: Cvv) -> None:
        """Hold a value for the charge with this id of ours; a second one replaces the first."""
        with self._lock:
            self._forget(HELD_MAX - 1)
            self._held.pop(request_id, None)  # so that the order of the dictionary stays that of age
            self._held[request_id] = (cvv, self._clock.monotonic() + self._hold_s)

    def take(self, request_id: str) -> Cvv | None:
        """Hand it over and forget it."""
        with self._lock:
            cvv, until = self._held.pop(request_id, (None, 0.0))
            return cvv if self._clock.monotonic() < until else None

    def sweep(self) -> None:
        """Forget what nobody took in time."""
        with self._lock:
            self._forget(HELD_MAX)

    def _forget(self, kept_max: int) -> None:
        now = self._clock.monotonic()
        while self._held:
            oldest = next(iter(self._held))
            if len(self._held) <= kept_max and self._held[oldest][1] > now:
                return
            del self._held[oldest]
