"""No oversell: two processes with a Batcher each, one database, two hundred orders of a stock of fifty."""

from __future__ import annotations

import asyncio
import dataclasses
import random
import time
from collections import Counter
from collections.abc import Sequence

import pytest

from paymesh.order.v1 import order_service_pb2 as pb
from services.kernel.caller import Caller
from services.kernel.clock import SystemClock
from services.kernel.errors import DomainError
from services.kernel.idempotency import IdempotencyKey, Scope
from services.kernel.ids import IdMaker
from services.kernel.money import Money
from services.order import audit, mapping, usecases
from services.order.app import batcher
from services.order.domain import Line
from services.order.ports import Ports
from services.order.store import SqlStore
from services.order.usecases import CreateOrder, ExpireOrder, PaymentSucceeded, SetOrderStatus, SetStock
from services.platform.batcher import Batcher, Limits
from services.platform.database import Database
from tests.fakes.order import BUSINESS, FakeCache
from tests.integration.engines import Engines
from tests.integration.processes import Processes, together

PRICE = Money("CNY", 100)


def opened(url: str, instance: int) -> tuple[Ports, Batcher, Database]:
    """The writing half of an order service over ``url``."""
    clock, database = SystemClock(), Database(url)
    ids = IdMaker(clock, instance)
    ports = Ports(SqlStore(database, ids), FakeCache(), ids, clock, mapping.created, lambda: None, BUSINESS, 1_800_000)
    return ports, batcher(ports, Limits(batch_max=20, retries=20)), database


def breaches(database: Database) -> list[str]:
    with database.read() as connection:
        return [b for f in audit.invariants(connection, int(time.time() * 1000), settled=False) for b in f.breaches]


def order(user: int, *skus: str, key: str = "") -> CreateOrder:
    found = IdempotencyKey(Scope(user, "CreateOrder", key), b"\0" * 32) if key else None
    return CreateOrder(Caller(user, frozenset(), "", 1e12), found, tuple(Line(sku, 1) for sku in skus))


async def submit(writes: Batcher, kind: str, commands: Sequence[object]) -> list[object]:
    """Submit commands at once, as the servicer does."""
    deadline = time.monotonic() + 30
    return list(await asyncio.gather(*(writes.submit(kind, c, deadline) for c in commands), return_exceptions=True))


def outcome(answer: object) -> str:
    return answer.reason if isinstance(answer, DomainError) else type(answer).__name__


def buy(url: str, instance: int, keys_of: int) -> list[tuple[str, bytes]]:
    """Order 100 times from one process: the hot item, with others before and after it, in any order of lines.

    Ten at a time, so that two processes take turns. Returns (how it ended, the answer) for each. The idempotency keys
    are those of instance ``keys_of``.
    """
    _, writes, database = opened(url, instance)
    writes.start()
    chance = random.Random(keys_of)
    commands = list[object]()
    for n in range(100):
        skus = ["hot", *chance.sample(["a", "z", "m"], chance.randint(0, 2))]
        chance.shuffle(skus)
        commands.append(order(100 + n, *skus, key=f"key-{keys_of}-{n:04}"))
    together()
    outcomes = list[object]()
    for n in range(0, 100, 10):
        outcomes += asyncio.run(submit(writes, "create_orders", commands[n : n + 10]))
    writes.stop()
    database.stop()
    return [(outcome(o), o if isinstance(o, bytes) else b"") for o in outcomes]


@pytest.fixture
def url(engine: str, engines: Engines) -> str:
    """Where a database of the newest schema is."""
    return engines.migrated(engine, "order")


def stocked(url: str, hot: int) -> tuple[Ports, Database]:
    """Put ``hot`` of the hot item and plenty of three others into a database."""
    ports, _, database = opened(url, 1)
    usecases.set_stocks(
        ports, [SetStock(sku, sku, PRICE, n) for sku, n in (("hot", hot), ("a", 99), ("m", 99), ("z", 99))]
    )
    return ports, database


def test_two_processes_never_oversell_one_item(url: str, processes: Processes) -> None:
    """200 orders from two processes, stock 50: exactly 50 succeed, and every book agrees."""
    ports, database = stocked(url, 50)
    found = processes(buy, (url, 2, 2), (url, 3, 3))
    outcomes = Counter(how for each in found for how, _ in each)
    hot = ports.store.item("hot")
    assert hot is not None
    assert (hot.available, hot.reserved) == (0, 50)
    assert breaches(database) == []
    database.stop()
    assert outcomes == {"bytes": 50, "STOCK_INSUFFICIENT": 150}
    assert [len(each) for each in found] == [100, 100], (
        "both processes asked; which wins how often is the lock's affair"
    )


def test_two_processes_answer_one_key_once(url: str, processes: Processes) -> None:
    """The same 100 keyed orders in both: 100 orders, and both give the same bytes for each."""
    ports, database = stocked(url, 1000)
    first, second = processes(buy, (url, 2, 2), (url, 3, 2))
    hot = ports.store.item("hot")
    assert hot is not None
    assert hot.reserved == 100
    assert breaches(database) == []
    database.stop()
    assert Counter(how for how, _ in first) == {"bytes": 100}
    assert first == second


def test_two_batchers_settle_orders_while_they_expire_and_are_cancelled(url: str) -> None:
    """Payments, cancellations and the expiry race for the same orders from two Batchers: one wins each, all agree."""
    ports, database = stocked(url, 1000)
    answers = usecases.create_orders(ports, [order(100 + n, "hot", "a") for n in range(60)])
    ids = [pb.CreateOrderResponse.FromString(a).order.id for a in answers if isinstance(a, bytes)]
    shelves = [opened(url, n) for n in (2, 3)]
    late = dataclasses.replace(shelves[1][0], clock=_Later())
    rooms = [shelves[0][1], batcher(late, Limits(batch_max=7))]
    pay = [PaymentSucceeded(f"payment-{i}", i + 1, i, Money("CNY", 200)) for i in ids]
    cancel = [SetOrderStatus(Caller(100 + n, frozenset(), "", 1e12), i, "cancelled") for n, i in enumerate(ids)]

    async def race() -> tuple[list[object], list[object], list[object]]:
        return await asyncio.gather(
            submit(rooms[0], "pay_orders", pay[::-1]),
            submit(rooms[1], "expire_orders", [ExpireOrder(i) for i in ids[::2]]),
            submit(rooms[1], "set_order_statuses", cancel),
        )

    for writes in rooms:
        writes.start()
    paid, _, cancelled = asyncio.run(race())
    for writes in rooms:
        writes.stop()
    assert breaches(database) == []
    ended = Counter(o.status for o in ports.store.bare_orders(ids))
    assert set(ended) <= {"paid", "cancelled"}
    assert paid == [None] * 60
    assert Counter(map(outcome, cancelled))["ORDER_STATUS_CONFLICT"] == ended["paid"]
    with database.read() as connection:
        rejected = {order_id for _, order_id, _ in audit.rejected_payments(connection)}
        lost = {fact.order_id for fact in audit.order_facts(connection) if fact.status == "cancelled"}
    assert rejected == lost
    for _, _, each in shelves:
        each.stop()
    database.stop()


class _Later(SystemClock):
    """A clock by which every order's time is over."""

    def now_ms(self) -> int:
        return super().now_ms() + 1_800_001
