"""Who is let in, how much, and while what is down, by REST and by gRPC through the edge."""

from __future__ import annotations

import base64
import json
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from services.contract.load import contract
from services.contract.model import Auth
from services.kernel.clock import SystemClock
from services.kernel.ids import IdMaker
from services.platform.database import Database
from services.platform.masterkey import MasterKey
from services.user.adapters.tokens import Es256Signer
from services.user.store import SqlStore
from tests.e2e.clients import Cast, Native, People, Plane, Rest, Shop, some_key
from tests.e2e.mesh import Mesh, until
from tests.e2e.refusals import Refusal, of_grpc, of_rest, outcome, reason, refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from services.contract.model import Method

MIB = 1 << 20


# -- Who asks ---------------------------------------------------------------------------------------------------------


def _asking(methods: Auth) -> list[Method]:
    return [each for each in contract().methods.values() if each.auth is methods and each.http]


def _bare(method: Method) -> dict[str, Any]:
    """Return the least of a body with which a method's route is reached."""
    names = {"id": "1", "user_id": "1", "order_id": "1", "payment_id": "1", "sku": "x", "key": "x"}
    assert method.http
    return {name: value for name, value in names.items() if f"{{{name}}}" in method.http.path}


def test_without_a_token_nothing_but_the_public_is_served(plane: Plane) -> None:
    """Each method of the contract that is not public is 401, whatever its body holds."""
    methods = [*_asking(Auth.USER), *_asking(Auth.SCOPES)]
    assert len(methods) > 25
    for method in methods:
        assert reason(partial(plane.call, method.name, _bare(method))) == "UNAUTHENTICATED", method.name


def test_without_its_scope_a_method_is_refused(plane: Plane, cast: Cast) -> None:
    """Each method that asks for a scope is 403 for a customer, and names the scope."""
    for method in _asking(Auth.SCOPES):
        said = refusal(partial(plane.call, method.name, _bare(method), token=cast.owner.token, key=some_key()))
        assert (said.code, said.reason, said.metadata) == (
            "PERMISSION_DENIED",
            "SCOPE_MISSING",
            {"scope": method.scopes[0]},
        ), method.name


@pytest.fixture(scope="module")
def signer(mesh: Mesh) -> Es256Signer:
    """The very key that the mesh trusts: a token is refused for what it says, not for who signed it."""
    database = Database(mesh.record["databases"]["user"], readers=1)
    signing = Es256Signer(MasterKey(mesh.data / "keys", "user"))
    signing.load(SqlStore(database, IdMaker(SystemClock(), 99)).signing_keys())
    database.stop()
    return signing


def _claims(token: str) -> dict[str, Any]:
    """Read a token without verifying it."""
    part = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return claims


def _unsigned(claims: Mapping[str, Any]) -> str:
    parts = ({"alg": "none", "typ": "JWT"}, claims)
    return ".".join(base64.urlsafe_b64encode(json.dumps(each).encode()).decode().rstrip("=") for each in parts) + "."


def test_token_that_is_not_good_any_more_or_never_was_is_refused(plane: Plane, cast: Cast, signer: Es256Signer) -> None:
    """Garbled, expired, of another issuer or audience, with another's name, another's key or none: 401."""
    good, now = _claims(cast.owner.token), int(time.time())
    assert plane.call("ListPayments", {}, token=signer.sign(good))  # the key is the right one
    tokens = {
        "garbled": "x.y.z",
        "cut": cast.owner.token[:-10],
        "expired": signer.sign(good | {"iat": now - 1000, "exp": now - 100}),
        "without end": signer.sign({name: value for name, value in good.items() if name != "exp"}),
        "of another issuer": signer.sign(good | {"iss": "somebody"}),
        "for somebody else": signer.sign(good | {"aud": "another-api"}),
        "unsigned": _unsigned(good),
        "signed by a stranger": jwt.encode({"alg": "ES256", "kid": "k1"}, good, ECKey.generate_key("P-256")),
    }
    head, _, tail = cast.owner.token.split(".")
    changed = base64.urlsafe_b64encode(json.dumps(good | {"sub": cast.stranger.id}).encode()).decode().rstrip("=")
    tokens["with another's name"] = f"{head}.{changed}.{tail}"
    for what, token in tokens.items():
        said = refusal(partial(plane.call, "ListPayments", {}, token=token))
        assert (said.code, said.reason) == ("UNAUTHENTICATED", "UNAUTHENTICATED"), what


def test_identity_headers_of_a_client_count_for_nothing(rest: Rest, grpc_edge: Native, cast: Cast) -> None:
    """Who claims by header to be an operator, or another user, is who his token says, or nobody."""
    forged = {"x-paymesh-sub": cast.owner.id, "x-paymesh-scope": "users:read payments:read", "x-paymesh-sid": "s"}
    path = f"/api/payments/{cast.payment['id']}"
    assert of_rest(rest.ask("GET", path, headers=forged)).reason == "UNAUTHENTICATED"
    assert of_rest(rest.ask("GET", path, token=cast.stranger.token, headers=forged)).reason == "PAYMENT_NOT_FOUND"
    by_grpc = {name.replace("-", "_"): value for name, value in forged.items()}
    call = partial(grpc_edge.call, "GetPayment", {"id": cast.payment["id"]}, **by_grpc)
    assert reason(call) == "UNAUTHENTICATED"
    assert reason(partial(call, token=cast.stranger.token)) == "PAYMENT_NOT_FOUND"


