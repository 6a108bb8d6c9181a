"""The send queue: a Redis list, and one list per instance for what is in work."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import redis

from services.platform import cache, telemetry

if TYPE_CHECKING:
    from collections.abc import Sequence

QUEUE: Final = "notifications:queue"
WORK: Final = "notifications:processing:"
_KEPT_MAX: Final = 10_000
_ANSWER_S: Final = 1.0
"""How long Redis may take to answer, beyond the time that it was asked to wait."""


class RedisQueue:
    """``notifications:queue``: LPUSH after the commit, BLMOVE into ``notifications:processing:{instance}``, LREM when done.

    While Redis does not answer, ids wait in this process: one instance alone then sends what it stored itself, and the
    rest is pushed again by the job.
    """

    def __init__(self, url: str, instance: int, wait_max_s: int) -> None:
        """Work as ``instance``; a call of ``take`` waits ``wait_max_s`` at most."""
        options: dict[str, Any] = {
            "socket_timeout": wait_max_s + _ANSWER_S,
            "socket_connect_timeout": 0.25,
            "retry": None,
            "health_check_interval": 30,
        }
        self._client = redis.Redis.from_url(url, **options)
        self._work = f"{WORK}{instance}"
        self._kept: deque[int] = deque(maxlen=_KEPT_MAX)
        self._wake = threading.Condition()

    def push(self, notification_ids: Sequence[int]) -> None:
        """Put ids at the end; kept here when Redis does not take them."""
        if not notification_ids:
            return
        try:
            self._client.lpush(QUEUE, *notification_ids)
        except cache.FAILURES as error:
            telemetry.log.warning("queue.unavailable", error=type(error).__name__, ids=len(notification_ids))
            with self._wake:
                self._kept.extend(notification_ids)
                self._wake.notify()

    def take(self, most: int, wait_s: int) -> list[int]:
        """Take up to ``most`` ids, those kept here first."""
        with self._wake:
            kept = [self._kept.popleft() for _ in range(min(most, len(self._kept)))]
        if kept:
            return kept
        try:
            return self._move(most, wait_s)
        except cache.FAILURES as error:
            telemetry.log.warning("queue.unavailable", error=type(error).__name__)
        with self._wake:
            if not self._kept:
                self._wake.wait(wait_s)
            return [self._kept.popleft() for _ in range(min(most, len(self._kept)))]

    def done(self, notification_ids: Sequence[int]) -> None:
        """Forget ids in work; one that Redis keeps is found done when it comes again."""
        if not notification_ids:
            return

        def remove() -> None:
            with self._client.pipeline(transaction=False) as pipe:
                for each in notification_ids:
                    pipe.lrem(self._work, 0, str(each))
                pipe.execute()

        cache.attempt(remove, None)

    def recover(self) -> None:
        """Put back what was in work."""

        def put_back() -> None:
            while self._client.lmove(self._work, QUEUE, "RIGHT", "RIGHT") is not None:
                pass

        cache.attempt(put_back, None)

    def stop(self) -> None:
        """Close the connections."""
        self._client.close()

    def _move(self, most: int, wait_s: int) -> list[int]:
        first = self._client.blmove(QUEUE, self._work, wait_s, "RIGHT", "LEFT")
        if first is None:
            return []
        taken = [int(first)]
        if most > 1:
            with self._client.pipeline(transaction=False) as pipe:
                for _ in range(most - 1):
                    pipe.lmove(QUEUE, self._work, "RIGHT", "LEFT")
                taken += [int(each) for each in pipe.execute() if each is not None]
        return taken
