"""WeChat Pay's states and codes and what they mean for us.

A refusal is only what WeChat Pay documents as one. An unlisted code is unknown: a query resolves it, while a refusal
that was none would lose a payment. A query that is refused says nothing about the charge, so it is unknown too.

Codes are compared without underscores: the same one is written ORDERNOTEXIST and ORDER_NOT_EXIST in two documents.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.payment.ports.provider import Phase, Verdict

if TYPE_CHECKING:
    from services.payment.adapters.wechat.client import Said

PHASES = {
    "SUCCESS": Phase.CAPTURED,
    "REFUND": Phase.REFUNDED,  # in full or in part: our own history tells
    "NOTPAY": Phase.WAITING,
    "USERPAYING": Phase.WAITING,
    "ACCEPT": Phase.WAITING,
    "CLOSED": Phase.CLOSED,
    "REVOKED": Phase.CLOSED,
    "PAYERROR": Phase.FAILED,
}
"""trade_state -> phase."""

REFUND_VERDICTS = {
    "SUCCESS": Verdict.DONE,
    "PROCESSING": Verdict.PENDING,
    "CLOSED": Verdict.REFUSED,
    # The payer's bank does not take it: somebody has to send it another way, and until then it is neither here nor there.
    "ABNORMAL": Verdict.UNKNOWN,
}
"""Status of a refund -> verdict."""


def _plain(*codes: str) -> frozenset[str]:
    return frozenset(code.replace("_", "") for code in codes)


PENDING = _plain("USERPAYING")
ABSENT = _plain("ORDER_NOT_EXIST", "RESOURCE_NOT_EXISTS")
CLOSED = _plain("ORDER_CLOSED")

CHARGE_REFUSALS = _plain(
    "ACCOUNT_ERROR",
    "APPID_MCHID_NOT_MATCH",
    "MCH_NOT_EXISTS",
    "NOT_ENOUGH",
    "NO_AUTH",
    "OPENID_MISMATCH",
    "PARAM_ERROR",
    "REQUEST_BLOCKED",
    "RULE_LIMIT",
    "SIGN_ERROR",
    "TRADE_ERROR",
)
"""Final refusals of a charge.

Not among them: ORDER_PAID (it was paid), OUT_TRADE_NO_USED (an order of our id exists, differently), INVALID_REQUEST
(may say the same in other words), SYSTEM_ERROR, BANK_ERROR, FREQUENCY_LIMITED and RATELIMIT_EXCEEDED (may be sent again).
"""

REFUND_REFUSALS = _plain(
    "APPID_MCHID_NOT_MATCH",
    "INVALID_REQUEST",
    "MCH_NOT_EXISTS",
    "NOT_ENOUGH",
    "NO_AUTH",
    "ORDER_NOT_EXIST",
    "PARAM_ERROR",
    "REQUEST_BLOCKED",
    "RESOURCE_NOT_EXISTS",
    "RULE_LIMIT",
    "SIGN_ERROR",
    "TRADE_ERROR",
    "USER_ACCOUNT_ABNORMAL",
)
"""Final refusals of a refund. The same number with the same amount repeats a refund, so INVALID_REQUEST refuses."""

CLOSE_REFUSALS = _plain(
    "INVALID_REQUEST",
    "MCH_NOT_EXISTS",
    "NO_AUTH",
    "ORDER_PAID",
    "PARAM_ERROR",
    "SIGN_ERROR",
    "TRADE_ERROR",
    "USERPAYING",
)
"""It was not closed: most often because it was paid. A query says."""

NO_BILL = _plain("NO_STATEMENT_EXIST", "STATEMENT_CREATING")


def of_charge(answer: Said) -> tuple[Verdict, Phase | None]:
    """What an answer to a charge that is no 200 means."""
    code = answer.code.replace("_", "")
    if code in PENDING:
        return Verdict.PENDING, Phase.WAITING
    if code in CLOSED:
        return Verdict.REFUSED, Phase.CLOSED
    return _refused(code, CHARGE_REFUSALS), None


def of_close(answer: Said) -> tuple[Verdict, Phase | None]:
    """What an answer to a close means."""
    code = answer.code.replace("_", "")
    if answer.taken or code in CLOSED:
        return Verdict.DONE, Phase.CLOSED
    if code in ABSENT:
        return Verdict.DONE, Phase.ABSENT
    return _refused(code, CLOSE_REFUSALS), None


def of_refund(answer: Said) -> Verdict:
    """What an answer to a refund that is no 200 means."""
    return _refused(answer.code.replace("_", ""), REFUND_REFUSALS)


def absent(answer: Said) -> bool:
    """Whether a query was answered that there is no such charge or refund. A proxy's 404 has no code."""
    return answer.status == 404 and answer.code.replace("_", "") in ABSENT


def no_bill(answer: Said) -> bool:
    """Whether there is no bill yet."""
    return answer.code.replace("_", "") in NO_BILL


def _refused(code: str, refusals: frozenset[str]) -> Verdict:
    return Verdict.REFUSED if code in refusals else Verdict.UNKNOWN
