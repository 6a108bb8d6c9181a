"""63-bit ids: 41 bits of milliseconds since 2024, 10 bits shard of the user, 4 bits instance, 8 bits sequence."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.kernel.clock import Clock

EPOCH_MS = 1_704_067_200_000
SHARDS = 1024
INSTANCES = 16
_SEQUENCES = 256


def shard_of(user_id: int) -> int:
    """Return the shard, 0 to 1023, that an id carries."""
    return (user_id >> 12) % SHARDS


class IdMaker:
    """Makes ids that ascend within one process and are unique among 16 instances of a service.

    Thread-safe. More than 256 ids in a millisecond, or a clock that goes back, borrow from the next millisecond, so an
    id's time is at most as wrong as that; nothing may order by it across processes.
    """

    def __init__(self, clock: Clock, instance: int) -> None:
        """Make ids as instance ``instance`` (taken modulo 16) of a service."""
        self._clock = clock
        self._instance = instance % INSTANCES
        self._lock = threading.Lock()
        self._ms = 0
        self._sequence = 0

    def pass_over(self, known: int) -> None:
        """Make ids beyond ``known`` from now on: one that was made before this process began, perhaps by a clock ahead."""
        with self._lock:
            if known >> 22 >= self._ms:
                self._ms, self._sequence = known >> 22, _SEQUENCES - 1

    def next(self, shard: int) -> int:
        """Return the next id on ``shard``: the shard of the user that the thing belongs to."""
        with self._lock:
            now = self._clock.now_ms() - EPOCH_MS
            if now > self._ms:
                self._ms, self._sequence = now, 0
            else:
                self._sequence += 1
                if self._sequence == _SEQUENCES:
                    self._ms, self._sequence = self._ms + 1, 0
            return (self._ms << 22) | (shard % SHARDS) << 12 | self._instance << 8 | self._sequence
