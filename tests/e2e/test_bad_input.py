"""What bad input gets, by REST and by gRPC through the edge: the same reason, one ErrorInfo, the contract's words."""

from __future__ import annotations

import base64
import json
import time
import uuid
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from services.contract.load import contract
from services.contract.model import Auth, Idempotency
from services.kernel.clock import SystemClock
from services.kernel.ids import IdMaker
from services.platform.database import Database
from services.user.adapters.keys import MasterKey
from services.user.adapters.tokens import Es256Signer
from services.user.store import SqlStore
from tests.e2e.clients import PASSWORD, Native, People, Person, Plane, Rest, Shop, cny
from tests.e2e.mesh import Mesh, until
from tests.e2e.refusals import Refusal, Refused, of_grpc, of_rest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from services.contract.model import Method

MIB = 1 << 20


def refusal(call: Callable[[], object]) -> Refusal:
    """Make a call that must be refused."""
    try:
        answer = call()
    except Refused as refused:
        return refused.refusal
    raise AssertionError(f"not refused: {answer}")


def outcome(call: Callable[[], dict[str, Any]]) -> dict[str, Any] | Refusal:
    """Make a call that may be refused."""
    try:
        return call()
    except Refused as refused:
        return refused.refusal


def reason(call: Callable[[], object]) -> str:
    """Make a call that must be refused; returns why."""
    return refusal(call).reason


def some_key() -> str:
    """Return an idempotency key that nobody has used."""
    return uuid.uuid4().hex


@dataclass(frozen=True, slots=True)
class Cast:
    """Two people, the one with an order that was paid, the other with nothing."""

    owner: Person
    stranger: Person
    sku: str
    order: dict[str, Any]
    payment: dict[str, Any]
    cancelled: dict[str, Any]
    notification: str


@pytest.fixture(scope="module")
def cast(rest: Rest, people: People, shop: Shop) -> Cast:
    """Made once: registrations and log-ins are limited by address."""
    owner, stranger, sku = people.somebody(), people.somebody(), f"box-{uuid.uuid4().hex[:8]}"
    shop.stock(sku, price=1_000)
    shop.top_up(owner, 100_000)
    order = shop.order(owner, sku)
    payment, cancelled = shop.pay(owner, order), shop.order(owner, sku)
    body = {"id": cancelled["id"], "status": "STATUS_CANCELLED"}
    cancelled = rest.call("UpdateOrderStatus", body, token=owner.token)["order"]
    body = {"user_id": owner.id, "email": owner.email, "subject": "Hello", "text": "Good day."}
    sent = rest.do("POST", "/api/notifications/email", body, token=people.operator.token)["notification"]
    return Cast(owner, stranger, sku, order, payment, cancelled, sent["id"])


# -- Invalid fields ---------------------------------------------------------------------------------------------------

INVALID: tuple[tuple[str, dict[str, Any], set[str]], ...] = (
    (
        "RegisterUser",
        {"username": "!", "email": "nobody", "password": "short", "phone": "110", "request_id": "x"},
        {"username", "email", "password", "phone", "request_id"},
    ),
    ("LoginUser", {}, {"username", "password"}),
    ("RefreshSession", {"refresh_token": "short"}, {"refresh_token"}),
    ("CreateOrder", {}, {"items"}),
    (
        "CreateOrder",
        {"items": [{"sku": "!", "quantity": 0}, {"sku": "ok", "quantity": 10_001}], "request_id": "x"},
        {"items[0].sku", "items[0].quantity", "items[1].quantity", "request_id"},
    ),
    ("CreateOrder", {"items": [{"sku": "a", "quantity": 1}, {"sku": "a", "quantity": 2}]}, {""}),
    ("CreatePayment", {}, {"order_id", "method"}),
    ("CreatePayment", {"order_id": "-1", "method": 99}, {"order_id", "method"}),
    (
        "CreatePayment",
        {"order_id": "1", "method": "METHOD_BALANCE", "amount": {"currency_code": "cny", "minor_units": "-1"}},
        {"amount.currency_code", "amount.minor_units"},
    ),
    ("ListPayments", {"page_size": 101, "page_token": "x" * 201}, {"page_size", "page_token"}),
    ("GetOrder", {"id": "0"}, {"id"}),
    ("RefundPayment", {"id": "1", "amount": {"currency_code": "CNY"}, "note": "x" * 201}, {"note", ""}),
)


@pytest.mark.parametrize(("method", "body", "fields"), INVALID, ids=[f"{m}-{len(f)}" for m, _, f in INVALID])
def test_every_violation_is_listed_at_once(
    plane: Plane, cast: Cast, method: str, body: dict[str, Any], fields: set[str]
) -> None:
    """One answer names each field that breaks a rule, so that a client mends them in one go."""
    said = refusal(partial(plane.call, method, body, token=cast.owner.token, key=some_key()))
    assert (said.reason, set(said.violations)) == ("INVALID_ARGUMENT", fields)


