"""Time, passed in."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What the rooms need to know of time."""

    def now_ms(self) -> int:
        """Wall clock, milliseconds since 1970 UTC: for records, never for order or durations."""
        ...

    def monotonic(self) -> float:
        """Seconds of a clock that never jumps: for deadlines and durations in this process."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now_ms(self) -> int:
        """Milliseconds since 1970 UTC."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Seconds of the monotonic clock."""
        return time.monotonic()
