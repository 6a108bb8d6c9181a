"""The Batcher: company, splits, repeats, limits, deadlines, and callers that are gone."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence

import pytest
import sqlalchemy as sa

from services.kernel.errors import DomainError
from services.platform.batcher import Batcher, Limits
from services.platform.database import Conflict


def soon() -> float:
    """A deadline that is far enough."""
    return time.monotonic() + 5


def double(items: Sequence[int]) -> list[object]:
    """A use case: doubles, and refuses 13."""
    return [DomainError("ORDER_NOT_FOUND", order_id=13) if n == 13 else n * 2 for n in items]


def after(wait: Callable[[], object]) -> Callable[[Sequence[int]], list[int]]:
    """A use case that hands its items back after ``wait``."""

    def run(items: Sequence[int]) -> list[int]:
        wait()
        return list(items)

    return run


async def gather(batcher: Batcher, kind: str, items: Sequence[object]) -> list[object]:
    """Submit all at once; returns results and exceptions."""
    return list(await asyncio.gather(*(batcher.submit(kind, i, soon()) for i in items), return_exceptions=True))


def test_items_that_come_together_share_a_transaction() -> None:
    """While a batch runs the next one forms; each item gets its own outcome."""
    batcher = Batcher({"double": lambda items: double(after(lambda: time.sleep(0.01))(items))})
    batcher.start()
    outcomes = asyncio.run(gather(batcher, "double", range(100)))
    batcher.stop()
    assert [o for o in outcomes if not isinstance(o, Exception)] == [n * 2 for n in range(100) if n != 13]
    assert isinstance(outcomes[13], DomainError)
    assert max(batcher.stats.batches) > 20
    assert sum(size * count for size, count in batcher.stats.batches.items()) == 100


def test_runs_of_one_kind_keep_the_order_of_arrival() -> None:
    """Kinds are not mixed and not reordered."""
    seen: list[tuple[str, list[int]]] = []
    gate = threading.Event()

    def handler(kind: str) -> object:
        def run(items: Sequence[int]) -> list[int]:
            gate.wait(2)
            seen.append((kind, list(items)))
            return list(items)

        return run

    batcher = Batcher({"a": handler("a"), "b": handler("b")})  # type: ignore[dict-item]
    batcher.start()

    async def main() -> None:
        tasks = [asyncio.create_task(batcher.submit(kind, n, soon())) for n, kind in enumerate("aaabba")]
        await asyncio.sleep(0.05)
        gate.set()
        await asyncio.gather(*tasks)

    asyncio.run(main())
    batcher.stop()
    assert [n for _, items in seen for n in items] == [0, 1, 2, 3, 4, 5]
    assert all(kind == "aaabba"[n] for kind, items in seen for n in items)


def test_guilty_item_fails_alone_when_it_breaks_a_constraint() -> None:
    """The batch is split until only the guilty one fails."""
    committed: list[int] = []

    def insert(items: Sequence[int]) -> list[int]:
        if 13 in items:
            raise sa.exc.IntegrityError("INSERT", {}, Exception("UNIQUE"))
        committed.extend(items)
        return list(items)

    batcher = Batcher({"insert": insert})
    batcher.start()
    outcomes = asyncio.run(gather(batcher, "insert", range(30)))
    batcher.stop()
    assert [n for n, o in enumerate(outcomes) if isinstance(o, Exception)] == [13]
    assert sorted(committed) == [n for n in range(30) if n != 13]


def test_lone_breach_is_done_again_once_for_it_may_be_a_race() -> None:
    """Another process committed the same key meanwhile: the second try finds it. What breaches twice fails."""
    tries = list[int]()

    def keep(items: Sequence[int]) -> list[str]:
        tries.extend(items)
        if tries.count(1) < 2 or items[0] == 2:
            raise sa.exc.IntegrityError("INSERT", {}, Exception("UNIQUE"))
        return ["the stored answer"]

    batcher = Batcher({"keep": keep})
    batcher.start()
    (raced,) = asyncio.run(gather(batcher, "keep", [1]))
    (guilty,) = asyncio.run(gather(batcher, "keep", [2]))
    batcher.stop()
    assert raced == "the stored answer"
    assert isinstance(guilty, sa.exc.IntegrityError)
    assert tries == [1, 1, 2, 2]


def test_transaction_is_done_again_when_rows_changed_under_it() -> None:
    """A conflict repeats the whole batch; a database that does not answer is UNAVAILABLE and repeats nothing."""
    attempts = []

    def conflicting(items: Sequence[int]) -> list[int]:
        attempts.append(len(items))
        if len(attempts) < 3:
            raise Conflict
        return list(items)

    def down(items: Sequence[int]) -> list[int]:
        raise sa.exc.OperationalError("SELECT", {}, Exception(2006, "gone away"))

    batcher = Batcher({"conflicting": conflicting, "down": down})
    batcher.start()
    assert asyncio.run(gather(batcher, "conflicting", [1])) == [1]
    [refusal] = asyncio.run(gather(batcher, "down", [1]))
    batcher.stop()
    assert len(attempts) == 3
    assert isinstance(refusal, DomainError)
    assert refusal.reason == "UNAVAILABLE"


def test_full_queue_refuses_at_once() -> None:
    """Beyond the queue's limit nothing waits."""
    gate = threading.Event()
    batcher = Batcher({"slow": after(lambda: gate.wait(2))}, Limits(queue_max=5))
    batcher.start()

    async def main() -> list[object]:
        first = asyncio.create_task(batcher.submit("slow", 0, soon()))
        await asyncio.sleep(0.05)
        others = [asyncio.create_task(batcher.submit("slow", n, soon())) for n in range(1, 9)]
        await asyncio.sleep(0.05)
        gate.set()
        return list(await asyncio.gather(first, *others, return_exceptions=True))

    outcomes = asyncio.run(main())
    batcher.stop()
    assert [o.reason for o in outcomes if isinstance(o, DomainError)] == ["OVERLOADED"] * 3


