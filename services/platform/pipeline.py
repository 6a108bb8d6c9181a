"""Pipeline: work of three phases, two of them transactions in batches, and between them a call to someone slow.

decide (Batcher) -> ask (a pool of threads, no transaction) -> settle (Batcher). What the first phase decides is stored
before anything is asked, so a phase that never comes is done by whoever takes the work up later. A caller waits for the
last phase until shortly before its deadline; then it is answered with how things stand, and the work goes on.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from services.kernel.errors import DomainError
from services.kernel.idempotency import InFlight
from services.platform import telemetry

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from services.platform.batcher import Batcher

MARGIN_S = 0.3
"""What is left of a caller's time when it is answered with how things stand."""
SETTLE_S = 60.0
"""How long an outcome waits for its transaction; after that the work is taken up anew."""


class Pipeline:
    """Runs work through its phases. A part of an App."""

    def __init__(
        self, batcher: Batcher, ask: Callable[[Any], Any], *, settle: str, answer: str, threads: int, queue_max: int
    ) -> None:
        """Ask with ``ask`` in ``threads`` threads; ``settle`` and ``answer`` are kinds of the Batcher.

        settle takes what ``ask`` returned, and gives what a waiting caller is answered. answer takes the work, and gives
        what a caller is answered who cannot wait any longer. Beyond ``queue_max`` works nothing is begun: they are left
        to whoever takes them up.
        """
        self._batcher, self._ask, self._settle, self._answer = batcher, ask, settle, answer
        self._pool = ThreadPoolExecutor(threads, "ask")
        self._running: dict[int, asyncio.Task[Any]] = {}
        self._queue_max = queue_max
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def free(self) -> int:
        """How many more works may begin now."""
        return max(0, self._queue_max - len(self._running))

    async def start(self) -> None:
        """Learn which event loop callers are on."""
        self._loop = asyncio.get_running_loop()

    async def stop(self) -> None:
        """Let what is asked end, and begin nothing more; what is cut off is taken up after the next start."""
        self._queue_max = 0
        if self._running:
            await asyncio.wait(set(self._running.values()), timeout=2)
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def submit(self, kind: str, command: object, deadline: float) -> Any:  # noqa: ANN401 - the answer of the kind
        """Decide ``command``, and see it through; returns the answer or raises its DomainError."""
        outcome = await self._batcher.submit(kind, command, deadline)
        if not isinstance(outcome, InFlight):
            return outcome
        task = self._begin(outcome)
        if task is not None:
            patience = max(0.0, deadline - time.monotonic() - MARGIN_S)
            done, _ = await asyncio.wait({task}, timeout=patience)
            if done:
                answer = task.result()
                if isinstance(answer, Exception):
                    raise answer
                return answer
        return await self._batcher.submit(self._answer, outcome.work, deadline)

    def resume(self, works: Sequence[InFlight]) -> list[asyncio.Task[Any]]:
        """Go on with works that were taken up; those that are under way here are left alone. On the event loop."""
        return [task for work in works if work.id not in self._running and (task := self._begin(work)) is not None]

    def resume_soon(self, works: Sequence[InFlight]) -> None:
        """Go on with works from a plain thread."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self.resume, works)

    def _begin(self, work: InFlight) -> asyncio.Task[Any] | None:
        known = self._running.get(work.id)
        if known is not None:
            return known  # a repeat of one batch waits for the same
        if not self.free:
            return None
        task = asyncio.get_running_loop().create_task(self._see_through(work))
        self._running[work.id] = task
        task.add_done_callback(lambda _: self._running.pop(work.id, None))
        return task

    async def _see_through(self, work: InFlight) -> Any:  # noqa: ANN401 - the answer of the kind
        """Ask and settle; returns the answer, or the error that stands for it."""
        try:
            said = await asyncio.get_running_loop().run_in_executor(self._pool, self._ask, work.work)
            return await self._batcher.submit(self._settle, said, time.monotonic() + SETTLE_S)
        except DomainError as refusal:
            return refusal
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the caller's outcome
            telemetry.log.exception("pipeline.failed", work=work.id)
            return error
