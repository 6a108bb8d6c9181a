"""kill -9 of every service while people pay: clients repeat until they know, and what they know is what the books say."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.e2e.clients import People, Person, Rest, Shop, cny
from tests.e2e.history import Clients, Operation
from tests.e2e.mesh import Mesh
from tests.e2e.recovery import admin, every, restarted, serving, settled

if TYPE_CHECKING:
    from collections.abc import Iterator

INSTANCES = ("payment-1", "order-1", "risk-1", "user-1", "payment-2", "notification-1", "config-1", "gateway-1")
KILLS = 3
"""Of each instance, each with requests in flight."""
BUYERS = 24
"""Each has one payment on its way at a time, so that at least IN_FLIGHT are when a process is killed."""
ORDERS = 36
"""Paid in each burst."""
IN_FLIGHT = 20
PRICE, TOP_UP = 700, 1_000_000
RESTART_S = 1.0
_ACTIVE = "cluster.service.upstream_rq_active"
"""Requests that the Envoy beside a service has sent to it and has no answer to."""


@dataclass
class Kill:
    """One kill -9: payments that clients waited for, and requests that the instance itself had begun or been sent."""

    instance: str
    payments_in_flight: int
    at_instance: int
    restarted_s: float
    known_s: float
    """Until every client of the burst knew."""


@dataclass
class Run:
    """A mesh under load, and what was done to it."""

    mesh: Mesh
    shop: Shop
    clients: Clients
    buyers: list[Person]
    kills: list[Kill] = field(default_factory=list)
    payments: list[tuple[Person, Operation]] = field(default_factory=list)
    refunds: list[tuple[Person, Operation]] = field(default_factory=list)
    orders: dict[str, Person] = field(default_factory=dict)


@pytest.fixture
def alone() -> Iterator[Mesh]:
    """A mesh of its own: nobody else is to see its services die."""
    mesh = Mesh()
    mesh.start()
    yield mesh
    code, left = mesh.stop()
    assert (code, left) == (0, []), mesh.said()
    mesh.remove()


@pytest.mark.timeout(600)
async def test_books_are_right_after_every_service_was_killed_three_times(
    alone: Mesh, capsys: pytest.CaptureFixture[str]
) -> None:
    """Hundreds of payments, twenty and more in flight, 24 kills: one charge per order, nothing lost, nothing pending."""
    record = alone.record
    rest = Rest(record["rest"], Path(record["ca"]))
    people = People(rest, record["admin"])
    run = Run(alone, Shop(rest, people.operator), Clients(record["rest"], Path(record["ca"])), _buyers(rest, people))
    for _ in range(KILLS):
        for instance in INSTANCES:
            await _burst(run, instance)
    took_s, examined = settled(run.mesh)
    await _replayed(run)
    with capsys.disabled():
        sys.stdout.write(_summary(run, took_s, examined))
    _booked(run)
    rest.close()
    await run.clients.close()
    assert min(kill.payments_in_flight for kill in run.kills) >= IN_FLIGHT
    assert min(kill.at_instance for kill in run.kills) >= 1
    assert max(kill.restarted_s for kill in run.kills) < RESTART_S
    assert len(run.payments) >= 200


def _buyers(rest: Rest, people: People) -> list[Person]:
    shop = Shop(rest, people.operator)
    shop.stock("seat", price=PRICE, available=1_000_000)
    buyers = [people.somebody() for _ in range(BUYERS)]
    for each in buyers[1:]:  # the first has nothing: what he is refused is a part of the history too
        shop.top_up(each, TOP_UP)
    return buyers


# -- One burst and one kill -------------------------------------------------------------------------------------------


async def _burst(run: Run, instance: str) -> None:
    """Pay ORDERS orders at once and kill an instance in the middle; returns when every client knows."""
    await serving(run.mesh, instance)
    orders = await _ordered(run)
    queue = list(zip(orders, cycle((False, False, False, True)), strict=False))
    service = instance.rpartition("-")[0]
    pressing = [asyncio.create_task(_press(run, service, number)) for number in range(6)]
    paying = [asyncio.create_task(_pay_all(run, queue)) for _ in range(BUYERS)]
    in_flight = run.clients.in_flight
    # The first requests may be answered by now; others have taken their place.
    while in_flight["payment"] < BUYERS:  # noqa: ASYNC110 - nobody tells it
        await asyncio.sleep(0)
    await asyncio.sleep(random.uniform(0, 0.02))
    while in_flight["payment"] < IN_FLIGHT or not in_flight[service]:
        await asyncio.sleep(0)
        assert not all(each.done() for each in paying), "the burst was over before the kill"
    # Stopped first: what it was doing at this moment is what it will never finish, and can be counted.
    dead = run.mesh.kill(instance, signal.SIGSTOP)
    assert dead, f"{instance} was dead already"
    at_instance = await _sent_to(run.mesh, instance)
    waiting = in_flight["payment"]
    run.mesh.kill(instance)
    began = time.monotonic()
    restarting = asyncio.create_task(restarted(run.mesh, instance, dead))
    await asyncio.gather(*paying)
    known_s = time.monotonic() - began
    for each in pressing:
        each.cancel()
    await asyncio.gather(*pressing, return_exceptions=True)
    run.kills.append(Kill(instance, waiting, at_instance, await restarting, known_s))


async def _ordered(run: Run) -> list[tuple[Person, dict[str, Any]]]:
    """Place the orders of a burst."""
    body = {"items": [{"sku": "seat", "quantity": 1}]}
    who = [run.buyers[number % BUYERS] for number in range(ORDERS)]
    keys = [f"order-{len(run.kills)}-{number}" for number in range(ORDERS)]
    placed = await asyncio.gather(
        *(run.clients.until_known("CreateOrder", body, buyer.token, key) for buyer, key in zip(who, keys, strict=True))
    )
    orders = [(buyer, one.answer["order"]) for buyer, one in zip(who, placed, strict=True)]
    run.orders |= {order["id"]: buyer for buyer, order in orders}
    return orders


async def _pay_all(run: Run, queue: list[tuple[tuple[Person, dict[str, Any]], bool]]) -> None:
    """Be a client: take an order and pay it until the answer is known; some are paid twice at once, some given back."""
    while queue:
        (buyer, order), twice = queue.pop()
        body = {"order_id": order["id"], "method": "METHOD_BALANCE", "amount": order["amount"]}
        keys = [f"pay-{order['id']}-{number}" for number in range(1 + twice)]
        done = await asyncio.gather(*(run.clients.until_known("CreatePayment", body, buyer.token, key) for key in keys))
        run.payments += [(buyer, each) for each in done]
        paid = [each for each in done if each.outcome == "ok"]
        if paid and int(order["id"]) // 64 % 5 == 0:
            payment = paid[0].answer["payment"]["id"]
            refund = {"id": payment, "amount": cny(PRICE // 2)}
            key = f"refund-{payment}"
            run.refunds.append((buyer, await run.clients.until_known("RefundPayment", refund, buyer.token, key)))


async def _press(run: Run, service: str, number: int) -> None:
    """Keep a request at a service until told to stop."""
    buyer, operator = run.buyers[number + 1], run.shop.operator
    calls: dict[str, tuple[str, dict[str, Any], str]] = {
        "user": ("GetUser", {"id": buyer.id}, buyer.token),
        "order": ("ListUserOrders", {"user_id": buyer.id}, buyer.token),
        "payment": ("ListPayments", {}, buyer.token),
        "risk": ("AssessRisk", {"user_id": buyer.id, "amount": cny(1), "method": "METHOD_BALANCE"}, operator.token),
        "notification": ("ListUserNotifications", {"user_id": buyer.id}, buyer.token),
        "config": ("ListConfig", {}, operator.token),
        "gateway": ("ListRoutes", {}, operator.token),
    }
    method, body, token = calls[service]
    while True:
        try:
            answer = await run.clients.once(method, body, token)
            if answer.status_code != httpx.codes.OK:
                await asyncio.sleep(0.1)
        except httpx.HTTPError:
            await asyncio.sleep(0.1)


async def _sent_to(mesh: Mesh, instance: str) -> int:
    """Return how many requests an instance that is stopped has; a moment is waited for the first."""
    for _ in range(50):
        stats = await asyncio.to_thread(admin, mesh, instance, f"/stats?format=json&filter=^{_ACTIVE}$")
        if count := sum(int(each["value"]) for each in stats["stats"]):
            return count
        await asyncio.sleep(0.01)
    return 0


# -- Afterwards -------------------------------------------------------------------------------------------------------


async def _replayed(run: Run) -> None:
    """Repeat a part of the calls that are known: byte for byte the first answer, and no second effect."""
    for buyer, known in run.payments[:: len(run.payments) // 40]:
        again = await run.clients.until_known("CreatePayment", known.body, buyer.token, known.key)
        run.clients.history.pop()
        assert (again.outcome, again.reason, again.content) == (known.outcome, known.reason, known.content)


def _booked(run: Run) -> None:
    """Compare what clients know with payments, orders and balances: one charge per order that was paid, no other."""
    assert [each for each in run.clients.history if each.outcome == "unknown"] == []
    for buyer in run.buyers:
        done = [one for who, one in run.payments if who is buyer and one.outcome == "ok"]
        paid = {str(one.body["order_id"]): one.answer["payment"]["id"] for one in done}
        assert len(paid) == len(done), "an order was paid twice"
        back = [one for who, one in run.refunds if who is buyer and one.outcome == "ok"]
        listed = every(run.shop.plane, "ListPayments", "payments", buyer.token)
        booked = [each for each in listed if each["status"] != "STATUS_FAILED"]
        assert len(booked) == len(paid)
        assert {each["order_id"]: each["id"] for each in booked} == paid
        assert sum(int(each["refunded"]["minor_units"]) for each in booked) == len(back) * (PRICE // 2)
        wanted = (TOP_UP if buyer is not run.buyers[0] else 0) - PRICE * len(paid) + PRICE // 2 * len(back)
        assert run.shop.balance(buyer) == wanted
        for order in every(run.shop.plane, "ListUserOrders", "orders", buyer.token, user_id=buyer.id):
            assert order["status"] == ("STATUS_PAID" if order["id"] in paid else "STATUS_PENDING")
            assert order["payment_id"] == paid.get(order["id"], "0")
    refused = Counter(one.reason for _, one in run.payments if one.outcome == "fail")
    assert refused.keys() <= {"BALANCE_INSUFFICIENT", "ORDER_HAS_LIVE_PAYMENT"}, refused
    paid_orders = {str(one.body["order_id"]) for _, one in run.payments if one.outcome == "ok"}
    poor = run.buyers[0]
    assert paid_orders == {order for order, who in run.orders.items() if who is not poor}


def _summary(run: Run, took_s: float, examined: int) -> str:
    """Tell the history as a whole."""
    told = Counter((one.method, one.outcome, one.reason) for one in run.clients.history)
    doubts = Counter(doubt for one in run.clients.history for doubt in one.doubts)
    lines = [f"{len(run.payments)} payments and {len(run.refunds)} refunds tried, {len(run.kills)} kills"]
    lines += [f"  {' '.join(which):<52} {count:>5}" for which, count in sorted(told.items())]
    lines.append(f"  attempts that left it unknown: {dict(doubts) or 'none'}")
    lines += [
        f"  kill -9 {kill.instance:<15} {kill.payments_in_flight:>3} payments in flight, "
        f"{kill.at_instance:>3} requests at it; "
        f"started again after {kill.restarted_s:.2f} s; all known after {kill.known_s:.2f} s"
        for kill in run.kills
    ]
    lines.append(f"  settled {took_s:.1f} s after the last answer; verify examined {examined} rows")
    return "\n".join(["", *lines, ""])
