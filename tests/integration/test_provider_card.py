"""The card adapter against the sandbox's network, over HTTP: every test card, every script, one charge in the book."""

from __future__ import annotations

import base64
import datetime as dt
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from services.kernel.clock import SystemClock
from services.kernel.money import Money
from services.payment.adapters.card import CardNetwork, CardSettings
from services.payment.adapters.vault import CardVault, MemoryCvvRelay
from services.payment.domain.card import Cvv, Expiry, Pan
from services.payment.ports.provider import (
    Charge,
    Charged,
    Phase,
    Refunded,
    Refunding,
    Verdict,
)
from tests.fakes.cards import FakeCards, FakeKeys
from tests.integration.provider_sandbox import ProviderSandbox, eventually
from tests.leaks import Leaks

OK = "4242424242424242"
TWELVE = Money("CNY", 1234)
READ_S = 0.7
DONE, REFUSED, PENDING, UNKNOWN = Verdict.DONE, Verdict.REFUSED, Verdict.PENDING, Verdict.UNKNOWN


class Shop:
    """A merchant: the adapter, its vault, and the network that it talks to."""

    def __init__(self, house: ProviderSandbox) -> None:
        self.house, self.clock = house, SystemClock()
        self.vault, self.cvvs = CardVault(FakeCards(), FakeKeys()), MemoryCvvRelay(self.clock)
        held = house.merchant
        settings = CardSettings(
            base_url=house.url,
            merchant_id=held["merchant_id"],
            key_id=held["key_id"],
            request_secret=base64.b64decode(held["request_secret"]),
            answer_secret=base64.b64decode(held["answer_secret"]),
            notify_url=house.notify_url,
            vault_merchant_id=1,
            return_url="https://shop.example/orders",
            read_s=READ_S,
        )
        self.cards = CardNetwork(settings, self.vault, self.cvvs, self.clock)
        house.provider = self.cards

    def order(self, number: str = OK, *, capture: bool = True, amount: Money = TWELVE, expire_s: int = 900) -> Charge:
        """A charge that was never made before."""
        year = dt.datetime.now(dt.UTC).year + 2
        token = self.vault.tokenize(1, Pan(number), Expiry(year, 6), self.clock.now_ms()).token
        request_id, expire_ms = f"P{secrets.token_hex(12)}", self.clock.now_ms() + expire_s * 1000
        return Charge(request_id, amount, "two books", "card", expire_ms, {"card_token": token}, capture=capture)

    def book(self, charge: Charge) -> dict[str, Any]:
        """What the network's own book says of a charge."""
        return self.house.charge(charge.request_id) or {"times_charged": 0}

    def rule(self, request_id: str, on: str, do: str, **more: object) -> None:
        """Have the network misbehave with one order."""
        rule = {"on": on, "do": do, "request_id": request_id, **more}
        answer = httpx.post(f"{self.house.url}/scripts/cards", json={"rules": [rule]})
        assert answer.status_code == 200, answer.text

    def told(self, request_id: str) -> Charged:
        """What the first notice about a charge says."""
        found = self.house.notice(request_id).charged
        assert found is not None
        return found

    def told_of_refund(self, request_id: str) -> Refunded:
        """What the first notice about a refund says."""
        found = self.house.notice(request_id).refunded
        assert found is not None
        return found


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A merchant at a sandbox whose half minutes last a third of a second."""
    with ProviderSandbox(tmp_path_factory.mktemp("providers") / "keys", "cards", 0.01) as house:
        made = Shop(house)
        yield made
        made.cards.stop()


def stands(found: Charged) -> tuple[Verdict, Phase | None, str]:
    """What counts of an outcome."""
    return found.verdict, found.phase, found.code


@pytest.mark.parametrize(
    ("number", "verdict", "phase", "code"),
    [
        (OK, DONE, Phase.CAPTURED, ""),
        ("5555555555554444", DONE, Phase.CAPTURED, ""),
        ("378282246310005", DONE, Phase.CAPTURED, ""),
        ("6200000000000005", DONE, Phase.CAPTURED, ""),
        ("4000000000000002", REFUSED, Phase.FAILED, "CARD_DECLINED"),
        ("4000000000009995", REFUSED, Phase.FAILED, "INSUFFICIENT_FUNDS"),
        ("4000000000000119", REFUSED, Phase.FAILED, "PROCESSING_ERROR"),
        ("4000000000070070", DONE, Phase.CAPTURED, ""),
        ("4000000000070120", DONE, Phase.CAPTURED, ""),
        ("4000000000070088", REFUSED, Phase.FAILED, "AUTHENTICATION_FAILED"),
        ("4000000000070096", REFUSED, Phase.FAILED, "AUTHENTICATION_UNAVAILABLE"),
        ("4000000000070104", REFUSED, Phase.FAILED, "AUTHENTICATION_REJECTED"),
    ],
)
def test_card_ends_as_its_number_says(shop: Shop, number: str, verdict: Verdict, phase: Phase, code: str) -> None:
    """At once, in a later query and in the callback alike; asked twice it is the same charge."""
    order = shop.order(number)
    done = shop.cards.charge(order)
    assert stands(done) == (verdict, phase, code)
    assert stands(shop.cards.query(order.request_id)) == stands(done)
    again = shop.cards.charge(order)
    assert (stands(again), again.provider_id) == (stands(done), done.provider_id)
    assert shop.book(order)["times_charged"] == (1 if verdict is DONE else 0)
    notice = shop.told(order.request_id)
    assert (stands(notice), notice.provider_id) == (stands(done), done.provider_id)


@pytest.mark.parametrize(
    ("deed", "verdict", "phase", "code"),
    [("pay", DONE, Phase.CAPTURED, ""), ("refuse", REFUSED, Phase.FAILED, "AUTHENTICATION_FAILED")],
)
def test_challenge_is_decided_by_the_payer(shop: Shop, deed: str, verdict: Verdict, phase: Phase, code: str) -> None:
    """He is sent to a URL; until he was there nothing is charged, afterwards a callback and a query tell."""
    order = shop.order("4000002500003155")
    asked = shop.cards.charge(order)
    assert (asked.verdict, asked.phase, list(asked.action)) == (PENDING, Phase.WAITING, ["challenge_url"])
    assert shop.cards.query(order.request_id).verdict is PENDING
    assert shop.book(order)["times_charged"] == 0
    assert asked.action["challenge_url"].startswith(shop.house.url)
    httpx.post(f"{shop.house.url}/payer/cards/{order.request_id}/{deed}")
    notice = shop.told(order.request_id)
    assert stands(notice) == stands(shop.cards.query(order.request_id)) == (verdict, phase, code)


def test_decoupled_challenge_has_no_url(shop: Shop) -> None:
    """The payer confirms elsewhere."""
    order = shop.order("4000000000070112", capture=False)
    asked = shop.cards.charge(order)
    assert (asked.verdict, dict(asked.action)) == (PENDING, {})
    shop.house.payer(order.request_id, "pay")
    assert stands(shop.cards.query(order.request_id)) == (DONE, Phase.AUTHORIZED, "")


def test_challenge_that_nobody_passes_is_closed_or_ends(shop: Shop) -> None:
    """Closed it cannot be passed any more; left alone it ends at the time that the charge names."""
    closed, left = shop.order("4000002500003155"), shop.order("4000002500003155", expire_s=2)
    for order in (closed, left):
        assert shop.cards.charge(order).verdict is PENDING
    assert stands(shop.cards.close(closed.request_id))[:2] == (DONE, Phase.CLOSED)
    assert httpx.post(f"{shop.house.url}/payer/cards/{closed.request_id}/pay").status_code == 409
    notice = shop.told(left.request_id)
    assert stands(notice) == (REFUSED, Phase.FAILED, "CHALLENGE_EXPIRED")
    assert stands(shop.cards.close(left.request_id))[:2] == (DONE, Phase.FAILED)


@pytest.mark.parametrize("number", ["4000000000070013", "4000000000070021"])
def test_charge_whose_answer_is_lost_is_unknown_until_asked(shop: Shop, number: str) -> None:
    """The socket drops or hangs after the charge: a query finds it, and a repeat charges nothing."""
    order = shop.order(number)
    assert shop.cards.charge(order).verdict is UNKNOWN
    assert stands(shop.cards.query(order.request_id)) == (DONE, Phase.CAPTURED, "")
    assert shop.cards.charge(order).verdict is DONE
    assert shop.book(order)["times_charged"] == 1


@pytest.mark.parametrize(
    ("number", "verdict", "phase"),
    [("4000000000070047", DONE, Phase.CAPTURED), ("4000000000070054", REFUSED, Phase.FAILED)],
)
def test_late_outcome_is_unknown_until_it_comes(shop: Shop, number: str, verdict: Verdict, phase: Phase) -> None:
    """While the network works on it nobody can tell."""
    order = shop.order(number)
    assert stands(shop.cards.charge(order))[:2] == (UNKNOWN, Phase.WAITING)
    notice = shop.told(order.request_id)
    assert stands(notice)[:2] == stands(shop.cards.query(order.request_id))[:2] == (verdict, phase)


def test_failure_that_was_none_is_not_shown(shop: Shop) -> None:
    """The network says processing error and charges nevertheless: asked at once, it says captured."""
    order = shop.order("4000000000070062")
    assert stands(shop.cards.charge(order)) == (DONE, Phase.CAPTURED, "")
    notice = shop.told(order.request_id)
    assert notice.verdict is DONE
    assert shop.book(order)["times_charged"] == 1


def test_fifty_callbacks_are_one_notice(shop: Shop) -> None:
    """All verify, and all bear one id."""
    order = shop.order("4000000000070039")
    shop.cards.charge(order)
    found = [shop.house.notice(order.request_id, nth) for nth in range(50)]
    assert len({notice.notice_id for notice in found}) == 1


def test_authorization_is_captured_once_in_part(shop: Shop) -> None:
    """The same again is the same capture; another amount, more than was held, or a void comes too late."""
    order = shop.order(capture=False)
    held = shop.cards.charge(order)
    assert stands(held) == (DONE, Phase.AUTHORIZED, "")
    more = shop.cards.capture(order.request_id, held.provider_id, Money("CNY", 1235))
    assert stands(more) == (REFUSED, Phase.AUTHORIZED, "AMOUNT_TOO_LARGE")
    part = Money("CNY", 1000)
    for _ in range(2):
        taken = shop.cards.capture(order.request_id, held.provider_id, part)
        assert (stands(taken), taken.amount) == ((DONE, Phase.CAPTURED, ""), part)
    other = shop.cards.capture(order.request_id, held.provider_id, Money("CNY", 999))
    assert (stands(other), other.amount) == ((REFUSED, Phase.CAPTURED, "ALREADY_CAPTURED"), part)
    late = shop.cards.void(order.request_id, held.provider_id)
    assert stands(late) == (REFUSED, Phase.CAPTURED, "NOT_AUTHORIZED")
    assert stands(shop.cards.close(order.request_id)) == (REFUSED, Phase.CAPTURED, "not_closable")
    book = shop.book(order)
    assert (book["captured"], book["times_charged"]) == (1000, 1)


def test_authorization_is_let_go_of(shop: Shop) -> None:
    """Voided twice it is voided; then it cannot be captured."""
    order = shop.order(capture=False)
    held = shop.cards.charge(order)
    for _ in range(2):
        assert stands(shop.cards.void(order.request_id, held.provider_id)) == (DONE, Phase.CLOSED, "")
    assert stands(shop.cards.query(order.request_id))[:2] == (REFUSED, Phase.CLOSED)
    late = shop.cards.capture(order.request_id, held.provider_id, TWELVE)
    assert stands(late) == (REFUSED, Phase.CLOSED, "NOT_AUTHORIZED")


def test_capture_and_void_at_once_end_in_one_of_them(shop: Shop) -> None:
    """One is done, the other is refused, and the query agrees with the one that was done."""
    for _ in range(5):
        order = shop.order(capture=False)
        held = shop.cards.charge(order)
        with ThreadPoolExecutor(2) as pool:
            captured = pool.submit(shop.cards.capture, order.request_id, held.provider_id, TWELVE)
            voided = pool.submit(shop.cards.void, order.request_id, held.provider_id)
        outcomes = {captured.result().verdict, voided.result().verdict}
        assert outcomes == {DONE, REFUSED}
        expected = Phase.CAPTURED if captured.result().verdict is DONE else Phase.CLOSED
        assert shop.cards.query(order.request_id).phase is expected


def test_many_at_once_charge_once(shop: Shop) -> None:
    """Twenty requests with one number are one charge."""
    order = shop.order()
    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(lambda _: shop.cards.charge(order), range(20)))
    assert {each.verdict for each in found} == {DONE}
    assert len({each.provider_id for each in found}) == 1
    assert shop.book(order)["times_charged"] == 1


def refunding(order: Charge, charged: Charged, minor_units: int) -> Refunding:
    """A refund that was never made before."""
    amount = Money(order.amount.currency_code, minor_units)
    return Refunding(
        f"R{secrets.token_hex(12)}", order.request_id, charged.provider_id, amount, order.amount, "worn out"
    )


def test_refunds_give_back_what_was_taken_and_no_more(shop: Shop) -> None:
    """In parts; the same number is the same refund; what is not known yet is unknown."""
    order = shop.order()
    charged = shop.cards.charge(order)
    first, second, over = (refunding(order, charged, n) for n in (1000, 234, 1))
    absent = shop.cards.query_refund(first)
    assert (absent.verdict, absent.code) == (UNKNOWN, "absent")
    for _ in range(2):
        done = shop.cards.refund(first)
        assert (done.verdict, done.amount) == (DONE, first.amount)
    assert shop.cards.query(order.request_id).phase is Phase.CAPTURED
    assert shop.cards.refund(second).verdict is DONE
    refused = shop.cards.refund(over)
    assert (refused.verdict, refused.code) == (REFUSED, "AMOUNT_TOO_LARGE")
    assert shop.cards.query(order.request_id).phase is Phase.REFUNDED
    assert shop.cards.query_refund(second).verdict is DONE
    assert shop.book(order)["refunded"] == 1234
    notice = shop.told_of_refund(second.request_id)
    assert (notice.verdict, notice.amount) == (DONE, second.amount)


def test_two_refunds_at_once_stay_below_what_was_taken(shop: Shop) -> None:
    """Sixty and sixty of a hundred: one is refused."""
    order = shop.order(amount=Money("JPY", 100))
    charged = shop.cards.charge(order)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(shop.cards.refund, [refunding(order, charged, 60) for _ in range(2)]))
    assert {each.verdict for each in found} == {DONE, REFUSED}
    assert shop.book(order)["refunded"] == 60


@pytest.mark.parametrize(
    ("do", "more", "done"),
    [
        ("slow", {"delay_ms": 1500}, True),
        ("hang", {}, False),
        ("hang_after", {}, True),
        ("drop_before", {}, False),
        ("drop", {}, True),
        ("error", {}, False),
        ("error_after", {}, True),
        ("forge", {"forge": "signature"}, True),
        ("forge", {"forge": "unsigned"}, True),
        ("forge", {"forge": "timestamp"}, True),
        ("forge", {"forge": "nonce"}, True),
        ("forge", {"forge": "amount"}, True),
        ("forge", {"forge": "order"}, True),
    ],
)
def test_trouble_with_a_charge_is_unknown_and_one_charge_in_the_end(
    shop: Shop, do: str, more: dict[str, object], *, done: bool
) -> None:
    """Whatever happens to the answer: a query says how it stands, and a repeat charges once."""
    order = shop.order()
    shop.rule(order.request_id, "charge", do, **more)
    assert shop.cards.charge(order).verdict is UNKNOWN
    if do == "slow":
        time.sleep(1)
    found = shop.cards.query(order.request_id)
    assert found.phase is (Phase.CAPTURED if done else Phase.ABSENT)
    assert shop.cards.charge(order).verdict is DONE
    assert shop.book(order)["times_charged"] == 1


@pytest.mark.parametrize("do", ["hang_after", "drop", "error_after", "error", "drop_before"])
def test_trouble_with_a_capture_a_void_or_a_refund_is_unknown(shop: Shop, do: str) -> None:
    """And the same request again ends it, once."""
    captured, voided = shop.order(capture=False), shop.order(capture=False)
    first, second = shop.cards.charge(captured), shop.cards.charge(voided)
    shop.rule(captured.request_id, "capture", do)
    shop.rule(voided.request_id, "void", do)
    assert shop.cards.capture(captured.request_id, first.provider_id, TWELVE).verdict is UNKNOWN
    assert shop.cards.void(voided.request_id, second.provider_id).verdict is UNKNOWN
    assert shop.cards.capture(captured.request_id, first.provider_id, TWELVE).verdict is DONE
    assert shop.cards.void(voided.request_id, second.provider_id).verdict is DONE
    back = refunding(captured, first, 1234)
    shop.rule(back.request_id, "refund", do)
    assert shop.cards.refund(back).verdict is UNKNOWN
    assert shop.cards.refund(back).verdict is DONE
    assert shop.book(captured)["refunded"] == 1234


@pytest.mark.parametrize("do", ["decline", "insufficient_funds"])
def test_refusal_of_a_refund_or_capture_leaves_things_as_they_were(shop: Shop, do: str) -> None:
    """The network's word is told, and nothing happened."""
    order = shop.order(capture=False)
    held = shop.cards.charge(order)
    shop.rule(order.request_id, "capture", do)
    refused = shop.cards.capture(order.request_id, held.provider_id, TWELVE)
    assert (refused.verdict, refused.phase) == (REFUSED, Phase.AUTHORIZED)
    shop.cards.capture(order.request_id, held.provider_id, TWELVE)
    back = refunding(order, held, 34)
    shop.rule(back.request_id, "refund", do)
    assert shop.cards.refund(back).verdict is REFUSED
    assert shop.book(order)["refunded"] == 0


