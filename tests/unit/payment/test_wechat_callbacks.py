"""WeChat Pay's callbacks: what verifies and decrypts is read, everything else is forged."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.kernel.money import Money
from services.payment.adapters.wechat import notices, resource
from services.payment.ports.provider import Callback, CallbackForged, Charged, Notice, Phase, Refunded, Verdict
from tests.fakes.provider_vectors import NOW_MS, PUBLIC_KEY_ID, WECHAT_CALLBACK, WECHAT_CALLBACK_SIGN
from tests.fakes.wechat import APIV3_KEY, FakeWechat, callback, encrypted, refund, signed_headers, transaction
from tests.unit.payment.test_wechat import adapter
from tests.vectors import groups, with_vectors

PAY = adapter(FakeWechat())
GENUINE = Callback(
    {
        "wechatpay-serial": PUBLIC_KEY_ID,
        "wechatpay-timestamp": str(NOW_MS // 1000 - 10),
        "wechatpay-nonce": "c5ac7061fccab6bf3e254dcf98995b8c",
        "wechatpay-signature": WECHAT_CALLBACK_SIGN,
        "wechatpay-signature-type": "WECHATPAY2-SHA256-RSA2048",
        "content-type": "application/json",
    },
    WECHAT_CALLBACK.encode(),
)
NOTICE = Notice(
    "EV-2018022511223320873",
    "P1002",
    charged=Charged(
        Verdict.DONE, Phase.CAPTURED, "4200001234202611240000000001", amount=Money("CNY", 100), at_ms=NOW_MS - 30_000
    ),
)


def refusal(made: Callback, now_ms: int = NOW_MS) -> str:
    """Why a callback is forged."""
    with pytest.raises(CallbackForged) as raised:
        PAY.parse(made, now_ms)
    return str(raised.value)


def with_headers(**changed: str | None) -> Callback:
    """The genuine callback with other headers; None takes one away."""
    named = {f"wechatpay-{name.replace('_', '-')}": value for name, value in changed.items()}
    headers = {name: value for name, value in {**GENUINE.headers, **named}.items() if value is not None}
    return Callback(headers, GENUINE.body)


def signed(body: bytes) -> Callback:
    """A body that WeChat Pay's key signed."""
    return Callback(signed_headers(body), body)


def test_notice_when_made_by_other_programs() -> None:
    """A callback that Node encrypted and openssl's key signed is read."""
    assert PAY.parse(GENUINE, NOW_MS) == NOTICE
    assert PAY.parse(with_headers(signature_type=None), NOW_MS) == NOTICE


def test_notice_when_any_byte_is_changed() -> None:
    """Every byte of the body and of every signed header counts, and each header must be there."""
    for at in range(len(GENUINE.body)):
        body = GENUINE.body[:at] + bytes([GENUINE.body[at] ^ 1]) + GENUINE.body[at + 1 :]
        assert refusal(Callback(GENUINE.headers, body)) == "the signature does not verify"
    for name in ("serial", "timestamp", "nonce", "signature", "signature_type"):
        value = GENUINE.headers[f"wechatpay-{name.replace('_', '-')}"]
        for at in range(len(value)):
            assert refusal(with_headers(**{name: value[:at] + chr(ord(value[at]) ^ 1) + value[at + 1 :]}))
        for other in (f"{value} ", f" {value}", value + value, ""):
            assert refusal(with_headers(**{name: other}))
    for name in ("serial", "timestamp", "nonce", "signature"):
        assert refusal(with_headers(**{name: None}))


@pytest.mark.parametrize(
    ("age_s", "taken"), [(299, True), (300, False), (301, False), (-299, True), (-300, False), (40 * 86400, False)]
)
def test_notice_when_old_or_of_the_future(age_s: int, taken: bool) -> None:  # noqa: FBT001 - a case of the table
    """Less than five minutes either way, by the time that is passed in."""
    now_ms = NOW_MS - 10_000 + age_s * 1000
    if taken:
        assert PAY.parse(GENUINE, now_ms) == NOTICE
    else:
        assert refusal(GENUINE, now_ms) == "too old or too new"


