"""The edge as clients meet it: a real Envoy, REST and native gRPC, and what each bad request gets."""

from __future__ import annotations

import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import grpc
import httpx
import pytest

from paymesh.payment.v1 import payment_service_pb2 as payment
from paymesh.payment.v1.payment_service_pb2_grpc import PaymentServiceStub
from paymesh.risk.v1 import risk_service_pb2 as risk
from paymesh.risk.v1.risk_service_pb2_grpc import RiskServiceStub
from paymesh.user.v1 import user_service_pb2 as user
from paymesh.user.v1.user_service_pb2_grpc import UserServiceStub
from services.contract.load import contract
from services.mesh.filters import BODY_BYTES_MAX
from tests.integration.envoys import Mesh, refusal, refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with Mesh(tmp_path_factory.mktemp("m")).running() as running:
        yield running


@pytest.fixture
def rest(mesh: Mesh) -> Iterator[httpx.Client]:
    with mesh.rest() as client:
        yield client


@pytest.fixture
def native(mesh: Mesh) -> Iterator[grpc.Channel]:
    with mesh.grpc_edge() as channel:
        yield channel


def _bearer(mesh: Mesh, *, subject: str = "42", scope: str = "") -> dict[str, str]:
    return {"authorization": f"Bearer {mesh.token(subject=subject, scope=scope)}"}


def _native(token: str) -> tuple[tuple[str, str | bytes], ...]:
    return (("authorization", f"Bearer {token}"),)


def _reason(answer: httpx.Response) -> str:
    """Check that an answer is a google.rpc.Status with one ErrorInfo and the contract's text; return the reason."""
    body = answer.json()
    (info,) = body["details"]
    assert info["@type"] == "type.googleapis.com/google.rpc.ErrorInfo"
    assert info["domain"] == "paymesh"
    reason = contract().reasons[info["reason"]]
    assert body["code"] == reason.code_number
    assert set(info["metadata"]) == set(reason.metadata)
    text = reason.en
    for key, value in info["metadata"].items():
        text = text.replace("{" + key + "}", value)
    assert body["message"] == text
    return reason.name


def test_rest_is_transcoded_and_complete(mesh: Mesh, rest: httpx.Client) -> None:
    """A REST call reaches the service as gRPC; the answer says zeros and enums by name."""
    answer = rest.get("/api/payments/7", headers=_bearer(mesh, scope="payments:read a"))
    assert answer.status_code == 200
    assert answer.json()["payment"]["id"] == "7"
    assert answer.json()["payment"]["status"] == "STATUS_UNSPECIFIED"
    assert mesh.seen.last["x-paymesh-sub"] == "42"
    assert mesh.seen.last["x-paymesh-scope"] == "payments:read a"
    assert mesh.seen.last["x-paymesh-sid"] == "s1"
    assert "URI=spiffe://paymesh/ns/default/sa/edge" in mesh.seen.last["x-forwarded-client-cert"]
    assert "authorization" not in mesh.seen.last


FORGED = {
    "x-paymesh-sub": "1",
    "x-paymesh-scope": "root",
    "x-paymesh-anything": "1",
    "x-forwarded-client-cert": "URI=spiffe://paymesh/ns/default/sa/config",
    "x-forwarded-for": "6.6.6.6",
    "x-envoy-external-address": "6.6.6.6",
    "x-envoy-retry-on": "5xx",
    "x-request-id": "mine",
}


