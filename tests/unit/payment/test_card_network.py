"""The card adapter against a network that says anything: what is shown as refused was refused, the rest is unknown."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kernel.money import Money
from services.payment.adapters.card import CardNetwork, CardSettings
from services.payment.adapters.vault import CardVault, MemoryCvvRelay
from services.payment.domain.card import Cvv, Expiry, Pan
from services.payment.ports.provider import (
    Callback,
    CallbackForged,
    Charge,
    Charged,
    Notice,
    Phase,
    Refunded,
    Refunding,
    Verdict,
)
from tests.fakes.card_network import (
    SECONDS,
    SETTINGS,
    FakeNetwork,
    callback,
    charge_body,
    error_body,
    refund_body,
    signed,
)
from tests.fakes.cards import FakeCards, FakeKeys
from tests.fakes.order import FakeClock

NOW = SECONDS * 1000
NUMBER = "4242424242424242"
CHARGES = "POST /cards/v1/charges"
CHARGE = "GET /cards/v1/charges/P1"
CAPTURE = "POST /cards/v1/charges/P1/capture"
VOID = "POST /cards/v1/charges/P1/void"
REFUNDING = Refunding("R1", "P1", "ch_1", Money("CNY", 200), Money("CNY", 1234), "broken")


class Shop:
    """The adapter with its vault, and the network that it talks to."""

    def __init__(self, *, accept_unavailable: bool = False) -> None:
        self.network, clock = FakeNetwork(), FakeClock(NOW)
        self.cvvs, self.vault = MemoryCvvRelay(clock), CardVault(FakeCards(), FakeKeys())
        self.token = self.vault.tokenize(1, Pan(NUMBER), Expiry(2028, 6), NOW).token
        settings = dataclasses.replace(SETTINGS, accept_unavailable=accept_unavailable)
        self.cards = CardNetwork(settings, self.vault, self.cvvs, clock, self.network)

    def order(self, scene: str = "card", payer: Mapping[str, str] | None = None) -> Charge:
        """A charge of 12.34 CNY."""
        payer = {"card_token": self.token} if payer is None else payer
        return Charge("P1", Money("CNY", 1234), "two\nbooks", scene, NOW + 900_000, payer)

    def everything(self) -> list[Charged | Refunded]:
        """Every question to the network, once."""
        cards = self.cards
        charged = [cards.charge(self.order()), cards.query("P1"), cards.capture("P1", "ch_1", Money("CNY", 1))]
        charged += [cards.void("P1", "ch_1"), cards.close("P1")]
        return [*charged, cards.refund(REFUNDING), cards.query_refund(REFUNDING)]


@pytest.fixture
def shop() -> Shop:
    """An adapter and its network."""
    return Shop()


def test_charge_sends_the_card_and_the_verification_value_once(shop: Shop) -> None:
    """The number comes from the vault, the value goes along with the first request alone, text stands in one line."""
    shop.network.put(CHARGES, (200, charge_body()))
    shop.cvvs.put("P1", Cvv("123"))
    done = shop.cards.charge(shop.order())
    assert (done.verdict, done.phase, done.provider_id) == (Verdict.DONE, Phase.CAPTURED, "ch_1")
    assert (done.amount, done.at_ms, done.action) == (Money("CNY", 1234), NOW, {})
    again = shop.cards.charge(shop.order())
    assert again == done
    first, second = (content for _, content in shop.network.asked)
    assert first["card"] == {"number": NUMBER, "exp_month": 6, "exp_year": 2028, "cvc": "123"}
    assert second["card"] == {"number": NUMBER, "exp_month": 6, "exp_year": 2028}
    assert (first["capture"], first["description"], first["expire_at"]) == (True, "two books", SECONDS + 900)
    assert first["amount"] == {"minor_units": 1234, "currency": "CNY"}


def test_decline_is_refused_with_the_networks_word(shop: Shop) -> None:
    """In upper case, as a provider's words are."""
    shop.network.put(CHARGES, (200, charge_body(status="failed", captured=0, code="card_declined")))
    done = shop.cards.charge(shop.order())
    assert (done.verdict, done.phase, done.code) == (Verdict.REFUSED, Phase.FAILED, "CARD_DECLINED")
    assert len(shop.network.asked) == 1


