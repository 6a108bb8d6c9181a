"""Alipay's adapter and the sandbox's gateway, which were written apart from the same page of the protocol."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import datetime

import pytest

from services.kernel.clock import SystemClock
from services.kernel.money import Money
from services.payment.adapters.alipay import Alipay, AlipaySettings
from services.payment.adapters.china import CHINA
from services.payment.ports.provider import BillLine, Charge, Charged, Notice, Phase, Refunded, Refunding, Verdict
from tests.integration.provider_sandbox import ProviderSandbox, eventually

READ_S = 1.0
TEA = Money("CNY", 8888)
NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProviderSandbox]:
    """The sandbox, playing Alipay."""
    with ProviderSandbox(tmp_path_factory.mktemp("providers") / "keys", "alipay") as running:
        yield running


@pytest.fixture
def alipay(sandbox: ProviderSandbox) -> Iterator[Alipay]:
    """The adapter, and a sandbox that behaves."""
    held = sandbox.merchant
    settings = AlipaySettings(
        **held,
        gateway_url=f"{sandbox.url}/alipay/gateway.do",
        notify_url=sandbox.notify_url,
        return_url="https://shop.example.com/done",
        connect_s=1,
        read_s=READ_S,
    )
    made = Alipay(settings, SystemClock())
    sandbox.provider = made
    sandbox.script()
    yield made
    made.stop()


def tea(scene: str = "qr", amount: Money = TEA) -> Charge:
    """A new charge that ends in a quarter of an hour."""
    expire_ms = SystemClock().now_ms() + 900_000
    return Charge(f"P{next(NUMBERS):06}", amount, "一壶茶 & 糕点, a=b", scene, expire_ms)


def part(charge: Charge, number: str, fen: int) -> Refunding:
    """A refund of a part."""
    return Refunding(number, charge.request_id, "", Money("CNY", fen), charge.amount, "凉了")


def paid(sandbox: ProviderSandbox, alipay: Alipay, scene: str = "qr") -> Charge:
    """A charge that was paid and called back."""
    charge = tea(scene)
    sandbox.payer(charge.request_id, "pay", alipay.charge(charge).action)
    sandbox.notice(charge.request_id)
    return charge


@pytest.mark.parametrize(
    ("scene", "action"),
    [("qr", "qr_code"), ("page", "redirect_url"), ("wap", "redirect_url"), ("app", "app_parameters")],
)
def test_charge_when_paid(sandbox: ProviderSandbox, alipay: Alipay, scene: str, action: str) -> None:
    """In every scene the payer pays with what he was given; callback and query agree; the book has one charge."""
    charge = tea(scene)
    made = alipay.charge(charge)
    assert (made.verdict, made.phase, list(made.action)) == (Verdict.PENDING, Phase.WAITING, [action])
    assert alipay.query(charge.request_id).phase is Phase.ABSENT, "nobody scanned or opened it yet"

    shown = sandbox.payer(charge.request_id, "open", made.action)["charge"]
    assert (shown["amount"], shown["expire_ms"]) == (8888, charge.expire_ms // 1000 * 1000)
    assert alipay.query(charge.request_id).phase is Phase.WAITING

    shown = sandbox.payer(charge.request_id, "pay", made.action)["charge"]
    told = sandbox.notice(charge.request_id)
    asked = alipay.query(charge.request_id)
    assert (
        told.charged
        == asked
        == Charged(
            Verdict.DONE, Phase.CAPTURED, shown["provider_id"], amount=TEA, at_ms=shown["paid_ms"] // 1000 * 1000
        )
    )
    assert eventually(lambda: [each["taken"] for each in sandbox.deliveries(charge.request_id)] == [True])
    book = sandbox.charge(charge.request_id)
    assert book is not None
    assert book["times_charged"] == 1


def test_charge_when_repeated(sandbox: ProviderSandbox, alipay: Alipay) -> None:
    """The same charge again is the same trade; once paid it is not refused but asked for; other content is too."""
    charge = tea()
    first, again = alipay.charge(charge), alipay.charge(charge)
    assert first == again
    other = Charge(charge.request_id, Money("CNY", 1), charge.description, "qr", charge.expire_ms)
    assert alipay.charge(other) == Charged(Verdict.UNKNOWN, code="ACQ.CONTEXT_INCONSISTENT")
    sandbox.payer(charge.request_id, "pay", first.action)
    assert alipay.charge(charge) == Charged(Verdict.UNKNOWN, code="ACQ.TRADE_HAS_SUCCESS")
    assert alipay.query(charge.request_id).phase is Phase.CAPTURED


def test_charge_when_too_late(sandbox: ProviderSandbox, alipay: Alipay) -> None:
    """A charge that would end in the past is refused by the provider."""
    charge = tea()
    late = Charge(charge.request_id, TEA, "tea", "qr", SystemClock().now_ms() - 60_000)
    assert alipay.charge(late) == Charged(Verdict.REFUSED, code="ACQ.INVALID_PARAMETER")
    assert sandbox.charge(charge.request_id) is None


def test_close_when_unpaid_paid_and_absent(sandbox: ProviderSandbox, alipay: Alipay) -> None:
    """An open trade is closed and told so; a paid one is not; what nobody scanned is not there to be closed."""
    charge = tea()
    made = alipay.charge(charge)
    assert alipay.close(charge.request_id) == Charged(Verdict.DONE, Phase.ABSENT, code="ACQ.TRADE_NOT_EXIST")
    sandbox.payer(charge.request_id, "open", made.action)
    assert alipay.close(charge.request_id) == Charged(Verdict.DONE, Phase.CLOSED)
    assert (alipay.query(charge.request_id).verdict, alipay.query(charge.request_id).phase) == (
        Verdict.REFUSED,
        Phase.CLOSED,
    )
    told = sandbox.notice(charge.request_id).charged
    assert told is not None
    assert (told.verdict, told.phase) == (Verdict.REFUSED, Phase.CLOSED)
    assert alipay.charge(charge) == Charged(Verdict.REFUSED, Phase.CLOSED, code="ACQ.TRADE_HAS_CLOSE")

    settled = paid(sandbox, alipay)
    assert alipay.close(settled.request_id) == Charged(Verdict.REFUSED, code="ACQ.TRADE_STATUS_ERROR")
    assert alipay.query(settled.request_id).phase is Phase.CAPTURED


def test_refund_when_in_parts(sandbox: ProviderSandbox, alipay: Alipay) -> None:
    """Two parts and no more; each is told and can be asked for; a repeat moves nothing and is not refused."""
    charge = paid(sandbox, alipay)
    one, rest, more = part(charge, "R1", 888), part(charge, "R2", 8000), part(charge, "R3", 1)
    assert alipay.query_refund(one) == Refunded(Verdict.UNKNOWN, code="absent")
    assert alipay.refund(one).verdict is Verdict.DONE
    told = sandbox.notice("R1")
    assert told.refunded is not None
    assert (told.charged, told.refunded.verdict) == (None, Verdict.DONE)
    assert alipay.refund(one).verdict is Verdict.UNKNOWN, "nothing moved: a query says that it is done"
    asked = alipay.query_refund(one)
    assert (asked.verdict, asked.amount) == (Verdict.DONE, Money("CNY", 888))
    assert asked.at_ms == told.refunded.at_ms
    assert alipay.refund(part(charge, "R1", 887)) == Refunded(Verdict.UNKNOWN, code="ACQ.DISCORDANT_REPEAT_REQUEST")
    too_much = alipay.refund(part(charge, "R9", 8001))
    assert too_much == Refunded(Verdict.REFUSED, code="ACQ.REFUND_AMT_NOT_EQUAL_TOTAL")

    assert alipay.refund(rest).verdict is Verdict.DONE
    assert sandbox.notice("R2").refunded is not None
    assert alipay.refund(more).verdict is Verdict.UNKNOWN, (
        "the trade is closed: by this refund or another, a query says"
    )
    assert alipay.query_refund(more) == Refunded(Verdict.UNKNOWN, code="absent")
    book = sandbox.charge(charge.request_id)
    assert book is not None
    assert (book["refunded"], len(book["refunds"])) == (8888, 2)


def test_refund_when_finished_or_unpaid(sandbox: ProviderSandbox, alipay: Alipay) -> None:
    """A finished trade and one that does not exist are not refunded."""
    charge = paid(sandbox, alipay)
    sandbox.payer(charge.request_id, "finish")
    assert alipay.query(charge.request_id).phase is Phase.CAPTURED
    assert alipay.refund(part(charge, "R1", 1)) == Refunded(Verdict.REFUSED, code="ACQ.TRADE_HAS_FINISHED")
    assert alipay.refund(part(tea(), "R1", 1)) == Refunded(Verdict.REFUSED, code="ACQ.TRADE_NOT_EXIST")


UNKNOWN_WORDS = {
    "processing_error": "ACQ.SYSTEM_ERROR",
    "error": "isp.unknow-error",
    "error_after": "isp.unknow-error",
    "hang": "timeout",
    "hang_after": "timeout",
    "drop": "broken",
    "drop_before": "broken",
}
"""Scripts after which nobody can tell, and the word for it."""

CHARGED_ALL_THE_SAME = {"hang_after", "drop"}
"""Scripts in which the payer is charged and the merchant hears nothing."""


@pytest.mark.parametrize("do", sorted(UNKNOWN_WORDS))
def test_charge_when_nobody_can_tell(sandbox: ProviderSandbox, alipay: Alipay, do: str) -> None:
    """Unknown is never refused, and a query settles it: charged once, or not there and sent again with the same number."""
    charge = tea()
    sandbox.script({"on": "charge", "do": do, "request_id": charge.request_id})
    assert alipay.charge(charge) == Charged(Verdict.UNKNOWN, code=UNKNOWN_WORDS[do])
    if do in CHARGED_ALL_THE_SAME:
        assert eventually(lambda: alipay.query(charge.request_id).phase is Phase.CAPTURED)
        assert sandbox.notice(charge.request_id).charged == alipay.query(charge.request_id)
    else:
        assert alipay.query(charge.request_id).phase is Phase.ABSENT
        sandbox.payer(charge.request_id, "pay", alipay.charge(charge).action)
    book = sandbox.charge(charge.request_id)
    assert book is not None
    assert book["times_charged"] == 1


@pytest.mark.parametrize(
    ("do", "code"),
    [("decline", "ACQ.BUYER_ENABLE_STATUS_FORBID"), ("insufficient_funds", "ACQ.BUYER_BALANCE_NOT_ENOUGH")],
)
def test_charge_when_refused(sandbox: ProviderSandbox, alipay: Alipay, do: str, code: str) -> None:
    """A refusal of the provider is one, and nothing stands in its book."""
    charge = tea()
    sandbox.script({"on": "charge", "do": do})
    assert alipay.charge(charge) == Charged(Verdict.REFUSED, code=code)
    assert sandbox.charge(charge.request_id) is None


def test_charge_when_slow(sandbox: ProviderSandbox, alipay: Alipay) -> None:
    """A provider that is slow is waited for; one that is too slow leaves the outcome unknown."""
    sandbox.script({"on": "charge", "do": "slow", "delay_ms": 100})
    assert alipay.charge(tea()).verdict is Verdict.PENDING
    sandbox.script({"on": "charge", "do": "slow", "delay_ms": 2000})
    assert alipay.charge(tea()) == Charged(Verdict.UNKNOWN, code="timeout")


def test_charge_when_refused_and_called_back_as_paid(sandbox: ProviderSandbox, alipay: Alipay) -> None:
    """A provider that refuses and then calls back success is believed in both, for the use case to see the contradiction."""
    charge = tea()
    sandbox.script({"on": "charge", "do": "fail_then_success"})
    assert alipay.charge(charge).verdict is Verdict.REFUSED
    assert sandbox.notice(charge.request_id).charged == alipay.query(charge.request_id)
    assert alipay.query(charge.request_id).phase is Phase.CAPTURED


@pytest.mark.parametrize("forge", ["signature", "unsigned", "order"])
def test_every_call_when_the_answer_is_forged(sandbox: ProviderSandbox, alipay: Alipay, forge: str) -> None:
    """An answer that is not signed right, or is of another trade, leaves every outcome unknown."""
    charge = paid(sandbox, alipay)
    sandbox.script(*({"on": on, "do": "forge", "forge": forge} for on in ("query", "charge", "refund", "query_refund")))
    unverified = Charged(Verdict.UNKNOWN, code="unverified")
    assert (alipay.query(charge.request_id), alipay.charge(tea())) == (unverified, unverified)
    refunding = part(charge, "R1", 1)
    assert alipay.refund(refunding) == alipay.query_refund(refunding) == Refunded(Verdict.UNKNOWN, code="unverified")


def test_query_when_the_amount_is_forged(sandbox: ProviderSandbox, alipay: Alipay) -> None:
    """An amount that the provider's own key signed is told as it is: the use case compares."""
    charge = paid(sandbox, alipay)
    sandbox.script({"on": "query", "do": "forge", "forge": "amount"})
    assert alipay.query(charge.request_id).amount == Money("CNY", 8889)
    assert alipay.query(charge.request_id).amount == TEA


