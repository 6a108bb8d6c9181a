"""The gateway's bill of a day: two CSVs in GBK, in a ZIP whose names are GBK too."""
# ruff: noqa: E501, RUF001 - the words of the real file, which are wide

from __future__ import annotations

import struct
import zlib
from datetime import date
from typing import TYPE_CHECKING

from services.sandbox.alipay.trades import BUYER
from services.sandbox.bills import written
from services.sandbox.china import china_time, yuan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.sandbox.bills import Line

COLUMNS = (
    "支付宝交易号", "商户订单号", "业务类型", "商品名称", "创建时间", "完成时间", "门店编号", "门店名称", "操作员", "终端号",
    "对方账户", "订单金额（元）", "商家实收（元）", "支付宝红包（元）", "集分宝（元）", "支付宝优惠（元）", "商家优惠（元）",
    "券核销金额（元）", "券名称", "商家红包消费金额（元）", "卡消费金额（元）", "退款批次号/请求号", "服务费（元）", "分润（元）", "备注",
)  # fmt: skip
SUMMARY_COLUMNS = (
    "门店编号", "门店名称", "交易订单总笔数", "退款订单总笔数", "订单金额（元）", "商家实收（元）", "支付宝优惠（元）", "商家优惠（元）",
    "卡消费金额（元）", "服务费（元）", "分润（元）", "实收净额（元）",
)  # fmt: skip


def archive(lines: Sequence[Line], day: date, seller_id: str, now_ms: int) -> bytes:
    """Return the ZIP."""
    stamp = f"{seller_id}0156_{day:%Y%m%d}"
    files = {
        f"{stamp}_业务明细.csv": _details(lines, day, seller_id, now_ms),
        f"{stamp}_业务明细(汇总).csv": _summary(lines, day, seller_id, now_ms),
    }
    return zipped({name.encode("gbk"): text.encode("gbk", errors="replace") for name, text in files.items()})


def _head(title: str, day: date, seller_id: str) -> str:
    span = f"#起始日期：[{day:%Y年%m月%d日} 00:00:00]   终止日期：[{day:%Y年%m月%d日} 23:59:59]"
    return f"#支付宝{title}查询\r\n#账号：[{seller_id}0156]\r\n{span}\r\n#{title:-^60}\r\n"


def _details(lines: Sequence[Line], day: date, seller_id: str, now_ms: int) -> str:
    trades, refunds = [each for each in lines if not each.refund], [each for each in lines if each.refund]
    return (
        _head("业务明细列表", day, seller_id)
        + written([COLUMNS, *map(_row, lines)])
        + "#"
        + "业务明细列表结束".center(59, "-")
        + f"\r\n#交易合计：{len(trades)}笔，商家实收共{yuan(sum(each.amount for each in trades))}元，商家优惠共0.00元"
        + f"\r\n#退款合计：{len(refunds)}笔，商家实收退款共{yuan(-sum(each.amount for each in refunds))}元，商家优惠退款共0.00元"
        + f"\r\n#导出时间：[{china_time(now_ms)}]\r\n"
    )


def _row(line: Line) -> list[str]:
    charge, sign = line.charge, -1 if line.refund else 1
    nothing = "0.00"
    row = [
        charge.provider_id, charge.request_id, "退款" if line.refund else "交易", charge.details["subject"],
        china_time(line.refund.at_ms if line.refund else charge.created_ms), china_time(line.at_ms), "", "", "", "",
        BUYER["buyer_logon_id"], yuan(sign * line.amount), yuan(sign * line.amount), nothing, nothing, nothing, nothing,
        nothing, "", nothing, nothing, line.refund.request_id if line.refund else "", yuan(-sign * line.fee), nothing, "",
    ]  # fmt: skip
    # The real file ends fields that a spreadsheet would take for numbers, or trim, with a tab.
    return [f"{value}\t" if index < 12 or index == 21 else value for index, value in enumerate(row)]


def _summary(lines: Sequence[Line], day: date, seller_id: str, now_ms: int) -> str:
    trades = [each for each in lines if not each.refund]
    amount = sum(-each.amount if each.refund else each.amount for each in lines)
    fee = sum(each.fee if each.refund else -each.fee for each in lines)
    row = ["合计", "", str(len(trades)), str(len(lines) - len(trades)), yuan(amount), yuan(amount), "0.00", "0.00", "0.00",
           yuan(fee), "0.00", yuan(amount + fee)]  # fmt: skip
    end = "#" + "业务汇总列表结束".center(59, "-") + f"\r\n#导出时间：[{china_time(now_ms)}]\r\n"
    return _head("业务汇总列表", day, seller_id) + written([SUMMARY_COLUMNS, row]) + end


def zipped(files: dict[bytes, bytes]) -> bytes:
    """Write a ZIP with raw names: zipfile would mark them as UTF-8, which the real archive does not."""
    body, directory = b"", b""
    for name, content in files.items():
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        packed = packer.compress(content) + packer.flush()
        # version, flags, deflate, time, date 1980-01-01, checksum, sizes, length of the name, no extra
        fields = struct.pack(
            "<HHHHHIIIHH", 20, 0, 8, 0, 33, zlib.crc32(content), len(packed), len(content), len(name), 0
        )
        directory += (
            b"PK\x01\x02" + struct.pack("<H", 20) + fields + struct.pack("<HHHII", 0, 0, 0, 0, len(body)) + name
        )
        body += b"PK\x03\x04" + fields + name + packed
    end = struct.pack("<HHHHIIH", 0, 0, len(files), len(files), len(directory), len(body), 0)
    return body + directory + b"PK\x05\x06" + end