@pytest.mark.parametrize(
    ("stands", "verdict", "phase"),
    [
        (charge_body(), Verdict.DONE, Phase.CAPTURED),
        (charge_body(status="failed", captured=0, code="processing_error"), Verdict.REFUSED, Phase.FAILED),
    ],
)
def test_fault_of_the_network_is_asked_about(shop: Shop, stands: object, verdict: Verdict, phase: Phase) -> None:
    """A processing error is not the card's: what a query says counts."""
    shop.network.put(CHARGES, (200, charge_body(status="failed", captured=0, code="processing_error")))
    shop.network.put(CHARGE, (200, stands))
    done = shop.cards.charge(shop.order())
    assert (done.verdict, done.phase) == (verdict, phase)


@pytest.mark.parametrize(
    ("changed", "verdict", "phase", "action"),
    [
        ({"trans_status": "C", "challenge_url": "https://acs.example/c/1"}, Verdict.PENDING, Phase.WAITING, True),
        ({"trans_status": "D"}, Verdict.PENDING, Phase.WAITING, False),
        ({"trans_status": "Y"}, Verdict.UNKNOWN, None, False),  # a challenge that nobody asked for
        ({"trans_status": "C", "challenge_url": "http://evil.example/"}, Verdict.UNKNOWN, None, False),
        ({"trans_status": "C", "challenge_url": "javascript:alert(1)"}, Verdict.UNKNOWN, None, False),
        ({"status": "processing"}, Verdict.UNKNOWN, Phase.WAITING, False),
    ],
)
def test_challenge_waits_for_the_payer(
    shop: Shop, changed: dict[str, object], verdict: Verdict, phase: Phase | None, *, action: bool
) -> None:
    """With a URL to send him to, or none when he confirms elsewhere; what the network works on is unknown to everyone."""
    shop.network.put(CHARGES, (200, charge_body(**{"status": "challenge", "captured": 0, **changed})))
    done = shop.cards.charge(shop.order())
    assert (done.verdict, done.phase, bool(done.action)) == (verdict, phase, action)
    if action:
        assert done.action == {"challenge_url": "https://acs.example/c/1"}


@pytest.mark.parametrize("status", ["captured", "authorized"])
@pytest.mark.parametrize(
    ("word", "verdict"),
    [
        ("", Verdict.DONE),
        ("Y", Verdict.DONE),
        ("A", Verdict.DONE),
        ("I", Verdict.DONE),
        ("N", Verdict.UNKNOWN),
        ("R", Verdict.UNKNOWN),
        ("U", Verdict.UNKNOWN),
        ("C", Verdict.UNKNOWN),
        ("D", Verdict.UNKNOWN),
        ("X", Verdict.UNKNOWN),
        ("y", Verdict.UNKNOWN),
    ],
)
def test_money_taken_counts_where_the_payer_was_authenticated(
    shop: Shop, status: str, word: str, verdict: Verdict
) -> None:
    """Taken although 3-D Secure refused is a contradiction: neither paid nor refused."""
    captured = 1234 if status == "captured" else 0
    shop.network.put(CHARGES, (200, charge_body(status=status, captured=captured, trans_status=word)))
    assert shop.cards.charge(shop.order()).verdict is verdict


@pytest.mark.parametrize("word", list("NRU"))
def test_refusal_of_three_d_secure_is_a_refusal(shop: Shop, word: str) -> None:
    """Not authenticated, rejected, could not: the network says failed."""
    code = {"N": "authentication_failed", "R": "authentication_rejected", "U": "authentication_unavailable"}[word]
    shop.network.put(CHARGES, (200, charge_body(status="failed", captured=0, trans_status=word, code=code)))
    done = shop.cards.charge(shop.order())
    assert (done.verdict, done.code) == (Verdict.REFUSED, code.upper())


def test_unavailable_authentication_counts_where_the_setting_says_so() -> None:
    """The merchant is liable for it then."""
    shop = Shop(accept_unavailable=True)
    shop.network.put(CHARGES, (200, charge_body(trans_status="U")))
    assert shop.cards.charge(shop.order()).verdict is Verdict.DONE
    shop.network.put(CHARGES, (200, charge_body(trans_status="R")))
    assert shop.cards.charge(shop.order()).verdict is Verdict.UNKNOWN


