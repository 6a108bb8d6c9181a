"""WeChat Pay's adapter and the sandbox's, which were written apart from the same page of the protocol."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import datetime

import pytest

from services.kernel.clock import SystemClock
from services.kernel.money import Money
from services.payment.adapters.china import CHINA
from services.payment.adapters.wechat import WechatPay, WechatSettings
from services.payment.ports.provider import BillLine, Charge, Charged, Notice, Phase, Refunded, Refunding, Verdict
from tests.integration.provider_sandbox import ProviderSandbox, eventually

READ_S = 1.0
TEA = Money("CNY", 8888)
NUMBERS = itertools.count(1)
PAYER = {"openid": "oUpF8uMuAJO_M2pxb1Q9zNjWeS6o", "client_ip": "203.0.113.7"}


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProviderSandbox]:
    """The sandbox, playing WeChat Pay; a refund is processing for 50 ms."""
    with ProviderSandbox(tmp_path_factory.mktemp("providers") / "keys", "wechat", time_scale=0.01) as running:
        yield running


def settings_of(sandbox: ProviderSandbox, *, public_key: bool, certificates: bool) -> WechatSettings:
    """The merchant's settings, with the keys of either mode or both."""
    held = sandbox.merchant
    return WechatSettings(
        mchid=held["mchid"],
        app_id=held["appid"],
        serial_no=held["serial_no"],
        private_key=held["private_key"],
        apiv3_key=held["api_v3_key"].encode(),
        base_url=sandbox.url,
        notify_url=sandbox.notify_url,
        public_keys={held["public_key_id"]: held["public_key"]} if public_key else {},
        fetch_certificates=certificates,
        connect_s=1,
        read_s=READ_S,
    )


@pytest.fixture
def wechat(sandbox: ProviderSandbox) -> Iterator[WechatPay]:
    """The adapter with certificates, and a sandbox that behaves."""
    made = WechatPay(settings_of(sandbox, public_key=True, certificates=True), SystemClock())
    sandbox.provider = made
    sandbox.script()
    yield made
    made.stop()


def tea(scene: str = "native", amount: Money = TEA) -> Charge:
    """A new charge that ends in a quarter of an hour."""
    expire_ms = SystemClock().now_ms() + 900_000
    return Charge(f"P{next(NUMBERS):06}", amount, "一壶茶 & 糕点, `两碗`", scene, expire_ms, PAYER)


def part(charge: Charge, number: str, fen: int) -> Refunding:
    """A refund of a part."""
    return Refunding(number, charge.request_id, "", Money("CNY", fen), charge.amount, "凉了")


def new_part(charge: Charge, fen: int = 888) -> Refunding:
    """A refund with a new number: here a number is one refund of the merchant, whatever the charge."""
    return part(charge, f"R{next(NUMBERS):06}", fen)


def paid(sandbox: ProviderSandbox, wechat: WechatPay, scene: str = "native") -> Charge:
    """A charge that was paid and called back."""
    charge = tea(scene)
    sandbox.payer(charge.request_id, "pay", wechat.charge(charge).action)
    sandbox.notice(charge.request_id)
    return charge


