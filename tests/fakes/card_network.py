"""A card network that says what a test wants, signed as the network signs; in place of the sockets of the adapter."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from services.payment.adapters.card import CardSettings
from services.payment.adapters.card.signing import signature

SETTINGS = CardSettings(
    base_url="https://cards.example",
    merchant_id="M1",
    key_id="key_1",
    request_secret=b"q" * 32,
    answer_secret=b"a" * 32,
    notify_url="https://shop.example/api/payments/callbacks/card",
    vault_merchant_id=1,
)
SECONDS = 1_800_000_000
"""The network's clock."""


def charge_body(**changed: object) -> dict[str, Any]:
    """A charge of 12.34 CNY as the network writes it."""
    return {
        "request_id": "P1", "charge_id": "ch_1", "status": "captured",
        "amount": {"minor_units": 1234, "currency": "CNY"}, "captured": 1234, "refunded": 0, "code": "",
        "auth_code": "123456", "trans_status": "", "challenge_url": "", "brand": "visa", "last4": "4242",
        "created": SECONDS, "updated": SECONDS, **changed,
    }  # fmt: skip


def refund_body(**changed: object) -> dict[str, Any]:
    """A refund of 2.00 CNY of it."""
    return {
        "request_id": "R1", "refund_id": "re_1", "charge_request_id": "P1", "charge_id": "ch_1", "status": "succeeded",
        "amount": {"minor_units": 200, "currency": "CNY"}, "code": "", "created": SECONDS, **changed,
    }  # fmt: skip


def error_body(code: str) -> dict[str, Any]:
    """An error."""
    return {"error": {"code": code, "message": "in words"}}


@dataclass
class FakeNetwork(httpx.BaseTransport):
    """Answers each path with what was put under it, newest first; 404 elsewhere. Refuses what is not signed by us.

    ``tamper`` changes the headers of an answer after it was signed; ``broken`` is raised instead of answering.
    """

    answers: dict[str, list[tuple[int, object]]] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    tamper: Callable[[dict[str, str]], object] = lambda _headers: None
    broken: Exception | None = None

    def put(self, path: str, *answers: tuple[int, object]) -> None:
        """Answer these one after the other, the last one for ever."""
        self.answers[path] = list(answers)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer."""
        body, path = request.read(), request.url.raw_path.decode()
        self._check(request, path, body)
        self.asked.append((f"{request.method} {path}", json.loads(body) if body else {}))
        if self.broken:
            raise self.broken
        waiting = self.answers.get(f"{request.method} {path}", [(404, error_body("not_found"))])
        status, content = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        text = content if isinstance(content, bytes) else json.dumps(content).encode()
        headers = signed(text, request.headers["card-nonce"], begin=f"{status}\n")
        self.tamper(headers)
        return httpx.Response(status, headers=headers, stream=httpx.ByteStream(text))

    @staticmethod
    def _check(request: httpx.Request, path: str, body: bytes) -> None:
        h = request.headers
        text = f"{request.method}\n{path}\n{h['card-timestamp']}\n{h['card-nonce']}\n".encode() + body + b"\n"
        assert h["card-signature"] == signature(SETTINGS.request_secret, text)
        assert (h["card-merchant"], h["card-key"]) == ("M1", "key_1")


def signed(body: bytes, nonce: str = "nonce-0001", *, begin: str = "", seconds: int = SECONDS) -> dict[str, str]:
    """The headers that the network signs an answer (``begin`` is its status) or a callback with."""
    text = f"{begin}{seconds}\n{nonce}\n".encode() + body + b"\n"
    return {
        "card-key": "key_1",
        "card-timestamp": str(seconds),
        "card-nonce": nonce,
        "card-signature": signature(SETTINGS.answer_secret, text),
    }


def callback(kind: str, data: Mapping[str, object], **changed: object) -> bytes:
    """The body of a callback."""
    told = {"id": "ev_1", "type": kind, "created": SECONDS, "merchant_id": "M1", "data": data, **changed}
    return json.dumps(told).encode()
