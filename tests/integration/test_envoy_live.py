"""What an Envoy holds that got everything by ADS is what the renderer says: the same that the files under envoy/ hold."""

from __future__ import annotations

import json
import ssl
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import pytest
from google.protobuf import json_format
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from joserfc.jwk import ECKey

from paymesh.gateway.v1 import gateway_service_pb2 as gateway_pb
from paymesh.user.v1 import user_service_pb2, user_service_pb2_grpc
from services.contract.load import contract
from services.mesh import snapshot, static
from services.mesh.node import Edge
from services.mesh.world import ApiKeys, World
from services.platform.jobs import Every
from tests.integration.config_mesh import ConfigMesh, until
from tests.integration.envoys import free_address, refused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from services.mesh.node import Node, Sidecar

KEY = ECKey.generate_key("P-256", {"kid": "k1", "alg": "ES256", "use": "sig"}).as_dict(private=False)

REVOKED = ["7"]
"""Ids of API keys."""

PLACES = {
    "ClustersConfigDump": ("dynamic_active_clusters", "cluster", snapshot.CLUSTER),
    "ListenersConfigDump": ("dynamic_listeners", "listener", snapshot.LISTENER),
    "RoutesConfigDump": ("dynamic_route_configs", "route_config", snapshot.ROUTES),
    "EcdsConfigDump": ("ecds_filters", "ecds_filter", snapshot.EXTENSION),
}
"""Part of a config_dump -> where its resources are, and of which type they are."""


def _show_keys(_: user_service_pb2.GetJwksRequest, __: grpc.ServicerContext) -> user_service_pb2.GetJwksResponse:
    return json_format.ParseDict({"keys": [KEY]}, user_service_pb2.GetJwksResponse())


def _show_trust(_: gateway_pb.GetApiKeyTrustRequest, __: grpc.ServicerContext) -> gateway_pb.GetApiKeyTrustResponse:
    return json_format.ParseDict({"jwks": [KEY], "revoked_ids": REVOKED}, gateway_pb.GetApiKeyTrustResponse())


TRUST = grpc.method_handlers_generic_handler(
    "paymesh.gateway.v1.GatewayService",
    {
        "GetApiKeyTrust": grpc.unary_unary_rpc_method_handler(
            _show_trust,
            gateway_pb.GetApiKeyTrustRequest.FromString,
            gateway_pb.GetApiKeyTrustResponse.SerializeToString,
        )
    },
)
"""A gateway that only says which API keys are good."""
KEYS = grpc.method_handlers_generic_handler(
    "paymesh.user.v1.UserService",
    {
        "GetJwks": grpc.unary_unary_rpc_method_handler(
            _show_keys,
            user_service_pb2.GetJwksRequest.FromString,
            user_service_pb2.GetJwksResponse.SerializeToString,
        )
    },
)
"""A user service that only shows its key."""