def test_refund_that_fails_is_refused(shop: Shop) -> None:
    """Now, in a query, and in the callback."""
    order = shop.order()
    back = refunding(order, shop.cards.charge(order), 34)
    shop.rule(back.request_id, "refund", "abnormal")
    assert shop.cards.refund(back).verdict is shop.cards.query_refund(back).verdict is REFUSED
    notice = shop.told_of_refund(back.request_id)
    assert notice.verdict is REFUSED


def test_refusal_by_script_is_the_cards(shop: Shop) -> None:
    """A card that is fine is declined when the issuer says so."""
    for do, code in (("decline", "CARD_DECLINED"), ("insufficient_funds", "INSUFFICIENT_FUNDS")):
        order = shop.order()
        shop.rule(order.request_id, "charge", do)
        assert stands(shop.cards.charge(order)) == (REFUSED, Phase.FAILED, code)


def test_failure_then_success_is_one_charge(shop: Shop) -> None:
    """What was answered as failed and charged nevertheless is found at once, or told by the callback."""
    order = shop.order()
    shop.rule(order.request_id, "charge", "fail_then_success")
    shop.cards.charge(order)
    notice = shop.told(order.request_id)
    assert notice.verdict is shop.cards.query(order.request_id).verdict is DONE
    assert shop.book(order)["times_charged"] == 1


