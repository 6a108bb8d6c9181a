"""Config as it runs: real Envoys on its ADS, real mutual TLS, real health checks, and kill -9."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2

from paymesh.config.v1 import config_service_pb2 as pb
from paymesh.risk.v1 import risk_service_pb2, risk_service_pb2_grpc
from services.mesh.node import Edge, Sidecar
from tests.integration.config_mesh import ConfigMesh, until
from tests.integration.envoys import free_address

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def mesh() -> Iterator[ConfigMesh]:
    """Config with its own Envoy; each test adds nodes of its own numbers."""
    # Unix sockets have short paths.
    with tempfile.TemporaryDirectory(prefix="pm-") as directory, ConfigMesh(Path(directory)).running() as running:
        yield running


def _assess(caller: Sidecar) -> grpc.StatusCode:
    """Call risk as the service of ``caller`` does."""
    with grpc.insecure_channel(f"unix:{caller.outbound_socket}") as channel:
        stub = risk_service_pb2_grpc.RiskServiceStub(channel)
        try:
            stub.BatchAssessPayments(risk_service_pb2.BatchAssessPaymentsRequest(), timeout=2)
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


def test_instance_gets_calls_soon_after_it_registered_and_none_once_it_is_out(mesh: ConfigMesh) -> None:
    """Registered, checked at once, routed to; unhealthy or deregistered, it leaves every Envoy's endpoints."""
    payment, risk = mesh.sidecar("payment", 1), mesh.sidecar("risk", 1)
    mesh.join(payment)
    mesh.join(risk)
    until(lambda: mesh.settled(payment) and mesh.settled(risk))
    _, said, risks = mesh.serve(risk)
    assert mesh.endpoints(payment, "risk") == []

    mesh.register(risk)
    took = until(lambda: mesh.endpoints(payment, "risk") == [risk.inbound])
    assert took < 1.0, f"it took {took:.2f} s"
    assert _assess(payment) is grpc.StatusCode.OK
    assert risks.calls == 1

    said.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    until(lambda: mesh.endpoints(payment, "risk") == [], 6)
    assert _assess(payment) is grpc.StatusCode.UNAVAILABLE
    said.set("", health_pb2.HealthCheckResponse.SERVING)
    until(lambda: mesh.endpoints(payment, "risk") == [risk.inbound], 3)

    mesh.deregister(risk)
    until(lambda: mesh.endpoints(payment, "risk") == [], 1)
    with mesh.peer("gateway") as config:
        services = {s.service: s for s in config.GetMeshHealth(pb.GetMeshHealthRequest(), timeout=2).services}
    assert services["config"].healthy == 1
    assert services["risk"].healthy == 0


def test_instance_of_another_service_is_refused(mesh: ConfigMesh) -> None:
    """A service registers itself alone: the name must be that of the certificate that was shown."""
    payment = mesh.sidecar("payment", 2)
    mesh.join(payment)
    with pytest.raises(grpc.RpcError) as refused:
        mesh.register(payment, service="risk")
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_lease_that_is_not_renewed_ends(mesh: ConfigMesh) -> None:
    """An instance that serves but does not renew is forgotten after its 15 s."""
    payment, risk = mesh.sidecar("payment", 3), mesh.sidecar("risk", 3)
    mesh.join(payment)
    mesh.join(risk)
    mesh.serve(risk)
    mesh.register(risk)
    until(lambda: mesh.endpoints(payment, "risk") == [risk.inbound])
    took = until(lambda: risk.inbound not in mesh.endpoints(payment, "risk"), 20)
    assert took > 12


@pytest.mark.parametrize(("number", "token"), [(11, "none"), (12, "wrong"), (13, "another's")])
def test_node_without_its_own_token_gets_nothing(mesh: ConfigMesh, number: int, token: str) -> None:
    """No token, a wrong one or another node's: neither listeners nor a key."""
    risk = mesh.sidecar("risk", number)
    tokens = {"none": "", "wrong": "wrong", "another's": mesh.tokens["config-1"]}
    before = mesh.metric("paymesh_xds_streams_rejected_total") or 0
    with mesh.joining(risk, tokens[token]):
        until(lambda: (mesh.metric("paymesh_xds_streams_rejected_total") or 0) > before + 2)
        held = mesh.dump(risk)
    assert "inbound" not in held.replace('"inbound": "127', "")  # the address that it says itself
    assert "identity" not in held
    assert mesh.metric("paymesh_xds_node_settled", node=risk.id) is None


