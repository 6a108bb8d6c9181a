"""Group commit: requests that arrive while a batch runs form the next one; one thread per database and process writes.

A use case takes a sequence of commands and returns an outcome for each, in one durable transaction. A lone request goes
at once; when several are in flight the worker lingers a moment, since the event loop hands requests over one by one.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any

from services.kernel.errors import DomainError
from services.platform import telemetry
from services.platform.database import Failure, failure_of

if TYPE_CHECKING:
    from collections.abc import Mapping

Handler = Callable[[Sequence[Any]], Sequence[Any]]
"""Commands in, one outcome each: a result, or a DomainError that refuses it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How far a Batcher goes."""

    batch_max: int = 200
    """Items of a transaction: beyond 50-200 only latency grows."""
    queue_max: int = 5_000
    """Items that wait; beyond it OVERLOADED at once."""
    linger_ms: float = 1.0
    """How long the worker waits for company when it is busy."""
    busy_at: int = 4
    """Items in flight from which on it lingers."""
    retries: int = 8
    """How often a transaction that met a lock or a snapshot conflict is done again."""


@dataclass(slots=True)
class _Item:
    kind: str
    command: Any
    deadline: float
    resolve: Callable[[Any], None]
    loop: asyncio.AbstractEventLoop | None


@dataclass(slots=True)
class Stats:
    """What a Batcher did: items per batch size (a histogram), transactions done again."""

    batches: dict[int, int] = field(default_factory=dict)
    repeated: int = 0


class Batcher:
    """Runs use cases over batches of commands in one worker thread. Made by app.py, one per database and process."""

    def __init__(self, handlers: Mapping[str, Handler], limits: Limits | None = None) -> None:
        """Run commands of each kind with its handler."""
        self._handlers = handlers
        self._limits = limits or Limits()
        self._queue: deque[_Item] = deque()
        self._wake = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="batcher", daemon=True)
        self.stats = Stats()

    def start(self) -> None:
        """Start the worker."""
        self._thread.start()

    def stop(self) -> None:
        """Finish what is queued, refuse what comes later, and end the worker."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join(timeout=10)

    async def submit(self, kind: str, command: object, deadline: float) -> Any:  # noqa: ANN401 - the outcome of the kind
        """Run ``command`` with its neighbours; returns its result or raises its DomainError.

        ``deadline`` is on the monotonic clock, in seconds: an item that is older when its turn comes is dropped with
        DEADLINE_EXCEEDED before the transaction. A full queue is OVERLOADED at once.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()

        def resolve(outcome: object) -> None:
            if not future.done():  # the caller may be gone
                future.set_result(outcome)

        self._put([_Item(kind, command, deadline, resolve, loop)])
        outcome = await future
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def submit_all(self, kind: str, commands: Sequence[object], timeout_s: float = 30.0) -> list[Any]:
        """Run commands from a plain thread (consumers, jobs) and wait; returns the outcomes, exceptions among them.

        Either all are taken or none is: OVERLOADED and UNAVAILABLE leave nothing behind in the queue.
        """
        outcomes: list[Any] = [None] * len(commands)
        left, done = len(commands), threading.Event()

        def resolver(place: int) -> Callable[[Any], None]:
            def resolve(outcome: object) -> None:
                nonlocal left
                outcomes[place] = outcome
                left -= 1  # only the worker thread comes here
                if not left:
                    done.set()

            return resolve

        deadline = time.monotonic() + timeout_s
        self._put([_Item(kind, command, deadline, resolver(place), None) for place, command in enumerate(commands)])
        if commands and not done.wait(timeout_s + 5):
            raise DomainError("DEADLINE_EXCEEDED")
        return outcomes

    def _put(self, items: list[_Item]) -> None:
        with self._wake:
            if self._stopping:
                raise DomainError("UNAVAILABLE")
            if len(self._queue) + len(items) > self._limits.queue_max:
                raise DomainError("OVERLOADED")
            slept = not self._queue
            self._queue.extend(items)
            if slept:
                self._wake.notify()

    def _work(self) -> None:
        company = 0
        """Items in flight when the last batch ended: those handed back, whose callers may come again, and those waiting."""
        while True:
            with self._wake:
                while not self._queue and not self._stopping:
                    self._wake.wait()
                if not self._queue:
                    return
            self._linger(company)
            items = self._take()
            _answer(items, self._run(items))
            company = len(items) + len(self._queue)

    def _linger(self, company: int) -> None:
        """Wait for as many items as were in flight, as long as they keep coming, at most ``linger_ms``."""
        limits, queue = self._limits, self._queue
        expected = min(max(company, len(queue)), limits.batch_max)
        if expected < limits.busy_at or self._stopping:
            return
        until = time.monotonic() + limits.linger_ms / 1000
        before = 0
        while before < (now := len(queue)) < expected and time.monotonic() < until:
            before = now
            time.sleep(limits.linger_ms / 2000)

    def _take(self) -> list[_Item]:
        with self._wake:
            return [self._queue.popleft() for _ in range(min(len(self._queue), self._limits.batch_max))]

    def _run(self, items: list[_Item]) -> list[Any]:
        outcomes: list[Any] = []
        for kind, run in groupby(items, key=lambda item: item.kind):
            outcomes += self._run_kind(kind, list(run))
        return outcomes

    def _run_kind(self, kind: str, items: list[_Item]) -> list[Any]:
        now = time.monotonic()
        live = [item for item in items if item.deadline > now]
        if live:
            self.stats.batches[len(live)] = self.stats.batches.get(len(live), 0) + 1
            telemetry.BATCH_SIZE.labels(kind).observe(len(live))
        results = iter(self._run_handler(kind, live) if live else ())
        return [next(results) if item.deadline > now else DomainError("DEADLINE_EXCEEDED") for item in items]

    def _run_handler(self, kind: str, items: list[_Item], *, split: bool = False) -> list[Any]:
        """Run the use case; what breaks it is narrowed down to the guilty item."""
        commands, latest = [item.command for item in items], max(item.deadline for item in items)
        raced = False
        for attempt in range(self._limits.retries):
            try:
                outcomes = list(self._handlers[kind](commands))
                if len(outcomes) != len(commands):
                    raise RuntimeError(f"{kind} answered {len(outcomes)} of {len(commands)} items")
            except DomainError as error:
                return [error] * len(items)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is somebody's outcome
                failure = failure_of(error)
                # A breach may be the row that another process committed meanwhile (the same idempotency key, the same
                # account): done again, the batch finds it. A lone item of a split may have met another one since.
                race = failure is Failure.BREACH and not raced and (not split or len(items) == 1)
                if failure is Failure.RETRY or race:
                    raced |= race
                    self.stats.repeated += 1
                    if time.monotonic() > latest:
                        return [DomainError("DEADLINE_EXCEEDED")] * len(items)
                    time.sleep(0.002 * 2**attempt)
                    continue
                return self._narrow(kind, items, error, failure)
            else:
                return outcomes
        return [DomainError("UNAVAILABLE")] * len(items)

    def _narrow(self, kind: str, items: list[_Item], error: Exception, failure: Failure | None) -> list[Any]:
        """Answer a batch that failed: a lone item with its error, halves by themselves."""
        if failure is Failure.UNAVAILABLE:
            telemetry.log.error("database.unavailable", kind=kind, error=type(error).__name__)
            return [DomainError("UNAVAILABLE")] * len(items)
        if len(items) == 1:
            telemetry.log.error("batch.item_failed", kind=kind, exc_info=error)
            return [error]
        half = len(items) // 2
        return self._run_handler(kind, items[:half], split=True) + self._run_handler(kind, items[half:], split=True)


def _answer(items: list[_Item], outcomes: list[Any]) -> None:
    """Hand each item its outcome, on the event loop that it came from."""
    by_loop: dict[asyncio.AbstractEventLoop | None, list[tuple[_Item, Any]]] = {}
    for item, outcome in zip(items, outcomes, strict=True):
        by_loop.setdefault(item.loop, []).append((item, outcome))
    for loop, pairs in by_loop.items():
        if loop is None:
            _hand_back(pairs)
            continue
        try:
            loop.call_soon_threadsafe(_hand_back, pairs)  # one wake-up for the whole batch
        except RuntimeError:
            telemetry.log.warning("batcher.callers_gone", items=len(pairs))  # their loop has ended


def _hand_back(pairs: list[tuple[_Item, Any]]) -> None:
    for item, outcome in pairs:
        item.resolve(outcome)