def test_unknown_field_in_the_body_leaves_what_is_required_missing(rest: Rest) -> None:
    """The transcoder ignores what it does not know: a misspelt field shows as the one that is missing."""
    body = {"user_name": "li.na", "email": "li.na@example.com", "password": PASSWORD}
    said = refusal(lambda: rest.do("POST", "/api/users/register", body))
    assert (said.reason, said.violations) == ("INVALID_ARGUMENT", ("username",))


MALFORMED = {
    "cut off": b'{"items": [',
    "not JSON": b"items=1",
    "a list": b"[]",
    "a text": b'"x"',
    "no number": b'{"order_id": "abc", "method": "METHOD_BALANCE"}',
    "a fraction": b'{"order_id": 1.5, "method": "METHOD_BALANCE"}',
    "beyond 64 bits": b'{"order_id": "9223372036854775808", "method": "METHOD_BALANCE"}',
    "no such enum name": b'{"order_id": "1", "method": "METHOD_BARTER"}',
    "NaN": b'{"order_id": NaN, "method": "METHOD_BALANCE"}',
    "an object for a text": b'{"order_id": "1", "method": "METHOD_BALANCE", "request_id": {}}',
    "bytes that are no UTF-8": b'{"order_id": "1", "method": "METHOD_BALANCE", "request_id": "\xff\xfe"}',
}


@pytest.mark.parametrize("content", MALFORMED.values(), ids=MALFORMED)
def test_malformed_body_is_refused(rest: Rest, cast: Cast, content: bytes) -> None:
    """What is not JSON, or JSON of another shape, is 400 with a reason of ours, not the parser's words."""
    answer = rest.ask("POST", "/api/payments", content=content, token=cast.owner.token, key=some_key())
    said = of_rest(answer)
    assert (answer.status_code, said.reason) in {(400, "BODY_MALFORMED"), (400, "INVALID_ARGUMENT")}


def test_malformed_parameters_are_refused(rest: Rest, cast: Cast) -> None:
    """A path or a query that is no number, and a parameter that the route does not know."""
    for path in ("/api/payments/abc", "/api/payments?page_size=many", "/api/payments?colour=red"):
        answer = rest.ask("GET", path, token=cast.owner.token)
        assert (answer.status_code, of_rest(answer).reason) == (400, "BODY_MALFORMED"), path


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
    signing = Es256Signer(MasterKey(mesh.data / "keys" / "user.key"))
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


# -- Repeats ----------------------------------------------------------------------------------------------------------


def test_call_that_moves_money_needs_a_key(plane: Plane, cast: Cast, people: People) -> None:
    """Each method with a required key: none is refused, so is one of a form that we do not keep."""
    bodies: dict[str, dict[str, Any]] = {
        "CreatePayment": {"order_id": cast.order["id"], "method": "METHOD_BALANCE"},
        "RefundPayment": {"id": cast.payment["id"]},
        "TopUpBalance": {"user_id": cast.owner.id, "amount": cny(1)},
    }
    required = {each.name for each in contract().methods.values() if each.idempotency is Idempotency.REQUIRED}
    assert required == set(bodies)
    for method, body in bodies.items():
        token = people.operator.token if method == "TopUpBalance" else cast.owner.token
        said = refusal(partial(plane.call, method, body, token=token))
        assert (said.code, said.reason) == ("INVALID_ARGUMENT", "IDEMPOTENCY_KEY_MISSING"), method
        said = refusal(partial(plane.call, method, body, token=token, key="short"))
        assert (said.reason, said.violations) == ("INVALID_ARGUMENT", ("Idempotency-Key",)), method


def test_key_with_another_request_is_refused(plane: Plane, cast: Cast, people: People) -> None:
    """The first answer stands; the same key with other words gets neither it nor a second effect."""
    key, operator = some_key(), people.operator.token
    first = plane.call("TopUpBalance", {"user_id": cast.owner.id, "amount": cny(1)}, token=operator, key=key)
    other = {"user_id": cast.owner.id, "amount": cny(2)}
    said = refusal(partial(plane.call, "TopUpBalance", other, token=operator, key=key))
    assert (said.code, said.reason) == ("FAILED_PRECONDITION", "IDEMPOTENCY_KEY_REUSED")
    assert plane.call("TopUpBalance", {"user_id": cast.owner.id, "amount": cny(1)}, token=operator, key=key) == first


