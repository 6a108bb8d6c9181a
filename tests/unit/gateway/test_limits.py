"""Limits that all edges count together, over buckets that do not fill."""

from __future__ import annotations

import pytest

from services.gateway.domain import Ask, Limit, Verdict
from services.gateway.usecases import Limits
from tests.fakes.gateway import FakeClock, FakeQuanta

LIMIT = Limit(100, 60_000)
ASK = Ask("pay:user=42", LIMIT)


def _one(limits: Limits, ask: Ask = ASK) -> Verdict | None:
    if verdict := limits.at_hand(ask):
        return verdict
    (verdict,) = limits.decide([ask])
    return verdict


@pytest.mark.parametrize(("requests", "quantum"), [(1, 1), (19, 1), (60, 3), (6000, 300)])
def test_quantum_is_a_twentieth_and_one_at_least(requests: int, quantum: int) -> None:
    """A small limit is counted call by call."""
    assert Limit(requests, 60_000).quantum == quantum


def test_bucket_is_asked_once_for_a_quantum() -> None:
    """Five calls of a hundred cost one question."""
    quanta, clock = FakeQuanta(), FakeClock()
    limits = Limits(quanta, clock)
    left = [verdict.remaining for _ in range(5) if (verdict := _one(limits)) and verdict.allowed]
    assert left == [99, 98, 97, 96, 95]
    assert quanta.asked == 1


def test_instances_together_let_no_more_through_than_there_is() -> None:
    """Two of them, asked in turn, share a hundred calls exactly; then both refuse, without asking again."""
    quanta, clock = FakeQuanta(), FakeClock()
    two = [Limits(quanta, clock), Limits(quanta, clock)]
    verdicts = [_one(two[n % 2]) for n in range(150)]
    assert sum(verdict is not None and verdict.allowed for verdict in verdicts) == 100
    asked = quanta.asked
    last = _one(two[0])
    assert last == Verdict(allowed=False, remaining=0, retry_after_s=1)
    assert quanta.asked == asked


def test_refusal_is_asked_about_again_when_a_call_may_be_there() -> None:
    """The wait is what the bucket said."""
    quanta, clock = FakeQuanta(), FakeClock()
    limits = Limits(quanta, clock)
    small = Ask("login:ip", Limit(1, 60_000))
    assert _one(limits, small) == Verdict(allowed=True, remaining=0)
    refused = _one(limits, small)
    assert refused == Verdict(allowed=False, remaining=0, retry_after_s=60)
    clock.ms += 60_001
    asked = quanta.asked
    _one(limits, small)
    assert quanta.asked == asked + 1


def test_quantum_is_given_up_when_it_is_not_used() -> None:
    """What is in hand for long may have been let through elsewhere since."""
    quanta, clock = FakeQuanta(), FakeClock()
    limits = Limits(quanta, clock)
    _one(limits)
    clock.ms += int(LIMIT.quantum_s * 1000) + 1
    assert limits.at_hand(ASK) is None


def test_nothing_is_known_while_the_buckets_are_away() -> None:
    """What is in hand is still given; then nobody says anything, so that each edge counts by itself."""
    quanta, clock = FakeQuanta(), FakeClock()
    limits = Limits(quanta, clock)
    _one(limits)
    quanta.down = True
    assert [_one(limits) is not None for _ in range(5)] == [True] * 4 + [False]
    quanta.down = False
    assert _one(limits) is not None


def test_batch_takes_for_all_of_its_asks_at_once() -> None:
    """Many at one moment for one bucket are one question, and each its own answer."""
    quanta, clock = FakeQuanta(), FakeClock()
    limits = Limits(quanta, clock)
    other = Ask("pay:user=43", LIMIT)
    verdicts = limits.decide([ASK] * 103 + [other])
    assert [verdict is not None and verdict.allowed for verdict in verdicts] == [True] * 100 + [False] * 3 + [True]
    assert quanta.asked == 1
