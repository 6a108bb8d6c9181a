"""The other side of payments through providers: payers, scripts and the providers' own books, in the mesh's sandbox."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import httpx

from tests.e2e.clients import Person, Rest, Shop, some_key
from tests.e2e.mesh import until
from tests.e2e.refusals import Refused

PROVIDERS = {"alipay": "alipay", "wechat": "wechat", "bank_card": "cards"}
"""Method of payment -> the provider's name in the sandbox."""
GOOD_CARD = "4242424242424242"
OPEN = {"STATUS_PENDING", "STATUS_PROCESSING", "STATUS_UNKNOWN", "STATUS_AUTHORIZED"}
SETTLED_S = 45.0
"""Longer than the longest way of a payment to rest: a hung provider, its completer, the payer's time and its grace."""


class Sandbox:
    """The mesh's sandbox over HTTP."""

    def __init__(self, url: str) -> None:
        """Speak to the sandbox at ``url``."""
        self._http = httpx.Client(base_url=url, timeout=20, trust_env=False)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    @contextlib.contextmanager
    def script(self, method: str, *rules: Mapping[str, object], **options: object) -> Iterator[None]:
        """Have a provider misbehave for a while."""
        path = f"/scripts/{PROVIDERS[method]}"
        answer = self._http.put(path, json={"rules": list(rules), **options})
        assert answer.status_code == httpx.codes.OK, answer.text
        try:
            yield
        finally:
            self._http.put(path, json={"rules": []})

    def payer(self, method: str, request_id: str, deed: str, action: Mapping[str, str] | None = None) -> httpx.Response:
        """Let the payer act with what he was given."""
        return self._http.post(f"/payer/{PROVIDERS[method]}/{request_id}/{deed}", json=dict(action or {}))

    def call_back(self, method: str, request_id: str, **wanted: object) -> list[dict[str, Any]]:
        """Have the provider call back now; return what was answered."""
        answer = self._http.post(f"/callbacks/{PROVIDERS[method]}/{request_id}", json=wanted)
        assert answer.status_code == httpx.codes.OK, answer.text
        found: list[dict[str, Any]] = answer.json()["deliveries"]
        return found

    def deliveries(self, method: str) -> list[dict[str, Any]]:
        """Return every attempt of a provider to call back, and whether it was taken."""
        found: list[dict[str, Any]] = self._http.get(f"/callbacks/{PROVIDERS[method]}").json()["deliveries"]
        return found

    def charge(self, method: str, request_id: str) -> dict[str, Any] | None:
        """Return what stands in the provider's own book."""
        charges = self.book(method, request_id)
        return charges[0] if charges else None

    def book(self, method: str, request_id: str = "") -> list[dict[str, Any]]:
        """Return every charge of a provider's own book, or what is in it of one."""
        params = {"provider": PROVIDERS[method], "request_id": request_id}
        answer = self._http.get("/book", params=params).json()
        assert not answer["more"], "not all of the book is shown"
        charges: list[dict[str, Any]] = answer["charges"]
        return charges


class Till:
    """Pays orders of one person through providers."""

    def __init__(self, rest: Rest, shop: Shop, sandbox: Sandbox, who: Person, sku: str) -> None:
        """Pay for ``sku`` as ``who``."""
        self.rest, self.shop, self.sandbox, self.who, self.sku = rest, shop, sandbox, who, sku
        self._card = ""

    def save_card(self, number: str) -> None:
        """Keep a card and make it the default."""
        self._card = number
        body = {"card_number": number, "expire_month": 12, "expire_year": 2034, "make_default": True}
        self.rest.call("SavePaymentMethod", body, token=self.who.token)

    def begin(self, method: str, **more: object) -> dict[str, Any]:
        """Order, and ask for the payment; returns it as it then stands, whatever the answer was."""
        if method == "bank_card" and not self._card:
            self.save_card(GOOD_CARD)
        order = self.shop.order(self.who, self.sku)
        body = {"order_id": order["id"], "method": f"METHOD_{method.upper()}", **more}
        try:
            return dict(self.rest.call("CreatePayment", body, token=self.who.token, key=some_key())["payment"])
        except Refused as refused:
            if refused.refusal.reason != "PAYMENT_DECLINED":
                raise
        listed = self.rest.call("ListOrderPayments", {"order_id": order["id"]}, token=self.who.token)["payments"]
        return dict(listed[0])

    def read(self, payment: Mapping[str, Any]) -> dict[str, Any]:
        """Read a payment."""
        return dict(self.rest.call("GetPayment", {"id": payment["id"]}, token=self.who.token)["payment"])

    def act(self, method: str, payment: Mapping[str, Any], deed: str = "pay") -> None:
        """Let the payer act once he knows how; a charge that he need not act on is passed over."""
        seen: dict[str, Any] = dict(payment)

        def told() -> bool:
            seen.update(self.read(payment))
            return bool(seen.get("next_action")) or seen["status"] not in {"STATUS_PROCESSING", "STATUS_UNKNOWN"}

        until(told, SETTLED_S, every=0.1)
        if seen["status"] in OPEN and seen.get("next_action"):
            self.sandbox.payer(
                method, payment["payment_no"], deed, None if method == "bank_card" else seen["next_action"]
            )

    def rested(self, payment: Mapping[str, Any]) -> dict[str, Any]:
        """Wait until a payment is at rest."""
        seen: dict[str, Any] = {}

        def rests() -> bool:
            seen.update(self.read(payment))
            return seen["status"] not in OPEN

        until(rests, SETTLED_S, every=0.1)
        return seen
