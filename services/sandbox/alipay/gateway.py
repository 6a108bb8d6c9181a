"""The gateway itself: HTTP in, signed answers out."""

from __future__ import annotations

import contextlib
import html
import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from html.parser import HTMLParser
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import urlencode, urlsplit

from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from services.sandbox import bills, keys, signing
from services.sandbox.acquirer import Acquirer, Deed, House, PayerRefused, read
from services.sandbox.alipay.bill import archive
from services.sandbox.alipay.notices import FORGERIES, notice
from services.sandbox.alipay.requests import MESSAGES, Call, Refused, business, decoded, signed_text, verified
from services.sandbox.alipay.trades import Trades
from services.sandbox.book import Charge, Refund, State
from services.sandbox.china import CHINA, china_time, yuan
from services.sandbox.rules import WALLET

if TYPE_CHECKING:
    from starlette.requests import Request

    from services.sandbox.notifier import Notice

MINUTE_S = 60.0
SCENES = {"alipay.trade.page.pay": "page", "alipay.trade.wap.pay": "wap", "alipay.trade.app.pay": "app"}
"""Methods that a browser or an app brings."""
BILL_URL_MS = 30_000
FEE_PER_MILLE = 6
_REFUSALS = {
    "decline": ("40004", "ACQ.BUYER_ENABLE_STATUS_FORBID"),
    "insufficient_funds": ("40004", "ACQ.BUYER_BALANCE_NOT_ENOUGH"),
    "processing_error": ("40004", "ACQ.SYSTEM_ERROR"),
    "error": ("20000", "isp.unknow-error"),
}
Node = dict[str, str]


