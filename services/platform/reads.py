"""Reads: they go through a pool of threads with connections of their own, never through the Batcher."""

from __future__ import annotations

import asyncio
import math
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from services.kernel.errors import DomainError
from services.platform.database import failure_of
from services.platform.interceptor import current

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
R = TypeVar("R")


class ReadPool:
    """Runs blocking reads in ``threads`` threads. A part of an App."""

    def __init__(self, threads: int = 8, *, queue_max: int = 1_000) -> None:
        """Make the pool; threads begin as they are needed. Beyond ``queue_max`` reads at once: OVERLOADED."""
        self._pool, self._left = ThreadPoolExecutor(threads, "read"), queue_max

    async def run(self, read: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run ``read`` in a thread. A database that does not answer is UNAVAILABLE.

        When the deadline of the call that is being handled has passed before its turn, nothing is read:
        DEADLINE_EXCEEDED.
        """
        until = _deadline()

        def turn() -> R:
            if time.monotonic() >= until:
                raise DomainError("DEADLINE_EXCEEDED")
            return read(*args, **kwargs)

        if not self._left:
            raise DomainError("OVERLOADED")
        self._left -= 1  # only the event loop comes here
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, turn)
        except Exception as error:
            if failure_of(error) is not None:
                raise DomainError("UNAVAILABLE") from error
            raise
        finally:
            self._left += 1

    def start(self) -> None:
        """Nothing to do: threads begin as they are needed."""

    def stop(self) -> None:
        """End the threads after what they do now."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def _deadline() -> float:
    """Return the deadline of the call that is being handled, in monotonic seconds; endless outside of one."""
    try:
        return current().deadline
    except LookupError:
        return math.inf