WRONG_CHARGES: list[object] = [
    charge_body(request_id="P2"),
    charge_body(amount={"minor_units": 1235, "currency": "CNY"}),
    charge_body(amount={"minor_units": 1234, "currency": "JPY"}),
    charge_body(amount={"minor_units": 1234, "currency": "XAU"}),
    charge_body(amount={"minor_units": 12.34, "currency": "CNY"}),
    charge_body(amount={"minor_units": "1234", "currency": "CNY"}),
    charge_body(amount={"minor_units": 2**53, "currency": "CNY"}, captured=2**53),
    charge_body(amount={"minor_units": True, "currency": "CNY"}),
    charge_body(amount={}),
    charge_body(captured=0),
    charge_body(captured=1235),
    charge_body(captured=-1),
    charge_body(refunded=1235),
    charge_body(refunded=-1),
    charge_body(status="authorized"),
    charge_body(status="failed", code="card_declined"),
    charge_body(status="paid"),
    charge_body(status=1),
    charge_body(charge_id=""),
    charge_body(status="failed", captured=0, code="no code at all"),
    charge_body(updated="now"),
    b"",
    b"null",
    b"[]",
    b"{}",
    b"<html>",
    b"\xff\xfe",
    b'{"request_id": "P1", "request_id": "P1"}',
    b'{"request_id": NaN}',
    b"[" * 100_000,
]


@pytest.mark.parametrize("content", WRONG_CHARGES, ids=lambda c: json.dumps(c)[-40:] if isinstance(c, dict) else None)
def test_answer_that_makes_no_sense_is_unknown(shop: Shop, content: object) -> None:
    """Signed or not: another charge, another amount, sums that do not fit, what is no JSON."""
    shop.network.put(CHARGES, (200, content))
    done = shop.cards.charge(shop.order())
    assert (done.verdict, done.phase) == (Verdict.UNKNOWN, None)


@pytest.mark.parametrize(
    "tamper",
    [
        lambda headers: headers.pop("card-signature"),
        lambda headers: headers.update({"card-signature": headers["card-signature"].swapcase()}),
        lambda headers: headers.update({"card-signature": ""}),
        lambda headers: headers.update({"card-nonce": "another-nonce"}),
        lambda headers: headers.update({"card-timestamp": str(SECONDS + 1)}),
        lambda headers: headers.pop("card-timestamp"),
    ],
)
@pytest.mark.parametrize("answer", [(200, charge_body()), (200, charge_body(status="failed", captured=0)), (400, {})])
def test_answer_that_does_not_verify_is_unknown(
    shop: Shop, tamper: Callable[[dict[str, str]], object], answer: tuple[int, object]
) -> None:
    """Whatever it says: also a refusal must be the network's own."""
    shop.network.put(CHARGES, answer)
    shop.network.tamper = tamper
    assert shop.cards.charge(shop.order()).verdict is Verdict.UNKNOWN
    assert shop.cards.query("P1").verdict is Verdict.UNKNOWN
    assert shop.cards.query("P1").phase is None
    assert shop.cards.refund(REFUNDING).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize("seconds", [-300, 300])
def test_old_answer_is_unknown(shop: Shop, seconds: int) -> None:
    """Five minutes either way."""
    body = json.dumps(charge_body()).encode()
    shop.network.put(CHARGE, (200, body))
    shop.network.tamper = lambda headers: headers.update(
        signed(body, headers["card-nonce"], begin="200\n", seconds=SECONDS + seconds)
    )
    assert shop.cards.query("P1").verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("fault", "word"),
    [
        (httpx.ConnectError("refused"), "unreached"),
        (httpx.ReadTimeout("slow"), "timeout"),
        (httpx.ReadError("reset"), "broken"),
        (httpx.RemoteProtocolError("dropped"), "broken"),
    ],
)
def test_no_answer_is_unknown(shop: Shop, fault: Exception, word: str) -> None:
    """To every question, and none raises."""
    shop.network.broken = fault
    asked = shop.everything()
    assert {(outcome.verdict, outcome.code) for outcome in asked} == {(Verdict.UNKNOWN, word)}
    assert shop.cards.fetch_bill("2026-11-22") is None


