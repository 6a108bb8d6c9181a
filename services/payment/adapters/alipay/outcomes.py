"""Alipay's codes and what they mean for us.

A refusal is only what Alipay documents as one. An unlisted code is unknown: a query resolves it, while a refusal that
was none would lose a payment. A query that is refused says nothing about the charge, so it is unknown too.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.payment.adapters import strict_json
from services.payment.ports.provider import Phase, Verdict

SUCCESS = "10000"
WAITS_FOR_PAYER = "10003"
BUSINESS = "40004"

GATEWAY_REFUSALS = frozenset({"20001", "40001", "40002", "40003", "40006"})
"""Not authorized, parameter missing, parameter invalid, condition not met, not permitted: it never reached the business.

Not among them: 20000 (service unavailable, may have been done) and 40005 (called too often; the charge can be sent
again, so it is not refused).
"""

PHASES = {
    "WAIT_BUYER_PAY": Phase.WAITING,
    "TRADE_SUCCESS": Phase.CAPTURED,
    "TRADE_FINISHED": Phase.CAPTURED,  # cannot be refunded any more
    "TRADE_CLOSED": Phase.CLOSED,  # timed out or refunded in full: our own history tells which
}
"""trade_status -> phase."""

REFUND_SUCCESS = "REFUND_SUCCESS"

TRADE_NOT_EXIST = "ACQ.TRADE_NOT_EXIST"
_CLOSED = "ACQ.TRADE_HAS_CLOSE"

CHARGE_REFUSALS = frozenset(
    f"ACQ.{code}"
    for code in (
        "ACCESS_FORBIDDEN",
        "AGREEMENT_ERROR",
        "AGREEMENT_INVALID",
        "AGREEMENT_NOT_EXIST",
        "AMOUNT_OR_CURRENCY_ERROR",
        "BEYOND_PAY_RESTRICTION",
        "BEYOND_PER_RECEIPT_RESTRICTION",
        "BUYER_BALANCE_NOT_ENOUGH",
        "BUYER_BANKCARD_BALANCE_NOT_ENOUGH",
        "BUYER_ENABLE_STATUS_FORBID",
        "BUYER_NOT_EXIST",
        "BUYER_PAYMENT_AMOUNT_DAY_LIMIT_ERROR",
        "BUYER_PAYMENT_AMOUNT_MONTH_LIMIT_ERROR",
        "BUYER_SELLER_EQUAL",
        "CARD_TYPE_ERROR",
        "CARD_USER_NOT_MATCH",
        "CERT_EXPIRED",
        "CURRENCY_NOT_SUPPORT",
        "ERROR_BALANCE_PAYMENT_DISABLE",
        "ERROR_BUYER_CERTIFY_LEVEL_LIMIT",
        "ERROR_SELLER_CERTIFY_LEVEL_LIMIT",
        "EXIST_FORBIDDEN_WORD",
        "INVALID_PARAMETER",
        "INVALID_RECEIVE_ACCOUNT",
        "INVALID_STORE_ID",
        "MERCHANT_AGREEMENT_INVALID",
        "MERCHANT_AGREEMENT_NOT_EXIST",
        "MERCHANT_STATUS_NOT_NORMAL",
        "MOBILE_PAYMENT_SWITCH_OFF",
        "NOW_TIME_AFTER_EXPIRE_TIME_ERROR",
        "NO_PAYMENT_INSTRUMENTS_AVAILABLE",
        "PARTNER_ERROR",
        "PAYMENT_AUTH_CODE_INVALID",
        "PAYMENT_FAIL",
        "PAYMENT_REQUEST_HAS_RISK",
        "PRODUCT_AMOUNT_LIMIT_ERROR",
        "PULL_MOBILE_CASHIER_FAIL",
        "RESTRICTED_MERCHANT_INDUSTRY",
        "RISK_MERCHANT_IP_NOT_EXIST",
        "SECONDARY_MERCHANT_STATUS_ERROR",
        "SELLER_BEEN_BLOCKED",
        "SUB_MERCHANT_CREATE_FAIL",
        "SUB_MERCHANT_TYPE_INVALID",
        "TOTAL_FEE_EXCEED",
        "TRADE_BUYER_NOT_MATCH",
        "TRADE_SETTLE_ERROR",
        "USER_FACE_PAYMENT_SWITCH_OFF",
        "USER_LOGONID_DUP",
    )
)
"""Final refusals of a charge.