def test_edge_gets_nothing_before_the_keys_of_tokens_are_known(mesh: ConfigMesh) -> None:
    """An edge without keys would refuse every token, so it takes no connection."""
    edge = Edge("edge-1", free_address(), free_address())
    mesh.invite(edge.id)
    with mesh.joining(edge, mesh.tokens[edge.id]):
        until(lambda: mesh.metric("paymesh_xds_node_settled", node="edge-1") is not None)
        time.sleep(0.3)
        assert mesh.metric("paymesh_xds_node_settled", node="edge-1") == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"http://{edge.rest}/")


def test_refused_listener_is_recorded_and_the_rest_stays(mesh: ConfigMesh) -> None:
    """A listener that cannot be made (the address is not of this machine) is refused: logged, counted, and sent once."""
    risk = mesh.sidecar("risk", 21, inbound="192.0.2.1:4000")

    def refusals() -> float:
        return mesh.metric("paymesh_xds_refused_total", node="risk-21", type="Listener") or 0

    with mesh.joining(risk, mesh.tokens[risk.id]):
        until(lambda: refusals() >= 1)
        time.sleep(0.5)
        assert refusals() == 1
        assert not mesh.settled(risk)
        assert "outbound" in mesh.dump(risk)
    assert "xds.refused" in mesh.log()


def test_restart_of_config_leaves_traffic_alone(mesh: ConfigMesh) -> None:
    """Killed with -9 and started again: calls go on, endpoints stay, and what is unchanged is not sent again."""
    payment, risk = mesh.sidecar("payment", 4), mesh.sidecar("risk", 4)
    mesh.join(payment)
    mesh.join(risk)
    mesh.serve(risk)
    mesh.register(risk)
    until(lambda: mesh.endpoints(payment, "risk") == [risk.inbound])
    stats = ("listener_manager.lds", "cluster_manager.cds", "cluster.risk")
    before = {name: mesh.stat(payment, f"{name}.update_success") for name in stats}

    codes = []
    mesh.kill()
    for _ in range(100):
        codes.append(_assess(payment))
        time.sleep(0.01)
    mesh.start()
    began = time.monotonic()
    while time.monotonic() - began < 3:
        codes.append(_assess(payment))
        time.sleep(0.01)
    until(lambda: mesh.settled(payment) and mesh.settled(risk))
    assert set(codes) == {grpc.StatusCode.OK}
    assert mesh.endpoints(payment, "risk") == [risk.inbound]
    after = {name: mesh.stat(payment, f"{name}.update_success") for name in stats}
    assert after == before
    # It renews, and all is as before.
    mesh.register(risk)
    assert mesh.endpoints(payment, "risk") == [risk.inbound]


def test_calls_are_shared_as_a_rollout_says_after_a_restart_too(mesh: ConfigMesh) -> None:
    """4 to 1 by weights; config that was killed still knows them; when nobody with a weight is left the others take over."""
    payment, one, two = mesh.sidecar("payment", 5), mesh.sidecar("risk", 5), mesh.sidecar("risk", 6)
    for node in (payment, one, two):
        mesh.join(node)
    counted = []
    for node in (one, two):
        counted.append(mesh.serve(node)[2])
        mesh.register(node)
    until(lambda: {one.inbound, two.inbound} <= set(mesh.endpoints(payment, "risk")))

    _share(mesh, {"risk-5": 80, "risk-6": 20})
    until(lambda: mesh.endpoints(payment, "risk") == sorted([one.inbound, two.inbound]))
    assert {_assess(payment) for _ in range(100)} == {grpc.StatusCode.OK}
    first, second = (each.calls for each in counted)
    assert first + second == 100
    assert 60 <= first <= 95

    mesh.kill()
    mesh.start()
    until(lambda: mesh.settled(payment))
    assert mesh.endpoints(payment, "risk") == sorted([one.inbound, two.inbound])
    _share(mesh, {"risk-5": 0, "risk-6": 1})
    until(lambda: mesh.endpoints(payment, "risk") == [two.inbound])
    mesh.deregister(two)
    until(lambda: one.inbound in mesh.endpoints(payment, "risk"), 2)
    _share(mesh, {})


def _share(mesh: ConfigMesh, weights: dict[str, int]) -> None:
    """Set the entry of a rollout as an operator does."""
    request = pb.SetConfigRequest(key="mesh.rollout.risk", value=json.dumps({"weights": weights}))
    who = (("x-paymesh-sub", "7"), ("x-paymesh-scope", "config:write"), ("x-paymesh-sid", "s"))
    with mesh.peer("edge") as config:
        config.SetConfig(request, timeout=5, metadata=who)