@pytest.mark.parametrize("status", [401, 403, 429, 500, 502, 503, 302])
def test_status_that_decides_nothing_is_unknown(shop: Shop, status: int) -> None:
    """Only 200, 400, 402, 404 and 409 say what became of a request."""
    for path in (CHARGES, CHARGE, CAPTURE, VOID, "POST /cards/v1/refunds", "GET /cards/v1/refunds/R1"):
        shop.network.put(path, (status, error_body("internal_error")))
    asked = shop.everything()
    assert {outcome.verdict for outcome in asked} == {Verdict.UNKNOWN}


def test_invalid_request_is_refused_unless_an_earlier_one_was_taken(shop: Shop) -> None:
    """A repeat may come with a card that has expired meanwhile: the charge of the first try stands."""
    shop.network.put(CHARGES, (400, error_body("invalid_expiry")))
    done = shop.cards.charge(shop.order())
    assert (done.verdict, done.phase, done.code) == (Verdict.REFUSED, Phase.ABSENT, "INVALID_EXPIRY")
    shop.network.put(CHARGE, (200, charge_body()))
    assert shop.cards.charge(shop.order()).verdict is Verdict.DONE
    shop.network.put(CHARGE, (503, {}))
    assert shop.cards.charge(shop.order()).verdict is Verdict.UNKNOWN


def test_card_that_the_vault_does_not_have_is_refused_unsent(shop: Shop) -> None:
    """Of another merchant, or removed; unless an earlier try was charged."""
    for payer in ({"card_token": "card_x"}, {}):
        done = shop.cards.charge(shop.order(payer=payer))
        assert (done.verdict, done.code) == (Verdict.REFUSED, "card_unknown")
    assert {what for what, _ in shop.network.asked} == {CHARGE}
    shop.network.put(CHARGE, (200, charge_body()))
    shop.vault.forget(1, shop.token)
    assert shop.cards.charge(shop.order()).verdict is Verdict.DONE


def test_vault_that_does_not_open_leaves_the_outcome_unknown(shop: Shop) -> None:
    """Nothing is sent, and nothing is shown as refused."""
    clock = FakeClock(NOW)
    store = FakeCards()
    token = CardVault(store, FakeKeys()).tokenize(1, Pan(NUMBER), Expiry(2028, 6), NOW).token
    cards = CardNetwork(SETTINGS, CardVault(store, FakeKeys()), shop.cvvs, clock, shop.network)
    done = cards.charge(shop.order(payer={"card_token": token}))
    assert (done.verdict, done.code) == (Verdict.UNKNOWN, "vault_unusable")
    assert shop.network.asked == []


def test_conflict_is_unknown(shop: Shop) -> None:
    """Our id with other content is a fault of ours: nobody may take it for a refusal."""
    shop.network.put(CHARGES, (409, error_body("request_conflict")))
    shop.network.put("POST /cards/v1/refunds", (409, error_body("request_conflict")))
    assert shop.cards.charge(shop.order()).verdict is Verdict.UNKNOWN
    assert shop.cards.refund(REFUNDING).verdict is Verdict.UNKNOWN


def test_query_says_how_the_charge_stands(shop: Shop) -> None:
    """Absent is unknown: the request may be under way."""
    absent = shop.cards.query("P1")
    assert (absent.verdict, absent.phase) == (Verdict.UNKNOWN, Phase.ABSENT)
    for changed, verdict, phase in (
        ({"status": "authorized", "captured": 0}, Verdict.DONE, Phase.AUTHORIZED),
        ({"captured": 1000}, Verdict.DONE, Phase.CAPTURED),
        ({"refunded": 1000}, Verdict.DONE, Phase.CAPTURED),
        ({"captured": 1000, "refunded": 1000}, Verdict.DONE, Phase.REFUNDED),
        ({"status": "voided", "captured": 0}, Verdict.REFUSED, Phase.CLOSED),
        ({"status": "failed", "captured": 0, "code": "expired_card"}, Verdict.REFUSED, Phase.FAILED),
    ):
        shop.network.put(CHARGE, (200, charge_body(**changed)))
        found = shop.cards.query("P1")
        assert (found.verdict, found.phase) == (verdict, phase)
        assert found.amount == Money("CNY", int(str(changed.get("captured") or 1234)))