Not among them, though they sound like it: TRADE_HAS_SUCCESS (it was paid), CONTEXT_INCONSISTENT (a trade of our id
exists, differently).
"""

REFUND_REFUSALS = frozenset(
    f"ACQ.{code}"
    for code in (
        "ACCESS_FORBIDDEN",
        "BUYER_ENABLE_STATUS_FORBID",
        "BUYER_ERROR",
        "BUYER_NOT_EXIST",
        "CURRENCY_NOT_SUPPORT",
        "CUSTOMER_VALIDATE_ERROR",
        "ENTERPRISE_PAY_BIZ_ERROR",
        "INVALID_PARAMETER",
        "MUTIPLE_REFUND_DISABLE",
        "NOT_ALLOW_PARTIAL_REFUND",
        "OVERDRAFT_AGREEMENT_NOT_MATCH",
        "OVERDRAFT_ASSIGN_ACCOUNT_INVALID",
        "REASON_TRADE_BEEN_FREEZEN",
        "REASON_TRADE_REFUND_FEE_ERR",
        "REFUND_ACCOUNT_NOT_EXIST",
        "REFUND_AMT_NOT_EQUAL_TOTAL",
        "REFUND_CHARGE_ERROR",
        "REFUND_FEE_ERROR",
        "REFUND_ROYALTY_PAYEE_ACCOUNT_ERROR",
        "REFUND_ROYALTY_PAYEE_ACCOUNT_NOT_EXIST",
        "SELLER_BALANCE_NOT_ENOUGH",
        "TRADE_HAS_FINISHED",
        "TRADE_NOT_ALLOW_REFUND",
        "TRADE_NOT_EXIST",
        "USER_NOT_MATCH_ERR",
    )
)
"""Final refusals of a refund.

Not among them: TRADE_HAS_CLOSE and TRADE_STATUS_ERROR (a trade refunded in full is closed: a lost answer to this very
refund may be the cause) and DISCORDANT_REPEAT_REQUEST (a refund of our id exists, differently).
"""

CLOSE_REFUSALS = frozenset(
    {
        "ACQ.INVALID_PARAMETER",
        "ACQ.REASON_ILLEGAL_STATUS",
        "ACQ.REASON_TRADE_BEEN_FREEZEN",
        "ACQ.TRADE_STATUS_ERROR",
        "ACQ.TRADE_HAS_SUCCESS",
        "ACQ.TRADE_HAS_FINISHED",
    }
)
"""It was not closed: most often because it was paid. A query says."""

NO_BILL = "isp.bill_not_exist"


@dataclass(frozen=True, slots=True)
class Said:
    """A verified answer: its code, its sub_code where it is no success, and its members."""

    code: str
    sub_code: str
    members: strict_json.JsonObject

    @property
    def word(self) -> str:
        """The word for the record: the sub_code, else the code."""
        return self.sub_code or self.code


def said(members: strict_json.JsonObject) -> Said:
    """Read the part that every answer has. Raises ValueError."""
    return Said(strict_json.string(members, "code"), strict_json.string(members, "sub_code"), members)


def of_charge(answer: Said) -> tuple[Verdict, Phase | None]:
    """What an answer to a charge means."""
    if answer.code in {SUCCESS, WAITS_FOR_PAYER}:
        return Verdict.PENDING, Phase.WAITING
    if answer.code == BUSINESS and answer.sub_code == _CLOSED:
        return Verdict.REFUSED, Phase.CLOSED
    return _refused(answer, CHARGE_REFUSALS), None


def of_close(answer: Said) -> tuple[Verdict, Phase | None]:
    """What an answer to a close means."""
    if answer.code == SUCCESS or (answer.code == BUSINESS and answer.sub_code == _CLOSED):
        return Verdict.DONE, Phase.CLOSED
    if answer.code == BUSINESS and answer.sub_code == TRADE_NOT_EXIST:
        return Verdict.DONE, Phase.ABSENT
    return _refused(answer, CLOSE_REFUSALS), None


def of_refund(answer: Said) -> Verdict:
    """What an answer to a refund means.

    Only ``fund_change`` Y says that this call moved money; N says that it did not, which a repeat and a refund under
    way have in common: unknown.
    """
    if answer.code == SUCCESS:
        return Verdict.DONE if answer.members.get("fund_change") == "Y" else Verdict.UNKNOWN
    return _refused(answer, REFUND_REFUSALS)


def _refused(answer: Said, refusals: frozenset[str]) -> Verdict:
    business = answer.code == BUSINESS and answer.sub_code in refusals
    return Verdict.REFUSED if business or answer.code in GATEWAY_REFUSALS else Verdict.UNKNOWN
