"""The main job from outside: a person registers, orders, pays in one of four ways, is told, and gets the money back."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar

from services.cli.adapters import CallFailed, Rest, pay_in_sandbox, received

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

PATIENCE_S = 20.0
"""How long an effect of an event may take: the first message of a topic waits for its consumers to join."""
_LOOK_S = 0.05
_SKU = "tea-longjing-250g"
_PRICE = {"currency_code": "CNY", "minor_units": "12800"}
_TOP_UP = {"currency_code": "CNY", "minor_units": "50000"}
_CARD = {"card_number": "4242 4242 4242 4242", "expire_month": 12, "expire_year": 2034}
_WALLETS = {"alipay", "wechat"}
_PERSON = {
    "username": "li.na",
    "email": "li.na@example.com",
    "password": "correct horse battery staple",
    "phone": "+8613800138000",
}


def money(amount: dict[str, Any]) -> str:
    """Write an amount of a currency with two decimals for people."""
    return f"{int(amount['minor_units']) / 100:.2f} {amount['currency_code']}"


class Journey:
    """One walk through the API. ``steps`` are to be done in order: a title, and what says how it went or raises CallFailed."""

    def __init__(self, rest: Rest, sandbox: str, admin: dict[str, str], method: str) -> None:
        """Walk at ``rest`` as a person who pays by ``method``, and as the operator ``admin``."""
        self._rest, self._sandbox, self._admin, self._method = rest, sandbox, admin, method
        self._operator, self._person = "", ""
        self._user: dict[str, Any] = {}
        self._order: dict[str, Any] = {}
        self._payment: dict[str, Any] = {}
        self._answer = b""

    def steps(self) -> Iterator[tuple[str, Callable[[], str]]]:
        """Yield every step."""
        yield "operator logs in", self._operator_logs_in
        yield "operator sets the stock", self._set_stock
        yield "person registers", self._register
        yield "person logs in", self._log_in
        if self._method == "balance":
            yield "operator tops up the balance", self._top_up
        if self._method == "bank_card":
            yield "person saves a card", self._save_card
        yield "person orders", self._place_order
        yield f"person pays by {self._method}", self._pay
        yield "the same call again, same key", self._pay_again
        if self._method in _WALLETS:
            yield "payer scans the code and pays", self._payer_pays
            yield "provider calls back", self._paid
        yield "payment is read", self._read_payment
        yield "order becomes paid", lambda: self._order_becomes("STATUS_PAID")
        yield "e-mail arrives", self._mail_arrives
        yield "notification is read", self._read_notification
        yield "whole payment is refunded", self._refund
        if self._method == "balance":
            yield "balance is whole again", self._balance_is_whole
        else:
            yield "provider has given it back", self._given_back
        yield "order becomes refunded", lambda: self._order_becomes("STATUS_REFUNDED")
        yield "person logs out", self._log_out
        yield "the old token is refused", self._token_refused

    def _log_in_as(self, username: str, password: str) -> dict[str, Any]:
        return self._rest.call("POST", "/api/users/login", {"username": username, "password": password})

    def _operator_logs_in(self) -> str:
        session = self._log_in_as(**self._admin)["session"]
        self._operator = session["access_token"]
        return f"{len(session['scope'].split())} scopes"

    def _set_stock(self) -> str:
        body = {"name": "Longjing, 250 g", "unit_price": _PRICE, "available": "10"}
        stock = self._rest.call("PUT", f"/api/inventory/{_SKU}", body, token=self._operator)["stock"]
        return f"{stock['available']} of {stock['name']} at {money(stock['unit_price'])}"

    def _register(self) -> str:
        self._user = self._rest.call("POST", "/api/users/register", _PERSON, key="register-li-na")["user"]
        return f"user {self._user['id']}, {self._user['username']}"

    def _log_in(self) -> str:
        session = self._log_in_as(_PERSON["username"], _PERSON["password"])["session"]
        self._person = session["access_token"]
        return f"token for {session['expires_in']} s"

    def _top_up(self) -> str:
        path = f"/api/balances/{self._user['id']}/top-up"
        balance = self._rest.call("POST", path, {"amount": _TOP_UP}, token=self._operator, key="top-up-li-na-1")[
            "balance"
        ]
        _check(balance["amount"], _TOP_UP, "the balance")
        return f"balance {money(balance['amount'])}"

    def _place_order(self) -> str:
        body = {"items": [{"sku": _SKU, "quantity": 2}]}
        self._order = self._rest.call("POST", "/api/orders", body, token=self._person, key="order-li-na-1")["order"]
        _check(self._order["status"], "STATUS_PENDING", "the order's status")
        return f"order {self._order['order_no']}, {money(self._order['amount'])}"

    def _save_card(self) -> str:
        saved = self._rest.call("POST", "/api/payment-methods", _CARD, token=self._person)["payment_method"]
        return f"{saved['card']['brand']} {saved['card']['first6']}…{saved['card']['last4']}"

    def _pay(self) -> str:
        self._answer = self._pay_once()
        payment = self._payment
        wanted = "STATUS_PROCESSING" if self._method in _WALLETS else "STATUS_SUCCESS"
        _check(payment["status"], wanted, "the payment's status")
        _check(payment["amount"], self._order["amount"], "the amount paid")
        return f"payment {payment['payment_no']}, {money(payment['amount'])}"

    def _pay_once(self) -> bytes:
        amount, method = self._order["amount"], f"METHOD_{self._method.upper()}"
        body = {"order_id": self._order["id"], "method": method, "amount": amount}
        answer = self._rest.raw("POST", "/api/payments", body, token=self._person, key="pay-li-na-1")
        self._payment = answer.json()["payment"]
        return answer.content

    def _pay_again(self) -> str:
        _check(self._pay_once(), self._answer, "the repeated answer")
        if self._method != "balance":
            return f"same {len(self._answer)} bytes"
        balance = self._balance()
        left = int(_TOP_UP["minor_units"]) - int(self._order["amount"]["minor_units"])
        _check(int(balance["minor_units"]), left, "the balance after the repeat")
        return f"same {len(self._answer)} bytes; balance {money(balance)}, charged once"

    def _payer_pays(self) -> str:
        action = self._payment["next_action"]
        pay_in_sandbox(self._sandbox, self._method, self._payment["payment_no"], action)
        return str(action["qr_code"])

    def _paid(self) -> str:
        return self._payment_becomes("STATUS_SUCCESS")

    def _given_back(self) -> str:
        return self._payment_becomes("STATUS_REFUNDED")

    def _payment_becomes(self, status: str) -> str:
        def look() -> dict[str, Any] | None:
            found = self._rest.call("GET", f"/api/payments/{self._payment['id']}", token=self._person)["payment"]
            return dict(found) if found["status"] == status else None

        found = _eventually(look, f"the payment to become {status}")
        word = found["status"].removeprefix("STATUS_").lower()
        return f"{word}, {money(found['captured'])} taken, {money(found['refunded'])} given back"

    def _read_payment(self) -> str:
        payment = self._rest.call("GET", f"/api/payments/{self._payment['id']}", token=self._person)["payment"]
        _check(payment["status"], "STATUS_SUCCESS", "the payment's status")
        of_order = self._rest.call("GET", f"/api/payments/order/{self._order['id']}", token=self._person)["payments"]
        _check([each["id"] for each in of_order], [payment["id"]], "the payments of the order")
        return "success, the only one of its order"

    def _order_becomes(self, status: str) -> str:
        def look() -> dict[str, Any] | None:
            order = self._rest.call("GET", f"/api/orders/{self._order['id']}", token=self._person)["order"]
            return dict(order) if order["status"] == status else None

        order = _eventually(look, f"the order to become {status}")
        _check(order["payment_id"], self._payment["id"], "the payment of the order")
        return f"by the event of payment {self._payment['payment_no']}"

    def _mail_arrives(self) -> str:
        def look() -> dict[str, Any] | None:
            mails = received(self._sandbox, "mails", _PERSON["email"])
            return next((each for each in mails if self._order["order_no"] in each["subject"] + each["text"]), None)

        mail = _eventually(look, f"an e-mail to {_PERSON['email']} about order {self._order['order_no']}")
        return f"“{mail['subject']}”"

    def _read_notification(self) -> str:
        path = f"/api/notifications/user/{self._user['id']}"

        def look() -> dict[str, Any] | None:
            listed = self._rest.call("GET", path, token=self._person)["notifications"]
            sent = [
                each for each in listed if each["status"] == "STATUS_SENT" and self._order["order_no"] in each["text"]
            ]
            return next(iter(sent), None)

        found = _eventually(look, "a notification of the payment that was sent")
        one = self._rest.call("GET", f"/api/notifications/{found['id']}", token=self._person)["notification"]
        _check(one["status"], "STATUS_SENT", "the notification's status")
        return f"sent at try no. {one['attempts']}"

    def _refund(self) -> str:
        path = f"/api/payments/{self._payment['id']}/refund"
        answer = self._rest.call("POST", path, {"note": "changed my mind"}, token=self._person, key="refund-li-na-1")
        if self._method == "balance":  # providers take their time
            _check(answer["payment"]["status"], "STATUS_REFUNDED", "the payment's status")
        _check(answer["refund"]["amount"], self._order["amount"], "the amount given back")
        return f"refund {answer['refund']['refund_no']}, {money(answer['refund']['amount'])}"

    def _balance(self) -> dict[str, Any]:
        path = f"/api/balances/{self._user['id']}"
        return dict(self._rest.call("GET", path, token=self._person)["balance"]["amount"])

    def _balance_is_whole(self) -> str:
        balance = self._balance()
        _check(balance, _TOP_UP, "the balance")
        return f"balance {money(balance)}"

    def _log_out(self) -> str:
        self._rest.call("POST", "/api/users/logout", {}, token=self._person)
        return "session ended"

    def _token_refused(self) -> str:
        def look() -> bool:
            try:
                self._rest.call("GET", f"/api/users/{self._user['id']}", token=self._person, wanted=401)
            except CallFailed:
                return False
            return True

        _eventually(look, "the old token to be refused")
        return "401, though the token has not run out"


def _check(found: object, wanted: object, what: str) -> None:
    if found != wanted:
        raise CallFailed(f"{what} is {found!r}, not {wanted!r}")


def _eventually(look: Callable[[], T | None], what: str) -> T:
    """Look until there is something."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := look()):
        if time.monotonic() > deadline:
            raise CallFailed(f"waited {PATIENCE_S:g} s for {what}")
        time.sleep(_LOOK_S)
    return found
