"""Clients of the edge: REST, whose every answer the OpenAPI document judges, and native gRPC, both also by method name."""

from __future__ import annotations

import itertools
import re
import ssl
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import grpc
import httpx
from google.protobuf import json_format, symbol_database

from services.contract.load import contract
from tests.e2e.document import Document
from tests.e2e.refusals import Refused, of_grpc, of_rest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.message import Message

    from services.contract.model import Method

METHODS: dict[str, Method] = {method.name: method for method in contract().methods.values()}
"""Every method by its name, which is unique over all services."""
PASSWORD = "correct horse battery staple"
_SYMBOLS = symbol_database.Default()
_FIELD = re.compile(r"\{([^}]+)\}")


class Plane(Protocol):
    """A way to the same method. A refusal is raised as Refused, and holds the contract whichever way it came."""

    def call(self, method: str, body: Mapping[str, Any], *, token: str = "", key: str = "") -> dict[str, Any]:
        """Call a method by its name; ``body`` is its request as JSON."""
        ...


def route_of(method: str, body: Mapping[str, Any]) -> tuple[str, str, dict[str, Any] | None]:
    """Return verb, path with query, and JSON body (None: none) by which a method is called at REST."""
    http = METHODS[method].http
    assert http, f"{method} has no route"
    bound = _FIELD.findall(http.path)
    path = _FIELD.sub(lambda found: str(body.get(found[1], "0")), http.path)
    rest = {name: value for name, value in body.items() if name not in bound}
    if http.body:
        return http.verb, path, rest
    return http.verb, path + (f"?{httpx.QueryParams(rest)}" if rest else ""), None


