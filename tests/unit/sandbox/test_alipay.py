"""The gateway takes what Alipay takes, refuses what it refuses, and signs what it says."""

from __future__ import annotations

import io
import zipfile
from typing import Any
from urllib.parse import parse_qsl, urlencode

import httpx
import pytest

from tests.unit.sandbox.merchants import NOTIFY, AlipayMerchant, World


async def paid(alipay: AlipayMerchant, number: str = "P1", amount: str = "12.34") -> None:
    """Order a code and have it paid."""
    code = (await alipay.precreate(number, amount))["qr_code"]
    assert (await alipay.world.pays("alipay", number, qr_code=code)).status_code == 200


async def test_precreate_when_nobody_scanned(alipay: AlipayMerchant) -> None:
    """A code makes no trade: it is unknown to query, close and refund until it is scanned, then it waits."""
    made = await alipay.precreate("P1")
    assert (made["code"], made["out_trade_no"]) == ("10000", "P1")
    for method in ("query", "close", "refund"):
        assert (await alipay.call(method, out_trade_no="P1", refund_amount="12.34"))[
            "sub_code"
        ] == "ACQ.TRADE_NOT_EXIST"
    assert (await alipay.world.pays("alipay", "P1", "open", qr_code=made["qr_code"])).status_code == 200
    assert (await alipay.call("query", out_trade_no="P1"))["trade_status"] == "WAIT_BUYER_PAY"


async def test_answer_escapes_slashes(alipay: AlipayMerchant) -> None:
    """The signed text is the raw one, in which a slash is escaped: a re-serialised one does not verify."""
    params = alipay.params("alipay.trade.precreate", {"out_trade_no": "P1", "total_amount": "1", "subject": "x"})
    answer = await alipay.world.http.post("/alipay/gateway.do", data=params)
    assert rb"https:\/\/qr.alipay.com\/bax" in answer.content
    assert alipay.verified(answer.content, params)["code"] == "10000"


async def test_trade_when_paid(alipay: AlipayMerchant) -> None:
    """Paying takes the money once, says so to query, and notifies with a signature by the page."""
    await paid(alipay)
    again = await alipay.world.pays("alipay", "P1")
    assert again.status_code == 409
    found = await alipay.call("query", out_trade_no="P1")
    assert (found["trade_status"], found["total_amount"]) == ("TRADE_SUCCESS", "12.34")
    assert (await alipay.call("query", trade_no=found["trade_no"]))["out_trade_no"] == "P1"
    (request,) = await alipay.world.called("alipay")
    notice = alipay.noticed(request)
    assert str(request.url) == NOTIFY
    assert {k: notice[k] for k in ("out_trade_no", "total_amount", "trade_status", "app_id", "seller_id")} == {
        "out_trade_no": "P1", "total_amount": "12.34", "trade_status": "TRADE_SUCCESS",
        "app_id": alipay.held["app_id"], "seller_id": alipay.held["seller_id"]}  # fmt: skip
    booked = await alipay.world.booked("P1")
    assert (booked["charged"], booked["times_charged"], booked["captured"]) == (1234, 1, 1234)


async def test_order_when_repeated(alipay: AlipayMerchant) -> None:
    """The same order is the same trade; another amount, a paid or a closed one are refused."""
    first = await alipay.precreate("P1")
    assert (await alipay.precreate("P1"))["qr_code"] == first["qr_code"]
    assert (await alipay.precreate("P1", "1.00"))["sub_code"] == "ACQ.CONTEXT_INCONSISTENT"
    await alipay.world.pays("alipay", "P1")
    assert (await alipay.precreate("P1"))["sub_code"] == "ACQ.TRADE_HAS_SUCCESS"
    await alipay.precreate("P2")
    await alipay.world.pays("alipay", "P2", "open")
    assert (await alipay.call("close", out_trade_no="P2"))["code"] == "10000"
    assert (await alipay.precreate("P2"))["sub_code"] == "ACQ.TRADE_HAS_CLOSE"
    assert (await alipay.world.pays("alipay", "P2")).status_code == 409
    assert (await alipay.world.booked("P1"))["asked"] == 2