OTHER_DEEDS = ["decline", "insufficient_funds", *sorted(UNKNOWN_WORDS)]


@pytest.mark.parametrize("do", OTHER_DEEDS)
def test_query_when_anything_goes_wrong(sandbox: ProviderSandbox, alipay: Alipay, do: str) -> None:
    """A query that fails says nothing about the charge, not even that it was refused."""
    charge = paid(sandbox, alipay)
    assert alipay.refund(part(charge, "R1", 1)).verdict is Verdict.DONE
    sandbox.script({"on": "query", "do": do}, {"on": "query_refund", "do": do})
    asked, refunded = alipay.query(charge.request_id), alipay.query_refund(part(charge, "R1", 1))
    assert (asked.verdict, asked.phase, refunded.verdict) == (Verdict.UNKNOWN, None, Verdict.UNKNOWN)
    assert alipay.query(charge.request_id).phase is Phase.CAPTURED
    assert alipay.query_refund(part(charge, "R1", 1)).verdict is Verdict.DONE


@pytest.mark.parametrize("do", OTHER_DEEDS)
def test_close_when_anything_goes_wrong(sandbox: ProviderSandbox, alipay: Alipay, do: str) -> None:
    """A close that fails is unknown; again it is done, whether it had been or not."""
    charge = tea()
    sandbox.payer(charge.request_id, "open", alipay.charge(charge).action)
    sandbox.script({"on": "close", "do": do})
    assert alipay.close(charge.request_id).verdict is Verdict.UNKNOWN
    if do in {"error_after", "hang_after", "drop"}:
        assert eventually(lambda: alipay.query(charge.request_id).phase is Phase.CLOSED)
    else:
        assert alipay.close(charge.request_id) == Charged(Verdict.DONE, Phase.CLOSED)


