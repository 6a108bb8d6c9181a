"""Alipay's notifications: what verifies is read, everything else is forged."""

from __future__ import annotations

import random
from urllib.parse import parse_qsl, quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.kernel.money import Money
from services.payment.adapters.alipay import notices
from services.payment.ports.provider import Callback, CallbackForged, Charged, Notice, Phase, Refunded, Verdict
from tests.fakes.alipay import FakeGateway, notification, paid
from tests.fakes.provider_vectors import ALIPAY_NOTIFICATION, MERCHANT_KEY, NOW_MS
from tests.unit.payment.test_alipay import adapter

ALIPAY = adapter(FakeGateway())
GENUINE = ALIPAY_NOTIFICATION.encode()
NOTICE = Notice(
    "ac05099524730693a8b330c5ecf72da9786",
    "P1002",
    charged=Charged(
        Verdict.DONE,
        Phase.CAPTURED,
        "2026112422001455611000000001",
        amount=Money("CNY", 8888),
        at_ms=NOW_MS - 30_000,
    ),
)


def parse(body: bytes) -> Notice:
    """Read a notification."""
    return ALIPAY.parse(Callback({"content-type": "application/x-www-form-urlencoded"}, body), NOW_MS)


def refusal(body: bytes) -> str:
    """Why a notification is forged."""
    with pytest.raises(CallbackForged) as raised:
        parse(body)
    return str(raised.value)


def test_notice_when_signed_by_openssl() -> None:
    """A notification that other programs signed and encoded is read; a parameter nobody knows takes part in the signature."""
    assert parse(GENUINE) == NOTICE
    assert refusal(GENUINE.replace(b"a+new+parameter", b"another")) == "the signature does not verify"


def test_notice_when_encoded_in_another_way() -> None:
    """Order and encoding of the parameters are the sender's choice: the signature is over what they mean."""
    pairs = parse_qsl(GENUINE.decode(), strict_parsing=True)
    random.Random(7).shuffle(pairs)
    assert parse("&".join(f"{name}={quote(value, safe='')}" for name, value in pairs).encode()) == NOTICE


@pytest.mark.parametrize("name", sorted(paid()))
def test_notice_when_a_parameter_is_changed_or_missing(name: str) -> None:
    """Every parameter is signed: none can be changed, added or taken away."""
    genuine = notification(paid())
    whole = dict(parse_qsl(genuine.decode()))
    assert parse(genuine).request_id == "P1002"
    for value in (whole[name] + "0", "", None):
        changed = {**whole, name: value} if value is not None else {k: v for k, v in whole.items() if k != name}
        body = "&".join(f"{k}={quote_plus(str(v))}" for k, v in changed.items()).encode()
        assert refusal(body) in {"the signature does not verify", "not in UTF-8"}
    assert refusal(genuine + f"&{name}=x".encode()) == "a parameter stands twice, or its name is none"
    assert refusal(genuine + b"&another=x") == "the signature does not verify"


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"app_id": "2021000000000009"}, "app_id is not ours"),
        ({"seller_id": "2088000000000009"}, "seller_id is not ours"),
        ({"app_id": ""}, "app_id is not ours"),
        ({"seller_id": ""}, "seller_id is not ours"),
        ({"total_amount": "1e2"}, "verifies, but is no notification of a trade"),
        ({"total_amount": "-1.00"}, "verifies, but is no notification of a trade"),
        ({"total_amount": "1.001"}, "verifies, but is no notification of a trade"),
        ({"trade_status": "TRADE_DREAMING"}, "verifies, but is no notification of a trade"),
        ({"trade_no": ""}, "verifies, but is no notification of a trade"),
        ({"out_trade_no": ""}, "verifies, but is no notification of a trade"),
        ({"notify_id": ""}, "verifies, but is no notification of a trade"),
        ({"notify_type": "dut_user_sign"}, "verifies, but is no notification of a trade"),
        ({"gmt_payment": "just now"}, "verifies, but is no notification of a trade"),
        ({"charset": "gbk"}, "not in UTF-8"),
        ({"subject": "tea&trade_status=TRADE_SUCCESS"}, "a value holds another parameter"),
    ],
)
def test_notice_when_signed_but_not_for_us(changed: dict[str, str], why: str) -> None:
    """A right signature is not enough: app, seller and sense are checked too."""
    assert refusal(notification(paid(**changed))) == why


def test_notice_when_another_amount_is_signed() -> None:
    """The amount stands in the notice, for the use case to compare."""
    made = parse(notification(paid(total_amount="0.01")))
    assert made.charged is not None
    assert made.charged.amount == Money("CNY", 1)


@pytest.mark.parametrize("sign_type", [b"RSA", b"MD5", b"rsa2", b""])
def test_notice_when_another_algorithm_is_named(sign_type: bytes) -> None:
    """The algorithm is ours to say: SHA-1 (RSA) and MD5 are not taken whatever the signature."""
    assert refusal(GENUINE.replace(b"sign_type=RSA2", b"sign_type=" + sign_type)) == "sign_type is not RSA2"