def test_capture_takes_a_part_once(shop: Shop) -> None:
    """A refusal says how the charge stands; another amount than asked is unknown."""
    shop.network.put(CAPTURE, (200, charge_body(captured=1000)))
    done = shop.cards.capture("P1", "ch_1", Money("CNY", 1000))
    assert (done.verdict, done.phase, done.amount) == (Verdict.DONE, Phase.CAPTURED, Money("CNY", 1000))
    assert shop.cards.capture("P1", "ch_1", Money("CNY", 999)).verdict is Verdict.UNKNOWN
    shop.network.put(CAPTURE, (409, error_body("already_captured")))
    shop.network.put(CHARGE, (200, charge_body(captured=1000)))
    refused = shop.cards.capture("P1", "ch_1", Money("CNY", 999))
    assert (refused.verdict, refused.phase, refused.code) == (Verdict.REFUSED, Phase.CAPTURED, "ALREADY_CAPTURED")
    assert refused.amount == Money("CNY", 1000)
    shop.network.put(CHARGE, (500, {}))
    assert shop.cards.capture("P1", "ch_1", Money("CNY", 999)).verdict is Verdict.UNKNOWN


def test_void_lets_go_of_what_was_authorized(shop: Shop) -> None:
    """Done when it is let go of; refused with the state where there is nothing to let go of."""
    shop.network.put(VOID, (200, charge_body(status="voided", captured=0)))
    assert (shop.cards.void("P1", "ch_1").verdict, shop.cards.void("P1", "ch_1").phase) == (Verdict.DONE, Phase.CLOSED)
    shop.network.put(VOID, (200, charge_body()))
    assert shop.cards.void("P1", "ch_1").verdict is Verdict.UNKNOWN
    shop.network.put(VOID, (409, error_body("not_authorized")))
    shop.network.put(CHARGE, (200, charge_body()))
    refused = shop.cards.void("P1", "ch_1")
    assert (refused.verdict, refused.phase) == (Verdict.REFUSED, Phase.CAPTURED)


def test_close_ends_what_nobody_completed(shop: Shop) -> None:
    """A challenge that the network holds on to stays pending; money that was taken is not closed away."""
    waiting = charge_body(status="challenge", captured=0, trans_status="C")
    assert shop.cards.close("P1").verdict is Verdict.DONE  # the network never heard of it
    for stands, voided, verdict, phase in (
        (waiting, (200, charge_body(status="voided", captured=0)), Verdict.DONE, Phase.CLOSED),
        (waiting, (409, error_body("not_authorized")), Verdict.PENDING, Phase.WAITING),
        (waiting, (500, {}), Verdict.UNKNOWN, None),
        (charge_body(), (409, {}), Verdict.REFUSED, Phase.CAPTURED),
        (charge_body(status="authorized", captured=0), (409, {}), Verdict.REFUSED, Phase.AUTHORIZED),
        (charge_body(status="failed", captured=0), (409, {}), Verdict.DONE, Phase.FAILED),
        (charge_body(status="processing", captured=0), (409, {}), Verdict.UNKNOWN, Phase.WAITING),
    ):
        shop.network.put(CHARGE, (200, stands))
        shop.network.put(VOID, voided)
        done = shop.cards.close("P1")
        assert (done.verdict, done.phase) == (verdict, phase)


