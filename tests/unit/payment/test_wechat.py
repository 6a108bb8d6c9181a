"""WeChat Pay's adapter: what it asks, and what it makes of the answers."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable

import httpx
import pytest

from services.kernel.money import Money
from services.payment.adapters import rsa
from services.payment.adapters.wechat import WechatPay, signing
from services.payment.ports.provider import Charge, Charged, Phase, Refunded, Refunding, Verdict
from tests.fakes.order import FakeClock
from tests.fakes.provider_vectors import (
    CLOSE_SIGN,
    MERCHANT_KEY,
    MERCHANT_PUBLIC_KEY,
    NOW_MS,
    PAY_SIGN,
    PUBLIC_KEY_ID,
    WECHAT_PUBLIC_KEY,
)
from tests.fakes.wechat import SETTINGS, FakeWechat, refund, signed_headers, transaction

CNY = "CNY"
NONCE = "593BEC0C930BF1AFEB40B4A08C8FB242"


def adapter(wechat: FakeWechat, **changed: object) -> WechatPay:
    """The adapter before a WeChat Pay of ours, at a time that stands still unless another ``clock`` is given."""
    clock = changed.pop("clock", FakeClock(NOW_MS))
    return WechatPay(dataclasses.replace(SETTINGS, **changed), clock, wechat)  # type: ignore[arg-type]


def tea(**changed: object) -> Charge:
    """A charge of one fen."""
    made = Charge("P1001", Money(CNY, 1), "Tea, `hot`", "native", NOW_MS + 900_000)
    return dataclasses.replace(made, **changed)  # type: ignore[arg-type]


def refunding(**changed: object) -> Refunding:
    """A refund of 0.40 of 1.00."""
    made = Refunding("R1", "P1002", "4200001", Money(CNY, 40), Money(CNY, 100), "too cold")
    return dataclasses.replace(made, **changed)  # type: ignore[arg-type]


def test_authorization_when_compared_with_openssl() -> None:
    """The header has the scheme's five attributes, and the signature that openssl makes."""
    signer = signing.Signer("1600000001", "444F4864EA9B34415AAA", rsa.private_key(MERCHANT_KEY))
    path = "/v3/pay/transactions/out-trade-no/P1001/close"
    made = signer.authorization("POST", path, b'{"mchid":"1600000001"}', seconds=1_795_478_400, nonce=NONCE)
    assert made == (
        f'WECHATPAY2-SHA256-RSA2048 mchid="1600000001",nonce_str="{NONCE}",signature="{CLOSE_SIGN}",'
        'timestamp="1795478400",serial_no="444F4864EA9B34415AAA"'
    )


def test_pay_sign_when_compared_with_openssl() -> None:
    """What the payer's app hands on is signed as openssl signs it."""
    signer = signing.Signer("1600000001", "444F4864EA9B34415AAA", rsa.private_key(MERCHANT_KEY))
    package = "prepay_id=wx201410272009395522657a690389285100"
    assert signer.pay_sign("wx0000000000000001", "1795478400", NONCE, package) == PAY_SIGN


def test_charge_when_native() -> None:
    """A native order asks with integer fen and China time, over the bytes that were signed, and hands out a code."""
    wechat = FakeWechat({"code_url": "weixin://wxpay/bizpayurl?pr=x"})
    made = adapter(wechat).charge(tea())
    assert made == Charged(Verdict.PENDING, Phase.WAITING, action={"qr_code": "weixin://wxpay/bizpayurl?pr=x"})
    [(method, path, body)] = wechat.asked
    assert (method, path) == ("POST", "/v3/pay/transactions/native")
    assert json.loads(body) == {
        "appid": "wx0000000000000001",
        "mchid": "1600000001",
        "description": "Tea, hot",
        "out_trade_no": "P1001",
        "time_expire": "2026-11-24T08:15:00+08:00",
        "notify_url": "https://pay.example.com/api/payments/callbacks/wechat",
        "amount": {"total": 1, "currency": "CNY"},
    }
    headers = wechat.request_headers[0]
    assert headers["wechatpay-serial"] == PUBLIC_KEY_ID, "the answer is to be signed with the public key that we hold"
    assert (headers["content-type"], headers["accept"]) == ("application/json", "application/json")
    assert headers["user-agent"]