@pytest.mark.parametrize(
    ("scene", "action"),
    [("native", "qr_code"), ("jsapi", "app_parameters"), ("app", "app_parameters"), ("h5", "redirect_url")],
)
def test_charge_when_paid(sandbox: ProviderSandbox, wechat: WechatPay, scene: str, action: str) -> None:
    """In every scene the payer pays with what he was given; callback and query agree; the book has one charge."""
    charge = tea(scene)
    assert wechat.query(charge.request_id).phase is Phase.ABSENT
    made = wechat.charge(charge)
    assert (made.verdict, made.phase, list(made.action)) == (Verdict.PENDING, Phase.WAITING, [action])
    assert wechat.query(charge.request_id) == Charged(Verdict.PENDING, Phase.WAITING, amount=TEA)

    shown = sandbox.payer(charge.request_id, "pay", made.action)["charge"]
    told, asked = sandbox.notice(charge.request_id), wechat.query(charge.request_id)
    at_ms = shown["paid_ms"] // 1000 * 1000
    assert told.charged == asked == Charged(Verdict.DONE, Phase.CAPTURED, shown["provider_id"], amount=TEA, at_ms=at_ms)
    assert eventually(lambda: [each["taken"] for each in sandbox.deliveries(charge.request_id)] == [True])
    book = sandbox.charge(charge.request_id)
    assert book is not None
    assert (book["times_charged"], book["expire_ms"]) == (1, charge.expire_ms // 1000 * 1000)


def test_charge_when_repeated(sandbox: ProviderSandbox, wechat: WechatPay) -> None:
    """The same charge again is the same order; once paid it is not refused but asked for; other content is too."""
    charge = tea()
    first, again = wechat.charge(charge), wechat.charge(charge)
    assert first == again
    other = Charge(charge.request_id, Money("CNY", 1), charge.description, "native", charge.expire_ms)
    assert wechat.charge(other) == Charged(Verdict.UNKNOWN, code="OUT_TRADE_NO_USED")
    sandbox.payer(charge.request_id, "pay", first.action)
    assert wechat.charge(charge) == Charged(Verdict.UNKNOWN, code="ORDERPAID")
    assert wechat.query(charge.request_id).phase is Phase.CAPTURED


def test_charge_when_too_late(sandbox: ProviderSandbox, wechat: WechatPay) -> None:
    """A charge that would end in the past is not there afterwards."""
    charge = tea()
    late = Charge(charge.request_id, TEA, "tea", "native", SystemClock().now_ms() - 60_000)
    assert wechat.charge(late).verdict is not Verdict.PENDING
    assert sandbox.charge(charge.request_id) is None
    assert wechat.query(charge.request_id).phase is Phase.ABSENT


def test_close_when_unpaid_paid_and_absent(sandbox: ProviderSandbox, wechat: WechatPay) -> None:
    """An open order is closed; a paid one is not; one that is not there need not be."""
    charge = tea()
    assert wechat.close(charge.request_id).phase is Phase.ABSENT
    wechat.charge(charge)
    assert wechat.close(charge.request_id) == Charged(Verdict.DONE, Phase.CLOSED)
    assert wechat.close(charge.request_id) == Charged(Verdict.DONE, Phase.CLOSED)
    asked = wechat.query(charge.request_id)
    assert (asked.verdict, asked.phase) == (Verdict.REFUSED, Phase.CLOSED)
    assert wechat.charge(charge) == Charged(Verdict.REFUSED, Phase.CLOSED, code="ORDER_CLOSED")
    settled = paid(sandbox, wechat)
    assert wechat.close(settled.request_id) == Charged(Verdict.REFUSED, code="ORDERPAID")
    assert wechat.query(settled.request_id).phase is Phase.CAPTURED


def test_refund_when_in_parts(sandbox: ProviderSandbox, wechat: WechatPay) -> None:
    """Two parts and no more; each is processing, then told and asked for as done; a repeat is the same refund."""
    charge = paid(sandbox, wechat)
    one, rest, more = new_part(charge, 888), new_part(charge, 8000), new_part(charge, 1)
    assert wechat.query_refund(one) == Refunded(Verdict.UNKNOWN, code="absent")
    made = wechat.refund(one)
    assert (made.verdict, made.amount) == (Verdict.PENDING, Money("CNY", 888))
    told = sandbox.notice(one.request_id)
    assert told.charged is None
    assert told.refunded == wechat.query_refund(one) == wechat.refund(one)
    assert told.refunded is not None
    assert (told.refunded.verdict, told.refunded.amount, told.refunded.provider_id) == (
        Verdict.DONE,
        Money("CNY", 888),
        made.provider_id,
    )
    assert wechat.query(charge.request_id).phase is Phase.REFUNDED, "in part, which its own word does not say"
    assert wechat.refund(part(charge, one.request_id, 887)) == Refunded(Verdict.REFUSED, code="INVALID_REQUEST")
    assert wechat.query_refund(one).verdict is Verdict.DONE
    assert wechat.refund(new_part(charge, 8001)) == Refunded(Verdict.REFUSED, code="INVALID_REQUEST")
    assert wechat.refund(rest).verdict is Verdict.PENDING
    assert wechat.refund(more) == Refunded(Verdict.REFUSED, code="INVALID_REQUEST")
    assert sandbox.notice(rest.request_id).refunded is not None
    book = sandbox.charge(charge.request_id)
    assert book is not None
    assert (book["refunded"], len(book["refunds"])) == (8888, 2)


def test_refund_when_of_an_order_that_is_not_there(wechat: WechatPay) -> None:
    """What was never charged is not refunded."""
    assert wechat.refund(new_part(tea())).verdict is Verdict.REFUSED


def test_refund_when_the_payers_bank_does_not_take_it(sandbox: ProviderSandbox, wechat: WechatPay) -> None:
    """An abnormal refund is neither done nor refused: somebody has to look at it."""
    charge = paid(sandbox, wechat)
    refunding = new_part(charge)
    sandbox.script({"on": "refund", "do": "abnormal"})
    assert wechat.refund(refunding).verdict is Verdict.PENDING
    told = sandbox.notice(refunding.request_id).refunded
    assert told is not None
    assert (told.verdict, told.code) == (Verdict.UNKNOWN, "ABNORMAL")
    assert wechat.query_refund(refunding) == told


UNKNOWN_WORDS = {
    "processing_error": "BANK_ERROR",
    "error": "SYSTEM_ERROR",
    "error_after": "SYSTEM_ERROR",
    "hang": "timeout",
    "hang_after": "timeout",
    "drop": "broken",
    "drop_before": "broken",
}
"""Scripts after which nobody can tell, and the word for it."""


@pytest.mark.parametrize("do", sorted(UNKNOWN_WORDS))
def test_charge_when_nobody_can_tell(sandbox: ProviderSandbox, wechat: WechatPay, do: str) -> None:
    """Unknown is never refused, and a query settles it: charged once, or to be paid, or sent again with the same number."""
    charge = tea()
    sandbox.script({"on": "charge", "do": do, "request_id": charge.request_id})
    assert wechat.charge(charge) == Charged(Verdict.UNKNOWN, code=UNKNOWN_WORDS[do])
    if do in {"hang_after", "drop"}:  # the payer was charged, and the merchant heard nothing
        assert eventually(lambda: wechat.query(charge.request_id).phase is Phase.CAPTURED)
        assert sandbox.notice(charge.request_id).charged == wechat.query(charge.request_id)
    else:
        assert wechat.query(charge.request_id).phase is (Phase.WAITING if do == "error_after" else Phase.ABSENT)
        sandbox.payer(charge.request_id, "pay", wechat.charge(charge).action)
    book = sandbox.charge(charge.request_id)
    assert book is not None
    assert book["times_charged"] == 1


@pytest.mark.parametrize(("do", "code"), [("decline", "RULE_LIMIT"), ("insufficient_funds", "NOT_ENOUGH")])
def test_charge_when_refused(sandbox: ProviderSandbox, wechat: WechatPay, do: str, code: str) -> None:
    """A refusal of the provider is one, and nothing stands in its book."""
    charge = tea()
    sandbox.script({"on": "charge", "do": do})
    assert wechat.charge(charge) == Charged(Verdict.REFUSED, code=code)
    assert sandbox.charge(charge.request_id) is None


def test_charge_when_slow(sandbox: ProviderSandbox, wechat: WechatPay) -> None:
    """A provider that is slow is waited for; one that is too slow leaves the outcome unknown."""
    sandbox.script({"on": "charge", "do": "slow", "delay_ms": 100})
    assert wechat.charge(tea()).verdict is Verdict.PENDING
    sandbox.script({"on": "charge", "do": "slow", "delay_ms": 2000})
    assert wechat.charge(tea()) == Charged(Verdict.UNKNOWN, code="timeout")


def test_charge_when_refused_and_called_back_as_paid(sandbox: ProviderSandbox, wechat: WechatPay) -> None:
    """A provider that refuses and then calls back success is believed in both, for the use case to see the contradiction."""
    charge = tea()
    sandbox.script({"on": "charge", "do": "fail_then_success"})
    assert wechat.charge(charge).verdict is Verdict.REFUSED
    assert sandbox.notice(charge.request_id).charged == wechat.query(charge.request_id)
    assert wechat.query(charge.request_id).phase is Phase.CAPTURED


@pytest.mark.parametrize("forge", ["signature", "unsigned", "timestamp", "probe", "serial"])
def test_every_call_when_the_answer_is_forged(sandbox: ProviderSandbox, wechat: WechatPay, forge: str) -> None:
    """An answer that is not signed right just now by a known key leaves every outcome unknown."""
    charge = paid(sandbox, wechat)
    operations = ("query", "charge", "close", "refund", "query_refund")
    sandbox.script(*({"on": on, "do": "forge", "forge": forge} for on in operations))
    made = [wechat.query(charge.request_id), wechat.charge(tea())]
    assert made == [Charged(Verdict.UNKNOWN, code="unverified")] * 2
    closed = wechat.close(charge.request_id)
    assert closed == Charged(Verdict.UNKNOWN, code="http_400"), "what refuses without a signature is nobody's refusal"
    refunding = new_part(charge)
    assert wechat.refund(refunding) == wechat.query_refund(refunding) == Refunded(Verdict.UNKNOWN, code="unverified")
    assert wechat.query_refund(refunding).verdict in {Verdict.PENDING, Verdict.DONE}


def test_query_when_signed_but_of_another_order_or_amount(sandbox: ProviderSandbox, wechat: WechatPay) -> None:
    """Another order's answer is not this one's; another amount is told as it is: the use case compares."""
    charge = paid(sandbox, wechat)
    refunding = new_part(charge)
    wechat.refund(refunding)
    sandbox.script(*({"on": on, "do": "forge", "forge": "order"} for on in ("query", "query_refund")))
    assert wechat.query(charge.request_id) == Charged(Verdict.UNKNOWN, code="unverified")
    assert wechat.query_refund(refunding) == Refunded(Verdict.UNKNOWN, code="unverified")
    sandbox.script(*({"on": on, "do": "forge", "forge": "amount"} for on in ("query", "query_refund")))
    assert wechat.query(charge.request_id).amount == Money("CNY", 8889)
    assert wechat.query_refund(refunding).amount == Money("CNY", 889)


OTHER_DEEDS = ["decline", "insufficient_funds", *sorted(UNKNOWN_WORDS)]


@pytest.mark.parametrize("do", OTHER_DEEDS)
def test_query_when_anything_goes_wrong(sandbox: ProviderSandbox, wechat: WechatPay, do: str) -> None:
    """A query that fails says nothing about the charge, not even that it was refused."""
    charge = paid(sandbox, wechat)
    refunding = new_part(charge)
    assert wechat.refund(refunding).verdict is Verdict.PENDING
    sandbox.script({"on": "query", "do": do}, {"on": "query_refund", "do": do})
    asked, refunded = wechat.query(charge.request_id), wechat.query_refund(refunding)
    assert (asked.verdict, asked.phase, refunded.verdict) == (Verdict.UNKNOWN, None, Verdict.UNKNOWN)
    assert wechat.query(charge.request_id).phase is Phase.REFUNDED
    assert eventually(lambda: wechat.query_refund(refunding).verdict is Verdict.DONE)


@pytest.mark.parametrize("do", OTHER_DEEDS)
def test_close_when_anything_goes_wrong(sandbox: ProviderSandbox, wechat: WechatPay, do: str) -> None:
    """A close that fails is unknown; again it is done, whether it had been or not."""
    charge = tea()
    wechat.charge(charge)
    sandbox.script({"on": "close", "do": do})
    assert wechat.close(charge.request_id).verdict is Verdict.UNKNOWN
    assert wechat.close(charge.request_id) == Charged(Verdict.DONE, Phase.CLOSED)
    assert wechat.query(charge.request_id).phase is Phase.CLOSED


@pytest.mark.parametrize("do", sorted(UNKNOWN_WORDS))
def test_refund_when_nobody_can_tell(sandbox: ProviderSandbox, wechat: WechatPay, do: str) -> None:
    """Unknown is never refused: a query finds it, or it is absent and sent again with the same number; money moves once."""
    charge = paid(sandbox, wechat)
    refunding = new_part(charge)
    sandbox.script({"on": "refund", "do": do})
    assert wechat.refund(refunding) == Refunded(Verdict.UNKNOWN, code=UNKNOWN_WORDS[do])
    if do not in {"error_after", "hang_after", "drop"}:
        assert wechat.query_refund(refunding) == Refunded(Verdict.UNKNOWN, code="absent")
        assert wechat.refund(refunding).verdict is Verdict.PENDING
    assert eventually(lambda: wechat.query_refund(refunding).verdict is Verdict.DONE)
    told = sandbox.notice(refunding.request_id).refunded
    assert told == wechat.query_refund(refunding)
    book = sandbox.charge(charge.request_id)
    assert book is not None
    assert book["refunded"] == 888


@pytest.mark.parametrize(("do", "code"), [("decline", "RULE_LIMIT"), ("insufficient_funds", "NOT_ENOUGH")])
def test_refund_when_refused(sandbox: ProviderSandbox, wechat: WechatPay, do: str, code: str) -> None:
    """A refusal of the provider is one, and no refund stands in its book."""
    charge = paid(sandbox, wechat)
    refunding = new_part(charge)
    sandbox.script({"on": "refund", "do": do})
    assert wechat.refund(refunding) == Refunded(Verdict.REFUSED, code=code)
    assert wechat.query_refund(refunding) == Refunded(Verdict.UNKNOWN, code="absent")


def test_callback_when_duplicated_lost_late_and_reordered(sandbox: ProviderSandbox, wechat: WechatPay) -> None:
    """Fifty at once say the same under one id; a lost one comes again; the order is the sender's."""
    charge = tea()
    sandbox.script({"on": "callback", "do": "duplicate"})
    sandbox.payer(charge.request_id, "pay", wechat.charge(charge).action)
    assert eventually(lambda: len(sandbox.told) == 50)
    assert len(set(map(repr, sandbox.told))) == 1
    assert isinstance(sandbox.told[0], Notice)

    charge = tea()
    sandbox.script({"on": "callback", "do": "lose", "times": 2})
    sandbox.payer(charge.request_id, "pay", wechat.charge(charge).action)
    sandbox.notice(charge.request_id)
    assert eventually(lambda: [each["status"] for each in sandbox.deliveries(charge.request_id)] == [0, 0, 200])

    charge = tea()
    sandbox.script({"on": "callback", "do": "late", "delay_ms": 300})
    sandbox.payer(charge.request_id, "pay", wechat.charge(charge).action)
    assert wechat.query(charge.request_id).phase is Phase.CAPTURED
    assert sandbox.told == []
    assert sandbox.notice(charge.request_id).charged == wechat.query(charge.request_id)

    charge = tea()
    refunding = new_part(charge)
    sandbox.script({"on": "callback", "do": "reorder", "times": 0, "delay_ms": 700})
    sandbox.payer(charge.request_id, "pay", wechat.charge(charge).action)
    assert wechat.refund(refunding).verdict is Verdict.PENDING
    assert eventually(lambda: len(sandbox.told) == 2)
    notices = [each.request_id for each in sandbox.told if isinstance(each, Notice)]
    assert notices == [refunding.request_id, charge.request_id]


def test_callback_when_not_taken(sandbox: ProviderSandbox, wechat: WechatPay) -> None:
    """What we answer with a 500 is told again, under the same id."""
    charge = tea()
    sandbox.taken = False
    sandbox.payer(charge.request_id, "pay", wechat.charge(charge).action)
    sandbox.notice(charge.request_id)
    sandbox.taken = True
    first, again = sandbox.notice(charge.request_id), sandbox.notice(charge.request_id, 1)
    assert first == again
    assert eventually(lambda: sandbox.deliveries(charge.request_id)[-1]["taken"])


@pytest.mark.parametrize(
    ("forge", "why"),
    [
        ("signature", "the signature does not verify"),
        ("timestamp", "too old or too new"),
        ("probe", "a probe"),
        ("serial", "signed with a key that is not known"),
        ("tag", "verifies, but cannot be taken: does not decrypt"),
        ("seller", "verifies, but cannot be taken: of another merchant or app"),
        ("app_id", "verifies, but cannot be taken: of another merchant or app"),
        ("currency", "verifies, but cannot be taken: not in CNY"),
    ],
)
def test_callback_when_forged(sandbox: ProviderSandbox, wechat: WechatPay, forge: str, why: str) -> None:
    """A forged callback is refused and told why, also before anybody paid; the true one behind it is taken."""
    charge = tea()
    made = wechat.charge(charge)
    sandbox.script()
    assert [each["taken"] for each in sandbox.call_back(charge.request_id, forge=forge)] == [False]
    assert sandbox.told == [why]
    sandbox.script({"on": "callback", "do": "forge", "forge": forge})
    sandbox.payer(charge.request_id, "pay", made.action)
    assert sandbox.notice(charge.request_id).charged is not None
    assert sandbox.told[0] == why


def test_callback_when_signed_with_another_amount_or_number(sandbox: ProviderSandbox, wechat: WechatPay) -> None:
    """What the right key signed is read as it is: amount and number stand in the notice, for the use case to compare."""
    charge = paid(sandbox, wechat)
    sandbox.script()
    sandbox.call_back(charge.request_id, forge="amount")
    told = sandbox.notice(charge.request_id).charged
    assert told is not None
    assert told.amount == Money("CNY", 8889)
    sandbox.call_back(charge.request_id, forge="order")
    assert sandbox.notice(f"{charge.request_id}0").charged is not None
    refunding = new_part(charge)
    wechat.refund(refunding)
    assert sandbox.notice(refunding.request_id).refunded is not None
    sandbox.call_back(refunding.request_id, forge="seller")
    assert sandbox.told[-1] == "verifies, but cannot be taken: of another merchant"


MODES = ["certificate", "next_certificate", "both_certificates", "public_key", "both"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("both", [True, False])
def test_keys_when_the_provider_switches(sandbox: ProviderSandbox, mode: str, both: bool) -> None:  # noqa: FBT001 - a case of the table
    """With the keys of both modes every answer and callback verifies, whatever signs; with those of one, its own do."""
    public = both or mode == "public_key"
    made = WechatPay(settings_of(sandbox, public_key=public, certificates=both or not public), SystemClock())
    sandbox.provider = made
    sandbox.script(sign_with=mode)
    try:
        turns = 4 if both or mode != "both" else 0
        for _ in range(turns):
            charge = paid(sandbox, made)
            assert made.query(charge.request_id).phase is Phase.CAPTURED
        assert all(isinstance(each, Notice) for each in sandbox.told)
        if not turns:  # certificates alone: what the public key signs is not known, and so unknown, not refused
            verdicts = {made.charge(tea()).verdict for _ in range(8)}
            assert Verdict.UNKNOWN in verdicts
            assert verdicts <= {Verdict.UNKNOWN, Verdict.PENDING}
    finally:
        made.stop()


def test_keys_when_switched_while_it_runs(sandbox: ProviderSandbox, wechat: WechatPay) -> None:
    """The provider goes from certificate to public key and back; nothing in between is refused or lost."""
    for mode in ("certificate", "both", "public_key", "both", "certificate"):
        sandbox.script(sign_with=mode)
        charge = paid(sandbox, wechat)
        assert wechat.query(charge.request_id).phase is Phase.CAPTURED
        assert all(isinstance(each, Notice) for each in sandbox.told)


@pytest.mark.parametrize("do", [None, "omit", "drift", "repeat", "stray"])
def test_bill_when_fetched(sandbox: ProviderSandbox, wechat: WechatPay, do: str | None) -> None:
    """The bill of a day has every charge and refund of it, with the faults that were put into it."""
    charge = paid(sandbox, wechat)
    refunding = new_part(charge)
    asked = wechat.query(charge.request_id)
    wechat.refund(refunding)
    sandbox.notice(refunding.request_id)
    refunded = wechat.query_refund(refunding)
    today = datetime.now(CHINA).date().isoformat()
    assert wechat.fetch_bill(today) is None, "the day is not over"
    rule = {"on": "bill", "do": do or "", "request_id": "" if do == "stray" else charge.request_id}
    sandbox.script(*([rule] if do else []), bill_today=True)
    bill = wechat.fetch_bill(today)
    assert bill is not None
    ours = [each for each in bill.lines if each.charge_request_id == charge.request_id]
    number = charge.request_id
    line = BillLine("charge", number, number, asked.provider_id, TEA, 53, asked.at_ms)
    drifted = BillLine("charge", number, number, asked.provider_id, Money("CNY", 8889), 53, asked.at_ms)
    back = BillLine("refund", refunding.request_id, number, refunded.provider_id, Money("CNY", 888), -5, refunded.at_ms)
    wanted = {"omit": [back], "drift": [drifted, back], "repeat": [line, line, back]}.get(do or "", [line, back])
    assert sorted(ours, key=repr) == sorted(wanted, key=repr)
    assert any(each.request_id.startswith("STRAY") for each in bill.lines) is (do == "stray")
    assert wechat.fetch_bill("2020-01-01") is None