@pytest.mark.parametrize(
    ("changed", "sub_code"),
    [
        ({"method": ""}, "isv.missing-method"),
        ({"app_id": ""}, "isv.missing-app-id"),
        ({"app_id": "2021000000000000"}, "isv.invalid-app-id"),
        ({"sign_type": ""}, "isv.missing-signature-type"),
        ({"sign_type": "RSA"}, "isv.invalid-signature-type"),
        ({"charset": "latin-1"}, "isv.invalid-charset"),
        ({"charset": ""}, "isv.missing-charset"),
        ({"format": "XML"}, "isv.invalid-format"),
        ({"version": "2.0"}, "isv.invalid-parameter"),
        ({"version": ""}, "isv.missing-version"),
        ({"timestamp": ""}, "isv.missing-timestamp"),
        ({"timestamp": "2030-01-01 07:49:59"}, "isv.invalid-timestamp"),
        ({"timestamp": "2030-01-01 08:10:01"}, "isv.invalid-timestamp"),
        ({"timestamp": "2030-01-01 00:00:00"}, "isv.invalid-timestamp"),
        ({"timestamp": "2030-01-01T08:00:00"}, "isv.invalid-timestamp"),
        ({"timestamp": "2030-02-30 08:00:00"}, "isv.invalid-timestamp"),
        ({"biz_content": "{"}, "isv.invalid-parameter"),
        ({"biz_content": "[]"}, "isv.invalid-parameter"),
        ({"biz_content": '{"total_amount": NaN}'}, "isv.invalid-parameter"),
        ({"method": "alipay.trade.nothing"}, "isv.invalid-method"),
        ({"method": "rm -rf"}, "isv.invalid-method"),
    ],
)
async def test_parameter_when_wrong(alipay: AlipayMerchant, changed: dict[str, str], sub_code: str) -> None:
    """Each public parameter is checked, truly signed or not, and the refusal says which."""
    params = alipay.params("alipay.trade.query", {"out_trade_no": "P1"}, **changed)
    found = await alipay.send({k: v for k, v in params.items() if v})
    assert (found["code"][:4], found["sub_code"]) == ("4000", sub_code)


async def test_signature_when_wrong(alipay: AlipayMerchant) -> None:
    """Whatever differs from what was signed is refused: a value, a parameter more or less, another key, no signature."""
    biz = {"out_trade_no": "P1", "total_amount": "12.34", "subject": "x"}
    params = alipay.params("alipay.trade.precreate", biz)
    other = AlipayMerchant(alipay.world)
    other.held = {**alipay.held, "private_key": alipay.world.acquirers["alipay"]._held.private_key}  # type: ignore[attr-defined]
    tampered = [
        {**params, "biz_content": params["biz_content"].replace("12.34", "12.35")},
        {**params, "return_url": "https://merchant.test/"},
        {k: v for k, v in params.items() if k != "notify_url"},
        {**params, "sign": params["sign"][:-4]},
        {**params, "sign": "nonsense!"},
        other.params("alipay.trade.precreate", biz),
    ]
    for each in tampered:
        assert (await alipay.send(each))["sub_code"] == "isv.invalid-signature"
    missing = await alipay.send({k: v for k, v in params.items() if k != "sign"})
    assert (missing["code"], missing["sub_code"]) == ("40001", "isv.missing-signature")
    assert (await alipay.world.http.get("/book")).json()["charges"] == []


async def test_signature_takes_every_parameter(alipay: AlipayMerchant) -> None:
    """Parameters in the query and unknown ones are signed like the others; empty ones are not; twice is refused."""
    params = alipay.params("alipay.trade.query", {"out_trade_no": "P1"}, something_new="&=/ 茶")
    query = urlencode({k: params[k] for k in ("app_id", "charset")})
    body = {k: v for k, v in params.items() if k not in {"app_id", "charset"}} | {"empty": ""}
    answer = await alipay.world.http.post(f"/alipay/gateway.do?{query}", data=body)
    assert alipay.verified(answer.content, params)["sub_code"] == "ACQ.TRADE_NOT_EXIST"
    twice = await alipay.world.http.post(f"/alipay/gateway.do?{query}", data=params)
    assert twice.json()["error_response"]["sub_code"] == "isv.invalid-parameter"


