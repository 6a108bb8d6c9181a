"""Payments through providers over the real edge: the payer acts, the provider calls back, the books agree.

How providers lie is tried in tests/integration/test_payment_providers.py; here is what only a whole mesh shows.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from tests.e2e.clients import People, Rest, Shop, some_key
from tests.e2e.mesh import Mesh, until
from tests.e2e.payers import Sandbox, Till
from tests.e2e.refusals import Refused

WALLETS = ("alipay", "wechat")
PAID = "STATUS_SUCCESS"


@pytest.fixture(scope="module")
def sandbox(mesh: Mesh) -> Iterator[Sandbox]:
    """The outside world."""
    made = Sandbox(mesh.record["sandbox"])
    yield made
    made.close()


@pytest.fixture(scope="module")
def till(rest: Rest, people: People, shop: Shop, sandbox: Sandbox) -> Till:
    """One person who pays."""
    sku = f"till-{uuid.uuid4().hex[:8]}"
    shop.stock(sku, price=1_000)
    return Till(rest, shop, sandbox, people.somebody(), sku)


@pytest.mark.parametrize("method", [*WALLETS, "bank_card"])
def test_payment_is_paid_and_refunded(till: Till, method: str) -> None:
    """The payer pays with what the answer gave him, the callback comes through the edge, order and refund follow."""
    payment = till.begin(method)
    till.act(method, payment)
    assert till.rested(payment)["status"] == PAID
    until(lambda: _order(till, payment)["status"] == "STATUS_PAID")
    till.rest.call("RefundPayment", {"id": payment["id"]}, token=till.who.token, key=some_key())
    until(lambda: till.read(payment)["status"] == "STATUS_REFUNDED")
    until(lambda: _order(till, payment)["status"] == "STATUS_REFUNDED")
    told = till.sandbox.call_back(method, payment["payment_no"], times=5)
    assert [each["taken"] for each in told] == [True] * 5
    book = till.sandbox.charge(method, payment["payment_no"])
    assert book is not None
    assert (book["times_charged"], book["refunded"]) == (1, 1_000)


@pytest.mark.parametrize("method", [*WALLETS, "bank_card"])
def test_forged_callback_is_refused(till: Till, mesh: Mesh, method: str) -> None:
    """One that does not verify is 401 at the edge, a line in the log, and nothing else."""
    payment = till.begin(method)
    before = till.read(payment)["status"]
    [told] = till.sandbox.call_back(method, payment["payment_no"], forge="signature")
    assert (told["taken"], told["status"]) == (False, 401)
    assert till.read(payment)["status"] == before
    assert any('"event":"security.callback.refused"' in mesh.log(f"payment-{number}") for number in (1, 2))
    till.act(method, payment)
    till.rested(payment)


@pytest.mark.parametrize("method", WALLETS)
def test_payment_is_closed_by_its_payer(till: Till, method: str) -> None:
    """Who wants to pay otherwise ends the first payment; a repeat with the key gets the same answer."""
    payment, key = till.begin(method), some_key()
    if method == "alipay":
        till.sandbox.payer(method, payment["payment_no"], "open", payment["next_action"])
    answers = [
        till.rest.call("ClosePayment", {"id": payment["id"]}, token=till.who.token, key=key)["payment"] for _ in "ab"
    ]
    assert answers[0] == answers[1]
    assert (answers[0]["status"], answers[0]["failure_reason"]) == ("STATUS_CLOSED", "PAYMENT_CANCELLED")


def test_card_is_authorized_captured_in_part_and_voided(till: Till, people: People) -> None:
    """A part is taken once, the rest let go of; another one is voided; what is captured cannot be voided."""
    operator = people.operator.token
    payment = till.begin("bank_card", authorize_only=True)
    assert payment["status"] == "STATUS_AUTHORIZED"
    body = {"id": payment["id"], "amount": {"currency_code": "CNY", "minor_units": "600"}}
    captured = till.rest.call("CapturePayment", body, token=operator, key=some_key())["payment"]
    assert (captured["status"], captured["captured"]["minor_units"]) == (PAID, "600")
    with pytest.raises(Refused, match="PAYMENT_STATUS_CONFLICT"):
        till.rest.call("VoidPayment", {"id": payment["id"]}, token=operator, key=some_key())
    until(lambda: _order(till, payment)["status"] == "STATUS_PAID")
    till.rest.call("RefundPayment", {"id": payment["id"]}, token=till.who.token, key=some_key())
    until(lambda: _order(till, payment)["status"] == "STATUS_REFUNDED")

    other = till.begin("bank_card", authorize_only=True)
    voided = till.rest.call("VoidPayment", {"id": other["id"]}, token=operator, key=some_key())["payment"]
    assert (voided["status"], voided["failure_reason"]) == ("STATUS_CLOSED", "PAYMENT_CANCELLED")
    book = till.sandbox.charge("bank_card", other["payment_no"])
    assert book is not None
    assert (book["state"], book["captured"]) == ("voided", 0)


def test_books_hold_after_all_of_it(mesh: Mesh) -> None:
    """What every provider did above, and what of it is in our books, agree."""
    until(lambda: mesh.verify("--settled")[0] == 0, 60, every=1)
    assert mesh.verify("--settled")[0] == 0


def _order(till: Till, payment: dict[str, str]) -> dict[str, str]:
    order: dict[str, str] = till.rest.call("GetOrder", {"id": payment["order_id"]}, token=till.who.token)["order"]
    return order