@pytest.mark.parametrize("rest", ["", "x", WECHAT_CALLBACK_SIGN])
def test_notice_when_a_probe(rest: str) -> None:
    """WeChat Pay tests whether we refuse what does not verify."""
    assert refusal(with_headers(signature=f"WECHATPAY/SIGNTEST/{rest}")) == "a probe"


def test_notice_when_signed_but_old_in_the_header_alone() -> None:
    """A newer timestamp on an old signature does not verify: the time is signed."""
    later = str(NOW_MS // 1000 + 3600)
    assert refusal(with_headers(timestamp=later), NOW_MS + 3_600_000) == "the signature does not verify"


@pytest.mark.parametrize(
    "seconds", ["", "x", "-1795478390", "1795478390.0", " 1795478390", "1e9", "\u0661795478390", "9" * 5000]
)
def test_notice_when_the_time_is_none(seconds: str) -> None:
    """A time is digits."""
    assert refusal(with_headers(timestamp=seconds)) == "too old or too new"


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (callback(transaction(mchid="1600000009")), "of another merchant or app"),
        (callback(transaction(appid="wx9")), "of another merchant or app"),
        (callback(transaction(appid=None)), "of another merchant or app"),
        (callback(transaction(trade_state="DREAMING")), "a state that is none"),
        (callback(transaction(out_trade_no="")), "without a number"),
        (callback(transaction(amount=None)), "paid, but not how much"),
        (callback(transaction(amount={"total": 1.0})), "total is not a whole number"),
        (callback(transaction(amount={"total": 100, "currency": "USD"})), "not in CNY"),
        (callback(transaction(), "COUPON.USE"), "an event of another kind"),
        (callback(refund(mchid="1600000009", refund_status="SUCCESS"), "REFUND.SUCCESS"), "of another merchant"),
        (callback(refund(mchid="1600000001", refund_status="x"), "REFUND.SUCCESS"), "a state that is none"),
        (signed(b"{}"), "not AEAD_AES_256_GCM"),
        (signed(b"[]"), "not an object"),
        (signed(b'{"resource":[]}'), "resource is not an object"),
        (signed(json.dumps({"resource": encrypted("{}", "x", key=b"x" * 32)}).encode()), "does not decrypt"),
        (
            signed(json.dumps({"resource": {**encrypted("{}", "x"), "associated_data": "y"}}).encode()),
            "does not decrypt",
        ),
        (
            signed(json.dumps({"resource": {**encrypted("{}", "x"), "algorithm": "AES"}}).encode()),
            "not AEAD_AES_256_GCM",
        ),
        (signed(json.dumps({"resource": encrypted("[]", "x")}).encode()), "not an object"),
    ],
)
def test_notice_when_signed_but_not_for_us(made: Callback, why: str) -> None:
    """A right signature is not enough: merchant, app, key and sense are checked too."""
    assert refusal(made) == f"verifies, but cannot be taken: {why}"


def test_notice_when_another_amount_is_signed() -> None:
    """The amount stands in the notice, for the use case to compare."""
    made = PAY.parse(callback(transaction(amount={"total": 1, "currency": "CNY"})), NOW_MS)
    assert made.charged is not None
    assert made.charged.amount == Money("CNY", 1)


def test_notice_when_of_a_refund() -> None:
    """A refund's callback names our number of the refund, its amount and how it ended."""
    told = {"SUCCESS": Verdict.DONE, "CLOSED": Verdict.REFUSED, "ABNORMAL": Verdict.UNKNOWN}
    for status, verdict in told.items():
        content = refund(status=None, refund_status=status, mchid="1600000001")
        made = PAY.parse(callback(content, f"REFUND.{status}"), NOW_MS)
        code = "" if verdict is Verdict.DONE else status
        expected = Refunded(verdict, "5030001", code=code, amount=Money("CNY", 40), at_ms=NOW_MS - 30_000)
        assert made == Notice("EV-1", "R1", refunded=expected)


def test_notice_when_too_large() -> None:
    """A body of more than is ever sent is not looked at."""
    assert refusal(signed(b" " * (notices.BODY_BYTES_MAX + 1))) == "too large"


