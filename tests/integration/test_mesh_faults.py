"""What the mesh does when something is wrong: poisoned configuration, an Envoy that goes, a wire that is bad."""

from __future__ import annotations

import asyncio
import logging
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from paymesh.config.v1 import config_service_pb2 as pb
from paymesh.order.v1 import order_service_pb2, order_service_pb2_grpc
from services.cli.probes import drained
from services.kernel.caller import NOBODY
from services.kernel.errors import DomainError
from services.platform import telemetry
from services.platform.client import MeshChannel
from services.platform.follow import Following
from services.platform.settings import ServiceSettings
from tests.integration.config_mesh import ConfigMesh, until
from tests.integration.site import Site, ask, load
from tests.integration.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Iterator

OK = grpc.StatusCode.OK


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """Payment instances that call an order instance over a wire."""
    with (
        tempfile.TemporaryDirectory(prefix="pm-") as directory,
        Wire("").running() as wire,
        ConfigMesh(Path(directory)).running() as mesh,
    ):
        yield Site(mesh, wire)


def test_poisoned_configuration_is_refused_and_the_last_good_one_served(site: Site) -> None:
    """F15: endpoints that no Envoy can take. No request fails, who operates the mesh is told, and it heals."""
    mesh, (caller, _) = site.mesh, site.payments
    until(lambda: mesh.settled(caller))
    poison = replace(site.order, id="order-2")
    with load(site, cut=False) as codes:
        # A health check finds it by its name; an endpoint must be a number, so that every caller's Envoy refuses it.
        mesh.register(poison, address=f"localhost:{site.wire.address.rpartition(':')[2]}")
        until(lambda: bool(site.nodes()[caller.id].refusals))
        said = site.nodes()[caller.id]
        assert not said.settled
        assert [each.resource for each in said.refusals] == ["order"]
        assert "localhost" in said.refusals[0].complaint
        assert mesh.metric("paymesh_alarms_total", kind="mesh", event="xds.refused")
        waiting = mesh.operate("GetAuthority", pb.GetAuthorityRequest()).authority.waiting
        assert caller.id in waiting
        time.sleep(1)
        assert mesh.endpoints(caller, "order") == [site.wire.address]
        mesh.deregister(poison)
        until(lambda: mesh.settled(caller))
    assert len(codes) > 20
    assert set(codes) == {OK}
    assert not site.nodes()[caller.id].refusals


def test_service_follows_a_setting_without_a_restart(site: Site) -> None:
    """The log level of payment, through both sidecars: set by an operator, in force within about a second."""
    payment = ServiceSettings(data=Path(), listen="", mesh=f"unix:{site.payments[0].outbound_socket}")
    following, before = Following("payment", payment), telemetry.LEVEL.lowest
    following.start()
    try:
        for level in ("error", "warning"):
            site.mesh.operate("SetConfig", pb.SetConfigRequest(key="log.level.payment", value=level))
            wanted = logging.getLevelNamesMapping()[level.upper()]
            assert until(lambda wanted=wanted: telemetry.LEVEL.lowest == wanted) < 3  # type: ignore[misc]
    finally:
        following.stop()
        telemetry.LEVEL.lowest = before


def test_envoy_that_is_stopped_in_order_fails_no_request(site: Site) -> None:
    """F5: taken out of discovery, drained, ended: whoever called it calls the other one."""
    mesh, node = site.mesh, site.mesh.sidecar("order", 3)
    try:
        with load(site, cut=False) as codes:
            with mesh.joining(node, mesh.tokens[node.id]):
                until(lambda: mesh.settled(node))
                _, _, orders = mesh.serve(node)
                mesh.register(node)
                until(lambda: orders.calls > 5)
                mesh.deregister(node)
                asyncio.run(_drain(mesh.admin[node.id]))
            time.sleep(0.5)
    finally:
        mesh.forget(node.id)
    assert len(codes) > 20
    assert set(codes) == {OK}


async def _drain(admin: str) -> None:
    await drained(int(admin.rpartition(":")[2]))()


def _within(site: Site, budget_s: float) -> tuple[str, float]:
    """Call order as a handler of payment does that has ``budget_s`` left; returns what came of it and how long it took."""
    channel = MeshChannel(f"unix:{site.payments[0].outbound_socket}")
    stub, began = order_service_pb2_grpc.OrderServiceStub(channel.channel), time.monotonic()
    caller = replace(NOBODY, deadline=began + budget_s)
    try:
        channel.call(stub.BatchGetOrders, order_service_pb2.BatchGetOrdersRequest(ids=[1]), 5000, caller)
    except DomainError as error:
        return error.reason, time.monotonic() - began
    finally:
        channel.stop()
    return "OK", time.monotonic() - began


def test_callee_gets_what_is_left_of_the_callers_time(site: Site) -> None:
    """Through both sidecars: something, and not more than the caller has."""
    assert ask(site.payments[0]) is OK
    for budget_s in (0.4, 0.8):
        assert _within(site, budget_s)[0] == "OK"
        assert 0 < site.orders.left_s[-1] <= budget_s


FAULTS: dict[str, dict[str, float | bool]] = {
    "latency": {"latency_s": 0.4},
    "bandwidth": {"bytes_per_s": 100.0},
    "silence": {"mute": True},
    "slow close": {"close_after_s": 3.0},
    "reset": {},
}
BUDGET_S, OVER_S = 0.5, 1.0


@pytest.mark.parametrize("fault", FAULTS)
def test_no_handler_works_much_longer_than_its_deadline_when_the_wire_is_bad(site: Site, fault: str) -> None:
    """F7: neither the caller's nor the callee's runs more than a second over, and all is well once the wire is."""
    until(lambda: ask(site.payments[0]) is OK, 20)  # a health check may have met the fault before
    site.orders.takes_s = 0.2
    site.orders.overrun_s.clear()
    for name, value in FAULTS[fault].items():
        setattr(site.wire, name, value)
    if fault in {"reset", "slow close"}:
        threading.Timer(0.1, site.wire.cut, kwargs={"reset": fault == "reset"}).start()
    try:
        tried = [_within(site, BUDGET_S) for _ in range(4)]
    finally:
        site.orders.takes_s = 0.0
        for name in FAULTS[fault]:
            setattr(site.wire, name, getattr(Wire, name))
    assert {reason for reason, _ in tried} <= {"OK", "DEADLINE_EXCEEDED", "UNAVAILABLE"}
    assert max(took for _, took in tried) < BUDGET_S + OVER_S
    site.wire.cut(reset=True)
    assert until(lambda: ask(site.payments[0]) is OK, 20) < 10
    assert max(site.orders.overrun_s) < OVER_S