@pytest.mark.parametrize("do", sorted(UNKNOWN_WORDS))
def test_refund_when_nobody_can_tell(sandbox: ProviderSandbox, alipay: Alipay, do: str) -> None:
    """Unknown is never refused: a query says done, or absent and the same number is sent again; money moves once."""
    charge = paid(sandbox, alipay)
    refunding = part(charge, f"R{next(NUMBERS)}", 888)
    sandbox.script({"on": "refund", "do": do})
    assert alipay.refund(refunding) == Refunded(Verdict.UNKNOWN, code=UNKNOWN_WORDS[do])
    if do in {"error_after", "hang_after", "drop"}:
        assert eventually(lambda: alipay.query_refund(refunding).verdict is Verdict.DONE)
    else:
        assert alipay.query_refund(refunding) == Refunded(Verdict.UNKNOWN, code="absent")
        assert alipay.refund(refunding).verdict is Verdict.DONE
    book = sandbox.charge(charge.request_id)
    assert book is not None
    assert book["refunded"] == 888


@pytest.mark.parametrize(
    ("do", "code"),
    [("decline", "ACQ.BUYER_ENABLE_STATUS_FORBID"), ("insufficient_funds", "ACQ.SELLER_BALANCE_NOT_ENOUGH")],
)
def test_refund_when_refused(sandbox: ProviderSandbox, alipay: Alipay, do: str, code: str) -> None:
    """A refusal of the provider is one, and no refund stands in its book."""
    charge = paid(sandbox, alipay)
    sandbox.script({"on": "refund", "do": do})
    assert alipay.refund(part(charge, "R1", 1)) == Refunded(Verdict.REFUSED, code=code)
    assert alipay.query_refund(part(charge, "R1", 1)) == Refunded(Verdict.UNKNOWN, code="absent")


