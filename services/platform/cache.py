"""Redis. It holds nothing that cannot be lost: a cache that is down or empty only makes things slower."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from services.platform import telemetry

T = TypeVar("T")

FAILURES = (redis.RedisError, OSError)
"""What a call may raise when Redis does not answer."""


def connect(url: str, *, retries: int = 1) -> redis.Redis:
    """Return a client with short time-outs (0.25 s) and one retry; no connection is made yet. Values are bytes."""
    return redis.Redis.from_url(
        url,
        socket_timeout=0.25,
        socket_connect_timeout=0.25,
        retry=Retry(ExponentialBackoff(cap=0.05, base=0.01), retries),
        health_check_interval=30,
    )


def attempt(call: Callable[[], T], default: T) -> T:
    """Call Redis; when it does not answer, log it and go on with ``default``."""
    try:
        return call()
    except FAILURES as error:
        telemetry.log.warning("cache.unavailable", error=type(error).__name__)
        return default


class CircuitBreaker:
    """Leaves Redis alone for ``rest_s`` after it did not answer: a silent one must not cost every call its time-out."""

    def __init__(self, rest_s: float = 1.0, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Begin closed; ``monotonic`` gives seconds."""
        self._rest_s, self._monotonic = rest_s, monotonic
        self._until = 0.0
        self.failures = 0
        """Calls that were made and not answered, so that one can see whether there was one in between."""

    @property
    def is_open(self) -> bool:
        """Whether Redis is left alone now."""
        return self._monotonic() < self._until

    def attempt(self, call: Callable[[], Any], default: object) -> Any:  # noqa: ANN401 - redis-py's own types name every decoding
        """Call Redis; go on with ``default`` when it does not answer (which is logged), or did not a moment ago."""
        if self.is_open:
            return default
        try:
            return call()
        except FAILURES as error:
            self._until = self._monotonic() + self._rest_s
            self.failures += 1
            telemetry.log.warning("cache.unavailable", error=type(error).__name__)
            return default
