"""API keys at a real edge: what they open, what they do not, and by what their calls are counted."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import grpc
import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet

from paymesh.payment.v1 import payment_service_pb2 as payment
from paymesh.payment.v1.payment_service_pb2_grpc import PaymentServiceStub
from services.contract.load import contract
from services.mesh.world import ApiKeys
from tests.integration.envoys import Mesh, refused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from services.contract.model import Contract
    from services.mesh.world import World

GET_PAYMENT = "/paymesh.payment.v1.PaymentService/GetPayment"
COUNTED = "/paymesh.payment.v1.PaymentService/CreatePayment"
LIMIT = 3
REVOKED = "77"


def _key() -> ECKey:
    return ECKey.generate_key("P-256", {"kid": "a1", "alg": "ES256", "use": "sig"})


def _few_by_key() -> Contract:
    """The contract, but that a method lets few calls of each key through."""
    whole = contract()
    method = whole.methods[COUNTED]
    assert method.rate_limit
    few = replace(method, rate_limit=replace(method.rate_limit, requests=LIMIT, per_ms=3_600_000, by="api_key"))
    service = whole.services["payment"]
    methods = tuple(few if each.path == COUNTED else each for each in service.methods)
    services = {**whole.services, "payment": replace(service, methods=methods)}
    return replace(whole, services=services, methods={**whole.methods, COUNTED: few})


@dataclass
class KeyMesh(Mesh):
    """The mesh with a gateway's key at the edge."""

    contract: Contract = field(default_factory=_few_by_key)
    instances: tuple[str, ...] = ("payment-1", "user-1", "risk-1")
    keys: ECKey = field(default_factory=_key)

    def world(self) -> World:
        """Say what verifies keys, and that one is revoked."""
        jwks = json.dumps(KeySet([self.keys]).as_dict(private=False))
        return replace(super().world(), api_keys=ApiKeys(jwks, frozenset({REVOKED, "78"})))

    def api_key(self, key_id: str = "5", *, scope: str = "", audience: str = "paymesh-api", life_s: int = 900) -> str:
        """Sign a key as the gateway does."""
        now = int(time.time())
        claims = {"iss": "paymesh-keys", "aud": audience, "sub": "42", "scope": scope, "jti": key_id, "iat": now}
        return jwt.encode({"alg": "ES256", "kid": "a1"}, {**claims, "exp": now + life_s}, self.keys)


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeyMesh]:
    with KeyMesh(tmp_path_factory.mktemp("m")).running() as running:
        assert isinstance(running, KeyMesh)
        yield running


@pytest.fixture
def rest(mesh: KeyMesh) -> Iterator[httpx.Client]:
    with mesh.rest() as client:
        yield client


def _said(answer: httpx.Response) -> tuple[int, str]:
    (info,) = answer.json()["details"]
    return answer.status_code, info["reason"]


def test_key_is_its_owner_with_its_own_scopes(mesh: KeyMesh, rest: httpx.Client) -> None:
    """The service is told who it is and by which key; the key itself goes no further than the edge."""
    answer = rest.get("/api/payments/7", headers={"x-api-key": mesh.api_key("5", scope="payments:read")})
    assert answer.status_code == 200
    seen = mesh.seen.last
    assert (seen["x-paymesh-sub"], seen["x-paymesh-scope"], seen["x-paymesh-key"]) == ("42", "payments:read", "5")
    assert "x-paymesh-sid" not in seen
    assert "x-api-key" not in seen


def test_native_key_is_taken_and_a_revoked_one_refused(mesh: KeyMesh) -> None:
    """GRPC is told the same as REST, on the connection that is open."""
    with mesh.grpc_edge() as channel:
        stub, request = PaymentServiceStub(channel), payment.GetPaymentRequest(id=7)
        assert stub.GetPayment(request, timeout=5, metadata=(("x-api-key", mesh.api_key()),)).payment.id == 7
        revoked = (("x-api-key", mesh.api_key(REVOKED)),)
        answer = refused(lambda: stub.GetPayment(request, timeout=5, metadata=revoked))
    assert answer == (grpc.StatusCode.UNAUTHENTICATED, "API_KEY_REVOKED", {})


def test_revoked_key_is_refused_by_name(mesh: KeyMesh, rest: httpx.Client) -> None:
    """It says that it was revoked, and not that a scope is missing."""
    answer = rest.get("/api/payments/7", headers={"x-api-key": mesh.api_key(REVOKED)})
    assert _said(answer) == (401, "API_KEY_REVOKED")