def test_charge_when_jsapi() -> None:
    """In WeChat's browser the payer gets six signed parameters."""
    wechat = FakeWechat({"prepay_id": "wx2014"})
    made = adapter(wechat).charge(tea(scene="jsapi", payer={"openid": "o1"}))
    assert json.loads(wechat.asked[0][2])["payer"] == {"openid": "o1"}
    handed = json.loads(made.action["app_parameters"])
    text = f"{handed['appId']}\n{handed['timeStamp']}\n{handed['nonceStr']}\n{handed['package']}\n".encode()
    assert rsa.verified(rsa.public_key(MERCHANT_PUBLIC_KEY), text, handed.pop("paySign"))
    assert handed.pop("nonceStr")
    assert handed == {
        "appId": "wx0000000000000001",
        "timeStamp": "1795478400",
        "package": "prepay_id=wx2014",
        "signType": "RSA",
    }


def test_charge_when_app() -> None:
    """In an app the payer gets seven parameters, signed over four."""
    made = adapter(FakeWechat({"prepay_id": "wx2014"})).charge(tea(scene="app"))
    handed = json.loads(made.action["app_parameters"])
    text = f"{handed['appid']}\n{handed['timestamp']}\n{handed['noncestr']}\n{handed['prepayid']}\n".encode()
    assert rsa.verified(rsa.public_key(MERCHANT_PUBLIC_KEY), text, handed["sign"])
    assert (handed["partnerid"], handed["package"], handed["prepayid"]) == ("1600000001", "Sign=WXPay", "wx2014")


def test_charge_when_h5() -> None:
    """In a browser the payer is sent on; WeChat Pay is told his address."""
    wechat = FakeWechat({"h5_url": "https://wx.tenpay.com/x"})
    made = adapter(wechat).charge(tea(scene="h5", payer={"client_ip": "203.0.113.7"}))
    assert made.action == {"redirect_url": "https://wx.tenpay.com/x"}
    expected = {"payer_client_ip": "203.0.113.7", "h5_info": {"type": "Wap"}}
    assert json.loads(wechat.asked[0][2])["scene_info"] == expected


def test_charge_when_not_offered() -> None:
    """Another currency, scene or an authorization alone is refused before anything is sent, so is an unknown payer."""
    wechat = FakeWechat()
    pay = adapter(wechat)
    charges = (tea(amount=Money("USD", 1)), tea(scene="qr"), tea(capture=False))
    made = [pay.charge(each) for each in charges]
    made += [pay.capture("P1", "T1", Money(CNY, 1)), pay.void("P1", "T1")]
    assert made == [Charged(Verdict.REFUSED, code="unsupported")] * 5
    for each in (tea(scene="jsapi"), tea(scene="h5", payer={"openid": "o1"})):
        assert pay.charge(each) == Charged(Verdict.REFUSED, code="payer_incomplete")
    assert wechat.asked == []


@pytest.mark.parametrize("content", [{}, {"code_url": ""}, {"code_url": 7}, {"prepay_id": "x"}])
def test_charge_when_the_payer_is_given_nothing(content: object) -> None:
    """A 200 without what the payer needs is unknown."""
    assert adapter(FakeWechat(content)).charge(tea()) == Charged(Verdict.UNKNOWN, code="unverified")


@pytest.mark.parametrize(
    ("state", "verdict", "phase"),
    [
        ("SUCCESS", Verdict.DONE, Phase.CAPTURED),
        ("REFUND", Verdict.DONE, Phase.REFUNDED),
        ("NOTPAY", Verdict.PENDING, Phase.WAITING),
        ("USERPAYING", Verdict.PENDING, Phase.WAITING),
        ("ACCEPT", Verdict.PENDING, Phase.WAITING),
        ("CLOSED", Verdict.REFUSED, Phase.CLOSED),
        ("REVOKED", Verdict.REFUSED, Phase.CLOSED),
        ("PAYERROR", Verdict.REFUSED, Phase.FAILED),
    ],
)
def test_query_when_answered(state: str, verdict: Verdict, phase: Phase) -> None:
    """Every trade_state has its phase; amount and time are the provider's."""
    wechat = FakeWechat(transaction(trade_state=state))
    code = state if verdict is Verdict.REFUSED else ""
    expected = Charged(verdict, phase, "4200001", code=code, amount=Money(CNY, 100), at_ms=NOW_MS - 30_000)
    assert adapter(wechat).query("P1002") == expected
    assert wechat.asked == [("GET", "/v3/pay/transactions/out-trade-no/P1002?mchid=1600000001", b"")]


