"""Every code of WeChat Pay by its meaning. The lists are written out here again: a code that wanders is a lost payment."""

from __future__ import annotations

import pytest

from services.payment.adapters.wechat import outcomes
from services.payment.ports.provider import Charged, Phase, Refunded, Verdict
from tests.fakes.wechat import FakeWechat
from tests.unit.payment.test_wechat import adapter, refunding, tea

CHARGE_REFUSED = {
    "ACCOUNT_ERROR", "APPID_MCHID_NOT_MATCH", "MCH_NOT_EXISTS", "NOT_ENOUGH", "NO_AUTH", "OPENID_MISMATCH", "PARAM_ERROR",
    "REQUEST_BLOCKED", "RULE_LIMIT", "SIGN_ERROR", "TRADE_ERROR",
}  # fmt: skip
REFUND_REFUSED = {
    "APPID_MCHID_NOT_MATCH", "INVALID_REQUEST", "MCH_NOT_EXISTS", "NOT_ENOUGH", "NO_AUTH", "ORDER_NOT_EXIST", "PARAM_ERROR",
    "REQUEST_BLOCKED", "RESOURCE_NOT_EXISTS", "RULE_LIMIT", "SIGN_ERROR", "TRADE_ERROR", "USER_ACCOUNT_ABNORMAL",
}  # fmt: skip
CLOSE_REFUSED = {
    "INVALID_REQUEST", "MCH_NOT_EXISTS", "NO_AUTH", "ORDER_PAID", "PARAM_ERROR", "SIGN_ERROR", "TRADE_ERROR", "USER_PAYING",
}  # fmt: skip
UNKNOWN_EVERYWHERE = {
    "SYSTEM_ERROR", "BANK_ERROR", "FREQUENCY_LIMITED", "RATELIMIT_EXCEEDED", "OUT_TRADE_NO_USED", "NOBODY_WROTE_THIS_DOWN", "",
}  # fmt: skip
ABSENT = {"ORDER_NOT_EXIST", "RESOURCE_NOT_EXISTS"}
EVERY_CODE = sorted({*CHARGE_REFUSED, *REFUND_REFUSED, *CLOSE_REFUSED, *UNKNOWN_EVERYWHERE, *ABSENT, "ORDER_CLOSED"})


def test_tables_when_compared() -> None:
    """The adapter's tables are these lists."""
    plain = [
        {code.replace("_", "") for code in codes} for codes in (CHARGE_REFUSED, REFUND_REFUSED, CLOSE_REFUSED, ABSENT)
    ]
    assert plain == [outcomes.CHARGE_REFUSALS, outcomes.REFUND_REFUSALS, outcomes.CLOSE_REFUSALS, outcomes.ABSENT]
    states = {"SUCCESS", "REFUND", "NOTPAY", "CLOSED", "REVOKED", "USERPAYING", "PAYERROR", "ACCEPT"}
    assert set(outcomes.PHASES) == states
    assert set(outcomes.REFUND_VERDICTS) == {"SUCCESS", "CLOSED", "PROCESSING", "ABNORMAL"}


@pytest.mark.parametrize("status", [400, 404, 500])
@pytest.mark.parametrize("code", [*EVERY_CODE, "ORDERNOTEXIST", "NOTENOUGH", "ORDERPAID", "ORDERCLOSED", "USERPAYING"])
def test_every_call_when_refused(code: str, status: int) -> None:
    """A charge, refund and close are refused by their own codes alone, however written; a query is never refused."""
    wechat = FakeWechat()
    wechat.refuses(status, code)
    pay = adapter(wechat)
    plain = code.replace("_", "")

    def verdict(refusals: set[str]) -> Verdict:
        return Verdict.REFUSED if plain in {each.replace("_", "") for each in refusals} else Verdict.UNKNOWN

    charged, closed = Charged(verdict(CHARGE_REFUSED), code=code), Charged(verdict(CLOSE_REFUSED), code=code)
    absent = plain in {each.replace("_", "") for each in ABSENT}
    if plain == "USERPAYING":
        charged = Charged(Verdict.PENDING, Phase.WAITING, code=code)
    if plain == "ORDERCLOSED":
        charged = Charged(Verdict.REFUSED, Phase.CLOSED, code=code)
        closed = Charged(Verdict.DONE, Phase.CLOSED, code=code)
    if absent:
        closed = Charged(Verdict.DONE, Phase.ABSENT, code=code)

    assert pay.charge(tea()) == charged
    assert pay.close("P1001") == closed
    assert pay.refund(refunding()) == Refunded(verdict(REFUND_REFUSED), code=code)
    gone = absent and status == 404
    assert pay.query("P1001") == Charged(Verdict.UNKNOWN, Phase.ABSENT if gone else None, code=code)
    assert pay.query_refund(refunding()) == Refunded(Verdict.UNKNOWN, code="absent" if gone else code)
    assert pay.fetch_bill("2026-11-23") is None
