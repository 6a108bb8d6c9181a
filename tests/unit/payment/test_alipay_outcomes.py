"""Every code of Alipay by its meaning. The lists are written out here again: a code that wanders is a lost payment."""

from __future__ import annotations

import pytest

from services.payment.adapters.alipay import outcomes
from services.payment.ports.provider import Charged, Phase, Refunded, Verdict
from tests.fakes.alipay import FakeGateway
from tests.unit.payment.test_alipay import adapter, refunding, tea


def words(text: str) -> list[str]:
    """The words of a text."""
    return text.split()


CHARGE_REFUSED = words(
    """
    ACCESS_FORBIDDEN AGREEMENT_ERROR AGREEMENT_INVALID AGREEMENT_NOT_EXIST AMOUNT_OR_CURRENCY_ERROR
    BEYOND_PAY_RESTRICTION BEYOND_PER_RECEIPT_RESTRICTION BUYER_BALANCE_NOT_ENOUGH
    BUYER_BANKCARD_BALANCE_NOT_ENOUGH BUYER_ENABLE_STATUS_FORBID BUYER_NOT_EXIST
    BUYER_PAYMENT_AMOUNT_DAY_LIMIT_ERROR BUYER_PAYMENT_AMOUNT_MONTH_LIMIT_ERROR BUYER_SELLER_EQUAL
    CARD_TYPE_ERROR CARD_USER_NOT_MATCH CERT_EXPIRED CURRENCY_NOT_SUPPORT ERROR_BALANCE_PAYMENT_DISABLE
    ERROR_BUYER_CERTIFY_LEVEL_LIMIT ERROR_SELLER_CERTIFY_LEVEL_LIMIT EXIST_FORBIDDEN_WORD INVALID_PARAMETER
    INVALID_RECEIVE_ACCOUNT INVALID_STORE_ID MERCHANT_AGREEMENT_INVALID MERCHANT_AGREEMENT_NOT_EXIST
    MERCHANT_STATUS_NOT_NORMAL MOBILE_PAYMENT_SWITCH_OFF NOW_TIME_AFTER_EXPIRE_TIME_ERROR
    NO_PAYMENT_INSTRUMENTS_AVAILABLE PARTNER_ERROR PAYMENT_AUTH_CODE_INVALID PAYMENT_FAIL
    PAYMENT_REQUEST_HAS_RISK PRODUCT_AMOUNT_LIMIT_ERROR PULL_MOBILE_CASHIER_FAIL RESTRICTED_MERCHANT_INDUSTRY
    RISK_MERCHANT_IP_NOT_EXIST SECONDARY_MERCHANT_STATUS_ERROR SELLER_BEEN_BLOCKED SUB_MERCHANT_CREATE_FAIL
    SUB_MERCHANT_TYPE_INVALID TOTAL_FEE_EXCEED TRADE_BUYER_NOT_MATCH TRADE_SETTLE_ERROR
    USER_FACE_PAYMENT_SWITCH_OFF USER_LOGONID_DUP
    """
)

REFUND_REFUSED = words(
    """
    ACCESS_FORBIDDEN BUYER_ENABLE_STATUS_FORBID BUYER_ERROR BUYER_NOT_EXIST CURRENCY_NOT_SUPPORT
    CUSTOMER_VALIDATE_ERROR ENTERPRISE_PAY_BIZ_ERROR INVALID_PARAMETER MUTIPLE_REFUND_DISABLE
    NOT_ALLOW_PARTIAL_REFUND OVERDRAFT_AGREEMENT_NOT_MATCH OVERDRAFT_ASSIGN_ACCOUNT_INVALID
    REASON_TRADE_BEEN_FREEZEN REASON_TRADE_REFUND_FEE_ERR REFUND_ACCOUNT_NOT_EXIST REFUND_AMT_NOT_EQUAL_TOTAL
    REFUND_CHARGE_ERROR REFUND_FEE_ERROR REFUND_ROYALTY_PAYEE_ACCOUNT_ERROR
    REFUND_ROYALTY_PAYEE_ACCOUNT_NOT_EXIST SELLER_BALANCE_NOT_ENOUGH TRADE_HAS_FINISHED TRADE_NOT_ALLOW_REFUND
    TRADE_NOT_EXIST USER_NOT_MATCH_ERR
    """
)

CLOSE_REFUSED = words(
    """
    INVALID_PARAMETER REASON_ILLEGAL_STATUS REASON_TRADE_BEEN_FREEZEN TRADE_HAS_FINISHED TRADE_HAS_SUCCESS
    TRADE_STATUS_ERROR
    """
)

