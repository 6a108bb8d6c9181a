"""WeChat Pay v3 takes what the real one takes, refuses what it refuses, signs what it says and encrypts what it tells."""

from __future__ import annotations

import gzip
import hashlib
import json
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature, InvalidTag

from tests.unit.sandbox.merchants import WechatMerchant, World

NATIVE = "/v3/pay/transactions/native"


async def paid(wechat: WechatMerchant, number: str = "ORDER1", fen: int = 1234) -> None:
    """Order a code and have it paid."""
    _, made = await wechat.native(number, fen)
    assert (await wechat.world.pays("wechat", number, qr_code=made["code_url"])).status_code == 200


async def code_of(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of a refusal."""
    return answer.status_code, answer.json()["code"]


async def test_order_when_paid(wechat: WechatMerchant) -> None:
    """A code, NOTPAY, then SUCCESS with what was paid; money is taken once; a callback verifies and decrypts."""
    assert (await wechat.query("ORDER1"))[1]["code"] == "ORDER_NOT_EXIST"
    status, made = await wechat.native("ORDER1")
    assert (status, made["code_url"].startswith("weixin://wxpay/bizpayurl?pr=")) == (200, True)
    assert (await wechat.query("ORDER1"))[1]["trade_state"] == "NOTPAY"
    assert (await wechat.world.pays("wechat", "ORDER1", qr_code="weixin://other")).status_code == 404
    assert [(await wechat.world.pays("wechat", "ORDER1")).status_code for _ in range(2)] == [200, 409]
    _, found = await wechat.query("ORDER1")
    assert (found["trade_state"], found["amount"]["payer_total"], found["trade_type"]) == ("SUCCESS", 1234, "NATIVE")
    by_id = f"/v3/pay/transactions/id/{found['transaction_id']}?mchid={wechat.held['mchid']}"
    assert (await wechat.call("GET", by_id))[1] == found
    (request,) = await wechat.world.called("wechat")
    event, resource = wechat.noticed(request)
    assert (event, resource) == ("TRANSACTION.SUCCESS", found)
    booked = await wechat.world.booked("ORDER1")
    assert (booked["charged"], booked["times_charged"]) == (1234, 1)


async def test_order_when_repeated(wechat: WechatMerchant) -> None:
    """The same order answers the same; other content, paid and closed are refused; closing twice is 204 twice."""
    _, made = await wechat.native("ORDER1")
    assert (await wechat.native("ORDER1"))[1] == made
    assert (await wechat.native("ORDER1", 1))[1]["code"] == "OUT_TRADE_NO_USED"
    await wechat.world.pays("wechat", "ORDER1")
    assert (await wechat.native("ORDER1"))[1]["code"] == "ORDERPAID"
    close = {"mchid": wechat.held["mchid"]}
    path = "/v3/pay/transactions/out-trade-no/{}/close"
    assert (await wechat.call("POST", path.format("ORDER1"), close))[1]["code"] == "ORDERPAID"
    await wechat.native("ORDER2")
    assert [(await wechat.call("POST", path.format("ORDER2"), close)) for _ in range(2)] == [(204, {}), (204, {})]
    assert (await wechat.native("ORDER2"))[1]["code"] == "ORDER_CLOSED"
    assert (await wechat.world.pays("wechat", "ORDER2")).status_code == 409
    assert (await wechat.query("ORDER2"))[1]["trade_state"] == "CLOSED"
    assert (await wechat.call("POST", path.format("ORDER3"), close))[0] == 404


@pytest.mark.parametrize(
    ("scene", "more"),
    [
        ("jsapi", {"payer": {"openid": "o1"}}),
        ("app", {}),
        ("h5", {"scene_info": {"payer_client_ip": "127.0.0.1", "h5_info": {"type": "Wap"}}}),
    ],
)
async def test_scene_when_the_client_invokes_it(wechat: WechatMerchant, scene: str, more: dict[str, Any]) -> None:
    """What the merchant hands to the client is verified before the payer pays."""
    _, made = await wechat.call("POST", f"/v3/pay/transactions/{scene}", wechat.order("ORDER1", **more))
    appid, mchid = wechat.held["appid"], wechat.held["mchid"]
    if scene == "h5":
        good, bad = {"redirect_url": made["h5_url"]}, {"redirect_url": "https://wx.tenpay.com/?prepay_id=wx0"}
    elif scene == "jsapi":
        package = f"prepay_id={made['prepay_id']}"
        client = {"appId": appid, "timeStamp": "1893456000", "nonceStr": "n", "package": package, "signType": "RSA"}
        client["paySign"] = wechat.client_sign(appid, "1893456000", "n", package)
        good, bad = ({"app_parameters": json.dumps(each)} for each in (client, {**client, "timeStamp": "1893456001"}))
    else:
        client = {"appid": appid, "partnerid": mchid, "prepayid": made["prepay_id"], "package": "Sign=WXPay",
                  "noncestr": "n", "timestamp": "1893456000"}  # fmt: skip
        client["sign"] = wechat.client_sign(appid, "1893456000", "n", made["prepay_id"])
        good, bad = ({"app_parameters": json.dumps(each)} for each in (client, {**client, "partnerid": "1"}))
    assert (await wechat.world.pays("wechat", "ORDER1", **bad)).status_code in {400, 404}
    assert (await wechat.world.pays("wechat", "ORDER1", **good)).json()["charge"]["captured"] == 1234


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"mchid": "1900000001"}, "mchid"),
        ({"serial_no": "00"}, "serial_no"),
        ({"signature": "bm9uc2Vuc2U="}, "signature"),
        ({"signature": "nonsense!"}, "signature"),
        ({"timestamp": "1893455700"}, "timestamp"),
        ({"timestamp": "1893456300"}, "timestamp"),
        ({"timestamp": "soon"}, "timestamp"),
        ({"nonce_str": ""}, "nonce_str"),
        ({"nonce_str": "x" * 65}, "nonce_str"),
        ({"more": "1"}, "authorization"),
    ],
)
async def test_authorization_when_wrong(wechat: WechatMerchant, changed: dict[str, str], field: str) -> None:
    """Each part of the Authorization is checked; the refusal is 401 SIGN_ERROR and names it."""
    target = f"/v3/pay/transactions/out-trade-no/ORDER1?mchid={wechat.held['mchid']}"
    answer = await wechat.send("GET", target, authorization=wechat.authorization("GET", target, b"", **changed))
    wechat.verify(answer.headers, answer.content)
    assert await code_of(answer) == (401, "SIGN_ERROR")
    assert answer.json()["detail"]["field"] == field


@pytest.mark.parametrize("header", ["", "Bearer x", "WECHATPAY2-SHA256-RSA2048", 'WECHATPAY2-SHA256-RSA2048 mchid="1"',
                                    'WECHATPAY2-SM2-WITH-SM3 mchid="1"', "WECHATPAY2-SHA256-RSA2048 mchid=1"])  # fmt: skip
async def test_authorization_when_malformed(wechat: WechatMerchant, header: str) -> None:
    """No Authorization, another scheme, parts missing or unquoted: 401."""
    assert await code_of(await wechat.send("GET", "/v3/certificates", authorization=header)) == (401, "SIGN_ERROR")


async def test_signature_is_over_the_exact_bytes(wechat: WechatMerchant) -> None:
    """Another method, path, query or body than the one that was signed is refused, though it means the same."""
    body = wechat.order("ORDER1")
    raw = json.dumps(body, ensure_ascii=False).encode()
    for method, target, signed in (
        ("GET", NATIVE, raw),
        ("POST", "/v3/pay/transactions/app", raw),
        ("POST", f"{NATIVE}?x=1", raw),
        ("POST", NATIVE, json.dumps(body, indent=1).encode()),
        ("POST", NATIVE, raw + b"\n"),
        ("POST", NATIVE, b""),
    ):
        authorization = wechat.authorization(method, target, signed)
        assert await code_of(await wechat.send("POST", NATIVE, body, authorization=authorization)) == (
            401,
            "SIGN_ERROR",
        )
    assert (await wechat.world.http.get("/book")).json()["charges"] == []


async def test_nonce_when_used_again(wechat: WechatMerchant) -> None:
    """A request serves once, as long as its timestamp would let it in."""
    target = f"/v3/pay/transactions/out-trade-no/ORDER1?mchid={wechat.held['mchid']}"
    authorization = wechat.authorization("GET", target, b"", timestamp=str(wechat.world.clock.ms // 1000 + 299))
    answers = []
    for later_ms in (0, 1, 590_000):
        wechat.world.clock.ms += later_ms
        answers.append((await wechat.send("GET", target, authorization=authorization)).status_code)
    assert answers == [404, 401, 401]


@pytest.mark.parametrize("headers", [{"accept": "text/html"}, {"user_agent": ""}, {"content_type": "text/plain"}])
async def test_headers_when_wrong(wechat: WechatMerchant, headers: dict[str, str]) -> None:
    """Accept, User-Agent and Content-Type are wanted."""
    answer = await wechat.send("POST", NATIVE, wechat.order("ORDER1"), **headers)
    assert await code_of(answer) == (400, "PARAM_ERROR")


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"appid": "wx0"}, "/appid"),
        ({"mchid": "1"}, "/mchid"),
        ({"description": None}, "/description"),
        ({"description": "x" * 128}, "/description"),
        ({"out_trade_no": "SHORT"}, "/out_trade_no"),
        ({"out_trade_no": "N" * 33}, "/out_trade_no"),
        ({"out_trade_no": "ORDER/1"}, "/out_trade_no"),
        ({"amount": {}}, "/amount/total"),
        ({"amount": {"total": 0}}, "/amount/total"),
        ({"amount": {"total": -1}}, "/amount/total"),
        ({"amount": {"total": 1.5}}, "/amount/total"),
        ({"amount": {"total": "1"}}, "/amount/total"),
        ({"amount": {"total": True}}, "/amount/total"),
        ({"amount": {"total": 2**53}}, "/amount/total"),
        ({"amount": {"total": 1, "currency": "USD"}}, "/amount/currency"),
        ({"notify_url": ""}, "/notify_url"),
        ({"notify_url": "http://merchant.test/"}, "/notify_url"),
        ({"notify_url": "https://merchant.test/?x=1"}, "/notify_url"),
        ({"time_expire": "2030-01-01T07:59:59+08:00"}, "/time_expire"),
        ({"time_expire": "2030-01-02T00:00:00"}, "/time_expire"),
        ({"time_expire": "tomorrow"}, "/time_expire"),
    ],
)
async def test_order_when_malformed(wechat: WechatMerchant, changed: dict[str, Any], field: str) -> None:
    """Every field of an order is checked; the refusal is 400 PARAM_ERROR and names it; nothing is kept."""
    status, found = await wechat.call("POST", NATIVE, {**wechat.order("ORDER1"), **changed})
    assert (status, found["code"], found["detail"]["field"]) == (400, "PARAM_ERROR", field)
    assert (await wechat.world.http.get("/book")).json()["charges"] == []


async def test_scene_when_its_field_is_missing(wechat: WechatMerchant) -> None:
    """JSAPI needs an openid, H5 the payer's address; a body that is no object is refused."""
    for scene, field in (("jsapi", "/payer/openid"), ("h5", "/scene_info/payer_client_ip")):
        _, found = await wechat.call("POST", f"/v3/pay/transactions/{scene}", wechat.order("ORDER1"))
        assert found["detail"]["field"] == field
    assert (await wechat.call("POST", NATIVE, [1]))[1]["code"] == "PARAM_ERROR"


@pytest.mark.parametrize("query", ["", "?mchid=", "?mchid=1900000001"])
async def test_query_when_the_merchant_is_missing(wechat: WechatMerchant, query: str) -> None:
    """A query names its merchant."""
    status, found = await wechat.call("GET", f"/v3/pay/transactions/out-trade-no/ORDER1{query}")
    assert (status, found["code"]) == (400, "PARAM_ERROR")


async def test_refund_when_partial(wechat: WechatMerchant) -> None:
    """PROCESSING, then SUCCESS with a callback; the trade is REFUND after a part; repeats change nothing; I5 holds."""
    await paid(wechat)
    status, made = await wechat.refund("ORDER1", "R1", 1000)
    assert (status, made["status"]) == (200, "PROCESSING")
    assert (await wechat.query("ORDER1"))[1]["trade_state"] == "REFUND"
    event, resource = wechat.noticed((await wechat.world.called("wechat"))[-1])
    assert (event, resource["refund_status"], resource["amount"]["refund"]) == ("REFUND.SUCCESS", "SUCCESS", 1000)
    assert (await wechat.call("GET", "/v3/refund/domestic/refunds/R1"))[1]["status"] == "SUCCESS"
    assert (await wechat.refund("ORDER1", "R1", 1000))[1]["refund_id"] == made["refund_id"]
    for number, fen, total in (("R1", 999, 1234), ("R2", 235, 1234), ("R2", 1, 1233)):
        status, refused = await wechat.refund("ORDER1", number, fen, total)
        assert (status, refused["code"]) == (400, "INVALID_REQUEST")
    assert (await wechat.refund("ORDER1", "R2", 234))[0] == 200
    booked = await wechat.world.booked("ORDER1")
    assert (booked["refunded"], [each["asked"] for each in booked["refunds"]]) == (1234, [2, 1])


async def test_refund_when_there_is_nothing_to_refund(wechat: WechatMerchant) -> None:
    """Unknown orders and refunds are 404, unpaid orders 400."""
    assert (await wechat.refund("ORDER1", "R1", 1))[1]["code"] == "RESOURCE_NOT_EXISTS"
    assert (await wechat.call("GET", "/v3/refund/domestic/refunds/R1"))[0] == 404
    await wechat.native("ORDER1")
    assert (await wechat.refund("ORDER1", "R1", 1))[1]["code"] == "INVALID_REQUEST"


async def test_refund_when_it_goes_wrong_later(wechat: WechatMerchant) -> None:
    """ABNORMAL is told, and its money can be refunded again."""
    await paid(wechat)
    await wechat.world.rule("wechat", on="refund", do="abnormal")
    await wechat.refund("ORDER1", "R1", 1234)
    event, resource = wechat.noticed((await wechat.world.called("wechat"))[-1])
    assert (event, resource["refund_status"]) == ("REFUND.ABNORMAL", "ABNORMAL")
    assert (await wechat.query("ORDER1"))[1]["trade_state"] == "SUCCESS"
    assert (await wechat.refund("ORDER1", "R2", 1234))[0] == 200


async def test_order_when_it_expires(wechat: WechatMerchant) -> None:
    """An expired order is CLOSED and cannot be paid."""
    await wechat.native("ORDER1", time_expire="2030-01-01T08:05:00+08:00")
    wechat.world.clock.ms += 300_000
    assert (await wechat.world.pays("wechat", "ORDER1")).status_code == 409
    assert (await wechat.query("ORDER1"))[1]["trade_state"] == "CLOSED"


async def test_certificates_are_encrypted(wechat: WechatMerchant) -> None:
    """The list decrypts under the APIv3 key to the certificate that signs; the next one is listed before it signs."""
    _, found = await wechat.call("GET", "/v3/certificates")
    (only,) = found["data"]
    certificate = x509.load_pem_x509_certificate(wechat.decrypt(only["encrypt_certificate"]))
    assert f"{certificate.serial_number:040X}" == only["serial_no"]
    assert only["serial_no"] in wechat.keys
    await wechat.world.http.put("/scripts/wechat", json={"sign_with": "both_certificates"})
    answer = await wechat.send("GET", "/v3/certificates")
    for each in answer.json()["data"]:
        pem = wechat.decrypt(each["encrypt_certificate"])
        wechat.keys[each["serial_no"]] = x509.load_pem_x509_certificate(pem).public_key()
    wechat.verify(answer.headers, answer.content)
    serials = {(await wechat.send("GET", "/v3/certificates")).headers["wechatpay-serial"] for _ in range(4)}
    assert len(serials) == 2


async def test_key_during_a_switch(wechat: WechatMerchant) -> None:
    """Both keys sign in turn; an answer follows the key that the request names; at the end no certificate is left."""
    public = wechat.held["public_key_id"]
    await wechat.world.http.put("/scripts/wechat", json={"sign_with": "both"})
    answers = [await wechat.send("GET", "/v3/certificates") for _ in range(4)]
    for answer in answers:
        wechat.verify(answer.headers, answer.content)
    assert {answer.headers["wechatpay-serial"] for answer in answers} == set(wechat.keys)
    named = [await wechat.send("GET", "/v3/certificates", wechatpay_serial=public) for _ in range(3)]
    assert {answer.headers["wechatpay-serial"] for answer in named} == {public}
    unknown = await wechat.send("GET", "/v3/certificates", wechatpay_serial="PUB_KEY_ID_0")
    assert await code_of(unknown) == (400, "PARAM_ERROR")
    await wechat.world.http.put("/scripts/wechat", json={"sign_with": "public_key"})
    assert (await wechat.call("GET", "/v3/certificates"))[1]["code"] == "RESOURCE_NOT_EXISTS"


async def test_callback_is_repeated_until_taken(wechat: WechatMerchant) -> None:
    """Sixteen sendings of one notice, each signed anew; 204 ends them."""
    codes = iter([500, 302, 404, 204, 500])
    wechat.world.inbox.answer = lambda _request: httpx.Response(next(codes, 500))
    await paid(wechat)
    came = await wechat.world.called("wechat")
    assert (len(came), len({json.loads(each.content)["id"] for each in came})) == (4, 1)
    assert len({each.headers["wechatpay-nonce"] for each in came}) == 4
    wechat.world.inbox.came.clear()
    await paid(wechat, "ORDER2")
    assert len(await wechat.world.called("wechat")) == 16


async def test_callback_when_forged(wechat: WechatMerchant, world: World) -> None:
    """Each forgery differs from the truth in what it says it forges, and verifies where it says so."""
    await paid(wechat)
    _, true = wechat.noticed((await world.called("wechat"))[0])

    async def forged(forge: str) -> httpx.Request:
        assert (await world.http.post("/callbacks/wechat/ORDER1", json={"forge": forge})).status_code == 200
        return world.inbox.came[-1]

    for forge, name in {
        "seller": "mchid",
        "app_id": "appid",
        "order": "out_trade_no",
        "amount": "amount",
        "currency": "amount",
    }.items():
        assert wechat.noticed(await forged(forge))[1][name] != true[name]
    with pytest.raises(InvalidSignature):
        wechat.noticed(await forged("signature"))
    with pytest.raises(InvalidTag):
        wechat.noticed(await forged("tag"))
    with pytest.raises(KeyError):
        wechat.noticed(await forged("serial"))
    with pytest.raises(AssertionError):
        wechat.noticed(await forged("timestamp"))
    probe = await forged("probe")
    assert probe.headers["wechatpay-signature"].startswith("WECHATPAY/SIGNTEST/")


@pytest.mark.parametrize("forge", ["signature", "unsigned", "timestamp", "probe", "serial"])
async def test_answer_when_forged(wechat: WechatMerchant, forge: str) -> None:
    """A scripted answer is 200 and does not verify."""
    await wechat.world.rule("wechat", on="charge", do="forge", forge=forge)
    answer = await wechat.send("POST", NATIVE, wechat.order("ORDER1"))
    assert answer.status_code == 200
    with pytest.raises((InvalidSignature, KeyError, AssertionError, ValueError)):
        wechat.verify(answer.headers, answer.content)


async def test_order_when_scripted(wechat: WechatMerchant) -> None:
    """Declined, without funds, in trouble: refused in WeChat's words; charged and dropped: query knows."""
    for do, status, code in (("decline", 403, "RULE_LIMIT"), ("insufficient_funds", 403, "NOT_ENOUGH"),
                             ("processing_error", 500, "BANK_ERROR"), ("error", 500, "SYSTEM_ERROR")):  # fmt: skip
        await wechat.world.rule("wechat", on="charge", do=do)
        refused = await wechat.native("ORDER1")
        assert (refused[0], refused[1]["code"]) == (status, code)
    assert (await wechat.query("ORDER1"))[0] == 404
    await wechat.world.rule("wechat", on="charge", do="drop")
    with pytest.raises(ConnectionResetError):
        await wechat.native("ORDER1")
    assert (await wechat.query("ORDER1"))[1]["trade_state"] == "SUCCESS"
    assert (await wechat.world.booked("ORDER1"))["times_charged"] == 1


async def test_order_when_done_though_refused(wechat: WechatMerchant) -> None:
    """fail_then_success pays and tells; error_after keeps the order, and its repeat answers it."""
    await wechat.world.rule("wechat", on="charge", do="fail_then_success")
    assert (await wechat.native("ORDER1"))[0] == 403
    assert wechat.noticed((await wechat.world.called("wechat"))[0])[0] == "TRANSACTION.SUCCESS"
    await wechat.world.rule("wechat", on="charge", do="error_after")
    assert (await wechat.native("ORDER2"))[0] == 500
    assert (await wechat.native("ORDER2"))[0] == 200
    assert (await wechat.world.booked("ORDER2"))["asked"] == 2


async def test_bills_of_a_day(wechat: WechatMerchant) -> None:
    """Trades and funds as CSV behind backticks, by a signed download whose SHA-1 is told; packed if asked for."""
    await paid(wechat)
    await wechat.refund("ORDER1", "R1", 200)
    await wechat.world.called("wechat")
    target = "/v3/bill/tradebill?bill_date=2030-01-01&tar_type=GZIP"
    assert (await wechat.call("GET", target))[1]["code"] == "NO_STATEMENT_EXIST"
    await wechat.world.http.put("/scripts/wechat", json={"bill_today": True})
    _, found = await wechat.call("GET", target)
    file = found["download_url"].removeprefix("http://127.0.0.1:1")
    assert (await wechat.world.http.get(file)).status_code == 401
    content = gzip.decompress((await wechat.send("GET", file)).content)
    assert hashlib.sha1(content).hexdigest() == found["hash_value"]
    lines = content.decode("utf-8-sig").splitlines()
    rows = [
        dict(zip(lines[0].split(","), (each.lstrip("`") for each in line.split(",")), strict=True))
        for line in lines[1:3]
    ]
    assert [(row["商户订单号"], row["交易状态"], row["订单金额"], row["申请退款金额"], row["手续费"]) for row in rows] == [
        ("ORDER1", "SUCCESS", "12.34", "0.00", "0.07000"), ("ORDER1", "REFUND", "0.00", "2.00", "-0.01000")]  # fmt: skip
    assert lines[4].split(",")[:3] == ["`2", "`12.34", "`2.00"]
    _, funds = await wechat.call("GET", "/v3/bill/fundflowbill?bill_date=2030-01-01")
    plain = (await wechat.send("GET", funds["download_url"].removeprefix("http://127.0.0.1:1"))).content.decode(
        "utf-8-sig"
    )
    assert plain.splitlines()[-1] == "`4,`2,`12.35,`2,`2.07"
    wechat.world.clock.ms += 300_001
    assert (await wechat.send("GET", file)).status_code == 404
    assert (await wechat.call("GET", "/v3/bill/tradebill?bill_date=2030-1-1"))[1]["code"] == "PARAM_ERROR"