@pytest.fixture(scope="module")
def mesh() -> Iterator[tuple[ConfigMesh, Sidecar, Edge]]:
    """Config, a user service and a gateway that it reads keys from, and an edge."""
    with tempfile.TemporaryDirectory(prefix="pm-") as directory, ConfigMesh(Path(directory)).running() as running:
        user, edge = running.sidecar("user", 1), Edge("edge-1", free_address(), free_address())
        gateway = running.sidecar("gateway", 1)
        server = grpc.server(ThreadPoolExecutor(2))
        server.add_generic_rpc_handlers((KEYS, TRUST))
        healthy = health.HealthServicer()
        healthy.set("", health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
        for sidecar in (user, gateway):
            running.join(sidecar)
            server.add_insecure_port(f"unix:{sidecar.service_socket}")
        server.start()
        leases = Every(2.0, lambda: [running.register(sidecar) for sidecar in (user, gateway)], "leases")
        leases.start()
        try:
            running.invite(edge.id)
            running.join(edge)
            for node in (user, edge):
                until(partial(running.settled, node))
            yield running, user, edge
        finally:
            leases.stop()
            server.stop(0).wait()


def _held(mesh: ConfigMesh, node: Node) -> dict[tuple[str, str], tuple[str, dict[str, Any]]]:
    """Read (type, name) -> (version, resource) from a live Envoy."""
    out = {}
    for part in json.loads(mesh.dump(node))["configs"]:
        name = part["@type"].rpartition(".")[2]
        if name in PLACES:
            rows, field, type_url = PLACES[name]
            for row in part.get(rows, []):
                holder = row.get("active_state", row)
                resource = holder[field]
                resource.pop("@type")
                out[type_url, resource["name"]] = (holder["version_info"], resource)
    return out


@pytest.mark.parametrize("kind", ["sidecar", "edge"])
def test_live_envoy_holds_what_is_rendered(mesh: tuple[ConfigMesh, Sidecar, Edge], kind: str) -> None:
    """Cluster for cluster, route for route, filter for filter, with the version that is the hash of the content."""
    running, user, edge = mesh
    node: Node = edge if kind == "edge" else user
    jwks = json.dumps({"keys": [KEY]}, sort_keys=True, separators=(",", ":"))
    made = snapshot.make(
        contract(), node, World(jwks=jwks, api_keys=ApiKeys(jwks, frozenset(REVOKED))), snapshot.Secrets("", "", "")
    )
    wanted = {
        (type_url, name): (one.version, static.as_json(type_url, one.value))
        for _, _, type_url in PLACES.values()
        for name, one in made.resources[type_url].items()
    }
    held = _held(running, node)
    assert held.keys() == wanted.keys()
    for each, (version, resource) in wanted.items():
        assert held[each][1] == resource
        assert held[each][0] == version


def test_edge_verifies_with_the_key_that_the_user_service_shows(mesh: tuple[ConfigMesh, Sidecar, Edge]) -> None:
    """The key came from the user service by config to the edge, as an extension of its own."""
    running, _, edge = mesh
    _, extension = _held(running, edge)[snapshot.EXTENSION, "envoy.filters.http.jwt_authn"]
    for provider in extension["typed_config"]["providers"].values():
        assert json.loads(provider["local_jwks"]["inline_string"]) == {"keys": [KEY]}


def test_edge_learns_within_a_second_which_keys_are_revoked(mesh: tuple[ConfigMesh, Sidecar, Edge]) -> None:
    """What the gateway says of keys came by config, as an extension of its own; so does each change of it."""
    running, _, edge = mesh

    def refused_keys() -> set[str]:
        _, extension = _held(running, edge)[snapshot.EXTENSION, "revoked_keys"]
        return set(extension["typed_config"]["matcher"]["matcher_tree"]["exact_match_map"]["map"])

    assert refused_keys() == {"7"}
    REVOKED.append("8")
    assert until(lambda: refused_keys() == {"7", "8"}) < 1.5, "twice a second, and what a slow machine adds"
    REVOKED.remove("8")
    until(lambda: refused_keys() == {"7"})


def test_limit_is_one_for_both_listeners(mesh: tuple[ConfigMesh, Sidecar, Edge]) -> None:
    """Sixty log-ins a minute by REST leave none for native gRPC."""
    running, _, edge = mesh
    trust = running.authority.cert_pem
    with httpx.Client(base_url=f"https://{edge.rest}", verify=ssl.create_default_context(cadata=trust)) as rest:
        answers = [rest.post("/api/users/login", json={}).status_code for _ in range(70)]
    assert 429 in answers
    with grpc.secure_channel(edge.grpc, grpc.ssl_channel_credentials(trust.encode())) as channel:
        stub = user_service_pb2_grpc.UserServiceStub(channel)
        _, reason, _ = refused(lambda: stub.LoginUser(user_service_pb2.LoginUserRequest(), timeout=5))
    assert reason == "RATE_LIMITED"