@pytest.mark.parametrize("public", [True, False])
def test_what_a_client_says_of_itself_is_dropped_when_forged(mesh: Mesh, rest: httpx.Client, public: bool) -> None:  # noqa: FBT001
    """Identity, address and request id come from the edge alone, with a token and without."""
    if public:
        assert rest.post("/api/users/login", json={}, headers=FORGED).status_code == 200
    else:
        assert rest.get("/api/payments/7", headers={**FORGED, **_bearer(mesh)}).status_code == 200
    seen = mesh.seen.last
    assert seen.get("x-paymesh-sub") == (None if public else "42")
    assert "root" not in seen.get("x-paymesh-scope", "")
    assert "x-paymesh-anything" not in seen
    assert "sa/config" not in seen["x-forwarded-client-cert"]
    assert "6.6.6.6" not in seen["x-forwarded-for"]
    assert seen["x-envoy-external-address"] == "127.0.0.1"
    assert "x-envoy-retry-on" not in seen
    assert len(seen["x-request-id"]) == 36


def test_what_a_client_sends_along_is_passed(mesh: Mesh, rest: httpx.Client) -> None:
    """The idempotency key and the trace are the client's own."""
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
    rest.post("/api/payments", json={}, headers={**_bearer(mesh), "Idempotency-Key": "abcdefgh", "traceparent": trace})
    assert mesh.seen.last["idempotency-key"] == "abcdefgh"
    assert mesh.seen.last["traceparent"] == trace


def test_401_when_the_token_is_missing_or_bad(mesh: Mesh, rest: httpx.Client, tmp_path: Path) -> None:
    """None, garbage, one that ended, one for others, one of a stranger's key with our key id: each UNAUTHENTICATED."""
    expired, misaddressed = mesh.token(life_s=-60), mesh.token(audience="somebody-else")
    for token in ("", "x.y.z", expired, misaddressed, Mesh(tmp_path).token()):
        answer = rest.get("/api/payments/7", headers={"authorization": f"Bearer {token}"} if token else {})
        assert (answer.status_code, _reason(answer)) == (401, "UNAUTHENTICATED")
        assert answer.headers["www-authenticate"].startswith("Bearer")


def test_403_names_the_scope_when_it_is_missing(mesh: Mesh, rest: httpx.Client) -> None:
    """A scope that merely begins alike does not count."""
    answer = rest.get("/api/risk/rules", headers=_bearer(mesh, scope="risk:rea risk:read2"))
    assert (answer.status_code, _reason(answer)) == (403, "SCOPE_MISSING")
    assert answer.json()["details"][0]["metadata"] == {"scope": "risk:read"}
    assert rest.get("/api/risk/rules", headers=_bearer(mesh, scope="a risk:read")).status_code == 200


@pytest.mark.parametrize(
    ("verb", "path"),
    [
        ("GET", "/nowhere"),
        ("DELETE", "/api/nowhere/7"),
        ("POST", "/paymesh.risk.v1.RiskService/BatchAssessPayments"),
        ("POST", "/paymesh.payment.v1.PaymentService/CreatePayment"),
    ],
)
def test_404_when_there_is_no_such_route(mesh: Mesh, rest: httpx.Client, verb: str, path: str) -> None:
    """Unknown path, and methods by their gRPC path, internal or not."""
    answer = rest.request(verb, path, json={} if verb == "POST" else None, headers=_bearer(mesh))
    assert (answer.status_code, _reason(answer)) == (404, "ROUTE_NOT_FOUND")


def test_internal_method_has_no_way_in_when_called_natively_at_either_listener(
    mesh: Mesh, native: grpc.Channel
) -> None:
    """A gRPC request at the REST port finds no more than at its own."""
    request, token = risk.BatchAssessPaymentsRequest(), _native(mesh.token(scope="risk:assess"))
    answer = refused(lambda: RiskServiceStub(native).BatchAssessPayments(request, timeout=5, metadata=token))
    assert answer == (grpc.StatusCode.UNIMPLEMENTED, "METHOD_NOT_FOUND", {})
    before = len(mesh.seen.calls)
    with mesh.rest(http2=True) as client:
        headers = {**_bearer(mesh, scope="risk:assess"), "content-type": "application/grpc", "te": "trailers"}
        path = "/paymesh.risk.v1.RiskService/BatchAssessPayments"
        assert client.post(path, content=b"\0\0\0\0\0", headers=headers).headers["grpc-status"] == "12"
    assert len(mesh.seen.calls) == before


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/payments", b"{"),
        ("/api/payments", b'{"order_id": "seven"}'),
        ("/api/payments?unknown=1", b"{}"),
        ("/api/payments/%2F7/refund", b"{}"),
    ],
)
def test_400_when_the_form_is_wrong(mesh: Mesh, rest: httpx.Client, path: str, body: bytes) -> None:
    """Broken JSON, a wrong type, a parameter that is not there, a slash in disguise."""
    answer = rest.post(path, content=body, headers=_bearer(mesh))
    assert (answer.status_code, _reason(answer)) == (400, "BODY_MALFORMED")


