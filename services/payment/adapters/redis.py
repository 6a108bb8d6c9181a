"""The status cache: payments at rest as Redis strings for five minutes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from services.kernel.money import Money
from services.payment.domain import Method, Payment
from services.platform.cache import attempt

if TYPE_CHECKING:
    from collections.abc import Iterable

    import redis

TTL_S = 300


class RedisStatusCache:
    """Payments by id under ``payment:{id}``. Redis down or empty: reads go to the database."""

    def __init__(self, client: redis.Redis) -> None:
        """Cache in ``client``."""
        self._redis = client

    def get(self, payment_id: int) -> Payment | None:
        """Return a payment, if it is remembered."""
        text = attempt(lambda: self._redis.get(_key(payment_id)), None)
        return None if text is None else _payment(text)

    def fill(self, payment: Payment) -> None:
        """Remember what was read. NX: a commit that came in between has put something newer."""
        attempt(lambda: self._redis.set(_key(payment.id), _text(payment), ex=TTL_S, nx=True), None)

    def put(self, payments: Iterable[Payment]) -> None:
        """Remember what was just committed, in one round trip."""
        with self._redis.pipeline(transaction=False) as pipe:
            for payment in payments:
                pipe.set(_key(payment.id), _text(payment), ex=TTL_S)
            if len(pipe):
                attempt(pipe.execute, None)


def _key(payment_id: int) -> str:
    return f"payment:{payment_id}"


def _text(p: Payment) -> bytes:
    return orjson.dumps([p.id, p.order_id, p.user_id, p.amount.currency_code, p.amount.minor_units, p.method, p.status,
                         p.version, p.captured, p.refunded, p.failure_reason, p.create_ms, p.update_ms])  # fmt: skip


def _payment(text: bytes) -> Payment:
    id_, order_id, user_id, currency, amount, method, *rest = orjson.loads(text)
    return Payment(id_, order_id, user_id, Money(currency, amount), Method(method), *rest)