async def test_charset_when_gbk(alipay: AlipayMerchant) -> None:
    """Signature, form and answer are in the charset that the request names."""
    made = await alipay.call("precreate", {"charset": "GBK"}, out_trade_no="P1", total_amount="1.00", subject="茶")
    assert made["code"] == "10000"
    assert (await alipay.world.booked("P1"))["details"]["subject"] == "茶"


@pytest.mark.parametrize(
    "biz",
    [
        {"total_amount": "0"},
        {"total_amount": "0.00"},
        {"total_amount": "-1"},
        {"total_amount": "1.234"},
        {"total_amount": "1e3"},
        {"total_amount": "100000000.01"},
        {"total_amount": ""},
        {"out_trade_no": ""},
        {"out_trade_no": "P" * 65},
        {"out_trade_no": "P 1"},
        {"out_trade_no": ["P1"]},
        {"subject": ""},
        {"subject": "x" * 257},
        {"time_expire": "2030-01-01 07:59:59"},
        {"time_expire": "tomorrow"},
        {"timeout_express": "16d"},
        {"timeout_express": "1s"},
        {"seller_id": "2088000000000000"},
        {"product_code": "FAST_INSTANT_TRADE_PAY"},
    ],
)
async def test_order_when_malformed(alipay: AlipayMerchant, biz: dict[str, Any]) -> None:
    """Every field of an order is checked, and nothing is kept of a refused one."""
    made = await alipay.call("precreate", **{"out_trade_no": "P1", "total_amount": "1", "subject": "x", **biz})
    assert (made["code"], made["sub_code"]) == ("40004", "ACQ.INVALID_PARAMETER")
    assert (await alipay.world.http.get("/book")).json()["charges"] == []


async def test_refund_when_partial(alipay: AlipayMerchant) -> None:
    """Parts add up in refund_fee; a repeat changes nothing; more than is left, or another amount, is refused."""
    await paid(alipay)
    first = await alipay.call("refund", out_trade_no="P1", refund_amount="10.00", out_request_no="R1")
    assert (first["fund_change"], first["refund_fee"]) == ("Y", "10.00")
    repeat = await alipay.call("refund", out_trade_no="P1", refund_amount="10.00", out_request_no="R1")
    assert (repeat["code"], repeat["fund_change"], repeat["refund_fee"]) == ("10000", "N", "10.00")

    async def refused(amount: str, number: str) -> str:
        return str(
            (await alipay.call("refund", out_trade_no="P1", refund_amount=amount, out_request_no=number))["sub_code"]
        )

    assert await refused("9.00", "R1") == "ACQ.DISCORDANT_REPEAT_REQUEST"
    assert await refused("2.35", "R2") == "ACQ.REFUND_AMT_NOT_EQUAL_TOTAL"
    assert await refused("1.00", "") == "ACQ.INVALID_PARAMETER"
    second = await alipay.call("refund", out_trade_no="P1", refund_amount="2.34", out_request_no="R2")
    assert second["refund_fee"] == "12.34"
    assert (await alipay.call("query", out_trade_no="P1"))["trade_status"] == "TRADE_CLOSED"
    notices = [alipay.noticed(each) for each in await alipay.world.called("alipay")]
    assert [(n["trade_status"], n.get("out_biz_no"), n.get("refund_fee")) for n in notices] == [
        ("TRADE_SUCCESS", None, None), ("TRADE_SUCCESS", "R1", "10.00"), ("TRADE_CLOSED", "R2", "12.34")]  # fmt: skip
    booked = await alipay.world.booked("R1")
    assert (booked["refunded"], [each["asked"] for each in booked["refunds"]]) == (1234, [2, 1])


async def test_refund_query_when_there_is_none(alipay: AlipayMerchant) -> None:
    """A refund that does not exist is 10000 without a status; one that exists has it."""
    await paid(alipay)
    none = await alipay.call("fastpay.refund.query", out_trade_no="P1", out_request_no="R1")
    assert none == {"code": "10000", "msg": "Success"}
    await alipay.call("refund", out_trade_no="P1", refund_amount="1.00", out_request_no="R1")
    found = await alipay.call("fastpay.refund.query", out_trade_no="P1", out_request_no="R1")
    assert (found["refund_status"], found["refund_amount"]) == ("REFUND_SUCCESS", "1.00")