def test_callback_when_duplicated_lost_late_and_reordered(sandbox: ProviderSandbox, alipay: Alipay) -> None:
    """Fifty at once say the same under one notice_id; a lost one comes again; the order is the sender's."""
    charge = tea()
    sandbox.script({"on": "callback", "do": "duplicate"})
    sandbox.payer(charge.request_id, "pay", alipay.charge(charge).action)
    assert eventually(lambda: len(sandbox.told) == 50)
    assert len(set(map(repr, sandbox.told))) == 1
    assert isinstance(sandbox.told[0], Notice)

    charge = tea()
    sandbox.script({"on": "callback", "do": "lose", "times": 2})
    sandbox.payer(charge.request_id, "pay", alipay.charge(charge).action)
    sandbox.notice(charge.request_id)
    assert eventually(lambda: [each["status"] for each in sandbox.deliveries(charge.request_id)] == [0, 0, 200])

    charge = tea()
    sandbox.script({"on": "callback", "do": "late", "delay_ms": 200})
    sandbox.payer(charge.request_id, "pay", alipay.charge(charge).action)
    assert alipay.query(charge.request_id).phase is Phase.CAPTURED
    assert sandbox.told == []
    assert sandbox.notice(charge.request_id).charged == alipay.query(charge.request_id)

    charge = tea()
    sandbox.script({"on": "callback", "do": "reorder", "times": 0, "delay_ms": 500})
    sandbox.payer(charge.request_id, "pay", alipay.charge(charge).action)
    assert alipay.refund(part(charge, "R-late", 1)).verdict is Verdict.DONE
    assert eventually(lambda: len(sandbox.told) == 2)
    assert [each.request_id for each in sandbox.told if isinstance(each, Notice)] == ["R-late", charge.request_id]