class Alipay(Acquirer):
    """Alipay's side of the protocol."""

    operations = WALLET
    schedule_s = (
        4 * MINUTE_S,
        10 * MINUTE_S,
        10 * MINUTE_S,
        60 * MINUTE_S,
        120 * MINUTE_S,
        360 * MINUTE_S,
        900 * MINUTE_S,
    )
    callback_forgeries = FORGERIES
    answer_forgeries = frozenset({"signature", "unsigned", "amount", "order"})
    deeds: ClassVar[Sequence[str]] = ("pay", "refuse", "open", "finish")

    def __init__(self, house: House, held: keys.AlipayKeys) -> None:
        """Serve the merchant of ``held``."""
        super().__init__("alipay", house)
        self._held = held
        self._key, self._app_key = signing.private_key(held.private_key), signing.public_key(held.app_public_key)
        self._trades = Trades(self.book, self.clock, seller_id=held.seller_id, tell=self.tell, lapse=self.lapse,
                              expire_later=self.expire_later)  # fmt: skip
        self._files: dict[str, tuple[int, bytes]] = {}
        self._methods: Mapping[str, tuple[str, Callable[[Call], Node]]] = {
            "alipay.trade.precreate": ("charge", self._trades.precreate),
            "alipay.trade.query": ("query", self._trades.query),
            "alipay.trade.close": ("close", self._trades.close),
            "alipay.trade.cancel": ("close", self._trades.cancel),
            "alipay.trade.refund": ("refund", self._trades.refund),
            "alipay.trade.fastpay.refund.query": ("query_refund", self._trades.refund_query),
        }

    def routes(self) -> Sequence[BaseRoute]:
        """Return the gateway, what the app calls, and the bills."""
        return [
            Route("/alipay/gateway.do", self._gateway, methods=["GET", "POST"]),
            Route("/alipay/app.do", self._app, methods=["POST"]),
            Route("/alipay/bill.resource", self._bill_file, methods=["GET"]),
        ]

    def taken(self, status: int, body: bytes) -> bool:
        """Exactly `success`."""
        return status == 200 and body == b"success"

    def notice(self, charge: Charge, refund: Refund | None = None) -> Notice:
        """Return a signed form."""
        held = self._held
        return notice(charge, refund, app_id=held.app_id, seller_id=held.seller_id, key=self._key, clock=self.clock)

    def pay(self, charge_id: str, action: Mapping[str, str]) -> Charge:
        """Scan or open what the merchant gave, then pay."""
        charge = self._opened(charge_id, action)
        return self.pay_in_wallet(charge)

    def act(self, charge_id: str, deed: str, action: Mapping[str, str]) -> Charge:
        """Besides paying: open (scan, no payment yet) and finish (refunds are no longer possible)."""
        if deed == "open":
            return self._opened(charge_id, action)
        if deed == "finish":
            charge = self.found(charge_id)
            if charge.state is not State.CAPTURED:
                raise PayerRefused(f"the charge is {charge.state}")
            charge.details["finished"] = "1"
            self.book.note(charge, "finished")
            self.tell(charge)
            return charge
        return super().act(charge_id, deed, action)

    def ended(self, charge: Charge, was: State) -> None:
        """A trade that times out is told of; a code that nobody scanned is not."""
        super().ended(charge, was)
        if was is not State.OFFERED:
            self.tell(charge)

    def return_url(self, charge: Charge) -> str:
        """Return the merchant's page with signed parameters, as after a page payment."""
        url = charge.details["return_url"]
        if not url or not charge.captured:
            return url
        params = {
            "app_id": self._held.app_id,
            "method": f"alipay.trade.{charge.details['scene']}.pay.return",
            "charset": "utf-8",
            "version": "1.0",
            "sign_type": "RSA2",
            "timestamp": china_time(self.clock.now_ms()),
            "seller_id": self._held.seller_id,
            "trade_no": charge.provider_id,
            "out_trade_no": charge.request_id,
            "total_amount": yuan(charge.amount),
        }
        params["sign"] = signing.sign(self._key, signed_text(params, without=frozenset({"sign_type"})).encode())
        return f"{url}{'&' if '?' in url else '?'}{urlencode(params)}"

    def submit(self, *parts: bytes) -> Charge:
        """Take what a browser or app brings: page.pay, wap.pay, app.pay. Raises Refused."""
        call = verified(decoded(*parts), self._held.app_id, self._app_key, self.clock.now_ms())
        if call.method not in SCENES:
            raise Refused("40002", "isv.invalid-method", "not a method of browsers or apps", call.method, call.charset)
        return self._trades.offer(call, SCENES[call.method])

    async def _gateway(self, request: Request) -> Response:
        parts = (request.scope["query_string"], await read(request))
        try:
            params = decoded(*parts)
            if params.get("method") in SCENES:
                charge = self.submit(*parts)
                return RedirectResponse(f"/payer/alipay/{charge.request_id}", status_code=302)
            call = verified(params, self._held.app_id, self._app_key, self.clock.now_ms())
        except Refused as refusal:
            return self._refused(refusal, page=any(name.encode() in b"&".join(parts) for name in SCENES))
        if call.method == "alipay.data.dataservice.bill.downloadurl.query":
            node = self._told(lambda: self._bill(call, str(request.base_url)))
            return self._rendered(node, call.method, call.charset, "")
        if call.method not in self._methods:
            return self._refused(
                Refused("40002", "isv.invalid-method", "there is no such method", call.method, call.charset)
            )
        return await self._performed(call)

    async def _performed(self, call: Call) -> Response:
        on, work = self._methods[call.method]
        try:
            number = call.biz.text("out_trade_no", most=64, required=False)
            ids = (number, call.biz.text("out_request_no", most=64, required=False))
        except Refused as refusal:
            return self._rendered(refusal.body, call.method, call.charset, "")

        def refuse(why: str) -> Node:
            code, sub_code = _REFUSALS[why]
            if on == "refund" and why == "insufficient_funds":
                sub_code = "ACQ.SELLER_BALANCE_NOT_ENOUGH"
            return Refused(code, sub_code, why).body

        def settle() -> None:
            charge = self.book.get(number)
            if on == "charge" and charge and not charge.times_charged:
                with contextlib.suppress(PayerRefused):
                    self.pay(number, {})

        deed = Deed(lambda: self._told(lambda: work(call)), refuse, refuse, settle)
        return await self.perform(
            on, ids, deed, lambda node, forge: self._rendered(node, call.method, call.charset, forge)
        )

    def _refused(self, refusal: Refused, *, page: bool = False) -> Response:
        """A refusal in JSON for servers; for a browser (``page``) as the page that people see."""
        if page:
            said = html.escape(f"{refusal.body['sub_code']}: {refusal.body['sub_msg']}")
            return HTMLResponse(f"<p>{said}", status_code=400)
        return self._rendered(refusal.body, refusal.method, refusal.charset, "")

    def _told(self, work: Callable[[], Node]) -> Node:
        try:
            return {"code": "10000", "msg": MESSAGES["10000"], **work()}
        except Refused as refusal:
            return refusal.body

    def _rendered(self, node: Node, method: str, charset: str, forge: str) -> Response:
        if forge == "amount" and "total_amount" in node:
            node = {**node, "total_amount": yuan(1 + int(node["total_amount"].replace(".", "")))}
        if forge == "order":
            node = {**node, "out_trade_no": "FORGED" + node.get("out_trade_no", "")}
        raw = json.dumps(node, ensure_ascii=False, separators=(",", ":")).replace("/", "\\/").encode(charset, "replace")
        name = f"{method.replace('.', '_')}_response" if method else "error_response"
        sign = b""
        if method and forge != "unsigned":
            text = raw + b" " if forge == "signature" else raw
            sign = b',"sign":"' + signing.sign(self._key, text).encode() + b'"'
        body = b'{"' + name.encode() + b'":' + raw + sign + b"}"
        return Response(body, headers={"content-type": f"text/html;charset={charset}"})

    async def _app(self, request: Request) -> Response:
        try:
            charge = self.submit(await read(request))
        except Refused as refusal:
            return Response(json.dumps({"resultStatus": "4000", **refusal.body}), 400, media_type="application/json")
        return Response(json.dumps({"out_trade_no": charge.request_id}), media_type="application/json")

    def _opened(self, charge_id: str, action: Mapping[str, str]) -> Charge:
        url, form = action.get("redirect_url", ""), action.get("form", "")
        try:
            if url:
                self.submit(urlsplit(url).query.encode())
            elif form:
                self.submit(*_form(form))
            elif order := action.get("app_parameters", ""):
                self.submit(order.encode())
        except Refused as refusal:
            raise PayerRefused(refusal.body["sub_code"], 400) from None
        charge = self.found(charge_id)
        if action.get("qr_code", charge.details.get("qr_code", "")) != charge.details.get("qr_code", ""):
            raise PayerRefused("the code is of another charge", 404)
        self.lapse(charge)
        if charge.state is State.OFFERED:
            charge.details["scanned"] = "1"
            self.book.move(charge, State.WAITING)
        return charge

    def _bill(self, call: Call, base_url: str) -> Node:
        call.biz.one_of("bill_type", ("trade",), required=True)
        text = call.biz.text("bill_date", most=10)
        now_ms = self.clock.now_ms()
        day = bills.day_of(text, CHINA, now_ms, today=bool(self.script.option("bill_today")))
        if day is None and not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
            raise business("INVALID_PARAMETER", "bill_date is not valid")
        lines = bills.lines(self.book, day, CHINA, per_mille=FEE_PER_MILLE, script=self.script) if day else []
        if day is None or not lines:
            raise Refused("40004", "isp.bill_not_exist", "there is no bill of this day")
        token = secrets.token_hex(16)
        self._files = {key: each for key, each in self._files.items() if each[0] > now_ms}
        self._files[token] = (now_ms + BILL_URL_MS, archive(lines, day, self._held.seller_id, now_ms))
        return {"bill_download_url": f"{base_url}alipay/bill.resource?bizType=trade&fileType=csv.zip&fileId={token}"}

    async def _bill_file(self, request: Request) -> Response:
        until_ms, content = self._files.get(request.query_params.get("fileId", ""), (0, b""))
        if until_ms <= self.clock.now_ms():
            return HTMLResponse("<p>The link is no longer valid.", status_code=404)
        return Response(content, media_type="application/zip")


class _Fields(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.url, self.found = "", dict[str, str]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.url = named.get("action", "")
        if tag == "input" and named.get("name"):
            self.found[named["name"]] = named.get("value", "")


def _form(text: str) -> tuple[bytes, bytes]:
    """Do what a browser does with a form: its address's query, and its fields encoded."""
    fields = _Fields()
    fields.feed(text)
    return urlsplit(fields.url).query.encode(), urlencode(fields.found).encode()
