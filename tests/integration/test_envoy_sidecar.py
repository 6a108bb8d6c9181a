"""Sidecars as peers and their own services meet them: who is let in, as whom, and what the others get."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import grpc
import httpx
import pytest

from paymesh.order.v1 import order_service_pb2 as order
from paymesh.order.v1.order_service_pb2_grpc import OrderServiceStub
from paymesh.payment.v1 import payment_service_pb2 as payment
from paymesh.payment.v1.payment_service_pb2_grpc import PaymentServiceStub
from paymesh.risk.v1 import risk_service_pb2 as risk
from paymesh.risk.v1.risk_service_pb2_grpc import RiskServiceStub
from paymesh.user.v1 import user_service_pb2 as user
from paymesh.user.v1.user_service_pb2_grpc import UserServiceStub
from services.platform import pki
from tests.integration.envoys import Mesh, envoy, refused

if TYPE_CHECKING:
    from collections.abc import Iterator

FORGED: tuple[tuple[str, str | bytes], ...] = (
    ("x-paymesh-sub", "1"),
    ("x-paymesh-scope", "root"),
    ("x-forwarded-client-cert", "URI=spiffe://paymesh/ns/default/sa/config"),
    ("x-envoy-external-address", "6.6.6.6"),
)


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with Mesh(tmp_path_factory.mktemp("m")).running() as running:
        yield running


def test_service_reaches_its_callee_by_its_own_sidecar(mesh: Mesh) -> None:
    """Plaintext on a socket becomes mutual TLS under the caller's identity."""
    with mesh.grpc_own("payment-1") as channel:
        RiskServiceStub(channel).BatchAssessPayments(risk.BatchAssessPaymentsRequest(), timeout=5)
    assert "URI=spiffe://paymesh/ns/default/sa/payment" in mesh.seen.last["x-forwarded-client-cert"]


def test_identity_is_dropped_when_a_peer_may_not_pass_it_on(mesh: Mesh) -> None:
    """Payment may call risk, but not on behalf of a user."""
    with mesh.grpc_peer("risk-1", "payment") as channel:
        RiskServiceStub(channel).BatchAssessPayments(risk.BatchAssessPaymentsRequest(), timeout=5, metadata=FORGED)
    assert not {"x-paymesh-sub", "x-paymesh-scope", "x-envoy-external-address"} & mesh.seen.last.keys()
    assert "sa/config" not in mesh.seen.last["x-forwarded-client-cert"]


def test_identity_is_kept_when_the_edge_passes_it_on(mesh: Mesh) -> None:
    """All but the certificate header, which is the sidecar's own in any case."""
    with mesh.grpc_peer("risk-1", "edge") as channel:
        RiskServiceStub(channel).ListRules(risk.ListRulesRequest(), timeout=5, metadata=FORGED)
    assert mesh.seen.last["x-paymesh-sub"] == "1"
    assert mesh.seen.last["x-envoy-external-address"] == "6.6.6.6"
    assert "sa/config" not in mesh.seen.last["x-forwarded-client-cert"]


def test_caller_is_refused_when_the_contract_does_not_name_it(mesh: Mesh) -> None:
    """By the service (order is no caller of risk) and by the method (the edge is none of the internal one)."""
    request = risk.BatchAssessPaymentsRequest()
    for peer in ("order", "edge", "risk", "nobody"):
        with mesh.grpc_peer("risk-1", peer) as channel:
            call = partial(RiskServiceStub(channel).BatchAssessPayments, request, timeout=5)
            code, reason, metadata = refused(call)
        assert (code, reason) == (grpc.StatusCode.PERMISSION_DENIED, "CALLER_NOT_ALLOWED")
        assert metadata["method"] == "paymesh.risk.v1.RiskService.BatchAssessPayments"


