"""Redis: orders and stock as hashes for five minutes. It holds nothing that cannot be lost."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, TypeVar

from services.kernel.errors import DomainError
from services.kernel.money import Money
from services.order.domain import Item, Order, Stock
from services.platform.cache import CircuitBreaker
from services.platform.telemetry import log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import redis

T = TypeVar("T")

TTL_S = 300

_PUT = """
local held = redis.call('HGET', KEYS[1], 'version')
if held and tonumber(held) > tonumber(ARGV[2]) then return 0 end
redis.call('HSET', KEYS[1], 'version', unpack(ARGV, 2))
redis.call('EXPIRE', KEYS[1], ARGV[1])
return 1
"""
"""Writes a hash unless a newer version is there, in one step. KEYS: the hash; ARGV: seconds to keep it, version, fields."""


class RedisCache:
    """Hashes ``order:{id}`` and ``stock:{sku}``.

    An older version never replaces a newer one. Entries that this process could not write after its own commit are not
    believed until they have run out.
    """

    def __init__(self, client: redis.Redis) -> None:
        """Keep hashes in Redis by ``client``."""
        self._client, self._lock = client, threading.Lock()
        self._breaker = CircuitBreaker()
        self._unsure: dict[str, float] = {}

    def order(self, order_id: int) -> Order | None:
        """Return an order, if it is remembered."""
        return self._get(f"order:{order_id}", _order)

    def item(self, sku: str) -> Stock | None:
        """Return an item of the inventory, if it is remembered."""
        return self._get(f"stock:{sku}", _stock)

    def forget(self, order_ids: Iterable[int]) -> None:
        """Drop orders that are about to change, so that a crash after the commit leaves nothing old."""
        keys = [f"order:{order_id}" for order_id in order_ids]
        if keys:
            self._breaker.attempt(lambda: self._client.delete(*keys), None)

    def put(self, orders: Iterable[Order], stock: Iterable[Stock]) -> None:
        """Remember what was committed or read, unless something newer is there: one round trip."""
        entries = {f"order:{each.id}": _order_fields(each) for each in orders}
        entries |= {f"stock:{each.sku}": _stock_fields(each) for each in stock}
        if not entries:
            return

        def write() -> bool:
            with self._client.pipeline(transaction=False) as pipe:
                for key, fields in entries.items():
                    _, version, *rest = (part for pair in fields.items() for part in pair)
                    pipe.eval(_PUT, 1, key, TTL_S, version, *rest)
                pipe.execute()
            return True

        written = self._breaker.attempt(write, default=False)
        with self._lock:
            for key in entries:
                self._unsure.pop(key, None)
                if not written:
                    self._unsure[key] = time.monotonic() + TTL_S

    def _get(self, key: str, read: Callable[[str, Mapping[str, str]], T]) -> T | None:
        if self._doubts(key):
            return None
        found = self._breaker.attempt(lambda: self._client.hgetall(key), None)
        try:
            return read(key, {name.decode(): value.decode() for name, value in found.items()}) if found else None
        except (KeyError, ValueError, DomainError):
            log.warning("cache.entry_unreadable", key=key)  # of another release: the database knows
            return None

    def _doubts(self, key: str) -> bool:
        with self._lock:
            until = self._unsure.get(key, 0.0)
            if until and until < time.monotonic():
                del self._unsure[key]
            return until > time.monotonic()


def _order_fields(order: Order) -> dict[str, str | int]:
    return {
        "version": order.version,
        "user_id": order.user_id,
        "order_no": order.order_no,
        "amount_minor": order.amount.minor_units,
        "currency": order.amount.currency_code,
        "status": order.status,
        "create_ms": order.create_ms,
        "update_ms": order.update_ms,
        "expire_ms": order.expire_ms,
        "payment_id": order.payment_id,
        "cancel_reason": order.cancel_reason,
        "items": json.dumps([[i.sku, i.name, i.quantity, i.unit_price.minor_units] for i in order.items]),
    }


def _order(key: str, held: Mapping[str, str]) -> Order:
    currency = held["currency"]
    lines = json.loads(held["items"])
    return Order(
        id=int(key.partition(":")[2]),
        user_id=int(held["user_id"]),
        amount=Money(currency, int(held["amount_minor"])),
        items=tuple(Item(sku, name, quantity, Money(currency, price)) for sku, name, quantity, price in lines),
        status=held["status"],
        version=int(held["version"]),
        create_ms=int(held["create_ms"]),
        update_ms=int(held["update_ms"]),
        expire_ms=int(held["expire_ms"]),
        payment_id=int(held["payment_id"]),
        cancel_reason=held["cancel_reason"],
    )


def _stock_fields(stock: Stock) -> dict[str, str | int]:
    return {
        "version": stock.version,
        "name": stock.name,
        "unit_price_minor": stock.unit_price.minor_units,
        "currency": stock.unit_price.currency_code,
        "available": stock.available,
        "reserved": stock.reserved,
        "update_ms": stock.update_ms,
    }


def _stock(key: str, held: Mapping[str, str]) -> Stock:
    return Stock(
        sku=key.partition(":")[2],
        name=held["name"],
        unit_price=Money(held["currency"], int(held["unit_price_minor"])),
        available=int(held["available"]),
        reserved=int(held["reserved"]),
        version=int(held["version"]),
        update_ms=int(held["update_ms"]),
    )
