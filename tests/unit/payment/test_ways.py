"""Ways of the published graph that no other test goes: each is there because a provider can say it."""

from __future__ import annotations

import pytest

from services.payment import states
from services.payment.domain import Method
from services.payment.ports.provider import Callback, Verdict
from tests.fakes.provider import Play
from tests.unit.payment.test_lifecycle import AUTHORIZE, Shop, shop

__all__ = ["shop"]


def _told_of(shop: Shop, payment_no: str) -> Callback:
    """What the network tells of a charge as it stands."""
    return shop.bank.callback(payment_no)


def test_authorization_is_captured_when_the_network_says_so(shop: Shop) -> None:
    """Somebody took the money in the network's own console: it is booked, though nobody asked for it here."""
    made = shop.pay(11, Method.BANK_CARD, AUTHORIZE)
    shop.bank.capture(made.payment_no, "", made.amount)
    assert shop.hear(shop.bank, _told_of(shop, made.payment_no)) == [None]
    assert shop.history(made)[-2:] == [states.AUTHORIZED, states.SUCCESS]


def test_authorization_is_closed_when_the_network_lets_go_of_it(shop: Shop) -> None:
    """The issuer holds the money no longer, and the order is free."""
    made = shop.pay(11, Method.BANK_CARD, AUTHORIZE)
    shop.bank.void(made.payment_no, "")
    assert shop.hear(shop.bank, _told_of(shop, made.payment_no)) == [None]
    assert shop.history(made)[-2:] == [states.AUTHORIZED, states.CLOSED]
    assert not shop.of(11).live


@pytest.mark.parametrize(
    ("plays", "end"),
    [([Play.LOST_AFTER], states.AUTHORIZED), ([Play.LOST_BEFORE, Play.DECLINED], states.FAILED)],
)
def test_unknown_authorization_is_what_the_network_knows(shop: Shop, plays: list[Play], end: str) -> None:
    """Its answer was lost: the money is held; or it never arrived, and is declined when it does."""
    shop.bank.plays["charge"].extend(plays)
    made = shop.pay(11, Method.BANK_CARD, AUTHORIZE)
    shop.complete(until_ms=shop.clock.ms + 30_000)
    assert shop.history(made)[-2:] == [states.UNKNOWN, end]


def test_refunds_in_three_parts_are_partial_twice(shop: Shop) -> None:
    """The second part leaves a rest as well, and is told of as the first was."""
    paid = shop.pay(11, Method.BANK_CARD)
    for key in ("one", "two"):
        assert isinstance(shop.see_through(shop.change("refund", paid, 30, key)), bytes)
    assert shop.history(paid)[-2:] == [states.PARTIALLY_REFUNDED] * 2
    assert [topic for topic, *_ in shop.store.rows.events][-2:] == ["payment.refunded"] * 2


def test_unknown_refund_is_found_to_be_worked_on(shop: Shop) -> None:
    """The network did not know, and says when asked again that it is on its way."""
    paid = shop.pay(11, Method.BANK_CARD)
    shop.bank.plays["refund"].append(Play.WORKS)
    shop.see_through(shop.change("refund", paid, 60))
    [refund] = shop.store.rows.refunds.values()
    assert shop.store.rows.refunds[refund.id].status == states.REFUND_UNKNOWN
    shop.bank.returns[refund.refund_no].verdict = Verdict.PENDING
    shop.complete(until_ms=shop.clock.ms + 30_000)
    [refund] = shop.store.rows.refunds.values()
    assert refund.status == states.REFUND_PENDING
