"""Alipay's adapter: what it asks, and what it makes of the answers."""

from __future__ import annotations

import dataclasses
import json
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest

from services.kernel.money import Money
from services.payment.adapters import rsa
from services.payment.adapters.alipay import Alipay, AlipaySettings, signing
from services.payment.ports.provider import Charge, Charged, Phase, Refunded, Refunding, Verdict
from tests.fakes.alipay import SETTINGS, FakeGateway, answer_text, sign, verify_request
from tests.fakes.order import FakeClock
from tests.fakes.provider_vectors import (
    ALIPAY_ANSWER,
    ALIPAY_PUBLIC_KEY,
    MERCHANT_KEY,
    MERCHANT_PUBLIC_KEY,
    NOW_MS,
    PRECREATE_SIGN,
)

CNY = "CNY"


def adapter(gateway: FakeGateway, **changed: str) -> Alipay:
    """The adapter before a gateway of ours, at a time that stands still."""
    return Alipay(dataclasses.replace(SETTINGS, **changed), FakeClock(NOW_MS), gateway)  # type: ignore[arg-type]


def tea(**changed: object) -> Charge:
    """A charge of one fen."""
    made = Charge("P1001", Money(CNY, 1), "Tea", "qr", NOW_MS + 900_000)
    return dataclasses.replace(made, **changed)  # type: ignore[arg-type]


def refunding(**changed: object) -> Refunding:
    """A refund of 0.40 of 1.00."""
    made = Refunding("R1", "P1002", "T1", Money(CNY, 40), Money(CNY, 100), "too cold")
    return dataclasses.replace(made, **changed)  # type: ignore[arg-type]


def test_request_when_signed_as_openssl_signs_it() -> None:
    """A request has the parameters of the protocol, in China time, and the signature that openssl makes of them."""
    gateway = FakeGateway()
    gateway.says(out_trade_no="P1001", qr_code="https://qr.alipay.com/x")
    adapter(gateway).charge(tea())
    assert gateway.asked == [
        {
            "app_id": "2021000000000001",
            "method": "alipay.trade.precreate",
            "format": "JSON",
            "charset": "utf-8",
            "sign_type": "RSA2",
            "timestamp": "2026-11-24 08:00:00",
            "version": "1.0",
            "notify_url": "https://pay.example.com/api/payments/callbacks/alipay",
            "biz_content": '{"out_trade_no":"P1001","total_amount":"0.01","subject":"Tea","time_expire":"2026-11-24 08:15:00"}',
            "sign": PRECREATE_SIGN,
        }
    ]


def test_answer_when_written_as_no_serializer_would() -> None:
    """The signature is checked over the characters that came: escaped slashes and odd spaces hold."""
    gateway = FakeGateway(whole=ALIPAY_ANSWER.encode())
    made = adapter(gateway).charge(tea())
    assert made == Charged(
        Verdict.PENDING, Phase.WAITING, action={"qr_code": "https://qr.alipay.com/bax03431ljhokirwl38f00a7"}
    )


def test_answer_when_any_byte_is_changed() -> None:
    """Every byte counts: one changed makes the outcome unknown."""
    whole, gateway = ALIPAY_ANSWER.encode(), FakeGateway()
    alipay = adapter(gateway)
    for at in range(len(whole)):
        gateway.whole = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
        assert alipay.charge(tea()) == Charged(Verdict.UNKNOWN, code="unverified"), at


@pytest.mark.parametrize(
    "whole",
    [
        b"",
        b"<html>busy</html>",
        b"[]",
        b"{}",
        b'{"alipay_trade_query_response":{"code":"10000"}}',
        b'{"alipay_trade_query_response":{"code":"10000"},"sign":""}',
        b'{"alipay_trade_query_response":{"code":"10000"},"sign":7}',
        b"\xff\xfe",
        b"[" * 100_000,
        answer_text("alipay.trade.close", '{"code":"10000"}').encode(),
        answer_text("alipay.trade.query", '{"code":"10000"}', key=MERCHANT_KEY).encode(),
        answer_text("alipay.trade.query", '{"code":10000}').encode(),
        (answer_text("alipay.trade.query", '{"code":"10000"}')[:-1] + ',"error_response":{"code":"20000"}}').encode(),
        (answer_text("alipay.trade.query", '{"code":"10000"}')[:-1] + ',"sign":"x"}').encode(),
        answer_text("alipay.trade.query", '{"code":"10000","code":"40004"}').encode(),
        answer_text("alipay.trade.query", '{"code":"10000"}').encode() + b"x",
    ],
)
def test_answer_when_not_verified(whole: bytes) -> None:
    """What is not signed by Alipay, or is no answer to what was asked, leaves the outcome unknown."""
    assert adapter(FakeGateway(whole=whole)).query("P1002") == Charged(Verdict.UNKNOWN, code="unverified")