def test_refund_is_done_refused_or_unknown(shop: Shop) -> None:
    """A refund that the network does not know is unknown: sent again, the same id is the same refund."""
    path, asked = "POST /cards/v1/refunds", "GET /cards/v1/refunds/R1"
    absent = shop.cards.query_refund(REFUNDING)
    assert (absent.verdict, absent.code) == (Verdict.UNKNOWN, "absent")
    wrong: list[dict[str, object]] = [{"request_id": "R2"}, {"charge_request_id": "P2"}, {"status": "pending"}, {"refund_id": ""},
             {"amount": {"minor_units": 201, "currency": "CNY"}},
             {"amount": {"minor_units": 200, "currency": "USD"}}]  # fmt: skip
    for answer, verdict, code in [
        ((200, refund_body()), Verdict.DONE, ""),
        ((200, refund_body(status="failed", code="processing_error")), Verdict.REFUSED, "PROCESSING_ERROR"),
        *(((200, refund_body(**changed)), Verdict.UNKNOWN, "unverified") for changed in wrong),
    ]:
        shop.network.put(path, answer)
        shop.network.put(asked, answer)
        for found in (shop.cards.refund(REFUNDING), shop.cards.query_refund(REFUNDING)):
            assert (found.verdict, found.code) == (verdict, code)
    for refused in ((409, "amount_too_large"), (402, "card_declined"), (404, "not_found"), (400, "invalid_amount")):
        shop.network.put(path, (refused[0], error_body(refused[1])))
        found = shop.cards.refund(REFUNDING)
        assert (found.verdict, found.code) == (Verdict.REFUSED, refused[1].upper())
    shop.network.put(asked, (400, error_body("invalid_request")))
    assert shop.cards.query_refund(REFUNDING).verdict is Verdict.UNKNOWN


def parsed(shop: Shop, body: bytes, now_ms: int = NOW) -> Notice:
    """What the adapter reads of a callback."""
    return shop.cards.parse(Callback(signed(body), body), now_ms)


def test_callback_is_read_when_it_verifies(shop: Shop) -> None:
    """Of a charge and of a refund, each with our id and the network's id of the notice."""
    notice = parsed(shop, callback("charge.captured", charge_body()))
    assert (notice.notice_id, notice.request_id, notice.refunded) == ("ev_1", "P1", None)
    assert notice.charged is not None
    assert (notice.charged.verdict, notice.charged.phase) == (Verdict.DONE, Phase.CAPTURED)
    notice = parsed(shop, callback("refund.succeeded", refund_body()))
    assert notice.refunded is not None
    assert (notice.request_id, notice.charged, notice.refunded.verdict) == ("R1", None, Verdict.DONE)
    failed = callback("charge.failed", charge_body(status="failed", captured=0, code="card_declined"))
    declined = parsed(shop, failed).charged
    assert declined is not None
    assert declined.verdict is Verdict.REFUSED


GENUINE = callback("charge.captured", charge_body())


@pytest.mark.parametrize(
    ("body", "headers", "now_ms"),
    [
        (GENUINE.replace(b"1234", b"1"), signed(GENUINE), NOW),
        (GENUINE, {**signed(GENUINE), "card-signature": "é"}, NOW),
        (GENUINE, {}, NOW),
        (GENUINE, {**signed(GENUINE), "card-key": "key_2"}, NOW),
        (GENUINE, {**signed(GENUINE), "card-nonce": "other-nonce"}, NOW),
        (GENUINE, signed(GENUINE, ""), NOW),
        (GENUINE, signed(GENUINE, "a nonce\n1"), NOW),
        (GENUINE, signed(GENUINE), NOW + 300_000),
        (GENUINE, signed(GENUINE), NOW - 300_000),
        (GENUINE, {**signed(GENUINE), "card-timestamp": "٣"}, NOW),
        (GENUINE, signed(GENUINE, begin="200\n"), NOW),  # an answer is no callback
    ],
)
def test_callback_that_does_not_verify_is_forged(shop: Shop, body: bytes, headers: dict[str, str], now_ms: int) -> None:
    """Other bytes, another key, too old, too new, an answer sent back as a callback."""
    with pytest.raises(CallbackForged):
        shop.cards.parse(Callback(headers, body), now_ms)


def test_callback_signed_with_our_own_secret_is_forged(shop: Shop) -> None:
    """A request of ours that comes back verifies as nothing."""
    shop.cards.query("P1")
    mirrored = dataclasses.replace(SETTINGS, answer_secret=SETTINGS.request_secret, request_secret=b"x" * 32)
    cards = CardNetwork(mirrored, shop.vault, shop.cvvs, FakeClock(NOW), shop.network)
    with pytest.raises(CallbackForged):
        cards.parse(Callback(signed(GENUINE), GENUINE), NOW)