def test_service_is_told_at_home_what_it_may_not_call(mesh: Mesh) -> None:
    """The refusal comes from its own sidecar and names both sides."""
    with mesh.grpc_own("payment-1") as channel:
        said = refused(lambda: UserServiceStub(channel).LoginUser(user.LoginUserRequest(), timeout=5))
        assert said == (
            grpc.StatusCode.PERMISSION_DENIED,
            "CALLER_NOT_ALLOWED",
            {"caller": "payment", "method": "paymesh.user.v1.UserService"},
        )
        unknown: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/x.Y/Z")
        said = refused(lambda: unknown(b"", timeout=5))
        assert said == (grpc.StatusCode.UNIMPLEMENTED, "METHOD_NOT_FOUND", {})


def test_unavailable_when_the_callee_has_no_instance(mesh: Mesh) -> None:
    """With the reason that the platform's client reads."""
    with mesh.grpc_own("payment-1") as channel:
        said = refused(lambda: OrderServiceStub(channel).BatchGetOrders(order.BatchGetOrdersRequest(), timeout=5))
    assert said == (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE", {})


def test_connection_is_refused_when_the_certificate_is_not_of_our_ca(mesh: Mesh) -> None:
    """A stranger's CA with our names in it."""
    with mesh.grpc_peer("risk-1", "payment", authority=pki.make_authority()) as channel:
        stub = RiskServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.BatchAssessPayments(risk.BatchAssessPaymentsRequest(), timeout=5)
    assert isinstance(caught.value, grpc.Call)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("plaintext", [True, False])
def test_connection_is_refused_without_a_certificate(mesh: Mesh, plaintext: bool) -> None:  # noqa: FBT001
    """Neither plaintext nor one-sided TLS gets in."""
    at = mesh.sidecars["risk-1"].inbound
    one_sided = grpc.ssl_channel_credentials(mesh.authority.cert_pem.encode())
    name = [("grpc.ssl_target_name_override", "risk.paymesh.internal")]
    channel = grpc.insecure_channel(at) if plaintext else grpc.secure_channel(at, one_sided, name)
    with channel, pytest.raises(grpc.RpcError) as caught:
        RiskServiceStub(channel).ListRules(risk.ListRulesRequest(), timeout=5)
    assert isinstance(caught.value, grpc.Call)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_caller_hangs_up_when_another_service_sits_at_the_address(
    mesh: Mesh, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A sidecar that finds the user service where it was told risk is refuses it by its SPIFFE id."""
    misled = Mesh(
        tmp_path_factory.mktemp("x"), instances=("payment-1", "risk-1"), authority=mesh.authority, key=mesh.key
    )
    object.__setattr__(misled.sidecars["risk-1"], "inbound", mesh.sidecars["user-1"].inbound)
    node = misled.sidecars["payment-1"]
    with envoy(misled.bootstrap(node), misled.directory, node.id) as admin, misled.grpc_own("payment-1") as channel:
        said = refused(
            lambda: RiskServiceStub(channel).BatchAssessPayments(risk.BatchAssessPaymentsRequest(), timeout=5)
        )
        assert said[0] is grpc.StatusCode.UNAVAILABLE
        stats = httpx.get(f"{admin}/stats", params={"filter": "cluster.risk.ssl.fail_verify_san"}).text
    assert int(stats.split(":")[1]) > 0


def test_calls_are_spread_over_both_instances(mesh: Mesh) -> None:
    """Least request over two: neither of them is left out."""
    with mesh.grpc_edge() as channel:
        stub = PaymentServiceStub(channel)
        token = (("authorization", f"Bearer {mesh.token()}"),)
        for _ in range(40):
            stub.GetPayment(payment.GetPaymentRequest(id=1), timeout=5, metadata=token)
    for name in ("payment-1", "payment-2"):
        stats = httpx.get(f"{mesh.admin[name]}/stats", params={"filter": "^cluster.service.upstream_rq_total$"}).text
        assert int(stats.split(":")[1]) > 5