async def test_cancel_ends_whatever_there_is(alipay: AlipayMerchant) -> None:
    """Nothing, a code, a waiting trade, a paid one: afterwards nobody has paid; `action` says what was done."""
    assert "action" not in await alipay.call("cancel", out_trade_no="P0")
    await alipay.precreate("P1")
    assert "action" not in await alipay.call("cancel", out_trade_no="P1")
    assert (await alipay.world.pays("alipay", "P1")).status_code == 409
    await alipay.precreate("P2")
    await alipay.world.pays("alipay", "P2", "open")
    assert (await alipay.call("cancel", out_trade_no="P2"))["action"] == "close"
    await paid(alipay, "P3")
    for _ in range(2):
        assert (await alipay.call("cancel", out_trade_no="P3"))["action"] == "refund"
    assert (await alipay.world.booked("P3"))["refunded"] == 1234


async def test_finished_trade_is_not_refundable(alipay: AlipayMerchant) -> None:
    """TRADE_FINISHED is told, and refuses a refund."""
    await paid(alipay)
    await alipay.world.pays("alipay", "P1", "finish")
    refused = await alipay.call("refund", out_trade_no="P1", refund_amount="12.34")
    assert refused["sub_code"] == "ACQ.TRADE_HAS_FINISHED"
    assert alipay.noticed((await alipay.world.called("alipay"))[-1])["trade_status"] == "TRADE_FINISHED"


async def test_trade_when_it_times_out(alipay: AlipayMerchant) -> None:
    """An expired trade is closed, cannot be paid, and is told of."""
    await alipay.precreate("P1", timeout_express="5m")
    await alipay.world.pays("alipay", "P1", "open")
    alipay.world.clock.ms += 300_000
    assert (await alipay.world.pays("alipay", "P1")).status_code == 409
    assert (await alipay.call("query", out_trade_no="P1"))["trade_status"] == "TRADE_CLOSED"
    (request,) = await alipay.world.called("alipay")
    assert alipay.noticed(request)["trade_status"] == "TRADE_CLOSED"
    assert (await alipay.world.booked("P1"))["charged"] == 0


PAGES = {"page": "FAST_INSTANT_TRADE_PAY", "wap": "QUICK_WAP_WAY", "app": "QUICK_MSECURITY_PAY"}


@pytest.mark.parametrize("scene", PAGES)
async def test_order_string_when_the_payer_brings_it(alipay: AlipayMerchant, scene: str) -> None:
    """What the merchant signed for browser and app is verified when the payer comes with it, then paid."""
    biz = {"out_trade_no": "P1", "total_amount": "12.34", "subject": "茶", "product_code": PAGES[scene]}
    params = alipay.params(f"alipay.trade.{scene}.pay", biz, return_url="https://merchant.test/back?x=1")
    order = urlencode(params)
    name = "app_parameters" if scene == "app" else "redirect_url"
    given = order if scene == "app" else f"https://gateway.test/gateway.do?{order}"
    forged = await alipay.world.pays("alipay", "P1", **{name: given.replace("12.34", "12.35")})
    assert (forged.status_code, forged.json()["error"]) == (400, "isv.invalid-signature")
    answer = await alipay.world.pays("alipay", "P1", **{name: given})
    assert answer.json()["charge"]["captured"] == 1234
    back = dict(parse_qsl(httpx.URL(answer.json()["return_url"]).query.decode()))
    assert (back["x"], back["total_amount"], back["out_trade_no"]) == ("1", "12.34", "P1")


async def test_page_when_a_browser_comes(alipay: AlipayMerchant) -> None:
    """A browser with the URL or the form is sent to the payer's page, where people pay; a forged one sees why not."""
    biz = {"out_trade_no": "P1", "total_amount": "12.34", "subject": "<b>", "product_code": PAGES["page"]}
    params = alipay.params("alipay.trade.page.pay", biz)
    http = alipay.world.http
    for answer in (
        await http.get("/alipay/gateway.do", params=params),
        await http.post("/alipay/gateway.do", data=params),
    ):
        assert (answer.status_code, answer.headers["location"]) == (302, "/payer/alipay/P1")
    page = await http.get("/payer/alipay/P1")
    assert "&lt;b&gt;" in page.text
    done = await http.post("/payer/alipay/P1/pay", headers={"accept": "text/html"})
    assert (done.status_code, done.headers["location"]) == (303, "/payer/alipay/P1")
    forged = await http.get("/alipay/gateway.do", params={**params, "notify_url": "https://evil.test/"})
    assert (forged.status_code, "isv.invalid-signature" in forged.text) == (400, True)
    wrong = alipay.params("alipay.trade.page.pay", {**biz, "product_code": "QUICK_WAP_WAY", "out_trade_no": "P2"})
    assert "ACQ.INVALID_PARAMETER" in (await http.get("/alipay/gateway.do", params=wrong)).text


