"""WeChat Pay itself: HTTP in, signed answers out."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import orjson
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from services.sandbox import bills, keys, signing
from services.sandbox.acquirer import Acquirer, Deed, House, PayerRefused, read
from services.sandbox.book import Charge, Refund
from services.sandbox.china import CHINA
from services.sandbox.notifier import REPEATS_S
from services.sandbox.rules import WALLET
from services.sandbox.wechat import bill
from services.sandbox.wechat.orders import TRADE_TYPES, Orders
from services.sandbox.wechat.requests import ApiError, Gate, Json, Received
from services.sandbox.wechat.seals import ANSWER_FORGERIES, CALLBACK_FORGERIES, SIGN_WITH, Seals

if TYPE_CHECKING:
    from starlette.requests import Request

    from services.sandbox.notifier import Notice

REFUND_S = 5.0
"""How long a refund is PROCESSING."""
FILE_MS = 300_000
FEE_PER_MILLE = 6
_REFUSALS = {
    "decline": (403, "RULE_LIMIT", "业务规则限制"),
    "insufficient_funds": (403, "NOT_ENOUGH", "余额不足"),
    "processing_error": (500, "BANK_ERROR", "银行系统异常"),
    "error": (500, "SYSTEM_ERROR", "系统错误"),
}
Answer = tuple[int, dict[str, Any] | None]
"""Status and JSON; None: no body."""
Handler = Callable[["Request", bytes], Awaitable[Response]]


class WechatPay(Acquirer):
    """WeChat Pay's side of the protocol."""

    operations = {**WALLET, "refund": WALLET["refund"] | {"abnormal"}}  # noqa: RUF012 - never changed
    schedule_s = REPEATS_S
    callback_forgeries = CALLBACK_FORGERIES
    answer_forgeries = ANSWER_FORGERIES
    choices: ClassVar[Mapping[str, Sequence[object]]] = {"bill_today": (False, True), "sign_with": SIGN_WITH}

    def __init__(self, house: House, held: keys.WechatKeys) -> None:
        """Serve the merchant of ``held``."""
        super().__init__("wechat", house)
        self._held = held
        key = x509.load_pem_x509_certificate(held.merchant_certificate.encode()).public_key()
        if not isinstance(key, RSAPublicKey):
            raise TypeError("the merchant's certificate has no RSA key")
        self._merchant_key = key
        self._gate = Gate(held.mchid, held.merchant_serial_no, key)
        self._seals = Seals(held, self.script, self.clock)
        self._orders = Orders(self.book, self.clock, held, lapse=self.lapse, expire_later=self.expire_later)
        self._files: dict[str, tuple[int, bytes]] = {}

    def routes(self) -> Sequence[BaseRoute]:
        """Return /v3."""
        orders, refunds = "/v3/pay/transactions", "/v3/refund/domestic/refunds"
        number = f"{orders}/out-trade-no/{{number}}"
        return [
            *(Route(f"{orders}/{scene}", self._admitted(self._create), methods=["POST"]) for scene in TRADE_TYPES),
            Route(number, self._admitted(self._query), methods=["GET"]),
            Route(f"{orders}/id/{{transaction_id}}", self._admitted(self._query), methods=["GET"]),
            Route(f"{number}/close", self._admitted(self._close), methods=["POST"]),
            Route(refunds, self._admitted(self._refund), methods=["POST"]),
            Route(f"{refunds}/{{number}}", self._admitted(self._query_refund), methods=["GET"]),
            Route("/v3/bill/tradebill", self._admitted(self._bill), methods=["GET"]),
            Route("/v3/bill/fundflowbill", self._admitted(self._bill), methods=["GET"]),
            Route("/v3/billdownload/file", self._admitted(self._file), methods=["GET"]),
            Route("/v3/certificates", self._admitted(self._certificates), methods=["GET"]),
        ]

    def taken(self, status: int, body: bytes) -> bool:  # noqa: ARG002 - the status alone counts
        """200 or 204."""
        return status in {200, 204}

    def notice(self, charge: Charge, refund: Refund | None = None) -> Notice:
        """Return a signed and encrypted callback."""
        if refund is None:
            # Of the payment, whatever came later.
            shown = self._orders.shown(charge) | {"trade_state": "SUCCESS", "trade_state_desc": "支付成功"}
            return self._seals.notice("transaction", "TRANSACTION.SUCCESS", "支付成功", shown, ids=(charge.request_id,),
                                      url=charge.details["notify_url"])  # fmt: skip
        shown = self._orders.noticed_refund(charge, refund)
        event = f"REFUND.{shown['refund_status']}"
        ids = (charge.request_id, refund.request_id)
        return self._seals.notice("refund", event, "退款通知", shown, ids=ids, url=refund.notify_url)

    async def start(self) -> None:
        """Take up the refunds that were processing."""
        await super().start()
        for charge in self.book:
            for refund in charge.refunds.values():
                if refund.state == "processing":
                    self.notifier.spawn(self._finish(charge, refund, "succeeded"))

    def pay(self, charge_id: str, action: Mapping[str, str]) -> Charge:
        """Pay an order, if what the merchant gave the payer belongs to it."""
        charge = self.found(charge_id)
        details = charge.details
        if "qr_code" in action and action["qr_code"] != details["code_url"]:
            raise PayerRefused("the code is of another order", 404)
        if "redirect_url" in action and details["prepay_id"] not in action["redirect_url"]:
            raise PayerRefused("the page is of another order", 404)
        if "app_parameters" in action:
            self._invoked(charge, action["app_parameters"])
        return self.pay_in_wallet(charge)

    def _invoked(self, charge: Charge, parameters: str) -> None:
        """Verify what the client hands to WeChat: a JSON object, signed by the merchant. Raises PayerRefused."""
        try:
            given = {str(name).lower(): str(value) for name, value in orjson.loads(parameters).items()}
        except (ValueError, AttributeError):
            raise PayerRefused("app_parameters is no JSON object", 400) from None
        prepay_id = charge.details["prepay_id"]
        if charge.details["scene"] == "jsapi":
            last, signature = f"prepay_id={prepay_id}", given.get("paysign", "")
            right = given.get("package") == last and given.get("signtype") == "RSA"
        else:
            last, signature = prepay_id, given.get("sign", "")
            package = given.get("package", given.get("packagevalue"))
            right = (given.get("prepayid"), given.get("partnerid"), package) == (
                prepay_id,
                self._held.mchid,
                "Sign=WXPay",
            )
        text = "\n".join((given.get("appid", ""), given.get("timestamp", ""), given.get("noncestr", ""), last, ""))
        right = right and given.get("appid") == self._held.appid
        if not right or not signing.verify(self._merchant_key, text.encode(), signature):
            raise PayerRefused("the client's parameters are not signed by the merchant", 400)

    def _admitted(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        async def admitted(request: Request) -> Response:
            scope, body = request.scope, await read(request)
            query = scope["query_string"].decode("latin-1")
            target = scope["raw_path"].decode("latin-1") + (f"?{query}" if query else "")
            wanted = request.headers.get("wechatpay-serial", "")
            try:
                self._gate.admit(Received(request.method, target, request.headers, body), self.clock.now_ms() / 1000)
                if wanted and not self._seals.known(wanted):
                    raise ApiError(400, "PARAM_ERROR", "平台证书序列号Wechatpay-Serial错误")
                return await handler(request, body)
            except ApiError as error:
                return self._rendered((error.status, error.body), request)

        return admitted

    async def _create(self, request: Request, raw: bytes) -> Response:
        body, scene = _json(raw), request.url.path.rpartition("/")[2]
        number = body.text("/out_trade_no", most=64)

        def settle() -> None:
            with contextlib.suppress(PayerRefused):
                self.pay(number, {})

        return await self._do(request, "charge", (number,), lambda: (200, self._orders.create(scene, body)), settle)

    async def _query(self, request: Request, _raw: bytes) -> Response:
        number = request.path_params.get("number", "")
        Json(dict(request.query_params), "query").same("/mchid", self._held.mchid)
        charge = self.book.get(number) if number else self.book.by_provider_id(request.path_params["transaction_id"])
        number = charge.request_id if charge else number
        return await self._do(request, "query", (number,), lambda: (200, self._orders.query(charge)))

    async def _close(self, request: Request, raw: bytes) -> Response:
        _json(raw).same("/mchid", self._held.mchid)
        number = request.path_params["number"]

        def close() -> Answer:
            self._orders.close(self.book.get(number))
            return 204, None

        return await self._do(request, "close", (number,), close)

    async def _refund(self, request: Request, raw: bytes) -> Response:
        body = _json(raw)
        ids = (body.text("/out_refund_no", most=64), body.text("/out_trade_no", most=32, required=False))

        def refund() -> Answer:
            charge, made, new = self._orders.refund(body, "processing")
            if new:
                failing = self.script.take("refund", ids, only={"abnormal"})
                self.notifier.spawn(self._finish(charge, made, "abnormal" if failing else "succeeded"))
            return 200, self._orders.shown_refund(charge, made)

        return await self._do(request, "refund", ids, refund)

    async def _query_refund(self, request: Request, _raw: bytes) -> Response:
        number = request.path_params["number"]
        return await self._do(request, "query_refund", (number,), lambda: (200, self._orders.query_refund(number)))

    async def _certificates(self, request: Request, _raw: bytes) -> Response:
        listed = self._seals.certificates()
        if not listed:
            message = "无可用的平台证书, 请在商户平台-API安全申请使用微信支付公钥"
            raise ApiError(404, "RESOURCE_NOT_EXISTS", message)
        return self._rendered((200, {"data": listed}), request)

    async def _bill(self, request: Request, _raw: bytes) -> Response:
        query, now_ms = Json(dict(request.query_params), "query"), self.clock.now_ms()
        text = query.text("/bill_date", most=10, pattern=r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
        packed = query.text("/tar_type", most=4, pattern="GZIP", required=False)
        kind = query.text("/bill_type", most=16, pattern="ALL|SUCCESS|REFUND", required=False) or "ALL"
        query.text("/account_type", most=16, pattern="BASIC", required=False)
        day = bills.day_of(text, CHINA, now_ms, today=bool(self.script.option("bill_today")))
        lines = bills.lines(self.book, day, CHINA, per_mille=FEE_PER_MILLE, script=self.script) if day else []
        lines = [line for line in lines if kind == "ALL" or bool(line.refund) == (kind == "REFUND")]
        if not lines:
            raise ApiError(400, "NO_STATEMENT_EXIST", "账单文件不存在")
        content = (bill.trades if request.url.path.endswith("tradebill") else bill.funds)(lines, self._held)
        token = secrets.token_hex(32)
        self._files = {name: each for name, each in self._files.items() if each[0] > now_ms}
        self._files[token] = (now_ms + FILE_MS, gzip.compress(content) if packed else content)
        return self._rendered((200, {
            "hash_type": "SHA1",
            "hash_value": hashlib.sha1(content).hexdigest(),  # noqa: S324 - the protocol's
            "download_url": f"{request.base_url}v3/billdownload/file?token={token}",
        }), request)  # fmt: skip

    async def _file(self, request: Request, _raw: bytes) -> Response:
        until_ms, content = self._files.get(request.query_params.get("token", ""), (0, b""))
        if until_ms <= self.clock.now_ms():
            raise ApiError(404, "RESOURCE_NOT_EXISTS", "文件不存在或已过期")
        return Response(content, media_type="application/octet-stream")

    async def _finish(self, charge: Charge, refund: Refund, state: str) -> None:
        await self.notifier.sleep(REFUND_S)
        refund.state, refund.done_ms = state, self.clock.now_ms()
        self.book.note(charge, f"refund {state}")
        self.tell(charge, refund)

    async def _do(self, request: Request, on: str, ids: tuple[str, ...], work: Callable[[], Answer],
                  settle: Callable[[], None] = lambda: None) -> Response:  # fmt: skip
        def do() -> Answer:
            try:
                return work()
            except ApiError as error:
                return error.status, error.body

        def refuse(why: str) -> Answer:
            status, code, message = _REFUSALS[why]
            return status, {"code": code, "message": message}

        deed = Deed(do, refuse, refuse, settle)
        return await self.perform(on, ids, deed, lambda answer, forge: self._rendered(answer, request, forge))

    def _rendered(self, answer: Answer, request: Request, forge: str = "") -> Response:
        status, found = answer
        if found and forge == "amount" and isinstance(found.get("amount"), dict):
            amount = {name: value + 1 if isinstance(value, int) else value for name, value in found["amount"].items()}
            found = {**found, "amount": amount}
        if found and forge == "order":
            found = {**found, "out_trade_no": f"{found.get('out_trade_no', '')}0"[-32:]}
        body = b"" if found is None else orjson.dumps(found)
        headers = self._seals.headers(body, wanted=request.headers.get("wechatpay-serial", ""), forge=forge)
        return Response(body, status, headers, "application/json" if body else None)


def _json(raw: bytes) -> Json:
    try:
        found = orjson.loads(raw)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ApiError(400, "PARAM_ERROR", "请求体不是JSON对象", location="body")
    return Json(found)
