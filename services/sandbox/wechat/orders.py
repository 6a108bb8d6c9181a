"""Orders and refunds: what happens to them."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from services.sandbox.acquirer import callable_back
from services.sandbox.book import Book, Charge, Refund, State
from services.sandbox.wechat.requests import ApiError, Json
from services.sandbox.wechat.seals import rfc3339

if TYPE_CHECKING:
    from services.kernel.clock import Clock
    from services.sandbox.keys import WechatKeys

LIFE_MS = 7 * 86_400_000
"""An order without time_expire ends after this [guess]."""
TRADE_TYPES = {"native": "NATIVE", "jsapi": "JSAPI", "app": "APP", "h5": "MWEB"}
_DESCRIPTIONS = {"SUCCESS": "支付成功", "REFUND": "转入退款", "NOTPAY": "订单未支付", "CLOSED": "订单已关闭"}
_REFUND_STATES = {"processing": "PROCESSING", "succeeded": "SUCCESS", "abnormal": "ABNORMAL", "closed": "CLOSED"}
_NO = r"[A-Za-z0-9_\-|*]{6,32}"
_REFUND_NO = r"[A-Za-z0-9_\-|*@]{1,64}"


class Orders:
    """The orders of one merchant. Each method returns the answer's fields, or raises ApiError."""

    def __init__(self, book: Book, clock: Clock, held: WechatKeys, *, lapse: Callable[[Charge], None],
                 expire_later: Callable[[Charge], None], base_url: str = "https://wx.tenpay.com") -> None:  # fmt: skip
        """Keep orders in ``book``; ``lapse`` ends what was not paid in time."""
        self._book, self._clock, self._held, self._base_url = book, clock, held, base_url
        self._lapse, self._expire_later = lapse, expire_later

    def create(self, scene: str, body: Json) -> dict[str, str]:
        """POST /v3/pay/transactions/{scene}: the same order again answers the same."""
        number, details, amount = self._wanted(scene, body)
        expire_ms = self._expiry(body)
        known = self._book.get(number)
        if known:
            self._again(known, amount, details)
            return self._entry(known)
        now_ms = self._clock.now_ms()
        details["prepay_id"] = f"wx{now_ms}{secrets.token_hex(10)}"
        details["code_url"] = f"weixin://wxpay/bizpayurl?pr={secrets.token_urlsafe(6)}" if scene == "native" else ""
        transaction_id = f"42000{secrets.randbelow(10**23):023}"
        made = Charge("wechat", number, transaction_id, amount, "CNY", State.WAITING, now_ms)
        made.expire_ms, made.details = expire_ms, details
        self._expire_later(self._book.open(made))
        return self._entry(made)

    def query(self, charge: Charge | None) -> dict[str, Any]:
        """GET …/out-trade-no/{no} and …/id/{transaction_id}."""
        return self.shown(self._order(charge))

    def close(self, charge: Charge | None) -> None:
        """POST …/{no}/close: of an unpaid order."""
        found = self._order(charge)
        if found.state is State.CAPTURED:
            raise ApiError(400, "ORDERPAID", "该订单已支付")
        if found.state is State.WAITING:
            self._book.end(found, State.CLOSED, "closed by the merchant")

    def refund(self, body: Json, state: str) -> tuple[Charge, Refund, bool]:
        """POST /v3/refund/domestic/refunds; True: it is a new one. ``state`` is what it begins with."""
        number = body.text("/out_refund_no", most=64, pattern=_REFUND_NO)
        notify_url = body.text("/notify_url", most=256, required=False)
        if notify_url and not callable_back(notify_url):
            raise ApiError(400, "PARAM_ERROR", "notify_url不合法", field="/notify_url", location="body")
        reason = body.text("/reason", most=80, required=False)
        amount, total = body.fen("/amount/refund"), body.fen("/amount/total")
        if body.text("/amount/currency", most=16) != "CNY":
            raise ApiError(400, "PARAM_ERROR", "仅支持CNY", field="/amount/currency", location="body")
        charge = self._refunded(body)
        known = self._book.of_refund(number)
        if known and (known[0] is not charge or known[1].amount != amount or total != charge.amount):
            raise ApiError(400, "INVALID_REQUEST", "订单金额或退款金额与之前请求不一致, 请核实后再试")
        if known:
            known[1].asked += 1
            self._book.note(charge, "refund asked")
            return charge, known[1], False
        if charge.state is not State.CAPTURED:
            raise ApiError(400, "INVALID_REQUEST", "订单未支付")
        if total != charge.amount:
            raise ApiError(400, "INVALID_REQUEST", "订单金额与原订单不一致")
        if charge.refunded + amount > charge.captured:
            raise ApiError(400, "INVALID_REQUEST", "申请退款金额大于订单剩余可退金额")
        refund_id = f"50300{secrets.randbelow(10**24):024}"
        refund = Refund(number, refund_id, amount, self._clock.now_ms(), state, reason=reason, notify_url=notify_url)
        self._book.give_back(charge, refund)
        return charge, refund, True

    def query_refund(self, number: str) -> dict[str, Any]:
        """GET …/refunds/{out_refund_no}."""
        found = self._book.of_refund(number)
        if found is None:
            raise ApiError(404, "RESOURCE_NOT_EXISTS", "退款单不存在")
        return self.shown_refund(*found)

    def shown(self, charge: Charge) -> dict[str, Any]:
        """Return an order as queries and callbacks show it."""
        details, state = charge.details, trade_state(charge)
        found: dict[str, Any] = {
            "appid": self._held.appid,
            "mchid": self._held.mchid,
            "out_trade_no": charge.request_id,
            "trade_state": state,
            "trade_state_desc": _DESCRIPTIONS[state],
            "attach": details["attach"],
            "amount": {"total": charge.amount, "currency": "CNY"},
            "payer": {},
        }
        if charge.captured:
            found |= {
                "transaction_id": charge.provider_id,
                "trade_type": TRADE_TYPES[details["scene"]],
                "bank_type": "OTHERS",
                "success_time": rfc3339(charge.paid_ms),
                "payer": {"openid": details["openid"] or "oUpF8uMuAJO_M2pxb1Q9zNjWeS6o"},
                "amount": {
                    "total": charge.amount,
                    "payer_total": charge.captured,
                    "currency": "CNY",
                    "payer_currency": "CNY",
                },
            }
        return found

    def shown_refund(self, charge: Charge, refund: Refund) -> dict[str, Any]:
        """Return a refund as answers show it."""
        amounts = {
            "settlement_refund": refund.amount,
            "settlement_total": charge.amount,
            "discount_refund": 0,
            "currency": "CNY",
        }
        found: dict[str, Any] = {
            "refund_id": refund.provider_id,
            "out_refund_no": refund.request_id,
            "transaction_id": charge.provider_id,
            "out_trade_no": charge.request_id,
            "channel": "ORIGINAL",
            "user_received_account": "支付用户零钱",
            "create_time": rfc3339(refund.at_ms),
            "status": _REFUND_STATES[refund.state],
            "funds_account": "AVAILABLE",
            "amount": {**_refund_amounts(charge, refund), **amounts},
            "promotion_detail": [],
        }
        return {**found, **_done(refund)}

    def noticed_refund(self, charge: Charge, refund: Refund) -> dict[str, Any]:
        """Return a refund as callbacks show it: the fields have other names there."""
        found = {
            "mchid": self._held.mchid,
            "out_trade_no": charge.request_id,
            "transaction_id": charge.provider_id,
            "out_refund_no": refund.request_id,
            "refund_id": refund.provider_id,
            "refund_status": _REFUND_STATES[refund.state],
            "user_received_account": "支付用户零钱",
            "amount": _refund_amounts(charge, refund),
        }
        return {**found, **_done(refund)}

    def _wanted(self, scene: str, body: Json) -> tuple[str, dict[str, str], int]:
        body.same("/appid", self._held.appid)
        body.same("/mchid", self._held.mchid)
        number = body.text("/out_trade_no", most=32, pattern=_NO)
        if (currency := body.text("/amount/currency", most=16, required=False)) not in {"", "CNY"}:
            raise ApiError(400, "PARAM_ERROR", "仅支持CNY", field="/amount/currency", value=currency, location="body")
        details = {
            "scene": scene,
            "subject": body.text("/description", most=127),
            "notify_url": body.text("/notify_url", most=255),
            "attach": body.text("/attach", most=128, required=False),
            "openid": body.text("/payer/openid", most=128, required=scene == "jsapi"),
            "payer_client_ip": body.text("/scene_info/payer_client_ip", most=45, required=scene == "h5"),
            "h5_type": body.text("/scene_info/h5_info/type", most=32, required=scene == "h5"),
        }
        if not callable_back(details["notify_url"]) or "?" in details["notify_url"]:
            raise ApiError(400, "PARAM_ERROR", "notify_url不合法", field="/notify_url", location="body")
        return number, details, body.fen("/amount/total")

    def _again(self, known: Charge, amount: int, details: dict[str, str]) -> None:
        self._lapse(known)
        same = all(known.details[name] == details[name] for name in ("scene", "subject", "openid", "attach"))
        if known.amount != amount or not same:
            raise ApiError(403, "OUT_TRADE_NO_USED", "商户订单号重复")
        if known.state is State.CAPTURED:
            raise ApiError(400, "ORDERPAID", "该订单已支付")
        if known.state is State.CLOSED:
            raise ApiError(400, "ORDER_CLOSED", "订单已关闭")
        self._book.ask(known)

    def _entry(self, charge: Charge) -> dict[str, str]:
        details = charge.details
        if details["scene"] == "native":
            return {"code_url": details["code_url"]}
        if details["scene"] == "h5":
            prepay = f"prepay_id={details['prepay_id']}&package={charge.provider_id[-10:]}"
            return {"h5_url": f"{self._base_url}/cgi-bin/mmpayweb-bin/checkmweb?{prepay}"}
        return {"prepay_id": details["prepay_id"]}

    def _order(self, charge: Charge | None) -> Charge:
        if charge is None:
            raise ApiError(404, "ORDER_NOT_EXIST", "订单不存在")
        self._lapse(charge)
        return charge

    def _refunded(self, body: Json) -> Charge:
        transaction_id = body.text("/transaction_id", most=32, required=False)
        number = body.text("/out_trade_no", most=32, required=not transaction_id)
        charge = self._book.by_provider_id(transaction_id) if transaction_id else self._book.get(number)
        if charge is None:
            raise ApiError(404, "RESOURCE_NOT_EXISTS", "订单不存在")
        return charge

    def _expiry(self, body: Json) -> int:
        text = body.text("/time_expire", most=64, required=False)
        if not text:
            return self._clock.now_ms() + LIFE_MS
        try:
            found = datetime.fromisoformat(text)
        except ValueError:
            found = None
        if found is None or found.tzinfo is None or found.timestamp() * 1000 <= self._clock.now_ms():
            raise ApiError(400, "PARAM_ERROR", "time_expire不合法", field="/time_expire", value=text, location="body")
        return int(found.timestamp() * 1000)


def trade_state(charge: Charge) -> str:
    """Return the trade_state; any refund that did not fail makes it REFUND."""
    if charge.state is State.CAPTURED:
        return "REFUND" if charge.refunded else "SUCCESS"
    return "CLOSED" if charge.state is State.CLOSED else "NOTPAY"


def _refund_amounts(charge: Charge, refund: Refund) -> dict[str, Any]:
    return {
        "total": charge.amount,
        "refund": refund.amount,
        "payer_total": charge.captured,
        "payer_refund": refund.amount,
    }


def _done(refund: Refund) -> dict[str, str]:
    return {"success_time": rfc3339(refund.done_ms)} if refund.state == "succeeded" else {}