def test_key_of_one_plane_is_known_on_the_other(rest: Rest, grpc_edge: Native, shop: Shop, cast: Cast) -> None:
    """The header at REST and the field request_id in gRPC are the same key: one payment, one answer."""
    order, key = shop.order(cast.owner, cast.sku), some_key()
    body = {"order_id": order["id"], "method": "METHOD_BALANCE"}
    first = rest.call("CreatePayment", body, token=cast.owner.token, key=key)
    assert grpc_edge.call("CreatePayment", body, token=cast.owner.token, key=key) == first
    other = refusal(partial(grpc_edge.call, "CreatePayment", body, token=cast.owner.token, key=some_key()))
    assert other.reason == "ORDER_HAS_LIVE_PAYMENT"
    assert other.metadata == {"order_id": order["id"], "payment_id": first["payment"]["id"]}


def test_refusal_of_the_business_is_replayed(plane: Plane, shop: Shop, cast: Cast) -> None:
    """A payment that the balance did not cover stays refused under its key, even when there is money by then."""
    order, key = shop.order(cast.owner, cast.sku, 400), some_key()
    body = {"order_id": order["id"], "method": "METHOD_BALANCE"}
    call = partial(plane.call, "CreatePayment", body, token=cast.owner.token)
    first = refusal(partial(call, key=key))
    assert (first.code, first.reason) == ("FAILED_PRECONDITION", "BALANCE_INSUFFICIENT")
    shop.top_up(cast.owner, 400_000)
    assert refusal(partial(call, key=key)) == first
    assert call(key=some_key())["payment"]["status"] == "STATUS_SUCCESS"


# -- Refusals of the business -----------------------------------------------------------------------------------------


def test_each_rule_of_the_business_has_its_reason(plane: Plane, shop: Shop, cast: Cast, people: People) -> None:
    """What people run into most, each with the status and the metadata of the contract."""
    owner, operator = cast.owner.token, people.operator.token
    paid, open_order = cast.order["id"], shop.order(cast.owner, cast.sku)
    pay = {"order_id": open_order["id"], "method": "METHOD_BALANCE"}
    dear = {"name": "dear", "unit_price": {"currency_code": "JPY", "minor_units": "1"}, "available": "1"}
    plane.call("SetStock", {"sku": "yen-item", **dear}, token=operator)
    many = [{"sku": cast.sku, "quantity": 1}, {"sku": "yen-item", "quantity": 1}]
    rule = {"decision": "DECISION_REVIEW", "score": 1, "condition": {"block_list": {}}}
    tried: list[tuple[str, dict[str, Any], str, str]] = [
        ("GetStock", {"sku": "no-such-thing"}, "", "STOCK_NOT_FOUND"),
        ("CreateOrder", {"items": [{"sku": "no-such-thing", "quantity": 1}]}, owner, "STOCK_NOT_FOUND"),
        ("CreateOrder", {"items": [{"sku": "yen-item", "quantity": 2}]}, owner, "STOCK_INSUFFICIENT"),
        ("CreateOrder", {"items": many}, owner, "CURRENCY_MIXED"),
        ("UpdateOrderStatus", {"id": open_order["id"], "status": "STATUS_PAID"}, owner, "ORDER_STATUS_NOT_SETTABLE"),
        ("CreatePayment", {**pay, "amount": cny(1)}, owner, "AMOUNT_MISMATCH"),
        ("CreatePayment", {**pay, "method": "METHOD_ALIPAY"}, owner, "PAYMENT_METHOD_UNAVAILABLE"),
        ("CreatePayment", {**pay, "order_id": paid}, owner, "ORDER_HAS_LIVE_PAYMENT"),
        ("CreatePayment", {**pay, "order_id": cast.cancelled["id"]}, owner, "ORDER_NOT_PAYABLE"),
        ("CreatePayment", {**pay, "order_id": "7"}, owner, "ORDER_NOT_FOUND"),
        ("UpdateOrderStatus", {"id": paid, "status": "STATUS_CANCELLED"}, owner, "ORDER_STATUS_CONFLICT"),
        ("RefundPayment", {"id": cast.payment["id"], "amount": cny(1_001)}, owner, "REFUND_EXCEEDS_CAPTURED"),
        ("RefundPayment", {"id": cast.payment["id"], "amount": dear["unit_price"]}, owner, "CURRENCY_UNSUPPORTED"),
        ("GetBalance", {"user_id": cast.owner.id, "currency_code": "XAU"}, owner, "CURRENCY_UNSUPPORTED"),
        ("TopUpBalance", {"user_id": cast.owner.id, "amount": cny(2**53 - 1)}, operator, "BALANCE_LIMIT_EXCEEDED"),
        ("ListPayments", {"page_token": "what-is-this"}, owner, "PAGE_TOKEN_INVALID"),
        ("GetUser", {"id": "7"}, operator, "USER_NOT_FOUND"),
        ("SetUserRoles", {"id": cast.owner.id, "roles": ["emperor"]}, operator, "ROLE_UNKNOWN"),
        ("UpdateUser", {"id": cast.owner.id, "email": cast.stranger.email}, owner, "EMAIL_TAKEN"),
        ("UpdateUser", {"id": cast.owner.id, "password": "x" * 12, "current_password": "no"}, owner, "CREDENTIALS_INVALID"),
        ("LoginUser", {"username": "nobody.at.all", "password": "x"}, "", "CREDENTIALS_INVALID"),
        ("RefreshSession", {"refresh_token": "x" * 43}, "", "REFRESH_TOKEN_INVALID"),
        ("CreateRule", {**rule, "name": "block_list"}, operator, "RULE_NAME_TAKEN"),
        ("UpdateRule", {**rule, "id": "999"}, operator, "RULE_NOT_FOUND"),
        ("GetNotification", {"id": "7"}, operator, "NOTIFICATION_NOT_FOUND"),
        ("GetConfig", {"key": "no.such.entry"}, operator, "CONFIG_NOT_FOUND"),
        ("SetConfig", {"key": "no.such.entry", "value": "", "expected_version": "3"}, operator, "CONFIG_VERSION_CONFLICT"),
    ]  # fmt: skip
    for method, body, token, wanted in tried:
        said = refusal(partial(plane.call, method, body, token=token, key=some_key()))
        assert said.reason == wanted, f"{method} {body}: {said}"