async def test_form_when_the_payer_brings_it(alipay: AlipayMerchant) -> None:
    """A form of hidden fields is submitted as a browser would."""
    biz = {"out_trade_no": "P1", "total_amount": "12.34", "subject": "a\"b'c&amp;", "product_code": PAGES["page"]}
    params = alipay.params("alipay.trade.page.pay", biz)
    escaped = {k: v.replace("&", "&amp;").replace('"', "&quot;") for k, v in params.items()}
    fields = "".join(f'<input type="hidden" name="{k}" value="{v}">' for k, v in escaped.items() if k != "charset")
    form = (
        f'<form action="https://gateway.test/gateway.do?charset=utf-8" method="POST">{fields}</form><script></script>'
    )
    assert (await alipay.world.pays("alipay", "P1", form=form)).json()["charge"]["captured"] == 1234


async def test_app_submits_its_order_string(alipay: AlipayMerchant) -> None:
    """POST /alipay/app.do verifies the order string; a method of servers is refused there."""
    biz = {"out_trade_no": "P1", "total_amount": "1", "subject": "x", "product_code": PAGES["app"]}
    http = alipay.world.http
    good = urlencode(alipay.params("alipay.trade.app.pay", biz))
    assert (await http.post("/alipay/app.do", content=good)).json() == {"out_trade_no": "P1"}
    wrong = urlencode(alipay.params("alipay.trade.precreate", biz))
    assert (await http.post("/alipay/app.do", content=wrong)).json()["sub_code"] == "isv.invalid-method"


async def test_bill_of_a_day(alipay: AlipayMerchant) -> None:
    """The day's trades and refunds in a ZIP of CSVs in GBK, once the day is over; its URL ends soon."""
    await paid(alipay)
    await alipay.call("refund", out_trade_no="P1", refund_amount="2.00", out_request_no="R1")
    biz = {"bill_type": "trade", "bill_date": "2030-01-01"}

    def params() -> dict[str, str]:
        return alipay.params("alipay.data.dataservice.bill.downloadurl.query", biz)

    assert (await alipay.send(params()))["sub_code"] == "isp.bill_not_exist"
    alipay.world.clock.ms += 86_400_000
    url = (await alipay.send(params()))["bill_download_url"]
    content = (await alipay.world.http.get(url)).content
    with zipfile.ZipFile(io.BytesIO(content), metadata_encoding="gbk") as archive:
        details, summary = (archive.read(name).decode("gbk") for name in sorted(archive.namelist(), key=len))
        assert archive.testzip() is None
    rows = [[cell.strip() for cell in line.split(",")] for line in details.splitlines() if not line.startswith("#")]
    header, trade, refund = rows
    column = {name: index for index, name in enumerate(header)}
    pick = ("商户订单号", "业务类型", "商家实收（元）", "退款批次号/请求号", "服务费（元）")  # noqa: RUF001 - its words
    assert [trade[column[name]] for name in pick] == ["P1", "交易", "12.34", "", "-0.07"]
    assert [refund[column[name]] for name in pick] == ["P1", "退款", "-2.00", "R1", "0.01"]
    assert "合计" in summary
    alipay.world.clock.ms += 31_000
    assert (await alipay.world.http.get(url)).status_code == 404


async def test_notice_is_repeated_until_success(alipay: AlipayMerchant) -> None:
    """Anything but the seven letters is not taken: eight sendings in all, the same notify_id each time."""
    bodies = iter(["Success", "success\n", '"success"', "fail", "", "ok", "SUCCESS"])
    alipay.world.inbox.answer = lambda _request: httpx.Response(200, text=next(bodies, "x"))
    await paid(alipay)
    came = [alipay.noticed(each) for each in await alipay.world.called("alipay")]
    assert (len(came), len({each["notify_id"] for each in came})) == (8, 1)