def test_callback_when_not_taken(sandbox: ProviderSandbox, alipay: Alipay) -> None:
    """What we answer `fail` is told again, under the same notice_id."""
    charge = tea()
    sandbox.taken = False
    sandbox.payer(charge.request_id, "pay", alipay.charge(charge).action)
    sandbox.notice(charge.request_id)
    sandbox.taken = True
    first, again = sandbox.notice(charge.request_id), sandbox.notice(charge.request_id, 1)
    assert first == again
    assert eventually(lambda: [each["taken"] for each in sandbox.deliveries(charge.request_id)] == [False, True])


@pytest.mark.parametrize(
    ("forge", "why"),
    [
        ("signature", "the signature does not verify"),
        ("sha1", "sign_type is not RSA2"),
        ("app_id", "app_id is not ours"),
        ("seller", "seller_id is not ours"),
    ],
)
def test_callback_when_forged(sandbox: ProviderSandbox, alipay: Alipay, forge: str, why: str) -> None:
    """A forged callback is refused and told why, also before anybody paid; the true one behind it is taken."""
    charge = tea()
    made = alipay.charge(charge)
    sandbox.script()
    assert [each["taken"] for each in sandbox.call_back(charge.request_id, forge=forge)] == [False]
    assert sandbox.told == [why]
    sandbox.script({"on": "callback", "do": "forge", "forge": forge})
    sandbox.payer(charge.request_id, "pay", made.action)
    assert sandbox.notice(charge.request_id).charged is not None
    assert sandbox.told[0] == why


def test_callback_when_signed_with_another_amount_or_number(sandbox: ProviderSandbox, alipay: Alipay) -> None:
    """What the right key signed is read as it is: amount and number stand in the notice, for the use case to compare."""
    charge = tea()
    alipay.charge(charge)
    sandbox.call_back(charge.request_id, forge="amount")
    told = sandbox.notice(charge.request_id).charged
    assert told is not None
    assert told.amount == Money("CNY", 8889)
    sandbox.call_back(charge.request_id, forge="order")
    assert sandbox.notice(f"{charge.request_id}0").charged is not None


@pytest.mark.parametrize("do", [None, "omit", "drift", "repeat", "stray"])
def test_bill_when_fetched(sandbox: ProviderSandbox, alipay: Alipay, do: str | None) -> None:
    """The bill of a day has every charge and refund of it, with the faults that were put into it."""
    charge = paid(sandbox, alipay)
    assert alipay.refund(part(charge, f"RB{charge.request_id}", 888)).verdict is Verdict.DONE
    asked, refunded = alipay.query(charge.request_id), alipay.query_refund(part(charge, f"RB{charge.request_id}", 888))
    today = datetime.now(CHINA).date().isoformat()
    assert alipay.fetch_bill(today) is None, "the day is not over"
    rule = {"on": "bill", "do": do or "", "request_id": "" if do == "stray" else charge.request_id}
    sandbox.script(*([rule] if do else []), bill_today=True)
    bill = alipay.fetch_bill(today)
    assert bill is not None
    assert bill.content.startswith(b"PK")
    ours = [each for each in bill.lines if each.charge_request_id == charge.request_id]
    line = BillLine("charge", charge.request_id, charge.request_id, asked.provider_id, TEA, 53, asked.at_ms)
    drifted = BillLine(
        "charge", charge.request_id, charge.request_id, asked.provider_id, Money("CNY", 8889), 53, asked.at_ms
    )
    back = BillLine(
        "refund", f"RB{charge.request_id}", charge.request_id, asked.provider_id, Money("CNY", 888), -5, refunded.at_ms
    )
    wanted = {"omit": [back], "drift": [drifted, back], "repeat": [line, line, back]}.get(do or "", [line, back])
    assert sorted(ours, key=repr) == sorted(wanted, key=repr)
    assert any(each.request_id.startswith("STRAY") for each in bill.lines) is (do == "stray")
    assert alipay.fetch_bill("2020-01-01") is None
