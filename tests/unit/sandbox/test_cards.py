"""The card network keeps its page: signatures both ways, test cards, capture once, idempotent by request id."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from typing import Any

import httpx
import pytest

from services.sandbox.cards.numbers import TEST_CARDS, brand, luhn
from tests.unit.sandbox.merchants import CardMerchant, World

CHARGES = "/cards/v1/charges"


async def test_charge_when_approved(cards: CardMerchant) -> None:
    """A card is charged once, however often the request comes; callback and book say the same."""
    status, made = await cards.charge("C1")
    assert (status, made["status"], made["captured"], made["brand"], made["last4"]) == (
        200,
        "captured",
        1234,
        "visa",
        "4242",
    )
    assert (await cards.charge("C1"))[1] == made
    assert (await cards.query("C1"))[1] == made
    (request,) = await cards.world.called("cards")
    event = cards.noticed(request)
    assert (event["type"], event["merchant_id"], event["data"]) == ("charge.captured", cards.held["merchant_id"], made)
    booked = await cards.world.booked("C1")
    assert (booked["times_charged"], booked["charged"], booked["asked"]) == (1, 1234, 2)


async def test_charge_when_asked_fifty_times_at_once(cards: CardMerchant) -> None:
    """One charge, one callback, one answer for all."""
    answers = await asyncio.gather(*(cards.charge("C1") for _ in range(50)))
    assert len({json.dumps(answer) for answer in answers}) == 1
    assert len(await cards.world.called("cards")) == 1
    booked = await cards.world.booked("C1")
    assert (booked["times_charged"], booked["asked"]) == (1, 50)


async def test_number_is_kept_nowhere(cards: CardMerchant) -> None:
    """Neither the book, nor its file, nor a callback has a card number or a CVC."""
    await cards.charge("C1", "5555555555554444")
    request = (await cards.world.called("cards"))[0]
    file = (cards.world.folder / "book" / "cards.jsonl").read_bytes()
    for text in (file, request.content, (await cards.world.http.get("/book")).content):
        assert b"5555555555554444" not in text
        assert b"cvc" not in text


async def test_charge_when_repeated_with_other_content(cards: CardMerchant) -> None:
    """Another amount, card or capture under the same request id is a conflict, and nothing changes."""
    await cards.charge("C1")
    for more in ({"amount": {"minor_units": 1, "currency": "USD"}}, {"capture": False},
                 {"card": {"number": "5555555555554444", "exp_month": 12, "exp_year": 2031}}):  # fmt: skip
        status, refused = await cards.charge("C1", **more)
        assert (status, refused["error"]["code"]) == (409, "request_conflict")
    assert (await cards.charge("C1", description="coffee"))[0] == 200


async def test_capture_of_a_part(cards: CardMerchant) -> None:
    """What is authorized is captured once, whole or in part; repeats of the same amount change nothing."""
    assert (await cards.charge("C1", capture=False))[1]["status"] == "authorized"

    async def capture(units: int, currency: str = "USD") -> tuple[int, Any]:
        body = {"amount": {"minor_units": units, "currency": currency}}
        return await cards.call("POST", f"{CHARGES}/C1/capture", body)

    assert (await capture(1235))[1]["error"]["code"] == "amount_too_large"
    assert (await capture(1000, "EUR"))[1]["error"]["code"] == "invalid_amount"
    assert [(await capture(1000))[1]["captured"] for _ in range(2)] == [1000, 1000]
    assert (await capture(234))[1]["error"]["code"] == "already_captured"
    assert (await cards.call("POST", f"{CHARGES}/C1/void", {}))[1]["error"]["code"] == "not_authorized"
    booked = await cards.world.booked("C1")
    assert (booked["times_charged"], booked["charged"], booked["captured"]) == (1, 1234, 1000)


async def test_void_lets_go(cards: CardMerchant) -> None:
    """A voided authorization charges nothing, cannot be captured, and is voided once however often asked."""
    await cards.charge("C1", capture=False)
    assert [(await cards.call("POST", f"{CHARGES}/C1/void", {}))[1]["status"] for _ in range(2)] == ["voided"] * 2
    body = {"amount": {"minor_units": 1, "currency": "USD"}}
    assert (await cards.call("POST", f"{CHARGES}/C1/capture", body))[1]["error"]["code"] == "not_authorized"
    assert (await cards.world.booked("C1"))["charged"] == 0
    types = [cards.noticed(each)["type"] for each in await cards.world.called("cards")]
    assert types == ["charge.authorized", "charge.voided"]


async def test_refund_when_partial(cards: CardMerchant) -> None:
    """Parts add up to what was captured and no further; a repeat is the same refund."""
    await cards.charge("C1")
    _, made = await cards.refund("R1", "C1", 1000)
    assert (made["status"], made["amount"]["minor_units"]) == ("succeeded", 1000)
    assert (await cards.refund("R1", "C1", 1000))[1] == made
    assert (await cards.call("GET", "/cards/v1/refunds/R1"))[1] == made
    assert (await cards.refund("R1", "C1", 999))[1]["error"]["code"] == "request_conflict"
    assert (await cards.refund("R2", "C1", 235))[1]["error"]["code"] == "amount_too_large"
    assert (await cards.refund("R2", "C0", 1))[1]["error"]["code"] == "not_found"
    assert (await cards.call("GET", "/cards/v1/refunds/R2"))[0] == 404
    await cards.charge("C2", capture=False)
    assert (await cards.refund("R2", "C2", 1))[1]["error"]["code"] == "not_captured"
    await cards.world.rule("cards", on="refund", do="abnormal")
    assert (await cards.refund("R3", "C1", 234))[1]["status"] == "failed"
    assert (await cards.refund("R4", "C1", 234))[1]["status"] == "succeeded"
    assert (await cards.query("C1"))[1]["refunded"] == 1234


@pytest.mark.parametrize(
    ("number", "status", "code"),
    [
        ("4000000000000002", "failed", "card_declined"),
        ("4000000000009995", "failed", "insufficient_funds"),
        ("4000000000000119", "failed", "processing_error"),
        ("4000000000070070", "captured", ""),
        ("4000000000070088", "failed", "authentication_failed"),
        ("4000000000070096", "failed", "authentication_unavailable"),
        ("4000000000070104", "failed", "authentication_rejected"),
        ("4000000000070120", "captured", ""),
        ("378282246310005", "captured", ""),
    ],
)
async def test_card_when_it_decides_at_once(cards: CardMerchant, number: str, status: str, code: str) -> None:
    """A test card's outcome is the answer, and stays it when asked again."""
    _, made = await cards.charge("C1", number)
    assert (made["status"], made["code"]) == (status, code)
    assert (await cards.charge("C1", number))[1] == made
    assert (await cards.world.booked("C1"))["times_charged"] == (status == "captured")


