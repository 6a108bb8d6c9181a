"""The pool of reads: results, errors as the contract has them, and a limit."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
import sqlalchemy as sa

from services.kernel.errors import DomainError
from services.platform.interceptor import _CURRENT, Call
from services.platform.reads import ReadPool


def test_read_runs_in_a_thread_and_its_error_is_the_contracts() -> None:
    """A database that is away is UNAVAILABLE; a refusal stays itself; what is neither is not hidden."""
    pool = ReadPool(2)

    def fail(error: Exception) -> None:
        raise error

    async def main() -> list[object]:
        away = sa.exc.OperationalError("SELECT", {}, Exception(2006, "gone away"))
        refusal, fault = DomainError("PAYMENT_NOT_FOUND", payment_id=1), ValueError("a fault")
        calls = [pool.run(fail, error) for error in (away, refusal, fault)]
        return list(await asyncio.gather(pool.run(threading.current_thread), *calls, return_exceptions=True))

    thread, away, refusal, fault = asyncio.run(main())
    pool.stop()
    assert thread is not threading.main_thread()
    assert [str(away), str(refusal), repr(fault)] == [
        "UNAVAILABLE", "PAYMENT_NOT_FOUND payment_id=1", "ValueError('a fault')",
    ]  # fmt: skip


def test_reads_beyond_the_limit_are_refused_at_once_and_room_comes_back() -> None:
    """Nothing waits without end; a caller that is gone gives its place back."""
    pool, gate = ReadPool(1, queue_max=2), threading.Event()

    async def main() -> None:
        running = [asyncio.create_task(pool.run(gate.wait, 5)) for _ in range(2)]
        await asyncio.sleep(0.01)
        with pytest.raises(DomainError, match="OVERLOADED"):
            await pool.run(gate.wait, 5)
        running[1].cancel()
        await asyncio.gather(running[1], return_exceptions=True)
        later = asyncio.create_task(pool.run(gate.is_set))
        await asyncio.sleep(0.01)
        gate.set()
        assert await running[0]
        assert await later

    asyncio.run(main())
    pool.stop()


def test_read_is_not_run_when_its_callers_deadline_passed_before_its_turn() -> None:
    """It would work for nobody; a read whose caller still waits is run."""
    pool, gate, done = ReadPool(1), threading.Event(), list[str]()

    async def asked(name: str, deadline: float) -> None:
        _CURRENT.set(Call(None, None, None, {}, (), deadline=time.monotonic() + deadline))
        await pool.run(done.append, name)

    async def main() -> list[object]:
        busy = asyncio.create_task(pool.run(gate.wait, 5))
        waiting = [asyncio.create_task(asked("late", 0.05)), asyncio.create_task(asked("in time", 5))]
        await asyncio.sleep(0.1)
        gate.set()
        return list(await asyncio.gather(busy, *waiting, return_exceptions=True))

    _, late, in_time = asyncio.run(main())
    pool.stop()
    assert (str(late), in_time, done) == ("DEADLINE_EXCEEDED", None, ["in time"])
