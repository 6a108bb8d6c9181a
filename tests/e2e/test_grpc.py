"""The flow by gRPC through the edge, callers inside the mesh, and what the live Envoys hold."""

from __future__ import annotations

import json
import sqlite3
import time
import uuid
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import pytest

from services.contract.load import contract
from services.contract.model import Auth
from services.mesh import snapshot, static
from services.mesh.node import Edge, Sidecar
from services.mesh.world import ApiKeys, World
from services.platform import pki
from services.platform.identity import dns_name, spiffe_id
from tests.e2e.clients import Native, People, Person, Rest, Shop, cny
from tests.e2e.mesh import Mesh, paymesh, until
from tests.e2e.refusals import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from services.mesh.node import Node

PLACES = {
    "ClustersConfigDump": ("dynamic_active_clusters", "cluster", snapshot.CLUSTER),
    "ListenersConfigDump": ("dynamic_listeners", "listener", snapshot.LISTENER),
    "RoutesConfigDump": ("dynamic_route_configs", "route_config", snapshot.ROUTES),
    "EcdsConfigDump": ("ecds_filters", "ecds_filter", snapshot.EXTENSION),
}
"""Part of a config_dump -> where its resources are, and of which type they are."""


def _admin(mesh: Mesh, node_id: str, path: str) -> httpx.Response:
    """Ask the admin of an Envoy."""
    (at,) = [each["admin"] for group in mesh.record["envoys"].values() for each in group if each["id"] == node_id]
    return httpx.get(f"http://{at}{path}", trust_env=False).raise_for_status()