def test_expired_item_is_dropped_before_the_transaction() -> None:
    """An item whose deadline passed while it waited never reaches the use case."""
    seen: list[int] = []

    def see(items: Sequence[int]) -> list[int]:
        seen.extend(items)
        return list(items)

    batcher = Batcher({"see": see})
    batcher.start()
    with pytest.raises(DomainError) as caught:
        asyncio.run(batcher.submit("see", 1, time.monotonic() - 1))
    batcher.stop()
    assert caught.value.reason == "DEADLINE_EXCEEDED"
    assert seen == []


def test_caller_that_is_gone_harms_nobody() -> None:
    """A cancelled call leaves its neighbours alone, and its own work is done all the same."""
    done: list[int] = []

    def slow(items: Sequence[int]) -> list[int]:
        time.sleep(0.05)
        done.extend(items)
        return list(items)

    batcher = Batcher({"slow": slow})
    batcher.start()

    async def main() -> object:
        gone = asyncio.create_task(batcher.submit("slow", 1, soon()))
        stays = asyncio.create_task(batcher.submit("slow", 2, soon()))
        await asyncio.sleep(0.01)
        gone.cancel()
        return await stays

    assert asyncio.run(main()) == 2
    batcher.stop()
    assert sorted(done) == [1, 2]


def test_stop_finishes_what_was_taken_and_refuses_the_rest() -> None:
    """No item is lost between stop and the end."""
    batcher = Batcher({"slow": after(lambda: time.sleep(0.05))})
    batcher.start()
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.extend(batcher.submit_all("slow", [1, 2, 3])))
    thread.start()
    time.sleep(0.02)
    batcher.stop()
    thread.join(5)
    assert results == [1, 2, 3]
    with pytest.raises(DomainError):
        batcher.submit_all("slow", [4])


def test_lone_request_goes_at_once_and_company_is_waited_for() -> None:
    """Callers that were handed back together come back together; a caller by itself never waits for others."""
    batcher = Batcher({"see": list}, Limits(linger_ms=50))
    batcher.start()

    async def caller(times: int, thinks: float = 0) -> None:
        for n in range(times):
            await batcher.submit("see", n, soon())
            await asyncio.sleep(thinks)

    async def main() -> float:
        begin = time.monotonic()
        await caller(20)
        alone = time.monotonic() - begin
        await asyncio.gather(*(caller(20, thinks=n / 1000) for n in range(8)))
        return alone

    assert asyncio.run(main()) < 0.5
    batcher.stop()
    assert batcher.stats.batches[8] >= 15


def test_breach_of_a_batch_is_done_again_before_it_is_split() -> None:
    """What another process committed meanwhile is found by all at once: one more transaction, not one per item."""
    runs: list[int] = []

    def keep(items: Sequence[int]) -> list[int]:
        runs.append(len(items))
        if len(runs) == 1:
            raise sa.exc.IntegrityError("INSERT", {}, Exception("UNIQUE"))
        return list(items)

    batcher = Batcher({"keep": keep})
    batcher.start()
    assert batcher.submit_all("keep", [1, 2, 3]) == [1, 2, 3]
    batcher.stop()
    assert runs == [3, 3]


def test_worker_survives_a_use_case_that_answers_too_little() -> None:
    """A use case that loses an answer fails its own items; the next ones are served."""
    batcher = Batcher({"lossy": lambda items: items[1:], "see": list})
    batcher.start()
    assert [type(o) for o in batcher.submit_all("lossy", [1, 2])] == [RuntimeError, RuntimeError]
    assert batcher.submit_all("see", [1]) == [1]
    batcher.stop()


def test_worker_survives_a_caller_whose_loop_has_ended() -> None:
    """An event loop that is gone gets nothing; the next callers are served."""
    gate = threading.Event()
    batcher = Batcher({"slow": after(lambda: gate.wait(2))})
    batcher.start()
    loop = asyncio.new_event_loop()
    task = loop.create_task(batcher.submit("slow", 1, soon()))
    loop.run_until_complete(asyncio.sleep(0.01))
    task.cancel()
    loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
    loop.close()
    gate.set()
    assert batcher.submit_all("slow", [2]) == [2]
    batcher.stop()


def test_conflict_is_not_repeated_beyond_the_deadline() -> None:
    """Nobody waits for an item any more: the worker goes on to the next ones."""

    def conflicting(items: Sequence[int]) -> list[int]:
        time.sleep(0.06)
        raise Conflict

    batcher = Batcher({"conflicting": conflicting})
    batcher.start()
    [outcome] = batcher.submit_all("conflicting", [1], timeout_s=0.1)
    batcher.stop()
    assert outcome.reason == "DEADLINE_EXCEEDED"
    assert batcher.stats.repeated <= 3


def test_many_are_taken_whole_or_not_at_all() -> None:
    """A full queue refuses the lot, so that nothing of it runs behind the caller's back."""
    seen: list[int] = []

    def see(items: Sequence[int]) -> list[int]:
        seen.extend(items)
        return list(items)

    batcher = Batcher({"see": see}, Limits(queue_max=3))
    batcher.start()
    with pytest.raises(DomainError) as caught:
        batcher.submit_all("see", [1, 2, 3, 4])
    batcher.stop()
    assert caught.value.reason == "OVERLOADED"
    assert seen == []
