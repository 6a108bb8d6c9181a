"""WeChat Pay's bill of a day: a CSV whose every cell begins with a backtick; sums stand under a second head."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.payment.adapters.china import bill_fen, china_ms, cny
from services.payment.ports.provider import BillLine

if TYPE_CHECKING:
    from collections.abc import Mapping

_AT, _THEIRS, _OURS, _STATE = "交易时间", "微信订单号", "商户订单号", "交易状态"
_REFUND_THEIRS, _REFUND_OURS = "微信退款单号", "商户退款单号"
_CHARGED, _REFUNDED, _FEE = ("订单金额", "应结订单金额"), ("申请退款金额", "退款金额"), "手续费"
_COLUMNS = {_AT, _THEIRS, _OURS, _STATE, _REFUND_THEIRS, _REFUND_OURS, _FEE}
_SUMS = "总交易单数"
_REFUND_STATES = {"REFUND", "REVOKED"}


def lines(content: bytes) -> tuple[BillLine, ...]:
    """Read the transactions and refunds of a bill. Raises ValueError where it is not one, or is cut short."""
    rows = content.decode("utf-8-sig").splitlines()
    head = rows[0].split(",") if rows else []
    if missing := _COLUMNS - set(head):
        raise ValueError(f"columns missing: {sorted(missing)}")
    found: list[BillLine] = []
    for row in rows[1:]:
        if row.startswith(_SUMS):
            return tuple(found)
        found.append(_line(dict(zip(head, _cells(row), strict=True))))
    raise ValueError("cut short: the sums are missing")


def _cells(row: str) -> list[str]:
    """Split at comma and backtick together: a description may hold a comma."""
    if not row.startswith("`"):
        raise ValueError("a line that is none")
    return [each.strip() for each in row[1:].split(",`")]


def _line(row: Mapping[str, str]) -> BillLine:
    state = row[_STATE]
    if state != "SUCCESS" and state not in _REFUND_STATES:
        raise ValueError(f"a line of another state: {state!r}")
    if row.get("货币种类", "CNY") != "CNY":
        raise ValueError("not in CNY")
    refund = state in _REFUND_STATES
    amount = next((row[each] for each in (_REFUNDED if refund else _CHARGED) if row.get(each)), "")
    fee = abs(bill_fen(row[_FEE] or "0"))
    return BillLine(
        kind="refund" if refund else "charge",
        request_id=row[_REFUND_OURS] if refund else row[_OURS],
        charge_request_id=row[_OURS],
        provider_id=row[_REFUND_THEIRS] if refund else row[_THEIRS],
        amount=cny(abs(bill_fen(amount))),
        fee=-fee if refund else fee,  # a refund gives it back
        at_ms=china_ms(row[_AT]),
    )