def _refused(call: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(Refused) as caught:
        call()
    return caught.value.refusal.code, caught.value.refusal.reason


# -- Through the edge -------------------------------------------------------------------------------------------------


def test_whole_flow_by_grpc(mesh: Mesh, grpc_edge: Native) -> None:
    """Register, log in, order, pay, repeat, refund, log out: as by REST, without a single call over it."""
    people = People(grpc_edge, mesh.record["admin"])
    shop, person, sku = Shop(grpc_edge, people.operator), people.somebody(), f"ink-{uuid.uuid4().hex[:8]}"
    shop.stock(sku, price=700, available=5)
    shop.top_up(person, 10_000)
    order = shop.order(person, sku, 2)
    payment = shop.pay(person, order)
    assert (payment["status"], payment["amount"]) == ("STATUS_SUCCESS", cny(1_400))
    assert shop.pay(person, order) == payment
    assert shop.balance(person) == 8_600
    call = partial(grpc_edge.call, token=person.token)
    until(lambda: call("GetOrder", {"id": order["id"]})["order"]["status"] == "STATUS_PAID", 30)
    assert call("GetPayment", {"id": payment["id"]})["payment"] == payment
    assert call("ListOrderPayments", {"order_id": order["id"]})["payments"] == [payment]
    refund = call("RefundPayment", {"id": payment["id"]}, key=f"refund-{sku}")
    assert refund["payment"]["status"] == "STATUS_REFUNDED"
    assert call("ListPaymentRefunds", {"payment_id": payment["id"]})["refunds"] == [refund["refund"]]
    assert shop.balance(person) == 10_000
    until(lambda: call("GetOrder", {"id": order["id"]})["order"]["status"] == "STATUS_REFUNDED", 30)
    call("LogoutUser", {})
    until(lambda: _is_revoked(partial(call, "GetUser", {"id": person.id})), 1.0, every=0.01)


def _is_revoked(call: Callable[[], object]) -> bool:
    try:
        call()
    except Refused as refused:
        return refused.refusal.reason == "SESSION_REVOKED"
    return False


def test_both_planes_say_the_same(rest: Rest, grpc_edge: Native, people: People, shop: Shop) -> None:
    """An answer by gRPC, written as JSON, is the answer by REST, field for field."""
    person, sku = people.somebody(), f"same-{uuid.uuid4().hex[:8]}"
    shop.stock(sku)
    shop.top_up(person, 1_000)
    order = shop.order(person, sku)
    payment = shop.pay(person, order)
    until(
        lambda: rest.call("GetOrder", {"id": order["id"]}, token=person.token)["order"]["status"] == "STATUS_PAID", 30
    )
    asked: dict[str, dict[str, Any]] = {
        "GetUser": {"id": person.id},
        "GetOrder": {"id": order["id"]},
        "ListUserOrders": {"user_id": person.id},
        "GetStock": {"sku": sku},
        "GetPayment": {"id": payment["id"]},
        "ListPayments": {},
        "GetBalance": {"user_id": person.id},
        "GetJwks": {},
        "GetApiKeyJwks": {},
    }
    for method, body in asked.items():
        by_rest = rest.call(method, body, token=person.token)
        assert grpc_edge.call(method, body, token=person.token) == by_rest, method


def test_method_inside_the_mesh_has_no_way_in(grpc_edge: Native, people: People) -> None:
    """Not even for the operator: the edge has no route to what services ask each other."""
    internal = [each for each in contract().methods.values() if each.auth is Auth.INTERNAL]
    assert len(internal) >= 5
    for method in internal:
        said = _refused(partial(grpc_edge.call, method.name, {}, token=people.operator.token))
        assert said == ("UNIMPLEMENTED", "METHOD_NOT_FOUND"), method.name


def test_edge_proves_itself_by_the_mesh_ca_alone(mesh: Mesh) -> None:
    """A client with another CA does not talk to it."""
    stranger = grpc.ssl_channel_credentials(pki.make_authority().cert_pem.encode())
    with grpc.secure_channel(mesh.record["grpc"], stranger) as channel:
        assert _fails_to_connect(channel)


# -- Inside the mesh --------------------------------------------------------------------------------------------------


def _credentials(mesh: Mesh, name: str) -> grpc.ChannelCredentials:
    """Ask `paymesh cert` for what makes a program a service of the mesh."""
    out = mesh.top / f"cert-{name}"
    done = paymesh("cert", "--as", name, "--out", str(out), "--data", str(mesh.data))
    assert done.returncode == 0, done.stderr
    cert, key, ca = ((out / file).read_bytes() for file in ("cert.pem", "key.pem", "ca.pem"))
    return grpc.ssl_channel_credentials(ca, key, cert)


def _peer(mesh: Mesh, instance: str, credentials: grpc.ChannelCredentials) -> Native:
    """Open a channel to the Envoy beside an instance, as another service's Envoy would."""
    service = instance.rpartition("-")[0]
    (at,) = [each["mesh"] for each in mesh.record["services"][service] if each["name"] == instance]
    options = [("grpc.ssl_target_name_override", dns_name(service)), ("grpc.enable_retries", 0)]
    return Native(grpc.secure_channel(at, credentials, options))


def _to_assess(person: Person) -> dict[str, Any]:
    payments = [
        {"payment_id": number, "user_id": person.id, "order_id": "1", "amount": cny(amount), "method": "METHOD_BALANCE"}
        for number, amount in (("1", 100), ("2", 5_000_001))
    ]
    return {"payments": payments}


def test_service_with_its_certificate_is_answered(mesh: Mesh, people: People) -> None:
    """A client with payment's identity asks risk for two payments and gets two decisions, in order."""
    with closing(_peer(mesh, "risk-1", _credentials(mesh, "payment"))) as risk:
        answer = risk.call("BatchAssessPayments", _to_assess(people.somebody()))
    assert [each["decision"] for each in answer["assessments"]] == ["DECISION_APPROVE", "DECISION_REVIEW"]


@pytest.mark.parametrize("caller", ["order", "edge", "risk"])
def test_service_that_the_contract_does_not_name_is_refused(mesh: Mesh, people: People, caller: str) -> None:
    """A good certificate is not enough: the contract says who may call what."""
    with closing(_peer(mesh, "risk-1", _credentials(mesh, caller))) as risk:
        said = _refused(partial(risk.call, "BatchAssessPayments", _to_assess(people.somebody())))
    assert said == ("PERMISSION_DENIED", "CALLER_NOT_ALLOWED")


def test_identity_from_a_peer_that_may_not_pass_it_on_is_dropped(mesh: Mesh, people: People) -> None:
    """Payment claims to speak for the operator and is taken for nobody; the edge, which may, is believed."""
    claims = {"x_paymesh_sub": people.operator.id, "x_paymesh_scope": "risk:read", "x_paymesh_sid": "s"}
    with closing(_peer(mesh, "risk-1", _credentials(mesh, "edge"))) as risk:
        assert risk.call("ListRules", {}, **claims)["rules"]
    # What the service took them for stands in the log of calls that it refused.
    assert _seen_by_risk(mesh, "edge", "ListRules", {"page_size": 101}, claims) == int(people.operator.id)
    assert _seen_by_risk(mesh, "payment", "BatchAssessPayments", {}, claims) == 0


def _seen_by_risk(mesh: Mesh, peer: str, method: str, body: Mapping[str, Any], claims: Mapping[str, str]) -> int:
    """Make an invalid call as a peer; returns the user for whom it was, as risk saw it."""
    request_id = str(uuid.uuid4())
    with closing(_peer(mesh, "risk-1", _credentials(mesh, peer))) as risk:
        call = partial(risk.call, method, body, **claims, x_request_id=request_id)
        assert _refused(call) == ("INVALID_ARGUMENT", "INVALID_ARGUMENT")
    until(lambda: request_id in mesh.log("risk-1"), 10)
    (line,) = [json.loads(each) for each in mesh.log("risk-1").splitlines() if request_id in each]
    assert line["peer"] == peer
    return int(line["subject"])


def test_handshake_fails_without_a_certificate_of_the_mesh(mesh: Mesh) -> None:
    """None at all, one of another CA with our names in it, and plaintext: no connection is made."""
    ca, other = Path(mesh.record["ca"]).read_bytes(), pki.make_authority().issue("payment")
    for credentials in (
        grpc.ssl_channel_credentials(ca),
        grpc.ssl_channel_credentials(ca, other.key_pem.encode(), other.cert_pem.encode()),
    ):
        with closing(_peer(mesh, "risk-1", credentials)) as risk:
            assert _fails_to_connect(risk.channel)
    with grpc.insecure_channel(mesh.record["services"]["risk"][0]["mesh"]) as channel:
        assert _fails_to_connect(channel)


def _fails_to_connect(channel: grpc.Channel) -> bool:
    call = channel.unary_unary("/grpc.health.v1.Health/Check", request_serializer=bytes, response_deserializer=bytes)
    with pytest.raises(grpc.RpcError) as caught:
        call(b"", timeout=5)
    assert isinstance(caught.value, grpc.Call)
    return caught.value.code() is grpc.StatusCode.UNAVAILABLE


# -- What the Envoys hold ---------------------------------------------------------------------------------------------


def test_both_instances_of_payment_get_calls(mesh: Mesh, rest: Rest, people: People, shop: Shop) -> None:
    """The edge spreads what one client sends, and each instance's own Envoy has seen its share."""
    person = people.somebody()

    def seen() -> dict[str, int]:
        stat = "http.inbound.downstream_rq_total"
        answers = {
            name: _admin(mesh, name, f"/stats?format=json&filter=^{stat}$") for name in ("payment-1", "payment-2")
        }
        return {name: sum(each["value"] for each in answer.json()["stats"]) for name, answer in answers.items()}

    before = seen()
    for _ in range(60):
        shop.balance(person)
    after = seen()
    for name, count in after.items():
        assert count - before[name] >= 10, (before, after)
    hosts = next(
        c for c in _admin(mesh, "edge-1", "/clusters?format=json").json()["cluster_statuses"] if c["name"] == "payment"
    )
    assert len(hosts["host_statuses"]) == 2


def _nodes(mesh: Mesh) -> list[Node]:
    """Describe every Envoy as the supervisor laid it out."""
    record, run = mesh.record, mesh.data / "run"
    nodes: list[Node] = [
        Sidecar(each["name"], service, each["mesh"], each["socket"], str(run / f"{each['name']}.out.sock"))
        for service, instances in record["services"].items()
        for each in instances
    ]
    return [*nodes, Edge("edge-1", record["rest"].removeprefix("https://"), record["grpc"])]


def _held(mesh: Mesh, node: Node) -> dict[tuple[str, str], tuple[str, Mapping[str, Any]]]:
    """Read (type, name) -> (version, resource) from a live Envoy."""
    out: dict[tuple[str, str], tuple[str, Mapping[str, Any]]] = {}
    for part in _admin(mesh, node.id, "/config_dump").json()["configs"]:
        name = part["@type"].rpartition(".")[2]
        if name in PLACES:
            rows, field, type_url = PLACES[name]
            for row in part.get(rows, []):
                holder = row.get("active_state", row)
                resource = {key: value for key, value in holder[field].items() if key != "@type"}
                out[type_url, resource["name"]] = (holder["version_info"], resource)
    return out


def _jwks(keys: list[dict[str, str]]) -> str:
    return json.dumps({"keys": keys}, sort_keys=True, separators=(",", ":"))


def _now_ms() -> int:
    return int(time.time() * 1000)


def test_every_live_envoy_holds_what_the_contract_renders_to(mesh: Mesh, rest: Rest) -> None:
    """Nine Envoys: cluster for cluster, listener for listener, route for route, with the version of its content."""
    jwks, key_jwks = (_jwks(rest.call(method, {})["keys"]) for method in ("GetJwks", "GetApiKeyJwks"))
    with closing(sqlite3.connect(mesh.data / "gateway.db")) as database:
        revoked = database.execute(
            "SELECT id FROM api_keys WHERE revoke_ms > 0 AND revoke_ms <= ?", (_now_ms(),)
        ).fetchall()
    world = World(jwks=jwks, api_keys=ApiKeys(key_jwks, frozenset(str(key_id) for (key_id,) in revoked)))
    nodes = _nodes(mesh)
    assert len(nodes) == 9
    for node in nodes:
        made = snapshot.make(contract(), node, world, snapshot.Secrets("", "", ""))
        wanted = {
            (type_url, name): (one.version, static.as_json(type_url, one.value))
            for _, _, type_url in PLACES.values()
            for name, one in made.resources[type_url].items()
        }
        held = _held(mesh, node)
        assert held.keys() == wanted.keys(), node.id
        for each, (version, resource) in wanted.items():
            assert held[each][1] == resource, (node.id, each)
            assert held[each][0] == version, (node.id, each)


def test_every_envoy_has_an_identity_of_its_own(mesh: Mesh) -> None:
    """A certificate that names its service and ends within a day; keys are never shown."""
    for node in _nodes(mesh):
        shown = json.dumps(_admin(mesh, node.id, "/certs").json())
        assert f'"uri": "{spiffe_id(node.cluster)}"' in shown, node.id
        assert '"days_until_expiration": "0"' in shown, node.id
        assert "PRIVATE KEY" not in _admin(mesh, node.id, "/config_dump").text, node.id