@pytest.mark.parametrize("forge", ["signature", "seller", "timestamp"])
def test_forged_callback_is_refused(shop: Shop, forge: str) -> None:
    """A wrong signature, another merchant's, one that is an hour old."""
    order = shop.order()
    shop.cards.charge(order)
    assert shop.told(order.request_id).verdict is DONE
    shop.house.told.clear()
    [delivery] = shop.house.call_back(order.request_id, forge=forge)
    assert (delivery["status"], delivery["taken"]) == (500, False)
    [why] = shop.house.told
    assert isinstance(why, str)


@pytest.mark.parametrize(("forge", "amount"), [("amount", Money("CNY", 1235)), ("currency", Money("USD", 1234))])
def test_callback_with_another_amount_says_so(shop: Shop, forge: str, amount: Money) -> None:
    """Rightly signed with a wrong amount: it verifies, and what it says is there to be compared with what was asked."""
    order = shop.order()
    shop.cards.charge(order)
    assert shop.told(order.request_id).verdict is DONE
    shop.house.call_back(order.request_id, forge=forge)
    forged = shop.house.notice(order.request_id, 1).charged
    assert forged is not None
    assert forged.amount == amount


def test_callback_is_repeated_until_it_is_taken(shop: Shop) -> None:
    """Lost twice on the way, it comes with the same id."""
    order = shop.order()
    shop.rule(order.request_id, "callback", "lose", times=2)
    shop.cards.charge(order)
    assert stands(shop.told(order.request_id)) == (DONE, Phase.CAPTURED, "")
    assert eventually(lambda: len(shop.house.deliveries(order.request_id)) == 3)
    assert [each["taken"] for each in shop.house.deliveries(order.request_id)] == [False, False, True]