def test_query_when_not_paid_yet() -> None:
    """Before it is paid an order has neither an amount nor a number of WeChat Pay's."""
    content = transaction(trade_state="NOTPAY", amount=None, transaction_id=None, success_time=None)
    assert adapter(FakeWechat(content)).query("P1002") == Charged(Verdict.PENDING, Phase.WAITING)


@pytest.mark.parametrize(
    "changed",
    [
        {"out_trade_no": "P9"},
        {"mchid": "1600000009"},
        {"appid": "wx9"},
        {"appid": None},
        {"trade_state": "DREAMING"},
        {"trade_state": None},
        {"amount": None},
        {"amount": {"total": 1.5}},
        {"amount": {"total": "100"}},
        {"amount": {"total": True}},
        {"amount": {"total": -1}},
        {"amount": {"total": 2**53}},
        {"amount": {"total": 100, "currency": "USD"}},
        {"amount": 100},
        {"success_time": "2026-11-24T07:59:30"},
    ],
)
def test_query_when_the_answer_makes_no_sense(changed: dict[str, object]) -> None:
    """What verifies but cannot be this order's is unknown."""
    assert adapter(FakeWechat(transaction(**changed))).query("P1002") == Charged(Verdict.UNKNOWN, code="unverified")


def test_query_when_the_number_is_odd() -> None:
    """A number never leaves its place in the path."""
    wechat = FakeWechat(transaction())
    adapter(wechat).query("../x?y")
    assert wechat.asked[0][1] == "/v3/pay/transactions/out-trade-no/..%2Fx%3Fy?mchid=1600000001"


def test_close_when_done() -> None:
    """A close is answered 204, signed over an empty body."""
    wechat = FakeWechat(b"", 204)
    assert adapter(wechat).close("P1001") == Charged(Verdict.DONE, Phase.CLOSED)
    path = "/v3/pay/transactions/out-trade-no/P1001/close"
    assert wechat.asked == [("POST", path, b'{"mchid":"1600000001"}')]


@pytest.mark.parametrize(
    ("status", "verdict", "code"),
    [
        ("SUCCESS", Verdict.DONE, ""),
        ("PROCESSING", Verdict.PENDING, ""),
        ("CLOSED", Verdict.REFUSED, "CLOSED"),
        ("ABNORMAL", Verdict.UNKNOWN, "ABNORMAL"),
    ],
)
def test_refund_when_answered(status: str, verdict: Verdict, code: str) -> None:
    """Every status of a refund has its verdict, when it is made and when it is asked for."""
    wechat = FakeWechat(refund(status=status))
    pay = adapter(wechat)
    expected = Refunded(verdict, "5030001", code=code, amount=Money(CNY, 40), at_ms=NOW_MS - 30_000)
    assert (pay.refund(refunding()), pay.query_refund(refunding())) == (expected, expected)
    (_, made, body), (_, asked, _) = wechat.asked
    assert (made, asked) == ("/v3/refund/domestic/refunds", "/v3/refund/domestic/refunds/R1")
    assert json.loads(body) == {
        "out_trade_no": "P1002",
        "out_refund_no": "R1",
        "notify_url": "https://pay.example.com/api/payments/callbacks/wechat",
        "amount": {"refund": 40, "total": 100, "currency": "CNY"},
        "reason": "too cold",
    }


@pytest.mark.parametrize(
    "changed",
    [{"out_refund_no": "R9"}, {"out_trade_no": "P9"}, {"status": "DREAMING"}, {"status": None}, {"amount": None}],
)
def test_refund_when_the_answer_is_of_another(changed: dict[str, object]) -> None:
    """What verifies but cannot be this refund's is unknown."""
    pay = adapter(FakeWechat(refund(**changed)))
    expected = Refunded(Verdict.UNKNOWN, code="unverified")
    assert (pay.refund(refunding()), pay.query_refund(refunding())) == (expected, expected)


CALLS: list[Callable[[WechatPay], Charged | Refunded]] = [
    lambda pay: pay.charge(tea()),
    lambda pay: pay.query("P1002"),
    lambda pay: pay.close("P1002"),
    lambda pay: pay.refund(refunding()),
    lambda pay: pay.query_refund(refunding()),
]


def outcomes_of(pay: WechatPay) -> set[tuple[Verdict, str]]:
    """Verdict and word of every call."""
    return {(made.verdict, made.code) for made in (call(pay) for call in CALLS)}