def test_what_belongs_to_another_is_not_found(plane: Plane, cast: Cast) -> None:
    """404 for everything of another user, by whichever door: there is no telling whether it exists."""
    order, payment, owner = cast.order["id"], cast.payment["id"], cast.owner.id
    tried: dict[str, tuple[dict[str, Any], str]] = {
        "GetUser": ({"id": owner}, "NOT_OWNER"),
        "UpdateUser": ({"id": owner, "phone": "+8613900000000"}, "NOT_OWNER"),
        "GetOrder": ({"id": order}, "ORDER_NOT_FOUND"),
        "UpdateOrderStatus": ({"id": order, "status": "STATUS_CANCELLED"}, "ORDER_NOT_FOUND"),
        "ListUserOrders": ({"user_id": owner}, "NOT_OWNER"),
        "CreatePayment": ({"order_id": order, "method": "METHOD_BALANCE"}, "ORDER_NOT_FOUND"),
        "GetPayment": ({"id": payment}, "PAYMENT_NOT_FOUND"),
        "RefundPayment": ({"id": payment}, "PAYMENT_NOT_FOUND"),
        "ListPaymentRefunds": ({"payment_id": payment}, "PAYMENT_NOT_FOUND"),
        "GetBalance": ({"user_id": owner}, "NOT_OWNER"),
        "GetNotification": ({"id": cast.notification}, "NOTIFICATION_NOT_FOUND"),
        "ListUserNotifications": ({"user_id": owner}, "NOT_OWNER"),
    }
    for method, (body, wanted) in tried.items():
        said = refusal(partial(plane.call, method, body, token=cast.stranger.token, key=some_key()))
        assert (said.code, said.reason) == ("NOT_FOUND", wanted), method
    listed = plane.call("ListOrderPayments", {"order_id": order}, token=cast.stranger.token)
    assert listed["payments"] == []


def test_session_that_was_ended_is_refused_everywhere_within_a_second(plane: Plane, people: People) -> None:
    """Log out reaches every service that takes the user's token, long before the token runs out."""
    person = people.somebody()
    mine = {"user_id": person.id}
    reads: list[tuple[str, dict[str, str]]] = [
        ("GetUser", {"id": person.id}),
        ("ListUserOrders", mine),
        ("ListPayments", {}),
        ("ListUserNotifications", mine),
    ]
    for method, body in reads:
        plane.call(method, body, token=person.token)
    plane.call("LogoutUser", {}, token=person.token)
    ended = time.monotonic()

    def refused_by_all() -> bool:
        try:
            return all(reason(partial(plane.call, m, b, token=person.token)) == "SESSION_REVOKED" for m, b in reads)
        except AssertionError:
            return False

    until(refused_by_all, 1.0, every=0.01)
    assert time.monotonic() - ended < 1.0
    said = refusal(partial(plane.call, "RefreshSession", {"refresh_token": person.refresh_token}))
    assert (said.code, said.reason) == ("UNAUTHENTICATED", "REFRESH_TOKEN_INVALID")


# -- What the edge refuses --------------------------------------------------------------------------------------------


def test_over_the_limit_there_is_a_word_on_when_to_come_back(plane: Plane, people: People) -> None:
    """429 with Retry-After, counted for this user alone; calls that would be refused anyhow count too."""
    person, neighbour = people.somebody(), people.somebody()
    limit = next(m.rate_limit for m in contract().methods.values() if m.name == "UpdateUser")
    assert limit
    seen = []
    for _ in range(limit.requests * 2):
        seen.append(refusal(partial(plane.call, "UpdateUser", {"id": person.id}, token=person.token)))
        if seen[-1].reason == "RATE_LIMITED":
            break
    last = seen[-1]
    assert (last.code, last.reason) == ("RESOURCE_EXHAUSTED", "RATE_LIMITED")
    assert limit.requests <= len(seen) - 1 < limit.requests + 10  # a few tokens came back meanwhile
    assert int(last.retry_after) >= 1
    assert reason(partial(plane.call, "UpdateUser", {"id": neighbour.id}, token=neighbour.token)) == "INVALID_ARGUMENT"
    time.sleep(int(last.retry_after) + 0.2)
    assert reason(partial(plane.call, "UpdateUser", {"id": person.id}, token=person.token)) == "INVALID_ARGUMENT"