class Rest:
    """The edge over HTTP/1.1."""

    def __init__(self, url: str, ca: Path, document: Document | None = None) -> None:
        """Call the edge at ``url``, which proves itself by ``ca``; ``document`` judges its answers."""
        self.document = document or Document()
        trust = ssl.create_default_context(cafile=str(ca))
        self.http = httpx.Client(base_url=url, verify=trust, timeout=15, trust_env=False)

    def close(self) -> None:
        """Close its connections."""
        self.http.close()

    def ask(
        self, verb: str, path: str, body: object = None, *,
        token: str = "", key: str = "", content: bytes | None = None, headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:  # fmt: skip
        """Return the answer of a route, judged, whatever it is. ``content`` is sent as it is instead of ``body``."""
        sent = dict(headers or {})
        if token:
            sent["authorization"] = f"Bearer {token}"
        if key:
            sent["idempotency-key"] = key
        if content is not None:
            sent.setdefault("content-type", "application/json")
            answer = self.http.request(verb, path, content=content, headers=sent)
        else:
            answer = self.http.request(verb, path, json=body, headers=sent)
        self.document.judge(answer)
        return answer

    def do(self, verb: str, path: str, body: object = None, *, token: str = "", key: str = "") -> dict[str, Any]:
        """Return the answer of a route that must succeed. Raises Refused."""
        answer = self.ask(verb, path, body, token=token, key=key)
        if answer.status_code != httpx.codes.OK:
            raise Refused(of_rest(answer))
        return dict(answer.json())

    def call(self, method: str, body: Mapping[str, Any], *, token: str = "", key: str = "") -> dict[str, Any]:
        """Call a method by its name, on the route that the contract gives it."""
        verb, path, sent = route_of(method, body)
        return self.do(verb, path, sent, token=token, key=key)


class Native:
    """The edge over gRPC, or any other channel into the mesh."""

    def __init__(self, channel: grpc.Channel) -> None:
        """Call over ``channel``, which is closed with this."""
        self.channel = channel

    def close(self) -> None:
        """Close the channel."""
        self.channel.close()

    def call(
        self, method: str, body: Mapping[str, Any], *, token: str = "", key: str = "", **metadata: str
    ) -> dict[str, Any]:
        """Call a method by its name; further ``metadata`` with dashes for underscores."""
        model = METHODS[method]
        sent: list[tuple[str, str | bytes]] = [(name.replace("_", "-"), value) for name, value in metadata.items()]
        if token:
            sent.append(("authorization", f"Bearer {token}"))
        if key:
            sent.append(("idempotency-key", key))
        invoke = self.channel.unary_unary(
            model.path,
            request_serializer=_serialized,
            response_deserializer=_SYMBOLS.GetSymbol(model.response).FromString,
        )
        request = json_format.ParseDict(dict(body), _SYMBOLS.GetSymbol(model.request)())
        try:
            answer = invoke(request, timeout=15, metadata=tuple(sent))
        except grpc.RpcError as error:
            raise Refused(of_grpc(error)) from None
        return dict(
            json_format.MessageToDict(
                answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
            )
        )


def _serialized(message: Message) -> bytes:
    return message.SerializeToString()


def native(address: str, ca: Path) -> Native:
    """Open a gRPC channel to the edge."""
    return Native(grpc.secure_channel(address, grpc.ssl_channel_credentials(ca.read_bytes())))


@dataclass(frozen=True, slots=True)
class Person:
    """A user who is logged in."""

    id: str
    username: str
    email: str
    token: str
    refresh_token: str


class People:
    """Makes users whose names no other test has."""

    _numbers = itertools.count(1)

    def __init__(self, plane: Plane, admin: Mapping[str, str]) -> None:
        """Register over ``plane``; ``admin`` is the name and password of the operator."""
        self._plane = plane
        self._run = uuid.uuid4().hex[:6]
        self.operator = self.logged_in(admin["username"], admin["password"])

    def somebody(self) -> Person:
        """Register a new customer and log in."""
        name = f"user-{self._run}-{next(self._numbers)}"
        body = {"username": name, "email": f"{name}@example.com", "password": PASSWORD, "phone": "+8613800138000"}
        self._plane.call("RegisterUser", body)
        return self.logged_in(name, PASSWORD)

    def logged_in(self, username: str, password: str) -> Person:
        """Begin a session of a user who exists."""
        answer = self._plane.call("LoginUser", {"username": username, "password": password})
        user, session = answer["user"], answer["session"]
        return Person(user["id"], user["username"], user["email"], session["access_token"], session["refresh_token"])


@dataclass(frozen=True, slots=True)
class Shop:
    """Stock, balances and orders, with amounts in CNY fen."""

    plane: Plane
    operator: Person

    def stock(self, sku: str, price: int = 1000, available: int = 1000) -> None:
        """Put an item in the inventory."""
        body = {"sku": sku, "name": sku, "unit_price": cny(price), "available": str(available)}
        self.plane.call("SetStock", body, token=self.operator.token)

    def top_up(self, who: Person, amount: int) -> None:
        """Book money to a balance."""
        body = {"user_id": who.id, "amount": cny(amount)}
        self.plane.call("TopUpBalance", body, token=self.operator.token, key=f"top-up-{uuid.uuid4().hex}")

    def order(self, who: Person, sku: str, quantity: int = 1) -> dict[str, Any]:
        """Order an item."""
        body = {"items": [{"sku": sku, "quantity": quantity}]}
        return dict(self.plane.call("CreateOrder", body, token=who.token)["order"])

    def pay(self, who: Person, order: Mapping[str, Any], key: str = "") -> dict[str, Any]:
        """Pay an order from the balance."""
        body = {"order_id": order["id"], "method": "METHOD_BALANCE", "amount": order["amount"]}
        key = key or f"pay-{order['id']}"
        return dict(self.plane.call("CreatePayment", body, token=who.token, key=key)["payment"])

    def balance(self, who: Person) -> int:
        """Return what is on a balance."""
        answer = self.plane.call("GetBalance", {"user_id": who.id}, token=who.token)
        return int(answer["balance"]["amount"]["minor_units"])


def cny(fen: int) -> dict[str, str]:
    """Return an amount as JSON."""
    return {"currency_code": "CNY", "minor_units": str(fen)}


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
