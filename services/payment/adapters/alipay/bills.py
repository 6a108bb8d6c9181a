"""Alipay's bill of a day: a ZIP with a CSV in GBK, one line a trade or refund, comments in lines that begin with ``#``."""

from __future__ import annotations

import csv
import io
import zipfile
import zlib
from operator import itemgetter
from typing import TYPE_CHECKING

from services.payment.adapters.china import bill_fen, china_ms, cny
from services.payment.ports.provider import BillLine

if TYPE_CHECKING:
    from collections.abc import Iterator

TEXT_BYTES_MAX = 512 << 20
FILES_MAX = 16

_KINDS = {"交易": "charge", "退款": "refund"}
_TRADE_NO, _OURS, _KIND, _AT = "支付宝交易号", "商户订单号", "业务类型", "完成时间"
_AMOUNT, _REFUND_NO, _FEE = "订单金额(元)", "退款批次号/请求号", "服务费(元)"
_COLUMNS = (_TRADE_NO, _OURS, _KIND, _AT, _AMOUNT, _REFUND_NO, _FEE)
_DETAILS, _SUMMARY, _END = "业务明细", "汇总", "业务明细列表结束"


def lines(content: bytes) -> tuple[BillLine, ...]:
    """Read the trades and refunds of a bill. Raises ValueError where it is not one."""
    rows = csv.reader(_listed(_details(content)))
    try:
        head = [_cell(each) for each in next(rows, [])]
        if missing := set(_COLUMNS) - set(head):
            raise ValueError(f"columns missing: {sorted(missing)}")
        wanted = itemgetter(*map(head.index, _COLUMNS))  # a bill has many lines, and most of a line says nothing here
        return tuple(_line(*map(str.strip, wanted(_whole(row, len(head))))) for row in rows)
    except csv.Error as error:
        raise ValueError("not CSV") from error


def _listed(text: str) -> Iterator[str]:
    """The lines of the list: head and trades. Without the line that ends it, it is cut short."""
    for line in io.StringIO(text):
        if _END in line and "," not in line:
            return
        if line.strip() and not line.startswith("#"):
            yield line
    raise ValueError("cut short: the end of the list is missing")


def _details(content: bytes) -> str:
    """The text of the file with the single trades; the other one has sums."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            files = archive.infolist()
            found = [each for each in files if _DETAILS in (name := _name(each)) and _SUMMARY not in name]
            if len(files) > FILES_MAX or len(found) != 1 or found[0].file_size > TEXT_BYTES_MAX:
                raise ValueError("not exactly one file of trades, or too large")
            with archive.open(found[0]) as file:
                # The size that the archive tells need not be the true one.
                text = file.read(TEXT_BYTES_MAX + 1)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError) as error:
        raise ValueError("not a ZIP that can be read") from error
    if len(text) > TEXT_BYTES_MAX:
        raise ValueError("too large")
    return text.decode("gb18030")


def _name(file: zipfile.ZipInfo) -> str:
    """The name of a file in the archive, which Alipay writes in GBK without saying so."""
    if file.flag_bits & 0x800:
        return file.filename
    return file.filename.encode("cp437", "replace").decode("gb18030", "replace")


def _cell(text: str) -> str:
    """Cells come with a tab behind them, so that spreadsheets take numbers for text; some heads have wide brackets."""
    return text.strip().replace("\uff08", "(").replace("\uff09", ")")


def _whole(row: list[str], width: int) -> list[str]:
    if len(row) != width:
        raise ValueError("a line that is longer or shorter than the head")
    return row


def _line(trade_no: str, ours: str, word: str, at: str, amount: str, refund_no: str, kept: str) -> BillLine:
    """Read a line by the cells of `_COLUMNS`."""
    kind = _KINDS.get(word, "")
    if not kind:
        raise ValueError(f"a line of another kind: {word!r}")
    fee = abs(bill_fen(kept or "0"))
    return BillLine(
        kind=kind,
        request_id=refund_no if kind == "refund" else ours,
        charge_request_id=ours,
        provider_id=trade_no,
        amount=cny(abs(bill_fen(amount))),
        fee=-fee if kind == "refund" else fee,  # a refund gives it back
        at_ms=china_ms(at),
    )