def test_body_over_a_mebibyte_is_refused(rest: Rest, grpc_edge: Native, cast: Cast) -> None:
    """413 at REST; the same reason in gRPC. Just below it the contract's own rules speak."""
    large = json.dumps({"order_id": "1", "method": "METHOD_BALANCE", "request_id": "x" * MIB}).encode()
    answer = rest.ask("POST", "/api/payments", content=large, token=cast.owner.token)
    assert (answer.status_code, of_rest(answer).reason) == (413, "REQUEST_TOO_LARGE")
    unknown = json.dumps({"order_id": "1", "method": "METHOD_BALANCE", "ignored": "x" * MIB}).encode()
    answer = rest.ask("POST", "/api/payments", content=unknown, token=cast.owner.token)
    assert (answer.status_code, of_rest(answer).reason) == (413, "REQUEST_TOO_LARGE")
    body = {"order_id": "1", "method": "METHOD_BALANCE", "request_id": "x" * MIB}
    said = refusal(partial(grpc_edge.call, "CreatePayment", body, token=cast.owner.token))
    assert (said.code, said.reason) == ("OUT_OF_RANGE", "REQUEST_TOO_LARGE")
    below = {**body, "request_id": "x" * (MIB - 200)}
    for plane in (rest, grpc_edge):
        said = refusal(partial(plane.call, "CreatePayment", below, token=cast.owner.token))
        assert (said.reason, said.violations) == ("INVALID_ARGUMENT", ("request_id",))


def test_route_that_is_not_there(rest: Rest, grpc_edge: Native, cast: Cast) -> None:
    """404 at REST, with a token and without; UNIMPLEMENTED in gRPC. A method inside the mesh is not there either."""
    for verb, path in (
        ("GET", "/"),
        ("GET", "/api/nothing"),
        ("GET", "/api/v1"),
    ):
        for token in ("", cast.owner.token):
            answer = rest.ask(verb, path, token=token)
            assert (answer.status_code, of_rest(answer).reason) == (404, "ROUTE_NOT_FOUND"), path
    answer = rest.ask("DELETE", f"/api/users/{cast.owner.id}", token=cast.owner.token)
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, PUT")
    for path in ("/paymesh.payment.v1.PaymentService/Steal", "/x.Y/Z", "/grpc.health.v1.Health/Check"):
        call = grpc_edge.channel.unary_unary(path, request_serializer=bytes, response_deserializer=bytes)
        with pytest.raises(grpc.RpcError) as caught:
            call(b"", timeout=5, metadata=(("authorization", f"Bearer {cast.owner.token}"),))
        said = of_grpc(caught.value)
        assert (said.code, said.reason) == ("UNIMPLEMENTED", "METHOD_NOT_FOUND"), path


def test_service_that_is_down_is_unavailable_with_a_reason(mesh: Mesh, plane: Plane, people: People) -> None:
    """503 at once while a service is dead, and answers again soon after the supervisor has brought it back."""
    person = people.somebody()
    read = partial(plane.call, "ListUserNotifications", {"user_id": person.id}, token=person.token)
    assert mesh.kill("notification-1")
    said = refusal(read)
    assert (said.code, said.reason) == ("UNAVAILABLE", "UNAVAILABLE")
    until(partial(_answers, read), 30)
    health = partial(plane.call, "GetHealth", {})
    until(lambda: health()["health"]["status"] == "STATUS_SERVING", 30)


def test_payment_waits_for_nobody_when_risk_is_down(mesh: Mesh, plane: Plane, shop: Shop, cast: Cast) -> None:
    """No rule says otherwise: a payment is refused as UNAVAILABLE, takes nothing, and succeeds with the same key later."""
    order, key, before = shop.order(cast.owner, cast.sku), some_key(), shop.balance(cast.owner)
    body = {"order_id": order["id"], "method": "METHOD_BALANCE"}
    call = partial(plane.call, "CreatePayment", body, token=cast.owner.token, key=key)
    assert mesh.kill("risk-1")
    said = refusal(call)
    assert said.code in {"UNAVAILABLE", "DEADLINE_EXCEEDED"}, said
    assert shop.balance(cast.owner) == before
    until(partial(_answers, call), 30)
    assert shop.balance(cast.owner) == before - int(order["amount"]["minor_units"])


def _answers(call: Callable[[], dict[str, Any]]) -> bool:
    said = outcome(call)
    assert not isinstance(said, Refusal) or said.code in {"UNAVAILABLE", "DEADLINE_EXCEEDED"}, said
    return not isinstance(said, Refusal)


def test_old_http_and_odd_methods_do_no_harm(mesh: Mesh, rest: Rest) -> None:
    """Plain HTTP on the TLS port gets no answer; odd verbs are refused like any that the path does not take."""
    with pytest.raises(httpx.TransportError):
        httpx.get(mesh.record["rest"].replace("https", "http") + "/healthz", trust_env=False)
    for verb in ("TRACE", "PROPFIND", "OPTIONS"):
        answer = rest.ask(verb, "/api/payments")
        assert of_rest(answer).reason == "VERB_NOT_ALLOWED", verb