@pytest.mark.parametrize(("more", "status"), [(0, 200), (1, 413)])
def test_413_when_the_body_is_over_1_mib(mesh: Mesh, rest: httpx.Client, more: int, status: int) -> None:
    """Exactly the limit passes; a byte more does not, even in a field that nobody knows."""
    frame = b'{"unknown":""}'
    body = frame[:-2] + b"x" * (BODY_BYTES_MAX - len(frame) + more) + frame[-2:]
    answer = rest.post("/api/payments", content=body, headers=_bearer(mesh))
    assert answer.status_code == status
    if more:
        assert _reason(answer) == "REQUEST_TOO_LARGE"


def test_431_when_headers_are_over_16_kib(mesh: Mesh, rest: httpx.Client) -> None:
    """Headers have a limit of their own."""
    assert rest.get("/api/payments/7", headers={**_bearer(mesh), "a": "b" * 17_000}).status_code == 431


UNREADABLE = [
    ("foo-bin", "!!"),
    ("grpc-trace-bin", "a,b"),
    ("grpc-status", "x"),
    ("grpc-previous-rpc-attempts", "x"),
    ("grpc-retry-pushback-ms", "x"),
    ("grpc-encoding", "zip"),
    ("grpc-timeout", "soon"),
    ("grpc-timeout", "999999999H"),
    ("a!b", "x"),
    ("n7$q", "x"),
    ("t`u", ""),
]
"""Headers for which a gRPC server ends the stream without a word, as if it were dead."""


@pytest.mark.parametrize(("name", "value"), UNREADABLE)
def test_header_that_a_service_cannot_read_harms_nobody(mesh: Mesh, name: str, value: str) -> None:
    """REST means nothing by it; a gRPC client's is dropped or refused. No instance looks ill because of it."""
    failures = _stat(mesh, "cluster.payment.upstream_rq_5xx") + _stat(mesh, "cluster.payment.upstream_rq_rx_reset")
    with mesh.rest() as rest:
        assert rest.get("/api/payments/7", headers={**_bearer(mesh), name: value}).status_code == 200
    with httpx.Client(base_url=f"https://{mesh.edge.grpc}", verify=mesh.trust(), http1=False, http2=True) as native:
        headers = {**_bearer(mesh), "content-type": "application/grpc", "te": "trailers", name: value}
        path = "/paymesh.payment.v1.PaymentService/GetPayment"
        answer = native.post(path, content=b"\0\0\0\0\2\x08\x07", headers=headers)
        if name in {"grpc-encoding", "grpc-timeout"}:
            assert (answer.headers["grpc-status"], answer.headers["grpc-message"][:8]) == ("3", "The body")
        else:
            assert answer.content[5:] == b"\n\x02\x08\x07"
    after = _stat(mesh, "cluster.payment.upstream_rq_5xx") + _stat(mesh, "cluster.payment.upstream_rq_rx_reset")
    assert after == failures


def test_native_grpc_may_be_compressed_and_hurried(mesh: Mesh, native: grpc.Channel) -> None:
    """What a client of gRPC properly says of its call is heard."""
    request, token = payment.GetPaymentRequest(id=7), _native(mesh.token())
    get = PaymentServiceStub(native).GetPayment
    for how in ({"compression": grpc.Compression.Gzip}, {"compression": grpc.Compression.Deflate}, {}):
        assert get(request, timeout=1.5, metadata=token, **how).payment.id == 7  # type: ignore[arg-type] # a keyword of grpc


