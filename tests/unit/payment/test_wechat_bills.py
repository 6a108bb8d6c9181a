# ruff: noqa: RUF001 - what is written in Chinese has wide marks
"""WeChat Pay's bill: a CSV whose cells begin with a backtick, fetched by its hash."""

from __future__ import annotations

import hashlib
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.kernel.money import Money
from services.payment.adapters.wechat import bills
from services.payment.ports.provider import Bill, BillLine
from tests.fakes.provider_vectors import NOW_MS
from tests.fakes.wechat import FakeWechat
from tests.unit.payment.test_wechat import adapter

HEAD = (
    "交易时间,公众账号ID,商户号,特约商户号,设备号,微信订单号,商户订单号,用户标识,交易类型,交易状态,付款银行,货币种类,应结订单金额,"
    "代金券金额,微信退款单号,商户退款单号,退款金额,充值券退款金额,退款类型,退款状态,商品名称,商户数据包,手续费,费率,订单金额,"
    "申请退款金额,费率备注"
)
CHARGE = (
    "`2026-11-24 07:59:30,`wx0000000000000001,`1600000001,`0,`,`4200001,`P1002,`o1,`NATIVE,`SUCCESS,`CMC,`CNY,`0.98,`0.02,`0,"
    "`0,`0.00,`0.00,`,`,`一壶茶, 两碗,`,`0.00600,`0.60%,`1.00,`0.00,`"
)
REFUND = (
    "`2026-11-24 08:00:00,`wx0000000000000001,`1600000001,`0,`,`4200001,`P1002,`o1,`NATIVE,`REFUND,`CMC,`CNY,`0.00,`0.00,"
    "`5030001,`R1,`0.39,`0.01,`ORIGINAL,`SUCCESS,`一壶茶,`,`-0.01000,`0.60%,`0.00,`0.40,`"
)
SUMS = (
    "总交易单数,应结订单总金额,退款总金额,充值券退款总金额,手续费总金额,订单总金额,申请退款总金额\n"
    "`2,`0.98,`0.39,`0.01,`0.00,`1.00,`0.40"
)
LINES = (
    BillLine("charge", "P1002", "P1002", "4200001", Money("CNY", 100), 1, NOW_MS - 30_000),
    BillLine("refund", "R1", "P1002", "5030001", Money("CNY", 40), -1, NOW_MS),
)


def bill(*rows: str, head: str = HEAD, sums: str = SUMS) -> bytes:
    """A bill with these lines; it begins with a byte order mark."""
    return "\r\n".join([head, *rows, sums, ""]).encode("utf-8-sig")


def test_lines_when_of_the_shape() -> None:
    """Charges and refunds come in fen and UTC, with what WeChat Pay kept; a comma in a description divides nothing."""
    assert bills.lines(bill(CHARGE, REFUND)) == LINES
    assert bills.lines(bill()) == ()
    assert bills.lines(bill(CHARGE, REFUND).removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")) == LINES


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"<xml><return_code>FAIL</return_code></xml>",
        bill(CHARGE, sums=""),
        bill(CHARGE)[:-200],
        bill(CHARGE, head=HEAD.replace("手续费", "费")),
        bill(CHARGE.replace("SUCCESS", "DREAMING")),
        bill(CHARGE.replace("CNY", "USD")),
        bill(CHARGE.replace("`1.00", "`1e2")),
        bill(CHARGE.replace("`1.00", "`")),
        bill(CHARGE.replace("`0.98", "`").replace("`1.00", "`")),
        bill(CHARGE.replace("07:59:30", "07：59：30")),
        bill(CHARGE + ",`x"),
        bill(CHARGE[1:]),
    ],
)
def test_lines_when_it_is_no_bill(content: bytes) -> None:
    """Half a bill is none: a line that cannot be read makes it unreadable, not shorter."""
    if content == bill(CHARGE.replace("`1.00", "`")):  # without the full amount the one that is settled counts
        assert bills.lines(content)[0].amount == Money("CNY", 98)
        return
    with pytest.raises(ValueError, match=r"."):
        bills.lines(content)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_lines_when_mutated(data: st.DataObject) -> None:
    """Of bytes changed or cut nothing comes but lines or a ValueError."""
    content = bytearray(bill(CHARGE, REFUND))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content)))
        content[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    try:
        assert len(bills.lines(bytes(content))) <= 4
    except ValueError as error:
        assert str(error)  # noqa: PT017 - either of the two may come out


URL = "https://api.mch.weixin.qq.com/v3/billdownload/file?token=6XIv5TUPto7pByrTQKhd6kwvyKLG2uY2"
FILE = bill(CHARGE, REFUND)
HASH = hashlib.sha1(FILE).hexdigest()


def fetched(file: bytes = FILE, **changed: object) -> tuple[Bill | None, FakeWechat]:
    """Fetch a bill whose address and hash are told."""
    told = {"download_url": URL, "hash_type": "SHA1", "hash_value": HASH, **changed}
    wechat = FakeWechat(told, file=file)
    return adapter(wechat).fetch_bill("2026-11-24"), wechat


def test_fetch_when_there_is_one() -> None:
    """The bill is fetched with a signed request from where the signed answer says, and has the hash that it tells."""
    made, wechat = fetched()
    assert made == Bill(FILE, LINES)
    assert [path for _, path, _ in wechat.asked] == [
        "/v3/bill/tradebill?bill_date=2026-11-24&bill_type=ALL",
        "/v3/billdownload/file?token=6XIv5TUPto7pByrTQKhd6kwvyKLG2uY2",
    ]
    assert fetched(hash_value=HASH.upper())[0] == made


def test_fetch_when_the_file_is_another() -> None:
    """One byte more, less or different, and it is not the bill; another hash than SHA1 is none."""
    for file in (FILE + b"\n", FILE[:-1], FILE.replace(b"1.00", b"9.00")):
        assert fetched(file)[0] is None
    for changed in ({"hash_type": "MD5"}, {"hash_value": ""}, {"hash_value": 7}, {"hash_type": None}):
        assert fetched(**changed)[0] is None


@pytest.mark.parametrize(
    "address",
    [
        "http://api.mch.weixin.qq.com/v3/x",
        "https://api.mch.weixin.qq.com.example.org/x",
        "https://127.0.0.1/",
        "https://u@x/",
        "",
        7,
    ],
)
def test_fetch_when_the_address_is_elsewhere(address: object) -> None:
    """Our signature goes to WeChat Pay over TLS, or nowhere."""
    made, wechat = fetched(download_url=address)
    assert made is None
    assert len(wechat.asked) == 1


@pytest.mark.parametrize(
    ("status", "code"),
    [*itertools.product([400, 404, 500], ["NO_STATEMENT_EXIST", "STATEMENT_CREATING", "PARAM_ERROR", "SYSTEM_ERROR"])],
)
def test_fetch_when_there_is_none(status: int, code: str) -> None:
    """No bill yet, and a provider that refuses, are None."""
    wechat = FakeWechat()
    wechat.refuses(status, code)
    assert adapter(wechat).fetch_bill("2026-11-24") is None
    assert len(wechat.asked) == 1
