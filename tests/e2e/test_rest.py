"""The whole flow by REST with real input: every route, every topic, every answer as the OpenAPI document promises it."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook

from services.contract.load import contract
from tests.e2e.broker import missing
from tests.e2e.clients import PASSWORD, People, Person, Rest, Shop, cny
from tests.e2e.mesh import Mesh, until
from tests.e2e.refusals import Refused
from tests.receiver import Receiver, answer

ROUTES = {
    ("POST", "/api/users/register"),
    ("POST", "/api/users/login"),
    ("GET", "/api/users/{id}"),
    ("PUT", "/api/users/{id}"),
    ("POST", "/api/orders"),
    ("GET", "/api/orders/{id}"),
    ("PUT", "/api/orders/{id}/status"),
    ("GET", "/api/orders/user/{user_id}"),
    ("POST", "/api/payments"),
    ("GET", "/api/payments/{id}"),
    ("POST", "/api/payments/{id}/refund"),
    ("GET", "/api/payments/order/{order_id}"),
    ("POST", "/api/risk/assess"),
    ("GET", "/api/risk/rules"),
    ("POST", "/api/risk/rules"),
    ("GET", "/api/risk/alerts"),
    ("POST", "/api/notifications/sms"),
    ("POST", "/api/notifications/email"),
    ("POST", "/api/notifications/push"),
    ("GET", "/api/notifications/{id}"),
}
"""The routes that users were promised first; none of them may ever change."""

WALKED_ELSEWHERE = {
    ("POST", "/api/payments/callbacks/{provider}"),  # by the sandbox: test_providers.py
    ("POST", "/api/payments/{id}/capture"),  # on cards that were authorized: the same
    ("POST", "/api/payments/{id}/void"),
    ("POST", "/api/payments/{id}/close"),
    ("POST", "/api/reviews/{id}/propose"),  # of contradictions: tests/integration/test_reviews.py
    ("POST", "/api/reviews/{id}/decide"),
    ("POST", "/api/bills"),  # of a day that is over: tests/integration/test_bills_served.py
    ("GET", "/api/bills/{bill_id}/differences"),
    ("POST", "/api/mesh/authority/rotate"),  # test_envoys.py
    ("POST", "/api/gateway/keys"),  # test_keys.py
    ("GET", "/api/gateway/keys/user/{user_id}"),
    ("POST", "/api/gateway/keys/{id}/rotate"),
    ("POST", "/api/gateway/keys/{id}/revoke"),
    ("GET", "/.well-known/api-keys.json"),  # test_grpc.py
}
"""Operations that need more than one person and an operator have, and where they are walked."""

TOPICS = {
    "user.created", "user.updated", "user.login", "order.created", "order.paid", "order.cancelled", "payment.initiated",
    "payment.success", "payment.failed", "payment.refunded", "risk.alert", "risk.block",
}  # fmt: skip
"""The topics of the same promise."""

BEYOND_REVIEW = 5_000_001
"""Fen; the rule that every mesh begins with looks at payments above 50,000 CNY."""


@dataclass
class Walk:
    """One walk through the API, and the (topic, key) of each event that it must have caused."""

    rest: Rest
    people: People
    shop: Shop
    mesh: Mesh
    receiver: Receiver
    events: set[tuple[str, str]] = field(default_factory=set)

    def get(self, path: str, who: Person | None = None) -> dict[str, Any]:
        """Read."""
        return self.rest.do("GET", path, token=who.token if who else "")

    def put(self, path: str, body: object, who: Person) -> dict[str, Any]:
        """Set."""
        return self.rest.do("PUT", path, body, token=who.token)

    def post(self, path: str, body: object, who: Person | None = None, *, key: str = "") -> dict[str, Any]:
        """Do."""
        return self.rest.do("POST", path, body, token=who.token if who else "", key=key)


@pytest.fixture
def walk(rest: Rest, people: People, shop: Shop, mesh: Mesh, receiver: Receiver) -> Walk:
    return Walk(rest, people, shop, mesh, receiver)


def test_every_route_and_every_topic(walk: Walk) -> None:
    """Nothing that was promised is missing: each route answers, each topic has the event of what was done."""
    person = _accounts(walk)
    _orders(walk, person)
    _payments(walk, person)
    _cards(walk, person)
    _risk(walk)
    _notifications(walk, person)
    _webhooks(walk, person)
    _config(walk)
    _gateway(walk)
    _sessions(walk)
    done = {(verb, path) for verb, path, status in walk.rest.document.answered if status == httpx.codes.OK}
    assert ROUTES - done == set()
    assert walk.rest.document.operations - done - WALKED_ELSEWHERE == set()
    assert {topic for topic, _ in walk.events} >= TOPICS
    assert missing(walk.mesh.record["kafka"], walk.events) == set()


def _accounts(walk: Walk) -> Person:
    name = f"wang.fang-{uuid.uuid4().hex[:8]}"
    body = {"username": name, "email": f"{name}@example.com", "password": PASSWORD, "phone": "+8613900139000"}
    first = walk.post("/api/users/register", body, key=f"register-{name}")
    assert walk.post("/api/users/register", body, key=f"register-{name}") == first
    person = walk.people.logged_in(name, PASSWORD)
    assert person.id == first["user"]["id"]
    assert walk.get(f"/api/users/{person.id}", person)["user"] == first["user"]
    changed = walk.put(f"/api/users/{person.id}", {"phone": "+8613900139001"}, person)["user"]
    assert (changed["phone"], changed["email"]) == ("+8613900139001", person.email)
    operator = walk.people.operator
    assert walk.put(f"/api/users/{person.id}/roles", {"roles": ["customer", "support"]}, operator)["user"]["roles"]
    assert "users:read" in walk.post("/api/users/refresh", {"refresh_token": person.refresh_token})["session"]["scope"]
    (key, *_) = walk.get("/.well-known/jwks.json")["keys"]
    assert (key["kty"], key["alg"], key["use"]) == ("EC", "ES256", "sig")
    walk.events |= {("user.created", person.id), ("user.login", person.id), ("user.updated", person.id)}
    return person


def _orders(walk: Walk, person: Person) -> None:
    sku = f"tea-{uuid.uuid4().hex[:8]}"
    stock = {"name": "Longjing, 250 g", "unit_price": cny(12_800), "available": "10"}
    walk.put(f"/api/inventory/{sku}", stock, walk.people.operator)
    body = {"items": [{"sku": sku, "quantity": 3}]}
    order = walk.post("/api/orders", body, person, key=f"order-{sku}")["order"]
    assert walk.post("/api/orders", body, person, key=f"order-{sku}")["order"] == order
    assert (order["status"], order["amount"]) == ("STATUS_PENDING", cny(38_400))
    held = walk.get(f"/api/inventory/{sku}")["stock"]
    assert (held["available"], held["reserved"]) == ("7", "3")
    assert len(walk.get("/api/inventory?page_size=1")["stocks"]) == 1
    assert walk.get(f"/api/orders/{order['id']}", person)["order"] == order
    gone = walk.put(f"/api/orders/{order['id']}/status", {"status": "STATUS_CANCELLED"}, person)["order"]
    assert (gone["status"], gone["cancel_reason"]) == ("STATUS_CANCELLED", "user")
    assert walk.get(f"/api/inventory/{sku}")["stock"]["available"] == "10"
    second = walk.post("/api/orders", body, person)["order"]
    page = walk.get(f"/api/orders/user/{person.id}?page_size=1", person)
    rest = walk.get(f"/api/orders/user/{person.id}?page_token={page['next_page_token']}", person)
    assert [each["id"] for each in page["orders"] + rest["orders"]] == [second["id"], order["id"]]
    walk.events |= {("order.created", order["id"]), ("order.cancelled", order["id"])}


def _payments(walk: Walk, person: Person) -> None:
    sku = f"cup-{uuid.uuid4().hex[:8]}"
    walk.shop.stock(sku, price=2_500)
    body = {"amount": cny(30_000)}
    path = f"/api/balances/{person.id}/top-up"
    first = walk.post(path, body, walk.people.operator, key=f"top-up-{sku}")
    assert walk.post(path, body, walk.people.operator, key=f"top-up-{sku}") == first
    assert walk.shop.balance(person) == 30_000
    order = walk.shop.order(person, sku, 4)
    payment = walk.shop.pay(person, order)
    assert (payment["status"], payment["amount"]) == ("STATUS_SUCCESS", cny(10_000))
    assert walk.shop.pay(person, order) == payment
    assert walk.shop.balance(person) == 20_000
    assert walk.get(f"/api/payments/{payment['id']}", person)["payment"] == payment
    assert walk.get(f"/api/payments/order/{order['id']}", person)["payments"] == [payment]
    assert payment in walk.get("/api/payments?page_size=100", person)["payments"]
    _order_becomes(walk, person, order, "STATUS_PAID")
    path = f"/api/payments/{payment['id']}/refund"
    part = walk.post(path, {"amount": cny(4_000), "note": "one was broken"}, person, key=f"part-{sku}")
    assert (part["payment"]["status"], part["refund"]["amount"]) == ("STATUS_PARTIALLY_REFUNDED", cny(4_000))
    assert walk.post(path, {"amount": cny(4_000), "note": "one was broken"}, person, key=f"part-{sku}") == part
    whole = walk.post(path, {}, person, key=f"rest-{sku}")
    assert (whole["payment"]["status"], whole["refund"]["amount"]) == ("STATUS_REFUNDED", cny(6_000))
    refunds = walk.get(f"/api/payments/{payment['id']}/refunds", person)["refunds"]
    assert refunds == [whole["refund"], part["refund"]]
    assert walk.get(f"/api/refunds/{part['refund']['id']}", person)["refund"] == part["refund"]
    assert walk.shop.balance(person) == 30_000
    _order_becomes(walk, person, order, "STATUS_REFUNDED")
    walk.events |= {("order.paid", order["id"]), ("order.refunded", order["id"])}
    walk.events |= {(f"payment.{what}", payment["id"]) for what in ("initiated", "success", "refunded")}


def _cards(walk: Walk, person: Person) -> None:
    card = {"card_number": "4242 4242 4242 4242", "expire_month": 12, "expire_year": 2034}
    saved = walk.post("/api/payment-methods", card, person)["payment_method"]
    assert (saved["card"]["last4"], saved["is_default"]) == ("4242", True)
    path = f"/api/payment-methods/{saved['id']}"
    assert walk.post(f"{path}/default", {}, person)["payment_method"] == saved
    assert walk.get("/api/payment-methods", person)["payment_methods"] == [saved]
    assert walk.rest.do("DELETE", path, token=person.token) == {}
    path = f"/api/balances/{person.id}/withdraw"
    left = walk.post(path, {"amount": cny(1_000)}, person, key=f"withdraw-{person.id}")["balance"]["amount"]
    assert int(left["minor_units"]) == walk.shop.balance(person)
    operator = walk.people.operator
    lines = walk.get("/api/ledger/trial-balance", operator)["lines"]
    assert sum(int(each["debits"]["minor_units"]) - int(each["credits"]["minor_units"]) for each in lines) == 0
    export = walk.post("/api/ledger/exports", {"day": "2026-01-01"}, operator)["export"]
    assert (export["entries"], len(export["sha256"])) == ("0", 64), "nothing was booked before this project began"
    assert "bills" in walk.get("/api/bills", operator)
    assert "reviews" in walk.get("/api/reviews?all=true", operator)


def _order_becomes(walk: Walk, person: Person, order: dict[str, Any], status: str) -> None:
    until(lambda: walk.get(f"/api/orders/{order['id']}", person)["order"]["status"] == status, 30)


def _risk(walk: Walk) -> None:
    operator, person, sku = walk.people.operator, walk.people.somebody(), f"gold-{uuid.uuid4().hex[:8]}"
    walk.shop.stock(sku, price=BEYOND_REVIEW)
    walk.shop.top_up(person, 3 * BEYOND_REVIEW)
    trial = {"user_id": person.id, "amount": cny(BEYOND_REVIEW), "method": "METHOD_BALANCE"}
    assert walk.post("/api/risk/assess", trial, operator)["assessment"]["decision"] == "DECISION_REVIEW"
    looked_at = walk.shop.pay(person, walk.shop.order(person, sku))
    assert looked_at["status"] == "STATUS_SUCCESS"
    alerts = walk.get("/api/risk/alerts", operator)["alerts"]
    alert = next(each for each in alerts if each["payment_id"] == looked_at["id"])
    assert (alert["decision"], alert["rules_hit"]) == ("DECISION_REVIEW", ["amount_limit_cny"])
    note = {"blocked": True, "note": "stolen account"}
    assert walk.put(f"/api/risk/blocks/{person.id}", note, operator)["block"]["user_id"] == person.id
    assert person.id in {each["user_id"] for each in walk.get("/api/risk/blocks?page_size=100", operator)["blocks"]}
    order = walk.shop.order(person, sku)
    until(lambda: walk.post("/api/risk/assess", trial, operator)["assessment"]["decision"] == "DECISION_BLOCK", 5)
    with pytest.raises(Refused) as caught:
        walk.shop.pay(person, order)
    assert (caught.value.refusal.reason, caught.value.refusal.metadata) == (
        "PAYMENT_BLOCKED",
        {"order_id": order["id"]},
    )
    (failed,) = walk.get(f"/api/payments/order/{order['id']}", person)["payments"]
    assert (failed["status"], failed["failure_reason"]) == ("STATUS_FAILED", "PAYMENT_BLOCKED")
    assert walk.put(f"/api/risk/blocks/{person.id}", {"blocked": False}, operator) == {}
    block = next(
        each for each in walk.get("/api/risk/alerts", operator)["alerts"] if each["payment_id"] == failed["id"]
    )
    _rules(walk)
    walk.events |= {
        ("risk.alert", alert["id"]),
        ("risk.block", block["assessment_id"]),
        ("payment.failed", failed["id"]),
    }


def _rules(walk: Walk) -> None:
    operator, name = walk.people.operator, f"e2e_{uuid.uuid4().hex[:8]}"
    condition = {"amount_limit": {"limit": {"currency_code": "KWD", "minor_units": "1"}}}
    body = {"name": name, "decision": "DECISION_REVIEW", "score": 5, "condition": condition}
    rule = walk.post("/api/risk/rules", body, operator, key=f"rule-{name}")["rule"]
    assert rule["condition"] == condition
    off = {"enabled": False, "decision": "DECISION_BLOCK", "score": 7, "condition": condition}
    assert walk.put(f"/api/risk/rules/{rule['id']}", off, operator)["rule"]["enabled"] is False
    assert name in {each["name"] for each in walk.get("/api/risk/rules?page_size=100", operator)["rules"]}


def _notifications(walk: Walk, person: Person) -> None:
    operator, number = walk.people.operator, f"+86139{uuid.uuid4().int % 10**8:08}"
    sent = {
        "sms": {"user_id": person.id, "phone": number, "text": "Your code is 042."},
        "email": {"user_id": person.id, "email": person.email, "subject": "Hello", "text": "Good day."},
        "push": {"user_id": person.id, "device_token": f"device-{number[1:]}", "subject": "Hello", "text": "Good day."},
    }
    for channel, body in sent.items():
        one = walk.post(f"/api/notifications/{channel}", body, operator, key=f"{channel}-{number[1:]}")["notification"]
        assert one["channel"] == f"CHANNEL_{channel.upper()}"
        path = f"/api/notifications/{one['id']}"
        until(lambda path=path: walk.get(path, person)["notification"]["status"] == "STATUS_SENT")  # type: ignore[misc]
    listed = walk.get(f"/api/notifications/user/{person.id}?page_size=100", person)["notifications"]
    assert {each["channel"] for each in listed} == {"CHANNEL_SMS", "CHANNEL_EMAIL", "CHANNEL_PUSH"}
    received = httpx.get(f"{walk.mesh.record['sandbox']}/sms", params={"to": number}, trust_env=False).json()[
        "messages"
    ]
    assert [each["text"] for each in received] == ["Your code is 042."]


def _webhooks(walk: Walk, person: Person) -> None:
    operator, sku, receiver = walk.people.operator, f"hat-{uuid.uuid4().hex[:8]}", walk.receiver
    body = {"url": f"http://{receiver.place}/hook", "event_types": ["order.created"], "description": "the shop"}
    made = walk.post("/api/webhooks", body, operator, key=f"hook-{sku}")
    assert walk.post("/api/webhooks", body, operator, key=f"hook-{sku}") == made
    path = f"/api/webhooks/{made['endpoint']['id']}"
    turned = walk.post(f"{path}/secret", {}, operator, key=f"turn-{sku}")
    assert walk.get("/api/webhooks", operator)["endpoints"] == [turned["endpoint"]]
    receiver.script = [answer(410)]
    walk.shop.stock(sku, price=2_500)
    order = walk.shop.order(person, sku)
    until(lambda: walk.get(f"{path}/deliveries", operator)["deliveries"])
    until(lambda: walk.get("/api/webhooks", operator)["endpoints"][0]["disable_reason"] == "gone")
    (failed,) = walk.get(f"{path}/deliveries", operator)["deliveries"]
    assert (failed["status"], failed["failure"]) == ("STATUS_FAILED", "answered 410")
    assert walk.put(path, {"enabled": True}, operator)["endpoint"]["enabled"] is True
    again = walk.post(f"/api/webhooks/deliveries/{failed['id']}/resend", {}, operator)["delivery"]
    assert (again["status"], again["webhook_id"]) == ("STATUS_PENDING", failed["webhook_id"])
    until(lambda: walk.get(f"{path}/deliveries", operator)["deliveries"][0]["status"] == "STATUS_DELIVERED")
    assert receiver.ids == [failed["webhook_id"]] * 2
    _, headers, sent = receiver.requests[-1]
    for secret in (made["secret"], turned["secret"]):
        assert Webhook(secret).verify(sent, headers)["data"]["order_id"] == order["id"]
    assert walk.rest.do("DELETE", path, token=operator.token) == {}
    assert walk.get("/api/webhooks", operator)["endpoints"] == []


def _config(walk: Walk) -> None:
    operator, key = walk.people.operator, f"e2e.x{uuid.uuid4().hex[:8]}"
    path = f"/api/config/{key}"
    assert walk.put(path, {"value": "blue"}, operator)["entry"]["version"] == "1"
    assert walk.put(path, {"value": "green", "expected_version": "1"}, operator)["entry"]["version"] == "2"
    entry = walk.get(path, operator)["entry"]
    assert (entry["value"], entry["updated_by"]) == ("green", operator.id)
    assert walk.get(f"/api/config?prefix={key}", operator)["entries"] == [entry]
    assert walk.get("/api/mesh/authority", operator)["authority"]["phase"] == "PHASE_STABLE"
    assert walk.get("/api/mesh/nodes?page_size=100", operator)["nodes"]
    instances = walk.get("/api/mesh/instances?page_size=100", operator)["instances"]
    assert {each["service"] for each in instances} == set(contract().services)
    walk.events.add(("config.changed", key))


def _gateway(walk: Walk) -> None:
    health = walk.get("/healthz")["health"]
    assert health["status"] == "STATUS_SERVING"
    assert {each["service"] for each in health["services"]} == set(contract().services)
    routes = walk.get("/api/gateway/routes?page_size=100", walk.people.operator)["routes"]
    assert {each["method"] for each in routes} == {each.full_name for each in contract().methods.values()}
    assert walk.get("/openapi.json") == json.loads(walk.rest.document.text)
    page = walk.rest.ask("GET", "/docs")
    assert page.status_code == httpx.codes.OK
    assert page.headers["content-type"].startswith("text/html")
    assert "<html" in page.text


def _sessions(walk: Walk) -> None:
    person = walk.people.somebody()
    walk.post("/api/users/logout", {}, person)
    path = f"/api/users/{person.id}"
    until(
        lambda: walk.rest.ask("GET", path, token=person.token).status_code == httpx.codes.UNAUTHORIZED, 1.0, every=0.01
    )