def test_answer_when_the_gateway_did_not_understand() -> None:
    """An answer under error_response is read like any other, if it is signed."""
    content = '{"code":"40001","msg":"Missing Method","sub_code":"isv.missing-method"}'
    whole = answer_text("", content, root="error_response").encode()
    assert adapter(FakeGateway(whole=whole)).charge(tea()) == Charged(Verdict.REFUSED, code="isv.missing-method")


@pytest.mark.parametrize(
    ("fault", "word"),
    [
        (httpx.ConnectError("refused"), "unreached"),
        (httpx.ConnectTimeout("slow"), "unreached"),
        (httpx.ReadTimeout("slow"), "timeout"),
        (httpx.RemoteProtocolError("gone"), "broken"),
        (httpx.ReadError("reset"), "broken"),
    ],
)
def test_every_call_when_the_network_fails(fault: Exception, word: str) -> None:
    """No method raises for the network, and none of them calls it a refusal."""
    alipay = adapter(FakeGateway(fault=fault))
    charges = [alipay.charge(tea()), alipay.query("P1"), alipay.close("P1")]
    assert charges == [Charged(Verdict.UNKNOWN, code=word)] * 3
    refunds = [alipay.refund(refunding()), alipay.query_refund(refunding())]
    assert refunds == [Refunded(Verdict.UNKNOWN, code=word)] * 2
    assert alipay.fetch_bill("2026-11-23") is None


def test_every_call_when_the_status_is_another() -> None:
    """Only a 200 is an answer of the gateway; a redirect is not followed."""
    for status in (302, 404, 500, 502):
        alipay = adapter(FakeGateway(status=status))
        assert alipay.query("P1") == Charged(Verdict.UNKNOWN, code=f"http_{status}")


def test_answer_when_too_large() -> None:
    """An answer that does not end is given up."""
    gateway = FakeGateway(whole=b" " * ((1 << 20) + 1))
    assert adapter(gateway).query("P1") == Charged(Verdict.UNKNOWN, code="too_large")


@pytest.mark.parametrize(
    ("scene", "method", "product"),
    [
        ("page", "alipay.trade.page.pay", "FAST_INSTANT_TRADE_PAY"),
        ("wap", "alipay.trade.wap.pay", "QUICK_WAP_WAY"),
        ("app", "alipay.trade.app.pay", "QUICK_MSECURITY_PAY"),
    ],
)
def test_charge_when_the_payer_brings_it(scene: str, method: str, product: str) -> None:
    """Page, wap and app hand the payer a signed request; nothing is sent by us."""
    gateway = FakeGateway()
    made = adapter(gateway, return_url="https://shop.example.com/done").charge(
        tea(scene=scene, description="茶 & a=b/c")
    )
    assert (made.verdict, made.phase, gateway.asked) == (Verdict.PENDING, Phase.WAITING, [])
    if scene == "app":
        query = made.action["app_parameters"]
    else:
        parts = urlsplit(made.action["redirect_url"])
        assert f"{parts.scheme}://{parts.netloc}{parts.path}" == SETTINGS.gateway_url
        query = parts.query
    parameters = dict(parse_qsl(query, strict_parsing=True))
    verify_request(parameters)
    assert (parameters["method"], parameters["return_url"]) == (method, "https://shop.example.com/done")
    assert json.loads(parameters["biz_content"]) == {
        "out_trade_no": "P1001",
        "total_amount": "0.01",
        "subject": "茶 a b c",
        "time_expire": "2026-11-24 08:15:00",
        "product_code": product,
    }