UNKNOWN_EVERYWHERE = ["ACQ.SYSTEM_ERROR", "SYSTEMERROR", "ACQ.NOBODY_WROTE_THIS_DOWN", ""]

GATEWAY_REFUSED = ["20001", "40001", "40002", "40003", "40006"]
GATEWAY_UNKNOWN = ["20000", "40005", "99999", ""]


def test_tables_when_compared() -> None:
    """The adapter's tables are these lists."""
    assert {f"ACQ.{code}" for code in CHARGE_REFUSED} == outcomes.CHARGE_REFUSALS
    assert {f"ACQ.{code}" for code in REFUND_REFUSED} == outcomes.REFUND_REFUSALS
    assert {f"ACQ.{code}" for code in CLOSE_REFUSED} == outcomes.CLOSE_REFUSALS
    assert set(GATEWAY_REFUSED) == outcomes.GATEWAY_REFUSALS
    assert set(outcomes.PHASES) == {"WAIT_BUYER_PAY", "TRADE_SUCCESS", "TRADE_FINISHED", "TRADE_CLOSED"}


EVERY_CODE = sorted({*CHARGE_REFUSED, *REFUND_REFUSED, *CLOSE_REFUSED})


NOT_WHAT_THEY_SOUND_LIKE = ["ACQ.TRADE_HAS_CLOSE", "ACQ.CONTEXT_INCONSISTENT", "ACQ.DISCORDANT_REPEAT_REQUEST"]


@pytest.mark.parametrize(
    "code", [*(f"ACQ.{each}" for each in EVERY_CODE), *UNKNOWN_EVERYWHERE, *NOT_WHAT_THEY_SOUND_LIKE]
)
def test_every_call_when_the_business_refuses(code: str) -> None:
    """A charge, refund and close are refused by their own codes alone; a query is never refused."""
    gateway = FakeGateway()
    alipay = adapter(gateway)
    gateway.refuses(code)
    bare, word = code.removeprefix("ACQ."), code or "40004"

    charged = Charged(Verdict.REFUSED if bare in CHARGE_REFUSED else Verdict.UNKNOWN, code=word)
    closed = Charged(Verdict.REFUSED if bare in CLOSE_REFUSED else Verdict.UNKNOWN, code=word)
    if bare == "TRADE_HAS_CLOSE":
        charged = Charged(Verdict.REFUSED, Phase.CLOSED, code=word)
        closed = Charged(Verdict.DONE, Phase.CLOSED, code=word)
    if bare == "TRADE_NOT_EXIST":
        closed = Charged(Verdict.DONE, Phase.ABSENT, code=word)
    absent = bare == "TRADE_NOT_EXIST"

    assert alipay.charge(tea()) == charged
    assert alipay.close("P1001") == closed
    assert alipay.refund(refunding()) == Refunded(
        Verdict.REFUSED if bare in REFUND_REFUSED else Verdict.UNKNOWN, code=word
    )
    assert alipay.query("P1001") == Charged(Verdict.UNKNOWN, Phase.ABSENT if absent else None, code=word)
    assert alipay.query_refund(refunding()) == Refunded(Verdict.UNKNOWN, code="absent" if absent else word)
    assert alipay.fetch_bill("2026-11-23") is None


@pytest.mark.parametrize("code", [*GATEWAY_REFUSED, *GATEWAY_UNKNOWN])
def test_every_call_when_the_gateway_refuses(code: str) -> None:
    """What never reached the business is refused, unless it can be sent again or may have been done."""
    gateway = FakeGateway()
    alipay = adapter(gateway)
    gateway.refuses("isv.some-reason", code)
    verdict = Verdict.REFUSED if code in GATEWAY_REFUSED else Verdict.UNKNOWN
    assert [each.verdict for each in (alipay.charge(tea()), alipay.close("P1"), alipay.refund(refunding()))] == [
        verdict
    ] * 3
    assert alipay.query("P1") == Charged(Verdict.UNKNOWN, code="isv.some-reason")
    assert alipay.query_refund(refunding()) == Refunded(Verdict.UNKNOWN, code="isv.some-reason")


def test_charge_when_the_payer_is_asked() -> None:
    """10003 is pending: the payer types his password."""
    gateway = FakeGateway()
    gateway.says(code="10003", out_trade_no="P1001", qr_code="x")
    assert adapter(gateway).charge(tea()).verdict is Verdict.PENDING


def test_close_when_done() -> None:
    """A trade that was closed is closed."""
    assert adapter(FakeGateway()).close("P1") == Charged(Verdict.DONE, Phase.CLOSED)