_TEXTS = st.text(max_size=60) | st.sampled_from([PUBLIC_KEY_ID, WECHAT_CALLBACK_SIGN, str(NOW_MS // 1000)])


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=2000), st.tuples(_TEXTS, _TEXTS, _TEXTS, _TEXTS))
def test_notice_when_random(body: bytes, values: tuple[str, str, str, str]) -> None:
    """Random bytes under random headers are forged and raise nothing else."""
    names = ("wechatpay-serial", "wechatpay-timestamp", "wechatpay-nonce", "wechatpay-signature")
    assert refusal(Callback(dict(zip(names, values, strict=True)), body))


_NAMES = st.sampled_from(["id", "event_type", "resource", "algorithm", "nonce", "ciphertext", "associated_data"])
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_NAMES, inner, max_size=6),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300) | _JSON.map(lambda value: json.dumps(value).encode()))
def test_notice_when_random_but_signed(body: bytes) -> None:
    """Even what WeChat Pay's key signed is forged where it makes no sense, and raises nothing else."""
    assert refusal(signed(body))


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(
    st.sampled_from(sorted(transaction())), st.none() | st.integers() | st.text(max_size=9) | st.just({"total": 0}), max_size=4
))  # fmt: skip
def test_notice_when_random_inside(changed: dict[str, object]) -> None:
    """A transaction with members of any kind is a notice of ours or forged; nothing else comes of it."""
    try:
        made = PAY.parse(callback(transaction(**changed)), NOW_MS)
    except CallbackForged as forged:
        assert str(forged)  # noqa: PT017 - either of the two may come out
        return
    assert made.charged is not None
    assert made.request_id == changed.get("out_trade_no", "P1002")


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_notice_when_mutated(data: st.DataObject) -> None:
    """A genuine callback with bytes changed, cut, doubled or moved is forged, unless nothing was changed."""
    body = bytearray(GENUINE.body)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(body)))
        until = min(len(body), at + data.draw(st.integers(0, 30)))
        fresh = data.draw(st.sampled_from([b"", bytes(body[at:until]) * 2, b"\n", b" "]) | st.binary(max_size=5))
        body[at:until] = fresh
    if bytes(body) == GENUINE.body:
        assert PAY.parse(GENUINE, NOW_MS) == NOTICE
    else:
        assert refusal(Callback(GENUINE.headers, bytes(body))) == "the signature does not verify"


def test_resource_when_any_bit_is_changed() -> None:
    """Each of key, nonce, associated data and ciphertext must be the right one, to the bit."""
    parts = encrypted('{"a":1}', "transaction")
    whole = [APIV3_KEY, parts["nonce"].encode(), b"transaction", base64.b64decode(parts["ciphertext"])]
    assert resource.decrypted(whole[0], whole[1], whole[2], whole[3]) == b'{"a":1}'
    for which, part in enumerate(whole):
        for at in range(len(part)):
            changed = list(whole)
            changed[which] = part[:at] + bytes([part[at] ^ 1]) + part[at + 1 :]
            with pytest.raises(ValueError, match="does not decrypt"):
                resource.decrypted(changed[0], changed[1], changed[2], changed[3])


@with_vectors
def test_decrypt_when_wycheproof_tries() -> None:
    """Every vector of 256-bit keys and 12-byte nonces comes out as it must; other sizes are refused, valid or not."""
    opened = refused = 0
    for group in groups("aes_gcm_test"):
        ours = group["keySize"] == 256 and group["ivSize"] == 96 and group["tagSize"] == 128
        for test in group["tests"]:
            key, nonce, data, ciphertext, tag = (
                bytes.fromhex(test[each]) for each in ("key", "iv", "aad", "ct", "tag")
            )
            if ours and test["result"] == "valid":
                assert resource.decrypted(key, nonce, data, ciphertext + tag) == bytes.fromhex(test["msg"]), test[
                    "tcId"
                ]
                opened += 1
            else:
                with pytest.raises(ValueError, match=r"wrong size|does not decrypt"):
                    resource.decrypted(key, nonce, data, ciphertext + tag)
                refused += 1
    assert (opened, refused) == (39, 277)