async def test_notice_when_forged(alipay: AlipayMerchant, world: World) -> None:
    """Each forgery differs from the truth in what it says it forges."""
    await paid(alipay)
    true = alipay.noticed((await world.called("alipay"))[0])
    world.inbox.came.clear()
    for forge, name in {
        "amount": "total_amount",
        "seller": "seller_id",
        "app_id": "app_id",
        "order": "out_trade_no",
    }.items():
        await world.http.post("/callbacks/alipay/P1", json={"forge": forge})
        assert alipay.noticed(world.inbox.came.pop())[name] != true[name]
    for forge in ("signature", "sha1"):
        await world.http.post("/callbacks/alipay/P1", json={"forge": forge})
        with pytest.raises(Exception, match=r"^$|RSA2"):
            alipay.noticed(world.inbox.came.pop())
    assert (await world.http.post("/callbacks/alipay/P1", json={"forge": "currency"})).status_code == 400


async def test_answer_when_forged(alipay: AlipayMerchant, world: World) -> None:
    """A scripted answer is not signed by Alipay, or is signed and speaks of another trade."""
    await paid(alipay)
    await world.rule("alipay", on="query", do="forge", forge="signature")
    params = alipay.params("alipay.trade.query", {"out_trade_no": "P1"})
    answer = await world.http.post("/alipay/gateway.do", data=params)
    with pytest.raises(Exception, match=r"^$"):
        alipay.verified(answer.content, params)
    await world.rule("alipay", on="query", do="forge", forge="amount")
    assert (await alipay.call("query", out_trade_no="P1"))["total_amount"] == "12.35"


@pytest.mark.parametrize(
    ("do", "code", "sub_code"),
    [
        ("decline", "40004", "ACQ.BUYER_ENABLE_STATUS_FORBID"),
        ("insufficient_funds", "40004", "ACQ.BUYER_BALANCE_NOT_ENOUGH"),
        ("processing_error", "40004", "ACQ.SYSTEM_ERROR"),
        ("error", "20000", "isp.unknow-error"),
    ],
)
async def test_order_when_scripted_to_be_refused(alipay: AlipayMerchant, do: str, code: str, sub_code: str) -> None:
    """The next order is refused in Alipay's words and not kept; the one after is taken."""
    await alipay.world.rule("alipay", on="charge", do=do, request_id="P1")
    assert (await alipay.precreate("P2"))["code"] == "10000"
    refused = await alipay.precreate("P1")
    assert (refused["code"], refused["sub_code"]) == (code, sub_code)
    assert (await alipay.precreate("P1"))["code"] == "10000"


async def test_order_when_charged_and_dropped(alipay: AlipayMerchant) -> None:
    """The payer has paid, the answer is lost, and query knows."""
    await alipay.world.rule("alipay", on="charge", do="drop")
    with pytest.raises(ConnectionResetError):
        await alipay.precreate("P1")
    assert (await alipay.call("query", out_trade_no="P1"))["trade_status"] == "TRADE_SUCCESS"
    assert (await alipay.world.booked("P1"))["times_charged"] == 1


async def test_order_when_it_fails_then_succeeds(alipay: AlipayMerchant) -> None:
    """Refused, yet paid: the notice comes after the refusal."""
    await alipay.world.rule("alipay", on="charge", do="fail_then_success")
    assert (await alipay.precreate("P1"))["code"] == "40004"
    assert alipay.world.inbox.came == []
    (request,) = await alipay.world.called("alipay")
    assert alipay.noticed(request)["trade_status"] == "TRADE_SUCCESS"


async def test_payer_when_the_wallet_is_empty(alipay: AlipayMerchant) -> None:
    """A payer without funds leaves the trade waiting; he may try again."""
    await alipay.precreate("P1")
    await alipay.world.rule("alipay", on="pay", do="insufficient_funds")
    assert (await alipay.world.pays("alipay", "P1")).json() == {"refused": "insufficient_funds"}
    assert (await alipay.call("query", out_trade_no="P1"))["trade_status"] == "WAIT_BUYER_PAY"
    assert (await alipay.world.pays("alipay", "P1", "refuse")).status_code == 200
    assert (await alipay.world.pays("alipay", "P1")).json()["charge"]["times_charged"] == 1