def test_scope_of_a_key_is_asked_for(mesh: KeyMesh, rest: httpx.Client) -> None:
    """A key without it is refused like a token without it; with it the call goes on."""
    answer = rest.post("/api/risk/assess", json={}, headers={"x-api-key": mesh.api_key()})
    assert _said(answer) == (403, "SCOPE_MISSING")
    answer = rest.post("/api/risk/assess", json={}, headers={"x-api-key": mesh.api_key(scope="risk:assess")})
    assert answer.status_code == 501, "the risk service of this test knows no such method"


def test_bad_key_is_unauthenticated(mesh: KeyMesh, rest: httpx.Client) -> None:
    """Garbage, one that ended, one for others, an access token, one of a stranger's; and a key in a token's place."""
    stranger = replace(mesh, directory=mesh.directory, keys=_key())
    bad = ("x.y.z", mesh.api_key(life_s=-60), mesh.api_key(audience="else"), mesh.token(), stranger.api_key())
    for key in bad:
        assert _said(rest.get("/api/payments/7", headers={"x-api-key": key})) == (401, "UNAUTHENTICATED"), key
    swapped = {"authorization": f"Bearer {mesh.api_key()}"}
    assert _said(rest.get("/api/payments/7", headers=swapped)) == (401, "UNAUTHENTICATED")


def test_token_and_key_together_are_refused(mesh: KeyMesh, rest: httpx.Client) -> None:
    """Each would be good by itself: which of two callers it is, nobody guesses."""
    both = {"authorization": f"Bearer {mesh.token()}", "x-api-key": mesh.api_key()}
    before = len(mesh.seen.calls)
    assert _said(rest.get("/api/payments/7", headers=both)) == (401, "UNAUTHENTICATED")
    assert len(mesh.seen.calls) == before


def test_key_opens_no_method_that_takes_none(mesh: KeyMesh, rest: httpx.Client) -> None:
    """Keys make no keys, and change no account; where nobody is asked for, a key is no hindrance and goes no further."""
    key = {"x-api-key": mesh.api_key(scope="keys:write")}
    for verb, path in (("POST", "/api/gateway/keys"), ("PUT", "/api/users/42"), ("POST", "/api/users/logout")):
        assert _said(rest.request(verb, path, json={}, headers=key)) == (401, "UNAUTHENTICATED"), path
    assert rest.post("/api/users/login", json={}, headers=key).status_code == 200
    assert "x-api-key" not in mesh.seen.last


def test_calls_are_counted_by_key_and_those_with_tokens_by_user(mesh: KeyMesh, rest: httpx.Client) -> None:
    """Two keys of one user have a limit each, and his sessions another; a method that counts by user has one for all."""

    def passed(headers: dict[str, str]) -> int:
        answers = [rest.post("/api/payments", json={}, headers=headers) for _ in range(LIMIT + 2)]
        assert {_said(answer) for answer in answers if answer.status_code != 200} == {(429, "RATE_LIMITED")}
        return sum(answer.status_code == 200 for answer in answers)

    assert passed({"x-api-key": mesh.api_key("101")}) == LIMIT
    assert passed({"x-api-key": mesh.api_key("102")}) == LIMIT
    assert passed({"authorization": f"Bearer {mesh.token()}"}) == LIMIT


def test_every_method_that_takes_a_key_is_meant_to() -> None:
    """What keys open, and what is counted for all edges, is decided method by method: a new one is decided here too."""
    takes = {m.full_name.removeprefix("paymesh.") for m in contract().methods.values() if m.api_key}
    assert takes == {
        f"{room}.v1.{room.title()}Service.{name}"
        for room, names in {
            "order": "CreateOrder GetOrder UpdateOrderStatus ListUserOrders SetStock",
            "payment": "CreatePayment GetPayment RefundPayment ListOrderPayments ListPayments ListPaymentRefunds GetBalance "
            "GetRefund CapturePayment VoidPayment ClosePayment ListBills ListBillDifferences",
            "risk": "AssessRisk ListAlerts",
            "notification": "SendSms SendEmail SendPush GetNotification ListUserNotifications ListWebhookDeliveries",
            "config": "ListInstances",
            "gateway": "ListRoutes",
        }.items()
        for name in names.split()
    }
    limited = {m.name for m in contract().methods.values() if m.rate_limit and m.rate_limit.is_global}
    assert limited == {"RegisterUser", "LoginUser", "RefreshSession", "RefundPayment", "WithdrawBalance"}
    assert {m.path for m in contract().methods.values() if m.rate_limit and m.rate_limit.by == "api_key"} == {
        GET_PAYMENT
    }
