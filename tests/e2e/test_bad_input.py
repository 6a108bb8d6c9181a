"""What bad input gets, by REST and by gRPC through the edge: the same reason, one ErrorInfo, the contract's words."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from services.contract.load import contract
from services.contract.model import Idempotency
from tests.e2e.clients import PASSWORD, Cast, Native, People, Plane, Rest, Shop, cny, some_key
from tests.e2e.mesh import until
from tests.e2e.refusals import Refusal, of_rest, outcome, reason, refusal

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


# -- Repeats ----------------------------------------------------------------------------------------------------------


def test_call_that_moves_money_or_tells_a_secret_needs_a_key(plane: Plane, cast: Cast, people: People) -> None:
    """Each method with a required key: none is refused, so is one of a form that we do not keep."""
    bodies: dict[str, dict[str, Any]] = {
        "CreatePayment": {"order_id": cast.order["id"], "method": "METHOD_BALANCE"},
        "RefundPayment": {"id": cast.payment["id"]},
        "CapturePayment": {"id": cast.payment["id"]},
        "VoidPayment": {"id": cast.payment["id"]},
        "ClosePayment": {"id": cast.payment["id"]},
        "TopUpBalance": {"user_id": cast.owner.id, "amount": cny(1)},
        "WithdrawBalance": {"user_id": cast.owner.id, "amount": cny(1)},
        "DecideReview": {"id": "1", "decision": "DECISION_ACCEPT", "agree": True, "note": "so it is"},
        "CreateWebhookEndpoint": {"url": "https://shop.example/hook", "event_types": ["order.paid"]},
        "RotateWebhookSecret": {"id": "1"},
        "CreateApiKey": {"name": "of a test"},
        "RotateApiKey": {"id": "1"},
    }
    operators = {each.name for each in contract().methods.values() if each.scopes}
    required = {each.name for each in contract().methods.values() if each.idempotency is Idempotency.REQUIRED}
    assert required == set(bodies)
    for method, body in bodies.items():
        token = people.operator.token if method in operators else cast.owner.token
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
        ("CreatePayment", {**pay, "method": "METHOD_ALIPAY", "scene": "SCENE_JSAPI"}, owner, "SCENE_UNSUPPORTED"),
        ("CreatePayment", {**pay, "method": "METHOD_BANK_CARD"}, owner, "PAYMENT_METHOD_NOT_FOUND"),
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
        ("UpdateRule", {**rule, "id": "999", "enabled": True}, operator, "RULE_NOT_FOUND"),
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
