"""The status cache: payments at rest as Redis strings for five minutes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from services.kernel.money import Money
from services.payment.domain import Attempt, Kind, Method, Payment, Point, Scene
from services.payment.domain.card import Brand, Card, Expiry
from services.platform.cache import CircuitBreaker

if TYPE_CHECKING:
    from collections.abc import Iterable

    import redis

TTL_S = 300
HOLD_S = 30
"""Longer than a commit takes: afterwards the database is asked, and fills the place again."""

_PUT_NEWER = """
local there = redis.call('GET', KEYS[1])
if there and there ~= '' and cjson.decode(there)[8] >= tonumber(ARGV[2]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[3])
return 1
"""
"""Its eighth word is the version, see _text."""


class RedisStatusCache:
    """Payments by id under ``payment:{id}``. Redis down or empty: reads go to the database."""

    def __init__(self, client: redis.Redis) -> None:
        """Cache in ``client``."""
        self._redis, self._breaker = client, CircuitBreaker()
        self._stale: set[int] = set()
        """Payments that changed while Redis was away: what it may remember of them is to be removed first."""

    def get(self, payment_id: int) -> Payment | None:
        """Return a payment, if it is remembered."""
        if self._stale and not self._cleared():
            return None
        text = self._breaker.attempt(lambda: self._redis.get(_key(payment_id)), None)
        return _payment(text) if text else None

    def fill(self, payment: Payment) -> None:
        """Remember what was read. NX: a change that came in between holds the place or has put something newer."""
        self._breaker.attempt(lambda: self._redis.set(_key(payment.id), _text(payment), ex=TTL_S, nx=True), None)

    def hold(self, payment_ids: Iterable[int]) -> None:
        """Put an empty word in place of payments that are about to change, in one round trip.

        A reader that saw the database before the change cannot fill it, and should this process die between its commit
        and ``put``, nobody is shown what was before.
        """
        with self._redis.pipeline(transaction=False) as pipe:
            for payment_id in payment_ids:
                pipe.set(_key(payment_id), b"", ex=HOLD_S)
            if len(pipe):
                self._breaker.attempt(pipe.execute, None)

    def put(self, payments: Iterable[Payment]) -> None:
        """Remember what was just committed, in one round trip; another process may have put something newer."""
        changed = list(payments)
        with self._redis.pipeline(transaction=False) as pipe:
            for payment in changed:
                pipe.eval(_PUT_NEWER, 1, _key(payment.id), _text(payment), str(payment.version), str(TTL_S))
            if changed and self._breaker.attempt(pipe.execute, None) is None:
                self._stale.update(payment.id for payment in changed)

    def _cleared(self) -> bool:
        """Remove what is stale; whether Redis did."""
        stale = list(self._stale)
        if self._breaker.attempt(lambda: self._redis.delete(*map(_key, stale)), None) is None:
            return False
        self._stale.difference_update(stale)
        return True


def _key(payment_id: int) -> str:
    return f"payment:{payment_id}"


def _text(p: Payment) -> bytes:
    return orjson.dumps([p.id, p.order_id, p.user_id, p.amount.currency_code, p.amount.minor_units, p.method, p.status,
                         p.version, p.captured, p.refunded, p.failure_reason, p.create_ms, p.update_ms, p.events,
                         p.refunding, p.live, p.charge and _charge_words(p.charge)])  # fmt: skip


def _charge_words(c: Attempt) -> list[object]:
    """What is shown of a payment's charge when nothing is left to ask about it."""
    card = c.card and [c.card.token, c.card.merchant_id, c.card.brand, c.card.first6, c.card.last4,
                       c.card.expiry.year, c.card.expiry.month]  # fmt: skip
    return [c.scene, c.capture, c.expire_ms, c.provider_id, c.provider_code, card]


def _payment(text: bytes) -> Payment:
    id_, order_id, user_id, currency, amount, method, *rest, charge = orjson.loads(text)
    payment = Payment(id_, order_id, user_id, Money(currency, amount), Method(method), *rest)
    payment.charge = _charge(payment, *charge) if charge else None
    return payment


def _charge(
    p: Payment,
    scene: str | None,
    capture: bool,  # noqa: FBT001 - a word of a list
    expire_ms: int,
    provider_id: str,
    code: str,
    card: list[Any] | None,
) -> Attempt:
    shown = None
    if card is not None:
        token, merchant_id, brand, first6, last4, year, month = card
        shown = Card(token, merchant_id, Brand(brand), first6, last4, Expiry(year, month))
    return Attempt(
        id=p.id, payment_id=p.id, refund_id=0, kind=Kind.CHARGE, method=p.method, request_id=p.payment_no,
        amount=p.amount, create_ms=p.create_ms, update_ms=p.update_ms, next_ms=0, owner=0,
        scene=Scene(scene) if scene else None, card=shown, capture=capture, expire_ms=expire_ms, point=Point.SETTLED,
        provider_id=provider_id, provider_code=code,
    )  # fmt: skip