@pytest.mark.parametrize(
    ("trans_status", "status", "code"),
    [
        ("Y", "captured", ""),
        ("A", "captured", ""),
        ("I", "captured", ""),
        ("N", "failed", "authentication_failed"),
        ("U", "failed", "authentication_unavailable"),
        ("R", "failed", "authentication_rejected"),
    ],
)
async def test_challenge_when_the_payer_answers(cards: CardMerchant, trans_status: str, status: str, code: str) -> None:
    """Nothing is charged before the challenge is passed; its outcome is 3DS2's."""
    _, made = await cards.charge("C1", "4000002500003155")
    assert (made["status"], made["trans_status"], made["captured"]) == ("challenge", "C", 0)
    assert (await cards.world.http.get(made["challenge_url"])).status_code == 200
    assert (await cards.world.pays("cards", "C1", trans_status="C")).status_code == 400
    answer = await cards.world.pays("cards", "C1", trans_status=trans_status)
    assert answer.status_code == (200 if status == "captured" else 402)
    assert (await cards.world.pays("cards", "C1")).status_code == 409
    event = cards.noticed((await cards.world.called("cards"))[0])
    assert (event["type"], event["data"]["code"], event["data"]["trans_status"]) == (
        f"charge.{status}",
        code,
        trans_status,
    )


