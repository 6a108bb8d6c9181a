"""What clients see when Envoys die (F5), and a mesh that gets a new CA."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.clients import People, Person, Rest, Shop
from tests.e2e.history import Clients
from tests.e2e.mesh import Mesh, paymesh
from tests.e2e.recovery import settled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.history import Operation

PRICE, TOP_UP, PAYMENTS = 700, 1_000_000, 24


@pytest.fixture(scope="module")
def alone() -> Iterator[Mesh]:
    """A mesh of its own."""
    mesh = Mesh()
    mesh.start()
    yield mesh
    code, left = mesh.stop()
    assert (code, left) == (0, []), mesh.said()
    mesh.remove()


def _pid(mesh: Mesh, node_id: str) -> int:
    (pid,) = [each["pid"] for group in mesh.record["envoys"].values() for each in group if each["id"] == node_id]
    return int(pid)


async def restarted(mesh: Mesh, dead: int, node_id: str) -> None:
    """Wait until the supervisor has started an Envoy again."""
    async with asyncio.timeout(20):
        while _pid(mesh, node_id) in {0, dead}:  # noqa: ASYNC110 - it happens in another process
            await asyncio.sleep(0.05)


def _ca(mesh: Mesh) -> str:
    return Path(mesh.record["ca"]).read_text()


def _shop(mesh: Mesh) -> tuple[Shop, Person]:
    record = mesh.record
    rest = Rest(record["rest"], Path(record["ca"]))
    people = People(rest, record["admin"])
    shop, buyer = Shop(rest, people.operator), people.somebody()
    shop.stock("seat", price=PRICE, available=1_000)
    shop.top_up(buyer, TOP_UP)
    return shop, buyer


async def _pay(clients: Clients, buyer: Person, name: str) -> list[asyncio.Task[Operation]]:
    """Order, and begin to pay: each payment repeats with its key until its client knows."""

    async def one(number: int) -> Operation:
        body: dict[str, Any] = {"items": [{"sku": "seat", "quantity": 1}]}
        placed = await clients.until_known("CreateOrder", body, buyer.token, f"order-{name}-{number}")
        order = placed.answer["order"]
        body = {"order_id": order["id"], "method": "METHOD_BALANCE", "amount": order["amount"]}
        return await clients.until_known("CreatePayment", body, buyer.token, f"pay-{name}-{order['id']}")

    return [asyncio.create_task(one(number)) for number in range(PAYMENTS)]


@pytest.mark.timeout(300)
async def test_nobody_pays_twice_when_an_envoy_is_killed(alone: Mesh) -> None:
    """Kill -9 of the edge, of payment's and of order's Envoy amid payments: every client knows, one charge for each."""
    shop, buyer = _shop(alone)
    clients = Clients(alone.record["rest"], Path(alone.record["ca"]))
    done: list[Operation] = []
    for node_id in ("edge-1", "payment-1", "order-1"):
        dead = _pid(alone, node_id)
        paying = await _pay(clients, buyer, node_id)
        while clients.in_flight["payment"] < PAYMENTS // 4:
            await asyncio.sleep(0)
            assert not all(each.done() for each in paying), "all was paid before the kill"
        os.kill(dead, signal.SIGKILL)
        done += await asyncio.gather(*paying)
        await restarted(alone, dead, node_id)
    await clients.close()
    assert [each for each in done if each.outcome != "ok"] == []
    assert sum(bool(each.doubts) for each in done) > 0, "no client noticed anything: nothing was in flight"
    settled(alone)
    rest = Rest(alone.record["rest"], Path(alone.record["ca"]))
    assert Shop(rest, shop.operator).balance(buyer) == TOP_UP - PRICE * len(done)
    rest.close()


@pytest.mark.timeout(300)
async def test_operator_changes_the_ca_of_a_mesh_that_runs(alone: Mesh) -> None:
    """`paymesh rotate --ca`: all three steps, another CA in DIR, and people who trust that one order and pay."""
    before = _ca(alone)
    done = await asyncio.to_thread(paymesh, "rotate", "--ca", "--data", str(alone.data), "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout)
    after = _ca(alone)
    assert (said["phase"], len(said["fingerprints"])) == ("PHASE_STABLE", 1)
    assert after.count("BEGIN CERTIFICATE") == 1
    assert after != before
    _, buyer = _shop(alone)
    clients = Clients(alone.record["rest"], Path(alone.record["ca"]))
    paid = await asyncio.gather(*await _pay(clients, buyer, "new-ca"))
    await clients.close()
    assert {each.outcome for each in paid} == {"ok"}