@pytest.mark.parametrize(
    ("fault", "word"),
    [
        (httpx.ConnectError("refused"), "unreached"),
        (httpx.ReadTimeout("slow"), "timeout"),
        (httpx.ReadError("reset"), "broken"),
    ],
)
def test_every_call_when_the_network_fails(fault: Exception, word: str) -> None:
    """No method raises for the network, and none of them calls it a refusal."""
    pay = adapter(FakeWechat(fault=fault))
    assert outcomes_of(pay) == {(Verdict.UNKNOWN, word)}
    assert pay.fetch_bill("2026-11-23") is None


def test_every_call_when_the_answer_is_not_signed() -> None:
    """A 2xx without a signature is forged, and an error without one is nobody's: unknown, all of them."""
    for status in (200, 202, 204):
        assert outcomes_of(adapter(FakeWechat(transaction(), status, headers={}))) == {(Verdict.UNKNOWN, "unverified")}
    for status in (302, 400, 404, 500, 502):
        wechat = FakeWechat({"code": "PARAM_ERROR", "message": "no"}, status, headers={})
        assert outcomes_of(adapter(wechat)) == {(Verdict.UNKNOWN, f"http_{status}")}


def test_every_call_when_the_answer_is_no_json() -> None:
    """What verifies but cannot be read is unknown."""
    for content in (b"<html>", b"[]", b"\xff", b'{"a":1,"a":2}'):
        for status in (200, 500):
            assert outcomes_of(adapter(FakeWechat(content, status))) == {(Verdict.UNKNOWN, "unverified")}


def test_answer_when_any_byte_is_changed() -> None:
    """Every byte of the body and of the four headers counts: one changed makes the outcome unknown."""
    body = json.dumps(transaction()).encode()
    genuine = signed_headers(body)
    wechat = FakeWechat(body, headers=genuine)
    pay = adapter(wechat)
    assert pay.query("P1002").verdict is Verdict.DONE
    for at in range(len(body)):
        wechat.content = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
        assert pay.query("P1002") == Charged(Verdict.UNKNOWN, code="unverified"), at
    wechat.content = body
    for name, value in genuine.items():
        for at in range(len(value)):
            wechat.headers = {**genuine, name: value[:at] + chr(ord(value[at]) ^ 1) + value[at + 1 :]}
            assert pay.query("P1002") == Charged(Verdict.UNKNOWN, code="unverified"), (name, at)
        wechat.headers = {each: text for each, text in genuine.items() if each != name}
        assert pay.query("P1002") == Charged(Verdict.UNKNOWN, code="unverified"), name


@pytest.mark.parametrize(
    ("age_s", "taken"), [(0, True), (299, True), (-299, True), (300, False), (-300, False), (86400, False)]
)
def test_answer_when_old_or_of_the_future(age_s: int, taken: bool) -> None:  # noqa: FBT001 - a case of the table
    """Less than five minutes either way."""
    made = adapter(FakeWechat(transaction(), at_ms=NOW_MS - age_s * 1000)).query("P1002")
    assert (made.verdict is Verdict.DONE) is taken


def test_acknowledgement_when_taken_or_not() -> None:
    """200 is taken; a 500 is told again."""
    pay = adapter(FakeWechat())
    taken, again = pay.acknowledge(taken=True), pay.acknowledge(taken=False)
    assert (taken.status, taken.content_type, json.loads(taken.body)["code"]) == (200, "application/json", "SUCCESS")
    assert (again.status, json.loads(again.body)["code"]) == (500, "FAIL")


@pytest.mark.parametrize(
    "changed",
    [
        {"base_url": "http://api.mch.weixin.qq.com"},
        {"private_key": "x"},
        {"apiv3_key": b"short"},
        {"public_keys": {}},
        {"public_keys": {"5157F09E": WECHAT_PUBLIC_KEY}},
        {"public_keys": {PUBLIC_KEY_ID: "x"}},
        {"certificates": {"5157F09E": "x"}},
    ],
)
def test_settings_when_they_cannot_be(changed: dict[str, object]) -> None:
    """TLS but for this machine, keys that are some, and something to verify with: anything else is said at once."""
    with pytest.raises(ValueError, match=r".") as raised:
        adapter(FakeWechat(), **changed)
    assert "BEGIN" not in str(raised.value)


def test_settings_when_shown() -> None:
    """No key shows in a log of the settings."""
    shown = repr(SETTINGS)
    assert "PRIVATE" not in shown
    assert "0123456789abcdef" not in shown