@pytest.mark.parametrize(
    "body",
    [
        callback("charge.captured", charge_body(), merchant_id="M2"),
        callback("charge.failed", charge_body()),
        callback("dispute.captured", charge_body()),
        callback("charge.captured", charge_body(), id=""),
        callback("charge.captured", {}),
        callback("charge.captured", charge_body(amount={"minor_units": 0, "currency": "CNY"}, captured=0)),
        b"{}",
        b"",
        b'{"id": "a", "id": "b"}',
        b"x" * (64 * 1024 + 1),
    ],
)
def test_callback_that_tells_nothing_is_refused(shop: Shop, body: bytes) -> None:
    """Signed, but for another merchant, of another kind or state, or no JSON."""
    with pytest.raises(CallbackForged):
        parsed(shop, body)


@given(
    body=st.binary(max_size=300), headers=st.dictionaries(st.sampled_from(sorted(signed(b""))), st.text(max_size=90))
)
def test_callback_of_any_bytes_is_read_or_forged(body: bytes, headers: dict[str, str]) -> None:
    """Nothing else comes out, whatever comes in."""
    shop = Shop()
    with pytest.raises(CallbackForged):
        shop.cards.parse(Callback(headers, body), NOW)
    with pytest.raises(CallbackForged):
        shop.cards.parse(Callback(signed(body), body), NOW)


def test_callback_is_answered_in_two_words(shop: Shop) -> None:
    """200: taken; anything else: again."""
    assert shop.cards.acknowledge(taken=True).status == 200
    assert shop.cards.acknowledge(taken=False).status == 500


BILL = (
    b"kind,request_id,charge_request_id,network_id,currency,amount,fee,time\n"
    b"charge,P1,P1,ch_1,CNY,1234,12,1800000000\n"
    b"refund,R1,P1,re_1,CNY,200,2,1800000100\n"
)


def test_bill_is_read_whole_or_not_at_all(shop: Shop) -> None:
    """Its bytes are kept; a line that makes no sense spoils it."""
    path = "GET /cards/v1/bills/2027-01-15"
    assert shop.cards.fetch_bill("2027-01-15") is None
    shop.network.put(path, (200, BILL))
    bill = shop.cards.fetch_bill("2027-01-15")
    assert bill is not None
    assert bill.content == BILL
    charge, refund = bill.lines
    assert (charge.kind, charge.request_id, charge.amount, charge.fee) == ("charge", "P1", Money("CNY", 1234), 12)
    assert (refund.kind, refund.request_id, refund.charge_request_id, refund.fee) == ("refund", "R1", "P1", -2)
    assert refund.at_ms == 1_800_000_100_000
    for wrong in (b"", b"kind\n", BILL + b"charge,P2\n", BILL.replace(b"1234", b"12.34"), BILL.replace(b"1234", b"-1"),
                  BILL.replace(b"CNY", b"XAU"), BILL.replace(b"refund,", b"fee,"), BILL + b'"'):  # fmt: skip
        shop.network.put(path, (200, wrong))
        assert shop.cards.fetch_bill("2027-01-15") is None


@pytest.mark.parametrize(
    "changed",
    [
        {"base_url": "http://cards.example"},
        {"base_url": "cards.example"},
        {"request_secret": b"short"},
        {"answer_secret": SETTINGS.request_secret},
    ],
)
def test_settings_that_would_give_cards_away_are_refused(shop: Shop, changed: dict[str, Any]) -> None:
    """In clear over a network, or with secrets that do not protect."""
    settings: CardSettings = dataclasses.replace(SETTINGS, **changed)
    with pytest.raises(ValueError, match=r"https|secret"):
        CardNetwork(settings, shop.vault, shop.cvvs, FakeClock(NOW))
    assert "qqqq" not in repr(settings)


def test_another_scene_is_not_supported(shop: Shop) -> None:
    """Nothing is sent."""
    assert shop.cards.charge(shop.order(scene="qr")).code == "unsupported"
    assert shop.network.asked == []
