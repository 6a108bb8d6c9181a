"""Two processes that do their work at the same moment, started once for a test run."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from threading import Barrier
from typing import Any, TypeVar

R = TypeVar("R")

_WAIT_S = 60
_MEETING: list[Barrier] = []


def together() -> None:
    """To be called by the work when it is ready: wait until the other process is, too."""
    _MEETING[0].wait(_WAIT_S)


class Processes:
    """Runs work in two processes at once."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        """Run it in ``pool``."""
        self._pool = pool

    def __call__(self, work: Callable[..., R], *of_each: tuple[Any, ...]) -> list[R]:
        """Call ``work`` with each of two tuples of arguments; returns what came out, in their order."""
        running = [self._pool.submit(work, *args) for args in of_each]
        return [each.result(2 * _WAIT_S) for each in running]


@contextmanager
def start_processes() -> Iterator[Processes]:
    """Start two processes; each imports what it is asked to run."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, context, initializer=_meet, initargs=(context.Barrier(2),)) as pool:
        yield Processes(pool)


def _meet(at: Barrier) -> None:
    _MEETING.append(at)