async def test_challenge_when_it_does_not_end_well(cards: CardMerchant) -> None:
    """Refused by the payer, declined after it, expired, voided: failed or voided, and nothing is charged."""
    number = "4000002500003155"
    for request_id in ("C1", "C2", "C3", "C4"):
        await cards.charge(request_id, number)
    assert (await cards.world.pays("cards", "C1", "refuse")).status_code == 200
    await cards.world.rule("cards", on="pay", do="insufficient_funds", request_id="C2")
    assert (await cards.world.pays("cards", "C2")).json() == {"refused": "insufficient_funds"}
    await cards.call("POST", f"{CHARGES}/C3/void", {})
    cards.world.clock.ms += 900_000
    found = [(await cards.query(each))[1] for each in ("C1", "C2", "C3", "C4")]
    assert [f"{each['status']} {each['code']}" for each in found] == [
        "failed authentication_failed", "failed insufficient_funds", "voided ", "failed challenge_expired"]  # fmt: skip
    assert {each["charged"] for each in (await cards.world.http.get("/book")).json()["charges"]} == {0}


async def test_card_when_decoupled(cards: CardMerchant) -> None:
    """D is a challenge without a URL; the payer confirms elsewhere."""
    _, made = await cards.charge("C1", "4000000000070112")
    assert (made["status"], made["trans_status"], made["challenge_url"]) == ("challenge", "D", "")
    assert (await cards.world.pays("cards", "C1")).json()["charge"]["captured"] == 1234


async def test_card_when_the_answer_is_lost(cards: CardMerchant) -> None:
    """Charged, then dropped: query and repeat know of it, and it is charged once."""
    with pytest.raises(ConnectionResetError):
        await cards.charge("C1", "4000000000070013")
    assert (await cards.query("C1"))[1]["status"] == "captured"
    assert (await cards.charge("C1", "4000000000070013"))[1]["status"] == "captured"
    assert (await cards.world.booked("C1"))["times_charged"] == 1


async def test_card_when_its_callbacks_come_fifty_times(cards: CardMerchant) -> None:
    """One event, fifty sendings."""
    await cards.charge("C1", "4000000000070039")
    came = [cards.noticed(each) for each in await cards.world.called("cards")]
    assert (len(came), len({each["id"] for each in came})) == (50, 1)


@pytest.mark.parametrize(("number", "status"), [("4000000000070047", "captured"), ("4000000000070054", "failed")])
async def test_card_when_the_outcome_is_late(cards: CardMerchant, number: str, status: str) -> None:
    """Processing first; the outcome comes by callback and is then the answer to a query."""
    assert (await cards.charge("C1", number))[1]["status"] == "processing"
    (request,) = await cards.world.called("cards")
    assert cards.noticed(request)["type"] == f"charge.{status}"
    assert (await cards.query("C1"))[1]["status"] == status