def test_notice_when_signed_by_another() -> None:
    """Our own key signs for nobody else."""
    assert refusal(notification(paid(), MERCHANT_KEY)) == "the signature does not verify"


def test_notice_when_parameters_are_merged() -> None:
    """Two parameters cannot pass for one: the signed text would read the same, the notice would not."""
    merged = GENUINE.replace(b"&gmt_payment=", b"%26gmt_payment%3D")
    assert merged != GENUINE
    assert refusal(merged) == "a value holds another parameter"
    hidden = b"gmt_create%3D2026-11-24+07%3A58%3A01%26gmt_payment="
    merged = GENUINE.replace(b"gmt_create=2026-11-24+07%3A58%3A01", b"").replace(b"&&gmt_payment=", b"&" + hidden)
    assert hidden in merged
    whole = dict(parse_qsl(merged.decode(), strict_parsing=True))
    assert "gmt_payment" not in whole
    assert refusal(merged) == "a parameter stands twice, or its name is none"


@pytest.mark.parametrize(
    ("changed", "phase", "verdict"),
    [
        ({"trade_status": "WAIT_BUYER_PAY", "gmt_payment": ""}, Phase.WAITING, Verdict.PENDING),
        ({"trade_status": "TRADE_FINISHED"}, Phase.CAPTURED, Verdict.DONE),
        ({"trade_status": "TRADE_CLOSED"}, Phase.CLOSED, Verdict.REFUSED),
        ({"trade_status": "TRADE_CLOSED", "refund_fee": "88.88"}, Phase.REFUNDED, Verdict.DONE),
        ({"refund_fee": "8.00"}, Phase.CAPTURED, Verdict.DONE),
        ({"refund_fee": "0.00", "out_biz_no": "R1"}, Phase.CAPTURED, Verdict.DONE),
    ],
)
def test_notice_when_the_trade_stands_elsewhere(changed: dict[str, str], phase: Phase, verdict: Verdict) -> None:
    """Every state is told; a refund that was not made by us is told of the charge."""
    made = parse(notification(paid(**changed)))
    assert made.charged is not None
    assert (made.request_id, made.charged.phase, made.charged.verdict) == ("P1002", phase, verdict)


def test_notice_when_a_refund_of_ours_is_told() -> None:
    """With our number of a refund the notice is the refund's; the amount of this one stays open."""
    told = paid(refund_fee="8.00", out_biz_no="R1", gmt_refund="2026-11-24 07:59:30.123")
    made = parse(notification(told))
    assert made == Notice("n-1", "R1", refunded=Refunded(Verdict.DONE, "T1", at_ms=NOW_MS - 30_000))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"x",
        b"a=1&&b=2",
        b"sign=x&sign_type=RSA2",
        b"\xff\xfe=1",
        "a=茶".encode(),
        b"a=%ff&sign_type=RSA2&sign=x",
        b"&".join(b"p%d=1" % each for each in range(notices.PARAMETERS_MAX + 1)),
        b"a=" + b"x" * notices.BODY_BYTES_MAX,
    ],
)
def test_notice_when_malformed(body: bytes) -> None:
    """Anything can come to a public address: what is no form is forged, quickly."""
    assert refusal(body)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=2000))
def test_notice_when_random(body: bytes) -> None:
    """Random bytes are forged and raise nothing else."""
    assert refusal(body)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text(max_size=20), st.text(max_size=50), max_size=20))
def test_notice_when_a_random_form(parameters: dict[str, str]) -> None:
    """A form of random parameters, well encoded and with the right algorithm's name, is forged."""
    try:
        form = {**parameters, "sign_type": "RSA2", "sign": "QUJD"}
        body = "&".join(f"{quote_plus(name)}={quote_plus(value)}" for name, value in form.items()).encode()
    except UnicodeEncodeError:
        body = b"surrogates=1"
    assert refusal(body)


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_notice_when_mutated(data: st.DataObject) -> None:
    """A genuine notification with bytes changed, cut, doubled or moved is forged, or says what the genuine one says."""
    body = bytearray(GENUINE)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body)))
        until = min(len(body), at + data.draw(st.integers(0, 30)))
        fresh = data.draw(
            st.sampled_from([b"", bytes(body[at:until]) * 2, b"%26", b"%3D", b"&", b"=", b"+", b"%20"])
            | st.binary(max_size=5)
        )
        body[at:until] = fresh
    try:
        assert parse(bytes(body)) == NOTICE
    except CallbackForged as forged:
        assert str(forged)  # noqa: PT017 - either of the two may come out


def test_notice_when_any_byte_is_changed() -> None:
    """Of every byte of a notification: the changed one is forged, or means the same (%2f and %2F)."""
    for at in range(len(GENUINE)):
        for flip in (1, 0x20):
            body = GENUINE[:at] + bytes([GENUINE[at] ^ flip]) + GENUINE[at + 1 :]
            try:
                assert parse(body) == NOTICE, at
            except CallbackForged:
                continue
            assert parse_qsl(body.decode()) == parse_qsl(GENUINE.decode())
