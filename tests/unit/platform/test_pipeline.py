"""Pipeline: three phases, callers who cannot wait, works that are taken up, and an end that cuts nothing off unsaid."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from services.kernel.errors import DomainError
from services.kernel.idempotency import InFlight
from services.platform.batcher import Batcher
from services.platform.pipeline import Pipeline


@dataclass
class Work:
    """Three phases that a test can hold up. ``asked`` and ``settled`` say what was done, in their order."""

    gate: threading.Event = field(default_factory=threading.Event)
    begun: threading.Event = field(default_factory=threading.Event)
    asked: list[int] = field(default_factory=list)
    settled: list[str] = field(default_factory=list)
    failure: Exception | None = None

    def decide(self, items: Sequence[int]) -> list[Any]:
        """Even numbers are answered at once, odd ones are asked about; 0 is refused."""
        return [self._decided(item) for item in items]

    def _decided(self, item: int) -> object:
        if not item:
            return DomainError("PAYMENT_NOT_FOUND", payment_id=item)
        return InFlight(item, item) if item % 2 else f"at once {item}"

    def ask(self, item: int) -> str:
        """Wait at the gate, then say something."""
        self.asked.append(item)
        self.begun.set()
        assert self.gate.wait(10)
        if self.failure is not None:
            raise self.failure
        return f"said {item}"

    def settle(self, items: Sequence[str]) -> list[str]:
        """Put down what was said."""
        self.settled += items
        return [f"answer of {item}" for item in items]

    def answer(self, items: Sequence[int]) -> list[str]:
        """Say how things stand."""
        return [f"so far {item}" for item in items]


@pytest.fixture
def work() -> Work:
    """What is done; the gate is open."""
    made = Work()
    made.gate.set()
    return made


@pytest.fixture
async def pipeline(work: Work) -> AsyncIterator[Pipeline]:
    """A pipeline of two threads that holds three works."""
    batcher = Batcher({"decide": work.decide, "settle": work.settle, "answer": work.answer})
    made = Pipeline(batcher, work.ask, settle="settle", answer="answer", threads=2, queue_max=3)
    batcher.start()
    await made.start()
    yield made
    work.gate.set()
    await made.stop()
    batcher.stop()


def soon(seconds: float = 5.0) -> float:
    """A deadline."""
    return time.monotonic() + seconds


async def test_answer_is_that_of_the_last_phase_that_there_is(work: Work, pipeline: Pipeline) -> None:
    """What is decided at once asks nobody; a refusal is raised; the rest goes through all three."""
    assert await pipeline.submit("decide", 2, soon()) == "at once 2"
    with pytest.raises(DomainError, match="PAYMENT_NOT_FOUND"):
        await pipeline.submit("decide", 0, soon())
    assert await pipeline.submit("decide", 1, soon()) == "answer of said 1"
    assert (work.asked, work.settled) == ([1], ["said 1"])


async def test_caller_who_cannot_wait_is_told_how_things_stand(work: Work, pipeline: Pipeline) -> None:
    """Shortly before his deadline he is answered; what was begun goes on and is settled."""
    work.gate.clear()
    began = time.monotonic()
    assert await pipeline.submit("decide", 1, soon(0.6)) == "so far 1"
    assert time.monotonic() - began < 0.6
    work.gate.set()
    await pipeline_is_empty(pipeline)
    assert work.settled == ["said 1"]


async def test_same_work_is_asked_once_when_it_comes_twice(work: Work, pipeline: Pipeline) -> None:
    """Who repeats, and whoever takes it up meanwhile, waits for the same."""
    work.gate.clear()
    callers = [asyncio.create_task(pipeline.submit("decide", 1, soon())) for _ in range(5)]
    assert await asyncio.to_thread(work.begun.wait, 5)
    assert pipeline.resume([InFlight(1, 1)]) == []
    work.gate.set()
    assert await asyncio.gather(*callers) == ["answer of said 1"] * 5
    assert work.asked == [1]


async def test_nothing_is_begun_when_it_is_full(work: Work, pipeline: Pipeline) -> None:
    """The fourth work is left to whoever takes it up, and its caller is told how things stand."""
    work.gate.clear()
    tasks = pipeline.resume([InFlight(number, number) for number in (1, 3, 5)])
    assert (len(tasks), pipeline.free) == (3, 0)
    assert await pipeline.submit("decide", 7, soon()) == "so far 7"
    work.gate.set()
    await asyncio.gather(*tasks)
    assert sorted(work.asked) == [1, 3, 5]


async def test_failure_of_a_work_is_its_callers_alone(work: Work, pipeline: Pipeline) -> None:
    """Whatever ``ask`` raises is raised to who waits, and the next work is asked as ever."""
    work.failure = ValueError("a fault of ours")
    with pytest.raises(ValueError, match="a fault of ours"):
        await pipeline.submit("decide", 1, soon())
    work.failure = None
    assert await pipeline.submit("decide", 3, soon()) == "answer of said 3"


async def pipeline_is_empty(pipeline: Pipeline) -> None:
    """Wait until nothing is under way."""
    ends = time.monotonic() + 5
    while pipeline.free != 3:
        assert time.monotonic() < ends
        await asyncio.sleep(0.01)
