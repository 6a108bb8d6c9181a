"""Redis when it is silent: left alone for a moment, then asked again."""

from __future__ import annotations

import pytest
import redis

from services.platform.cache import CircuitBreaker


def test_silent_redis_is_left_alone_for_a_moment() -> None:
    """One time-out, then the default at once; after the rest it is asked again, and an answer counts."""
    now, asked = [100.0], list[float]()

    def fail() -> str:
        asked.append(now[0])
        raise redis.TimeoutError

    breaker = CircuitBreaker(0.5, lambda: now[0])
    assert [breaker.attempt(fail, "default") for _ in range(3)] == ["default"] * 3
    assert breaker.attempt(lambda: "answer", "default") == "default"
    now[0] = 100.5
    assert breaker.attempt(lambda: "answer", "default") == "answer"
    assert breaker.attempt(fail, "default") == "default"
    assert (asked, breaker.failures) == ([100.0, 100.5], 2)


def test_fault_of_our_own_is_no_silence() -> None:
    """What is not Redis's failure passes through, and the breaker stays closed."""
    breaker = CircuitBreaker()
    with pytest.raises(ValueError, match="ours"):
        breaker.attempt(lambda: int("ours"), "default")
    assert breaker.attempt(lambda: "answer", "default") == "answer"
