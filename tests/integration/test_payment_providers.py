"""Providers that lie: every script of the sandbox ends in the right state, with exactly one charge in its own book."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from services.payment import audit, states
from services.payment.domain import Method
from tests.integration.payment_room import GOOD_CARD, Refused, Room, until

WALLETS = (Method.ALIPAY, Method.WECHAT)
METHODS = (*WALLETS, Method.BANK_CARD)

CHARGES: dict[str, tuple[dict[str, object], str, int]] = {
    "none": ({}, states.SUCCESS, 1),
    "decline": ({"do": "decline"}, states.FAILED, 0),
    "insufficient_funds": ({"do": "insufficient_funds"}, states.FAILED, 0),
    "slow": ({"do": "slow", "delay_ms": 400}, states.SUCCESS, 1),
    "hang": ({"do": "hang"}, states.SUCCESS, 1),
    "hang_after": ({"do": "hang_after"}, states.SUCCESS, 1),
    "drop": ({"do": "drop"}, states.SUCCESS, 1),
    "drop_before": ({"do": "drop_before"}, states.SUCCESS, 1),
    "error": ({"do": "error"}, states.SUCCESS, 1),
    "error_after": ({"do": "error_after"}, states.SUCCESS, 1),
    "forged_answer": ({"do": "forge", "forge": "signature"}, states.SUCCESS, 1),
    "fail_then_success": ({"do": "fail_then_success"}, states.REVIEW, 1),
}
"""What a provider does when it is asked for a charge -> the rule, where the payment comes to rest, charges in the book."""

CALLBACKS: dict[str, dict[str, object]] = {
    "duplicate": {"do": "duplicate", "count": 50},
    "lose": {"do": "lose", "times": 0},
    "late": {"do": "late", "delay_ms": 1000},
    "reorder": {"do": "reorder", "times": 2, "delay_ms": 500},
    "forged_first": {"do": "forge", "forge": "signature"},
    "forged_alone": {"do": "forge", "forge": "amount", "real": False, "times": 0},
}
"""What a provider does with its callbacks; the payment is a success each time, if need be by a query."""

CARDS = {
    GOOD_CARD: (states.SUCCESS, 1),
    "4000000000000002": (states.FAILED, 0),
    "4000000000009995": (states.FAILED, 0),
    "4000000000000119": (states.FAILED, 0),
    "4000002500003155": (states.SUCCESS, 1),
    "4000000000070013": (states.SUCCESS, 1),
    "4000000000070021": (states.SUCCESS, 1),
    "4000000000070039": (states.SUCCESS, 1),
    "4000000000070047": (states.SUCCESS, 1),
    "4000000000070054": (states.FAILED, 0),
    "4000000000070062": (states.SUCCESS, 1),
    "4000000000070070": (states.SUCCESS, 1),
    "4000000000070088": (states.FAILED, 0),
    "4000000000070096": (states.FAILED, 0),
    "4000000000070104": (states.FAILED, 0),
    "4000000000070112": (states.SUCCESS, 1),
    "4000000000070120": (states.SUCCESS, 1),
}
"""Test card -> where a payment by it comes to rest, charges in the book."""

FORGERIES = {
    Method.ALIPAY: ("signature", "amount", "seller", "app_id", "order", "sha1"),
    Method.WECHAT: (
        "signature", "amount", "seller", "app_id", "currency", "order", "timestamp", "probe", "serial", "tag",
    ),
    Method.BANK_CARD: ("signature", "amount", "seller", "currency", "order", "timestamp"),
}  # fmt: skip


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    """A room whose payers have all the time they need; at its end the books hold."""
    with Room(tmp_path_factory.mktemp("room")) as made:
        yield made


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", CHARGES)
def test_charge_comes_to_rest(room: Room, case: str, method: Method) -> None:
    """Whatever the provider does with the request, the payment ends where the money is, and it moved once at most."""
    rule, rests, charges = CHARGES[case]
    if method is Method.BANK_CARD and case == "fail_then_success":
        rests = states.SUCCESS  # the adapter asks at once about a failure that is not the card's
    with room.script(method, *([{"on": "charge", **rule}] if rule else [])):
        payment = room.begin(method)
        room.act(payment)
        until(lambda: room.read(payment.id).status == rests)
    book = room.charge(payment)
    assert (0 if book is None else book["times_charged"]) == charges


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", CALLBACKS)
def test_callback_has_one_effect(room: Room, case: str, method: Method) -> None:
    """Fifty times, late, lost, out of order or after a forged one: the payment is a success, once."""
    with room.script(method, {"on": "callback", **CALLBACKS[case]}):
        payment = room.begin(method)
        room.act(payment)
        assert room.rested(payment).status == states.SUCCESS
    book = room.charge(payment)
    assert book is not None
    assert book["times_charged"] == 1


@pytest.mark.parametrize(("method", "forgery"), [(method, each) for method, some in FORGERIES.items() for each in some])
def test_forged_callback_changes_nothing(room: Room, method: Method, forgery: str) -> None:
    """Not the provider's, or of another amount, seller or time: refused, one security event, and nothing has changed."""
    payment = room.begin(method)
    if method is Method.BANK_CARD:
        payment = room.rested(payment)
        until(lambda: any(each["taken"] for each in _deliveries(room, method, payment.payment_no)))
    before, events = room.read(payment.id), len(room.alarm.told)
    [told] = room.call_back(method, payment.payment_no, forge=forgery)
    assert not told["taken"], told
    assert room.alarm.told[events:] == [("security", "callback.refused")]
    assert room.read(payment.id).version == before.version


