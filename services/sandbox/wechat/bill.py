"""The bills of a day: trades, and the flow of funds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from services.sandbox.china import china_time, yuan
from services.sandbox.wechat.orders import TRADE_TYPES

if TYPE_CHECKING:
    from services.sandbox.bills import Line
    from services.sandbox.keys import WechatKeys

TRADES = (
    "交易时间,公众账号ID,商户号,特约商户号,设备号,微信订单号,商户订单号,用户标识,交易类型,交易状态,付款银行,货币种类,应结订单金额,"
    "代金券金额,微信退款单号,商户退款单号,退款金额,充值券退款金额,退款类型,退款状态,商品名称,商户数据包,手续费,费率,订单金额,"
    "申请退款金额,费率备注"
)
TRADES_SUM = "总交易单数,应结订单总金额,退款总金额,充值券退款总金额,手续费总金额,订单总金额,申请退款总金额"
FUNDS = (
    "记账时间,微信支付业务单号,资金流水单号,业务名称,业务类型,收支类型,收支金额（元）,账户结余（元）,"  # noqa: RUF001 - as it is
    "资金变更提交申请人,备注,业务凭证号"
)
FUNDS_SUM = "资金流水总笔数,收入笔数,收入金额,支出笔数,支出金额"
RATE = "0.60%"


def trades(lines: Sequence[Line], held: WechatKeys) -> bytes:
    """Return the bill of trades."""
    paid, back = [each for each in lines if not each.refund], [each for each in lines if each.refund]
    fee = sum(-each.fee if each.refund else each.fee for each in lines)
    charged, refunded = yuan(sum(each.amount for each in paid)), yuan(sum(each.amount for each in back))
    total = (str(len(lines)), charged, refunded, "0.00", _fee(fee), charged, refunded)
    return _file(TRADES, [_trade(line, held) for line in lines], TRADES_SUM, total)


def funds(lines: Sequence[Line], held: WechatKeys) -> bytes:
    """Return the bill of the basic account: what came in and went out, fees by themselves."""
    rows: list[tuple[str, ...]] = []
    balance, sums = 0, {"收入": [0, 0], "支出": [0, 0]}
    for line in lines:
        number = line.refund.provider_id if line.refund else line.charge.provider_id
        flow = [("退款", "支出", line.amount), ("扣除交易手续费", "收入", line.fee)] if line.refund else [
            ("交易", "收入", line.amount), ("扣除交易手续费", "支出", line.fee)]  # fmt: skip
        for name, direction, amount in flow:
            if not amount:
                continue
            balance += amount if direction == "收入" else -amount
            sums[direction][0] += 1
            sums[direction][1] += amount
            rows.append((china_time(line.at_ms), number, number, name, name, direction, yuan(amount), yuan(balance),
                         held.mchid, "", line.request_id))  # fmt: skip
    (count_in, all_in), (count_out, all_out) = sums["收入"], sums["支出"]
    total = (str(len(rows)), str(count_in), yuan(all_in), str(count_out), yuan(all_out))
    return _file(FUNDS, rows, FUNDS_SUM, total)


def _trade(line: Line, held: WechatKeys) -> tuple[str, ...]:
    charge, refund, amount = line.charge, line.refund, yuan(line.amount)
    who = charge.details["openid"] or "oUpF8uMuAJO_M2pxb1Q9zNjWeS6o"
    head = (china_time(line.at_ms), held.appid, held.mchid, "0", "", charge.provider_id, charge.request_id, who,
            TRADE_TYPES[charge.details["scene"]], "REFUND" if refund else "SUCCESS", "OTHERS", "CNY")  # fmt: skip
    texts = (charge.details["subject"], charge.details["attach"])
    if refund:
        return (*head, "0.00", "0.00", refund.provider_id, refund.request_id, amount, "0.00", "ORIGINAL", "SUCCESS", *texts,
                _fee(-line.fee), RATE, "0.00", amount, "")  # fmt: skip
    return (*head, amount, "0.00", "0", "0", "0.00", "0.00", "", "", *texts, _fee(line.fee), RATE, amount, "0.00", "")


def _fee(fen: int) -> str:
    return yuan(fen) + "000"


def _file(header: str, rows: Sequence[Sequence[str]], sum_header: str, total: Sequence[str]) -> bytes:
    lines = [header, *map(_row, rows), sum_header, _row(total), ""]
    return "\r\n".join(lines).encode("utf-8-sig")


def _row(values: Sequence[str]) -> str:
    blank = str.maketrans(",\r\n", "   ")
    return ",".join(f"`{value.translate(blank)}" for value in values)