def _stat(mesh: Mesh, name: str) -> int:
    found = httpx.get(f"{mesh.admin['edge-1']}/stats", params={"filter": f"^{name}$"}).text
    return int(found.split(":")[1]) if found else 0


def test_503_when_nobody_serves(mesh: Mesh, rest: httpx.Client) -> None:
    """No instance of the order service is known."""
    answer = rest.get("/api/orders/7", headers=_bearer(mesh))
    assert (answer.status_code, _reason(answer)) == (503, "UNAVAILABLE")


def test_503_when_the_service_behind_its_sidecar_is_down(mesh: Mesh, rest: httpx.Client) -> None:
    """The sidecar's refusal comes through the transcoder in the same shape, and heals with the service."""
    mesh.stop("risk-1")
    answer = rest.get("/api/risk/rules", headers=_bearer(mesh, scope="risk:read"))
    assert (answer.status_code, _reason(answer)) == (503, "UNAVAILABLE")
    assert "x-paymesh-not-sent" not in answer.headers
    mesh.serve("risk-1")
    assert rest.get("/api/risk/rules", headers=_bearer(mesh, scope="risk:read")).status_code == 200


def test_nobody_notices_when_one_of_two_instances_is_down(mesh: Mesh, rest: httpx.Client) -> None:
    """A call that the dead instance's sidecar could not hand over is made to the other, even one that is not repeatable."""
    mesh.stop("payment-2")
    try:
        answers = [rest.post("/api/payments", json={}, headers=_bearer(mesh)).status_code for _ in range(20)]
    finally:
        mesh.serve("payment-2")
    assert answers == [200] * 20
    # Five failures in a row, and the instance is not even asked for a while.
    stats = httpx.get(f"{mesh.admin['edge-1']}/stats", params={"filter": "payment.outlier_detection.ejections_active"})
    assert int(stats.text.split(":")[1]) == 1


def test_429_when_the_circuit_breaker_is_open(tmp_path: Path) -> None:
    """Beyond the requests in flight that the contract allows a caller, a call fails at once and is not sent."""
    narrow = replace(contract().services["payment"].circuit_breaker, requests_max=1)
    payments = replace(contract().services["payment"], circuit_breaker=narrow)
    policy = replace(contract(), services={**contract().services, "payment": payments})
    with Mesh(tmp_path, contract=policy, instances=("payment-1",)).running() as mesh, mesh.rest() as rest:
        mesh.seen.behave = lambda _: time.sleep(0.5)
        with ThreadPoolExecutor(4) as pool:
            calls = [pool.submit(rest.get, "/api/payments/7", headers=_bearer(mesh)) for _ in range(4)]
        answers = sorted((call.result() for call in calls), key=lambda answer: answer.status_code)
        assert [answer.status_code for answer in answers] == [200, 429, 429, 429]
        assert _reason(answers[-1]) == "OVERLOADED"
        assert answers[-1].headers["retry-after"] == "1"
        assert len(mesh.seen.calls) == 1


def test_504_when_the_contract_s_time_is_over(mesh: Mesh, rest: httpx.Client, native: grpc.Channel) -> None:
    """REST without a deadline and gRPC with a longer one both end at the contract's two seconds."""
    mesh.seen.behave = lambda _: time.sleep(3)
    try:
        began = time.monotonic()
        answer = rest.get("/api/payments/7", headers=_bearer(mesh))
        assert (answer.status_code, _reason(answer)) == (504, "DEADLINE_EXCEEDED")
        request, token = payment.GetPaymentRequest(id=7), _native(mesh.token())
        said = refused(lambda: PaymentServiceStub(native).GetPayment(request, timeout=60, metadata=token))
        assert said == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", {})
        assert 3.9 < time.monotonic() - began < 5
    finally:
        mesh.seen.behave = None