def test_charge_when_not_offered() -> None:
    """Another currency, scene or an authorization alone is refused before anything is sent."""
    gateway = FakeGateway()
    alipay = adapter(gateway)
    charges = (tea(amount=Money("USD", 1)), tea(scene="native"), tea(capture=False))
    made = [alipay.charge(each) for each in charges]
    made += [alipay.capture("P1", "T1", Money(CNY, 1)), alipay.void("P1", "T1")]
    assert made == [Charged(Verdict.REFUSED, code="unsupported")] * 5
    assert gateway.asked == []


def test_charge_when_the_answer_is_of_another_trade() -> None:
    """An answer that verifies but names another trade, or has no code, is not this charge's."""
    gateway = FakeGateway()
    for members in ({"out_trade_no": "P9", "qr_code": "x"}, {"out_trade_no": "P1001"}, {"qr_code": "x"}):
        gateway.says(**members)
        assert adapter(gateway).charge(tea()) == Charged(Verdict.UNKNOWN, code="unverified")


def standing(**changed: object) -> dict[str, object]:
    """What a query of P1002 answers."""
    made = {"out_trade_no": "P1002", "trade_no": "T1", "trade_status": "TRADE_SUCCESS", "total_amount": "88.88",
            "send_pay_date": "2026-11-24 07:59:30"}  # fmt: skip
    return {**made, **changed}


@pytest.mark.parametrize(
    ("status", "verdict", "phase"),
    [
        ("WAIT_BUYER_PAY", Verdict.PENDING, Phase.WAITING),
        ("TRADE_SUCCESS", Verdict.DONE, Phase.CAPTURED),
        ("TRADE_FINISHED", Verdict.DONE, Phase.CAPTURED),
        ("TRADE_CLOSED", Verdict.REFUSED, Phase.CLOSED),
    ],
)
def test_query_when_answered(status: str, verdict: Verdict, phase: Phase) -> None:
    """Every trade_status has its phase; amount and time are the provider's."""
    gateway = FakeGateway()
    gateway.says(**standing(trade_status=status))
    made = adapter(gateway).query("P1002")
    assert made == Charged(verdict, phase, "T1", amount=Money(CNY, 8888), at_ms=NOW_MS - 30_000)


@pytest.mark.parametrize(
    "changed",
    [
        {"out_trade_no": "P9"},
        {"trade_status": "TRADE_DREAMING"},
        {"total_amount": "88.8.8"},
        {"total_amount": "1e2"},
        {"total_amount": 88.88},
        {"total_amount": ""},
        {"send_pay_date": "yesterday"},
    ],
)
def test_query_when_the_answer_makes_no_sense(changed: dict[str, object]) -> None:
    """What verifies but cannot be this trade's is unknown."""
    gateway = FakeGateway()
    gateway.says(**standing(**changed))
    assert adapter(gateway).query("P1002") == Charged(Verdict.UNKNOWN, code="unverified")


def test_refund_when_money_moved() -> None:
    """fund_change Y is done; the sum of all refunds is not taken for the amount of this one."""
    gateway = FakeGateway()
    gateway.says(out_trade_no="P1002", trade_no="T1", fund_change="Y", refund_fee="0.90",
                 gmt_refund_pay="2026-11-24 07:59:30")  # fmt: skip
    assert adapter(gateway).refund(refunding()) == Refunded(Verdict.DONE, "T1", at_ms=NOW_MS - 30_000)
    assert json.loads(gateway.asked[0]["biz_content"]) == {
        "out_trade_no": "P1002",
        "out_request_no": "R1",
        "refund_amount": "0.40",
        "refund_reason": "too cold",
    }


@pytest.mark.parametrize("change", ["N", None])
def test_refund_when_this_call_moved_no_money(change: str | None) -> None:
    """Without fund_change Y a refund is unknown: a repeat and a refund under way look the same."""
    gateway = FakeGateway()
    gateway.says(out_trade_no="P1002", trade_no="T1", **({"fund_change": change} if change else {}))
    assert adapter(gateway).refund(refunding()).verdict is Verdict.UNKNOWN