@pytest.mark.parametrize("number", CARDS)
def test_card_comes_to_rest(room: Room, number: str) -> None:
    """Each test card does what it is for, and no more than one charge of it is in the book."""
    rests, charges = CARDS[number]
    room.save_card(number)
    try:
        payment = room.begin(Method.BANK_CARD)
        room.act(payment)
        assert room.rested(payment).status == rests
    finally:
        room.save_card(GOOD_CARD)
    book = room.charge(payment)
    assert book is not None
    assert book["times_charged"] == charges


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("deed", ["none", "slow", "hang", "hang_after", "drop", "error", "error_after", "decline"])
def test_refund_comes_to_rest(room: Room, deed: str, method: Method) -> None:
    """Whatever the provider does with a refund, the money goes back once, or it is refused and can be asked for again."""
    payment = room.begin(method)
    room.act(payment)
    payment = room.rested(payment)
    rule = [] if deed == "none" else [{"on": "refund", "do": deed, "delay_ms": 300}]
    with room.script(method, *rule):
        if deed == "decline":
            with pytest.raises(Refused, match="PROVIDER_REFUSED"):
                room.refund(payment, 400)
        else:
            room.refund(payment, 400)
        until(lambda: room.read(payment.id).refunding == 0)
    given = 0 if deed == "decline" else 400
    assert room.read(payment.id).refunded == given
    book = room.charge(payment)
    assert book is not None
    assert book["refunded"] == given
    room.refund(payment, None)
    until(lambda: room.read(payment.id).status == states.REFUNDED)


def test_books_hold_after_all_of_it(room: Room) -> None:
    """After every script above the room's invariants hold, and nobody was charged twice."""
    with room.database.read() as connection:
        findings = list(audit.invariants(connection, room.clock.now_ms(), settled=False))
    breaches = [(each.invariant, each.what, each.breaches) for each in findings if each.breaches]
    published = [each for each in breaches if each[0] != "I7"]  # no relay runs here
    assert published == []


def _deliveries(room: Room, method: Method, number: str) -> list[dict[str, object]]:
    name = {"alipay": "alipay", "wechat": "wechat", "bank_card": "cards"}[method]
    found: list[dict[str, object]] = room.http.get(f"/callbacks/{name}", params={"request_id": number}).json()[
        "deliveries"
    ]
    return found


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    """A room whose payers have three seconds."""
    with Room(tmp_path_factory.mktemp("hasty"), pay_window_ms=3_000) as made:
        yield made


@pytest.mark.parametrize("method", METHODS)
def test_payment_is_closed_when_nobody_pays(hasty: Room, method: Method) -> None:
    """After the payer's time nothing was taken and the order is free for another payment."""
    if method is Method.BANK_CARD:
        hasty.save_card("4000002500003155")
    payment = hasty.begin(method)
    rested = hasty.rested(payment)
    assert rested.status in {states.CLOSED, states.FAILED}
    assert (rested.captured, rested.live) == (0, False)
    book = hasty.charge(payment)
    assert book is None or book["times_charged"] == 0
