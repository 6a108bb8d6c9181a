# ruff: noqa: RUF001 - brackets and colons are wide in Chinese
"""Alipay's bill: a ZIP with a CSV in GBK."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.kernel.money import Money
from services.payment.adapters.alipay import bills
from services.payment.ports.provider import Bill, BillLine
from tests.fakes.alipay import FakeGateway
from tests.fakes.provider_vectors import NOW_MS
from tests.unit.payment.test_alipay import adapter

HEAD = (
    "支付宝交易号,商户订单号,业务类型,商品名称,创建时间,完成时间,门店编号,门店名称,操作员,终端号,对方账户,订单金额（元）,"
    "商家实收（元）,支付宝红包（元）,集分宝（元）,支付宝优惠（元）,商家优惠（元）,券核销金额（元）,券名称,商家红包消费金额（元）,"
    "卡消费金额（元）,退款批次号/请求号,服务费（元）,分润（元）,备注"
)
CHARGE = (
    "2026112422001\t,P1002\t,交易\t,一壶茶\t,2026-11-24 07:58:01,2026-11-24 07:59:30,\t,\t,\t,\t,*明(138****0000)\t,88.88,"
    "88.88,0.00,0.00,0.00,0.00,0.00,\t,0.00,0.00,\t,-0.53,0.00,\t"
)
REFUND = (
    '2026112422001\t,P1002\t,退款\t,"一壶茶, 两碗"\t,2026-11-24 07:58:01,2026-11-24 08:00:00,\t,\t,\t,\t,*明\t,-8.00,'
    "-8.00,0.00,0.00,0.00,0.00,0.00,\t,0.00,0.00,R1\t,0.05,0.00,\t"
)
LINES = (
    BillLine("charge", "P1002", "P1002", "2026112422001", Money("CNY", 8888), 53, NOW_MS - 30_000),
    BillLine("refund", "R1", "P1002", "2026112422001", Money("CNY", 800), -5, NOW_MS),
)


def text(*rows: str, head: str = HEAD) -> str:
    """The file of single trades, with the comments that Alipay puts around it."""
    return "\r\n".join(
        [
            "#支付宝业务明细查询",
            "#账号：[20880000000000010156]",
            "#起始日期：[2026年11月24日 00:00:00]   终止日期：[2026年11月25日 00:00:00]",
            "#-----------------------------------------业务明细列表----------------------------------------",
            head,
            *rows,
            "#-----------------------------------------业务明细列表结束------------------------------------",
            "#交易合计：1笔，商家实收共88.88元，商家优惠共0.00元",
            "#导出时间：[2026年11月25日 09:00:00]",
            "",
        ]
    )


class GbkName(zipfile.ZipInfo):
    """A file whose name stands in GBK, without a flag that says so."""

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:
        return self.filename.encode("gbk"), self.flag_bits


def archive(*files: tuple[str, str], kind: type[zipfile.ZipInfo] = GbkName) -> bytes:
    """A ZIP as Alipay makes it."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as zipped:
        for name, content in files:
            info = kind(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            zipped.writestr(info, content.encode("gbk"))
    return made.getvalue()


DETAILS, SUMS = "20880000000000010156_20261124_业务明细.csv", "20880000000000010156_20261124_业务明细(汇总).csv"


def bill(*rows: str, head: str = HEAD) -> bytes:
    """A bill with these trades."""
    return archive((DETAILS, text(*rows, head=head)), (SUMS, text("合计")))


def test_lines_when_of_the_shape() -> None:
    """Trades and refunds come in fen and UTC, tabs away, with what the provider kept; names in GBK are told apart."""
    content = bill(CHARGE, REFUND)
    with zipfile.ZipFile(io.BytesIO(content)) as zipped:
        assert [each.filename.encode("cp437").decode("gbk") for each in zipped.infolist()] == [DETAILS, SUMS]
    assert bills.lines(content) == LINES
    assert bills.lines(archive((DETAILS, text(CHARGE, REFUND)), (SUMS, text()), kind=zipfile.ZipInfo)) == LINES
    assert bills.lines(bill()) == ()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04",
        bill(CHARGE)[:-30],
        bill(CHARGE)[:200] + b"\xff" + bill(CHARGE)[201:],
        archive(
            (DETAILS, text(CHARGE).partition("#-----------------------------------------业务明细列表结束")[0]),
            (SUMS, ""),
        ),
        archive((SUMS, text(CHARGE))),
        archive((DETAILS, text(CHARGE)), ("another" + DETAILS, text(CHARGE))),
        archive(*((f"{each}.csv", "") for each in range(20)), (DETAILS, text(CHARGE))),
        bill(CHARGE, head=HEAD.replace("订单金额", "金额")),
        bill(CHARGE.replace("88.88,", "8 8.88,", 1)),
        bill(CHARGE.replace("88.88,", "1e2,", 1)),
        bill(CHARGE.replace("交易", "充值")),
        bill(CHARGE.replace("07:59:30", "soon")),
        bill(CHARGE + ",x"),
        bill(CHARGE.rpartition(",")[0]),
    ],
)
def test_lines_when_it_is_no_bill(content: bytes) -> None:
    """Half a bill is none: a line that cannot be read makes it unreadable, not shorter."""
    with pytest.raises(ValueError, match=r".") as raised:
        bills.lines(content)
    assert not isinstance(raised.value, KeyError)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_lines_when_mutated(data: st.DataObject) -> None:
    """Of bytes changed or cut nothing comes but the lines or a ValueError."""
    content = bytearray(bill(CHARGE, REFUND))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content)))
        content[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    try:
        assert bills.lines(bytes(content)) == LINES
    except ValueError as error:
        assert str(error)  # noqa: PT017 - either of the two may come out


def fetched(gateway: FakeGateway, address: object) -> Bill | None:
    """Fetch a bill that is said to be at an address."""
    gateway.says(bill_download_url=address)
    return adapter(gateway).fetch_bill("2026-11-24")


def addresses(*hosts: str) -> Sequence[str]:
    """Where a bill is not fetched."""
    return [f"{host}/bill?token=x" for host in hosts]


def test_fetch_when_there_is_one() -> None:
    """The bill is fetched from where the signed answer says, as it came."""
    gateway = FakeGateway(file=bill(CHARGE, REFUND))
    made = fetched(gateway, "https://dwbillcenter.alipay.com/downloadBillFile.resource?token=x")
    assert made == Bill(gateway.file, LINES)
    assert gateway.asked[0]["biz_content"] == '{"bill_type":"trade","bill_date":"2026-11-24"}'
    assert fetched(gateway, "https://openapi.alipay.com/bill") == made


@pytest.mark.parametrize(
    "address",
    [
        *addresses("http://dwbillcenter.alipay.com", "https://alipay.com.example.org", "https://evilalipay.com"),
        *addresses("http://127.0.0.1", "https://127.0.0.1", "file:///etc", "https://u:p@dwbillcenter.alipay.com"),
        "",
        7,
    ],
)
def test_fetch_when_the_address_is_elsewhere(address: object) -> None:
    """A bill is fetched from Alipay over TLS, or not at all."""
    assert fetched(FakeGateway(file=bill(CHARGE)), address) is None


def test_fetch_when_there_is_none() -> None:
    """No bill yet, a bill that is none, and a provider that refuses are None."""
    gateway = FakeGateway()
    alipay = adapter(gateway)
    gateway.refuses("isp.bill_not_exist")
    assert alipay.fetch_bill("2026-11-24") is None
    gateway.refuses("isv.invalid-parameter", "40002")
    assert alipay.fetch_bill("2026-11-24") is None
    assert fetched(FakeGateway(file=b"<html>"), "https://dwbillcenter.alipay.com/x") is None