def test_refund_when_of_another_trade() -> None:
    """A refund of another trade is not ours."""
    gateway = FakeGateway()
    gateway.says(out_trade_no="P9", fund_change="Y")
    assert adapter(gateway).refund(refunding()) == Refunded(Verdict.UNKNOWN, code="unverified")


def test_query_refund_when_it_arrived() -> None:
    """A refund that succeeded is done, with its own amount."""
    gateway = FakeGateway()
    gateway.says(out_trade_no="P1002", out_request_no="R1", trade_no="T1", refund_amount="0.40",
                 refund_status="REFUND_SUCCESS", gmt_refund_pay="2026-11-24 07:59:30")  # fmt: skip
    made = adapter(gateway).query_refund(refunding())
    assert made == Refunded(Verdict.DONE, "T1", amount=Money(CNY, 40), at_ms=NOW_MS - 30_000)


def test_query_refund_when_it_did_not() -> None:
    """No refund_status: Alipay did not get it, or it failed. An unknown one is told as it is."""
    gateway = FakeGateway()
    alipay = adapter(gateway)
    gateway.says()
    assert alipay.query_refund(refunding()) == Refunded(Verdict.UNKNOWN, code="absent")
    gateway.refuses("ACQ.TRADE_NOT_EXIST")
    assert alipay.query_refund(refunding()) == Refunded(Verdict.UNKNOWN, code="absent")
    gateway.says(refund_status="REFUND_PROCESSING", out_request_no="R1")
    assert alipay.query_refund(refunding()) == Refunded(Verdict.UNKNOWN, code="REFUND_PROCESSING")
    gateway.says(refund_status="REFUND_SUCCESS", out_request_no="R9", out_trade_no="P1002")
    assert alipay.query_refund(refunding()) == Refunded(Verdict.UNKNOWN, code="unverified")


def test_acknowledgement_when_taken_or_not() -> None:
    """The answer is exactly `success`; anything else, with a 500, is told again."""
    alipay = adapter(FakeGateway())
    taken, again = alipay.acknowledge(taken=True), alipay.acknowledge(taken=False)
    assert (taken.status, taken.content_type, taken.body) == (200, "text/plain", b"success")
    assert (again.status, again.body) == (500, b"fail")


@pytest.mark.parametrize(
    "changed",
    [
        {"gateway_url": "http://openapi.alipay.com/gateway.do"},
        {"gateway_url": "http://127.0.0.1.example.com/gateway.do"},
        {"gateway_url": "ftp://127.0.0.1/"},
        {"gateway_url": "https://user:secret@openapi.alipay.com/"},
        {"gateway_url": "gateway"},
        {"private_key": "-----BEGIN"},
        {"private_key": ALIPAY_PUBLIC_KEY},
        {"alipay_public_key": "x"},
        {"alipay_public_key": MERCHANT_KEY},
    ],
)
def test_settings_when_they_cannot_be(changed: dict[str, str]) -> None:
    """TLS but for this machine, and keys that are some: anything else is said at once, without the key's text."""
    with pytest.raises(ValueError, match=r"^(not|neither)") as raised:
        adapter(FakeGateway(), **changed)
    assert "BEGIN" not in str(raised.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_settings_when_the_sandbox_is_on_this_machine(host: str) -> None:
    """Without TLS only this machine is spoken to."""
    gateway = FakeGateway()
    adapter(gateway, gateway_url=f"http://{host}:8080/gateway.do").query("P1")
    assert len(gateway.asked) == 1


def test_settings_when_shown() -> None:
    """No key shows in a log of the settings."""
    assert "PRIVATE" not in repr(SETTINGS)
    assert "app_id='2021" in repr(SETTINGS)
    assert isinstance(SETTINGS, AlipaySettings)


def test_signature_when_made_by_the_adapter() -> None:
    """Empty parameters are neither signed nor sent; `sign` is not signed; sign_type is."""
    made = signing.signed(rsa.private_key(MERCHANT_KEY), {"b": "2", "a": "", "sign_type": "RSA2"})
    assert set(made) == {"b", "sign_type", "sign"}
    assert made["sign"] == sign("b=2&sign_type=RSA2", MERCHANT_KEY)
    assert rsa.verified(rsa.public_key(MERCHANT_PUBLIC_KEY), b"b=2&sign_type=RSA2", made["sign"])