def test_bill_matches_the_book(shop: Shop) -> None:
    """Each charge and refund of the day stands in it once, with what the network keeps."""
    order = shop.order(amount=Money("CNY", 10_000))
    charged = shop.cards.charge(order)
    back = refunding(order, charged, 2_000)
    shop.cards.refund(back)
    today = dt.datetime.now(dt.UTC).date().isoformat()
    assert shop.cards.fetch_bill(today) is None
    shop.house.script(bill_today=True)
    bill = shop.cards.fetch_bill(today)
    shop.house.script()
    assert bill is not None
    lines = {line.request_id: line for line in bill.lines}
    assert len(lines) == len(bill.lines)
    charge, refund = lines[order.request_id], lines[back.request_id]
    assert (charge.kind, charge.amount, charge.fee, charge.provider_id) == (
        "charge", order.amount, 100, charged.provider_id,
    )  # fmt: skip
    assert (refund.kind, refund.amount, refund.fee) == ("refund", back.amount, -20)
    assert refund.charge_request_id == order.request_id
    assert shop.cards.fetch_bill("2020-01-01") is None


def test_no_number_is_left_anywhere(shop: Shop) -> None:
    """Neither in the network's folder nor in what it called back."""
    order = shop.order()
    shop.cvvs.put(order.request_id, Cvv("815"))
    assert shop.cards.charge(order).verdict is DONE
    assert shop.told(order.request_id).verdict is DONE
    leaks = Leaks([OK, "4000002500003155", "4000000000070013"])
    assert leaks.in_files(shop.house.folder) == []
    assert leaks.in_text(*shop.house.told, shop.cards, order, shop.book(order)) == []