async def test_card_when_it_fails_then_succeeds(cards: CardMerchant) -> None:
    """Answered failed, yet charged: the callback, later, and the query tell the truth."""
    _, made = await cards.charge("C1", "4000000000070062")
    assert (made["status"], made["captured"]) == ("failed", 0)
    assert cards.world.inbox.came == []
    assert cards.noticed((await cards.world.called("cards"))[0])["type"] == "charge.captured"
    assert (await cards.query("C1"))[1]["status"] == "captured"


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"card_merchant": "M0"}, 401, "unauthorized"),
        ({"card_key": "key_0"}, 401, "unauthorized"),
        ({"card_nonce": "short"}, 401, "unauthorized"),
        ({"card_timestamp": "1893455700"}, 401, "stale_timestamp"),
        ({"card_timestamp": "1893456300"}, 401, "stale_timestamp"),
        ({"card_timestamp": "now"}, 401, "stale_timestamp"),
        ({"card_signature": ""}, 401, "bad_signature"),
        ({"card_signature": "!"}, 401, "bad_signature"),
        ({"content_type": "text/plain"}, 400, "invalid_request"),
    ],
)
async def test_headers_when_wrong(cards: CardMerchant, headers: dict[str, str], status: int, code: str) -> None:
    """Who, when, once and signed: each is checked, and nothing is charged."""
    answer = await cards.send("POST", CHARGES, cards.body("C1"), **headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert ("card-signature" in answer.headers) == (not headers.keys() & {"card_merchant", "card_key"})
    assert (await cards.world.http.get("/book")).json()["charges"] == []


async def test_nonce_when_used_again(cards: CardMerchant) -> None:
    """A nonce serves once, though all else is signed anew."""
    answers = [await cards.send("GET", f"{CHARGES}/C1", card_nonce="nonce-0001") for _ in range(2)]
    assert [answer.json()["error"]["code"] for answer in answers] == ["not_found", "reused_nonce"]


async def test_signature_is_over_the_exact_bytes(cards: CardMerchant) -> None:
    """A body or target other than what was signed is refused."""
    signed = await cards.send("GET", f"{CHARGES}/C1")
    headers = {k: v for k, v in signed.request.headers.items() if k.startswith("card-")}
    for method, target, body in (
        ("GET", f"{CHARGES}/C2", b""),
        ("GET", f"{CHARGES}/C1?x", b""),
        ("POST", f"{CHARGES}/C1/void", b"{}"),
    ):
        answer = await cards.world.http.request(method, target, content=body, headers=headers)
        assert answer.json()["error"]["code"] == "bad_signature"


@pytest.mark.parametrize(
    ("changed", "code", "field"),
    [
        ({"request_id": ""}, "invalid_request", "request_id"),
        ({"request_id": "x" * 65}, "invalid_request", "request_id"),
        ({"amount": {"minor_units": 0, "currency": "USD"}}, "invalid_amount", "amount.minor_units"),
        ({"amount": {"minor_units": -1, "currency": "USD"}}, "invalid_amount", "amount.minor_units"),
        ({"amount": {"minor_units": 2**53, "currency": "USD"}}, "invalid_amount", "amount.minor_units"),
        ({"amount": {"minor_units": 1.0, "currency": "USD"}}, "invalid_amount", "amount.minor_units"),
        ({"amount": {"minor_units": True, "currency": "USD"}}, "invalid_amount", "amount.minor_units"),
        ({"amount": {"minor_units": 1, "currency": "XXX"}}, "invalid_amount", "amount.currency"),
        ({"amount": {"minor_units": 1}}, "invalid_amount", "amount"),
        ({"card": {"number": "4242424242424241", "exp_month": 1, "exp_year": 2031}}, "invalid_number", "card.number"),
        ({"card": {"number": "42424242", "exp_month": 1, "exp_year": 2031}}, "invalid_number", "card.number"),
        (
            {"card": {"number": "4242424242424242", "exp_month": 13, "exp_year": 2031}},
            "invalid_expiry",
            "card.exp_month",
        ),
        ({"card": {"number": "4242424242424242", "exp_month": 1, "exp_year": 31}}, "invalid_expiry", "card.exp_month"),
        (
            {"card": {"number": "4242424242424242", "exp_month": 1, "exp_year": 2031, "cvc": "12"}},
            "invalid_request",
            "card.cvc",
        ),
        ({"card": None}, "invalid_request", "card"),
        ({"capture": "yes"}, "invalid_request", "capture"),
        ({"description": ""}, "invalid_request", "description"),
        ({"notify_url": "http://merchant.test/"}, "invalid_request", "notify_url"),
        ({"notify_url": None}, "invalid_request", "notify_url"),
        ({"expire_at": -1}, "invalid_request", "expire_at"),
        ({"tip": 1}, "invalid_request", "tip"),
    ],
)
async def test_charge_when_malformed(cards: CardMerchant, changed: dict[str, Any], code: str, field: str) -> None:
    """Every field is checked, unknown ones are refused, and nothing is charged."""
    status, refused = await cards.call("POST", CHARGES, {**cards.body("C1"), **changed})
    assert (status, refused["error"]["code"], refused["error"]["field"]) == (400, code, field)
    assert (await cards.world.http.get("/book")).json()["charges"] == []


async def test_card_when_expired(cards: CardMerchant) -> None:
    """A card is good until the end of its month."""
    card = {"number": "4242424242424242", "exp_month": 12, "exp_year": 2029}
    assert (await cards.charge("C1", card=card))[1]["code"] == "expired_card"
    assert (await cards.charge("C2", card={**card, "exp_month": 1, "exp_year": 2030}))[1]["status"] == "captured"


async def test_charge_when_scripted(cards: CardMerchant) -> None:
    """A scripted decline is recorded like a card's; trouble is 500, done or not; a wrong answer says failed."""
    await cards.world.rule("cards", on="charge", do="decline")
    assert [(await cards.charge("C1"))[1]["code"] for _ in range(2)] == ["card_declined"] * 2
    await cards.world.rule("cards", on="charge", do="error")
    assert (await cards.charge("C2"))[0] == 500
    assert (await cards.query("C2"))[0] == 404
    await cards.world.rule("cards", on="charge", do="error_after")
    assert (await cards.charge("C2"))[0] == 500
    assert (await cards.query("C2"))[1]["status"] == "captured"
    await cards.world.rule("cards", on="charge", do="fail_then_success")
    assert (await cards.charge("C3"))[1]["status"] == "failed"
    assert (await cards.query("C3"))[1]["status"] == "captured"
    await cards.charge("C4", capture=False)
    await cards.world.rule("cards", on="void", do="decline")
    assert (await cards.call("POST", f"{CHARGES}/C4/void", {}))[0] == 402
    assert (await cards.query("C4"))[1]["status"] == "authorized"


@pytest.mark.parametrize("forge", ["signature", "unsigned", "timestamp", "nonce"])
async def test_answer_when_forged(cards: CardMerchant, forge: str) -> None:
    """A forged answer does not verify; the charge is made nevertheless."""
    await cards.world.rule("cards", on="charge", do="forge", forge=forge)
    with pytest.raises((AssertionError, KeyError)):
        await cards.charge("C1")
    assert (await cards.query("C1"))[1]["status"] == "captured"


async def test_callback_when_forged(cards: CardMerchant, world: World) -> None:
    """Each forgery differs from the truth in what it says it forges; of an unpaid charge only forgeries are told."""
    await cards.charge("C1", "4000002500003155")
    assert (await world.http.post("/callbacks/cards/C1", json={})).status_code == 409

    async def forged(forge: str) -> httpx.Request:
        assert (await world.http.post("/callbacks/cards/C1", json={"forge": forge})).status_code == 200
        return world.inbox.came[-1]

    assert cards.noticed(await forged("seller"))["merchant_id"] != cards.held["merchant_id"]
    assert cards.noticed(await forged("amount"))["data"]["amount"]["minor_units"] == 1235
    assert cards.noticed(await forged("currency"))["data"]["amount"]["currency"] == "EUR"
    assert cards.noticed(await forged("order"))["data"]["request_id"] == "C10"
    for forge in ("signature", "timestamp"):
        with pytest.raises(AssertionError):
            cards.noticed(await forged(forge))
    assert json.loads((await forged("signature")).content)["type"] == "charge.captured"
    assert (await cards.query("C1"))[1]["status"] == "challenge"


async def test_bill_of_a_day(cards: CardMerchant) -> None:
    """The day's captures and refunds in UTC, signed; faults of a bill as scripted."""
    await cards.charge("C1")
    await cards.charge("C2", "4000000000000002")
    await cards.refund("R1", "C1", 200)
    assert (await cards.call("GET", "/cards/v1/bills/2030-01-01"))[1]["error"]["code"] == "no_bill"
    cards.world.clock.ms += 86_400_000

    async def bill() -> list[tuple[str, ...]]:
        _, text = await cards.call("GET", "/cards/v1/bills/2030-01-01")
        return [
            (row["kind"], row["request_id"], row["amount"], row["fee"]) for row in csv.DictReader(io.StringIO(text))
        ]

    charge, refund = ("charge", "C1", "1234", "12"), ("refund", "R1", "200", "2")
    assert await bill() == [charge, refund]
    for do, number, lines in (
        ("omit", "C1", [refund]),
        ("drift", "R1", [charge, ("refund", "R1", "201", "2")]),
        ("repeat", "C1", [charge, charge, refund]),
        ("stray", "", [charge, refund, ("charge", "STRAYC1", "1234", "12")]),
    ):
        await cards.world.rule("cards", on="bill", do=do, request_id=number)
        assert await bill() == lines
    assert (await cards.call("GET", "/cards/v1/bills/yesterday"))[0] == 404


def test_numbers_of_test_cards() -> None:
    """Every test card passes Luhn and has a brand; a number with one digit changed does not pass."""
    assert [number for number in TEST_CARDS if not luhn(number) or not brand(number)] == []
    assert not luhn("4242424242424243")
    assert (brand("2223003122003222"), brand("6200000000000005"), brand("9999")) == ("mastercard", "unionpay", "")