def test_429_with_retry_after_when_over_the_limit_of_an_address(mesh: Mesh, rest: httpx.Client) -> None:
    """Sixty log-ins a minute; after the time that the answer says, one more goes."""
    answer = _until_refused(lambda: rest.post("/api/users/login", json={}), 70)
    assert _reason(answer) == "RATE_LIMITED"
    assert answer.headers["retry-after"] == "1"
    time.sleep(1.1)
    assert rest.post("/api/users/login", json={}).status_code == 200


def test_429_for_one_user_leaves_another_alone(mesh: Mesh, rest: httpx.Client) -> None:
    """Limits by user count the subject of the token."""
    one, two = _bearer(mesh, subject="1001", scope="risk:write"), _bearer(mesh, subject="1002", scope="risk:write")
    answer = _until_refused(lambda: rest.post("/api/risk/rules", json={}, headers=one), 130)
    assert _reason(answer) == "RATE_LIMITED"
    assert rest.post("/api/risk/rules", json={}, headers=two).status_code != 429


def _until_refused(call: Callable[[], httpx.Response], at_most: int) -> httpx.Response:
    for _ in range(at_most):
        answer = call()
        if answer.status_code == 429:
            return answer
    raise AssertionError(f"{at_most} calls and no limit")


def test_native_grpc_gets_the_same_refusals(mesh: Mesh, native: grpc.Channel) -> None:
    """Token, audience, scope and size: code, text and ErrorInfo as a service would answer."""
    payments, risks, code = PaymentServiceStub(native), RiskServiceStub(native), grpc.StatusCode
    request, token = payment.GetPaymentRequest(id=7), _native(mesh.token())
    assert refused(lambda: payments.GetPayment(request, timeout=5)) == (code.UNAUTHENTICATED, "UNAUTHENTICATED", {})
    misaddressed = _native(mesh.token(audience="somebody-else"))
    assert refused(lambda: payments.GetPayment(request, timeout=5, metadata=misaddressed))[1] == "UNAUTHENTICATED"
    said = refused(lambda: risks.ListRules(risk.ListRulesRequest(), timeout=5, metadata=token))
    assert said == (code.PERMISSION_DENIED, "SCOPE_MISSING", {"scope": "risk:read"})
    large = payment.CreatePaymentRequest(request_id="x" * BODY_BYTES_MAX)
    said = refused(lambda: payments.CreatePayment(large, timeout=5, metadata=token))
    assert said == (code.OUT_OF_RANGE, "REQUEST_TOO_LARGE", {})
    assert payments.GetPayment(request, timeout=5, metadata=token).payment.id == 7


def test_native_grpc_is_limited_with_retry_after(native: grpc.Channel) -> None:
    """RESOURCE_EXHAUSTED, not the UNAVAILABLE that Envoy makes of a bare 429."""
    users = UserServiceStub(native)

    def log_in_often() -> None:
        for _ in range(70):
            users.LoginUser(user.LoginUserRequest(), timeout=5)

    with pytest.raises(grpc.RpcError) as caught:
        log_in_often()
    assert refusal(caught.value) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED", {})
    assert isinstance(caught.value, grpc.Call)
    assert dict(caught.value.trailing_metadata() or ())["retry-after"] == "1"


def test_edge_takes_no_old_tls(mesh: Mesh) -> None:
    """TLS 1.1 is refused, 1.2 is taken."""
    for version, taken in ((ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True)):
        context = ssl.create_default_context(cadata=mesh.authority.cert_pem)
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = version
        with httpx.Client(base_url=f"https://{mesh.edge.rest}", verify=context) as client:
            try:
                assert (client.get("/nowhere").status_code == 404) is taken
            except httpx.ConnectError:
                assert not taken