def test_payment_of_an_order_that_was_just_cancelled_takes_nothing(plane: Plane, shop: Shop, cast: Cast) -> None:
    """Payment hears of it by an event: until then it may take the money, and gives it back by itself."""
    order, before = shop.order(cast.owner, cast.sku), shop.balance(cast.owner)
    plane.call("UpdateOrderStatus", {"id": order["id"], "status": "STATUS_CANCELLED"}, token=cast.owner.token)
    body = {"order_id": order["id"], "method": "METHOD_BALANCE"}
    said = outcome(partial(plane.call, "CreatePayment", body, token=cast.owner.token, key=some_key()))
    if isinstance(said, Refusal):
        assert said.reason == "ORDER_NOT_PAYABLE"
    else:
        read = partial(plane.call, "GetPayment", {"id": said["payment"]["id"]}, token=cast.owner.token)
        until(lambda: read()["payment"]["status"] == "STATUS_REFUNDED", 30)
    assert shop.balance(cast.owner) == before
    assert plane.call("GetOrder", {"id": order["id"]}, token=cast.owner.token)["order"]["status"] == "STATUS_CANCELLED"


def test_name_that_is_taken_and_account_that_is_locked(rest: Rest, people: People) -> None:
    """A second account of a name is 409; after five wrong passwords even the right one is refused for a while."""
    person = people.somebody()
    body = {"username": person.username.upper(), "email": f"other-{person.email}", "password": PASSWORD}
    said = refusal(partial(rest.do, "POST", "/api/users/register", body))
    assert (said.code, said.reason) == ("ALREADY_EXISTS", "USERNAME_TAKEN")
    guess = {"username": person.username, "password": "wrong"}
    for _ in range(5):
        assert reason(partial(rest.do, "POST", "/api/users/login", guess)) == "CREDENTIALS_INVALID"
    said = refusal(partial(rest.do, "POST", "/api/users/login", {**guess, "password": PASSWORD}))
    assert (said.code, said.reason) == ("PERMISSION_DENIED", "ACCOUNT_LOCKED")
    assert int(said.metadata["retry_after_s"]) > 0


def test_text_is_chinese_for_whom_it_is_asked(rest: Rest, cast: Cast) -> None:
    """Accept-Language chooses the words for people; reason and metadata, by which programs decide, stay."""
    headers = {"accept-language": "zh-CN,zh;q=0.9"}
    body = rest.ask("GET", "/api/payments/7", token=cast.owner.token, headers=headers).json()
    wanted = contract().reasons["PAYMENT_NOT_FOUND"]
    assert body["message"] == wanted.zh.replace("{payment_id}", "7")
    assert body["details"][0]["reason"] == wanted.name


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
        ("DELETE", f"/api/users/{cast.owner.id}"),
        ("GET", "/api/v1"),
    ):
        for token in ("", cast.owner.token):
            answer = rest.ask(verb, path, token=token)
            assert (answer.status_code, of_rest(answer).reason) == (404, "ROUTE_NOT_FOUND"), path
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
    """Plain HTTP on the TLS port gets no answer; odd verbs get the same kind of refusal as unknown routes."""
    with pytest.raises(httpx.TransportError):
        httpx.get(mesh.record["rest"].replace("https", "http") + "/healthz", trust_env=False)
    for verb in ("TRACE", "PROPFIND", "OPTIONS"):
        answer = rest.ask(verb, "/api/payments")
        assert of_rest(answer).reason == "ROUTE_NOT_FOUND", verb
