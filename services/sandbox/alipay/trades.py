"""The methods of the gateway: what happens to a trade."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

from services.sandbox.acquirer import callable_back
from services.sandbox.alipay.requests import Biz, Call, business
from services.sandbox.book import Book, Charge, Refund, State
from services.sandbox.china import CHINA, china_ms, china_time, yuan

if TYPE_CHECKING:
    from services.kernel.clock import Clock

BUYER = {"buyer_logon_id": "pay***@sandbox.com", "buyer_user_id": "2088102146225135"}
CANCEL_MS = 24 * 3_600_000
_NO = r"[A-Za-z0-9_]+"
_UNITS_MS = {"m": 60_000, "h": 3_600_000, "d": 86_400_000}
_EXPIRE_DEFAULT_MS = {"qr": 2 * 3_600_000}
"""A QR code lives two hours, other trades fifteen days, where the merchant says nothing."""
PRODUCTS = {
    "page": ("FAST_INSTANT_TRADE_PAY",),
    "wap": ("QUICK_WAP_WAY", "QUICK_WAP_PAY"),
    "app": ("QUICK_MSECURITY_PAY",),
    "qr": ("FACE_TO_FACE_PAYMENT", "QR_CODE_OFFLINE"),
}
Tell = Callable[[Charge, Refund | None], None]


class Trades:
    """The trades of one merchant. Each method returns the node's fields beside code and msg, or raises Refused."""

    def __init__(self, book: Book, clock: Clock, *, seller_id: str, tell: Tell, lapse: Callable[[Charge], None],
                 expire_later: Callable[[Charge], None]) -> None:  # fmt: skip
        """Keep trades in ``book``; ``tell`` calls the merchant back, ``lapse`` ends what was not paid in time."""
        self._book, self._clock, self._seller_id = book, clock, seller_id
        self._tell, self._lapse, self._expire_later = tell, lapse, expire_later

    def offer(self, call: Call, scene: str) -> Charge:
        """Take an order for a payment: `scene` is qr, page, wap or app. The same order again is the same trade."""
        biz = call.biz
        out_trade_no, amount = biz.text("out_trade_no", most=64, pattern=_NO), biz.amount("total_amount")
        subject = biz.text("subject", most=256)
        biz.one_of("product_code", PRODUCTS[scene], required=scene == "page")
        if biz.text("seller_id", most=28, required=False) not in {"", self._seller_id}:
            raise business("INVALID_PARAMETER", "seller_id is not the app's")
        for name, url in (("notify_url", call.notify_url), ("return_url", call.return_url)):
            if url and not callable_back(url):
                raise business("INVALID_PARAMETER", f"{name} is not valid")
        expire_ms = self._expiry(biz, scene)
        known = self._book.get(out_trade_no)
        if known:
            return self._again(known, amount, subject)
        now_ms = self._clock.now_ms()
        details = {
            "scene": scene,
            "subject": subject,
            "body": biz.text("body", most=128, required=False),
            "passback_params": biz.text("passback_params", most=512, required=False),
            "notify_url": call.notify_url,
            "return_url": call.return_url,
        }
        if scene == "qr":
            details["qr_code"] = f"https://qr.alipay.com/bax{secrets.token_hex(10)}"
        number = china_time(now_ms)[:10].replace("-", "") + "22001" + f"{secrets.randbelow(10**15):015}"
        state = State.OFFERED if scene == "qr" else State.WAITING
        made = Charge(
            "alipay", out_trade_no, number, amount, "CNY", state, now_ms, expire_ms=expire_ms, details=details
        )
        self._expire_later(self._book.open(made))
        return made

    def precreate(self, call: Call) -> dict[str, str]:
        """alipay.trade.precreate: a QR code, no trade yet."""
        charge = self.offer(call, "qr")
        return {"out_trade_no": charge.request_id, "qr_code": charge.details["qr_code"]}

    def query(self, call: Call) -> dict[str, str]:
        """alipay.trade.query."""
        charge = self._trade(call.biz)
        found = {
            **self._names(charge),
            "buyer_logon_id": BUYER["buyer_logon_id"],
            "trade_status": trade_status(charge),
            "total_amount": yuan(charge.amount),
            "buyer_user_id": BUYER["buyer_user_id"],
        }
        if charge.captured:
            paid = yuan(charge.captured)
            found |= {"receipt_amount": paid, "buyer_pay_amount": paid, "invoice_amount": paid, "point_amount": "0.00"}
            found["send_pay_date"] = china_time(charge.paid_ms)
        return found

    def close(self, call: Call) -> dict[str, str]:
        """alipay.trade.close: of a trade that waits for its payer."""
        charge = self._trade(call.biz)
        if charge.state is not State.WAITING:
            raise business("TRADE_STATUS_ERROR", f"the trade is {trade_status(charge)}")
        self._book.end(charge, State.CLOSED, "closed by the merchant")
        self._tell(charge, None)
        return self._names(charge)

    def cancel(self, call: Call) -> dict[str, str]:
        """alipay.trade.cancel: whatever became of it, no money stays with the merchant. `action` is absent without a trade."""
        charge = self._known(call.biz)
        if charge is None:
            return {"out_trade_no": call.biz.text("out_trade_no", most=64, required=False), "retry_flag": "N"}
        found = {**self._names(charge), "retry_flag": "N"}
        if not scanned(charge):
            if charge.state is State.OFFERED:
                self._book.end(charge, State.CLOSED, "cancelled before it was scanned")
            return {"out_trade_no": charge.request_id, "retry_flag": "N"}
        if charge.state is State.WAITING:
            self._book.end(charge, State.CLOSED, "cancelled")
            self._tell(charge, None)
            return {**found, "action": "close"}
        if charge.state is State.CLOSED or charge.refunded == charge.captured:
            return {**found, "action": "refund" if charge.captured else "close"}
        if charge.details.get("finished"):
            raise business("TRADE_HAS_FINISHED", "the trade is finished")
        if self._clock.now_ms() - charge.created_ms > CANCEL_MS:
            raise business("TRADE_CANCEL_TIME_OUT", "the trade is older than 24 hours")
        self._give_back(charge, f"cancel{charge.request_id}", charge.captured - charge.refunded, "cancelled")
        return {**found, "action": "refund"}

    def refund(self, call: Call) -> dict[str, str]:
        """alipay.trade.refund: whole or in part; the same out_request_no is the same refund."""
        amount = call.biz.amount("refund_amount")
        request_no = call.biz.text("out_request_no", most=64, required=False)
        reason = call.biz.text("refund_reason", most=256, required=False)
        charge = self._trade(call.biz)
        if not request_no and amount != charge.captured:
            raise business("INVALID_PARAMETER", "out_request_no is missing: the refund is a partial one")
        request_no = request_no or charge.request_id
        known = charge.refunds.get(request_no)
        if known and known.amount != amount:
            raise business("DISCORDANT_REPEAT_REQUEST", "out_request_no was used with another amount")
        if known:
            known.asked += 1
            self._book.note(charge, "refund asked")
        else:
            self._refundable(charge, amount)
            self._give_back(charge, request_no, amount, reason)
        return {
            **self._names(charge),
            **BUYER,
            "fund_change": "N" if known else "Y",
            "refund_fee": yuan(charge.refunded),
            "gmt_refund_pay": china_time(charge.refunds[request_no].at_ms),
        }

    def refund_query(self, call: Call) -> dict[str, str]:
        """alipay.trade.fastpay.refund.query: without refund_status where there is no such refund."""
        request_no = call.biz.text("out_request_no", most=64)
        charge = self._trade(call.biz)
        refund = charge.refunds.get(request_no)
        if refund is None:
            return {}
        return {
            **self._names(charge),
            "out_request_no": request_no,
            "refund_reason": refund.reason,
            "total_amount": yuan(charge.amount),
            "refund_amount": yuan(refund.amount),
            "refund_status": "REFUND_SUCCESS",
            "gmt_refund_pay": china_time(refund.at_ms),
        }

    def _again(self, known: Charge, amount: int, subject: str) -> Charge:
        self._lapse(known)
        if (known.amount, known.details["subject"]) != (amount, subject):
            raise business("CONTEXT_INCONSISTENT", "out_trade_no was used for another trade")
        if known.state is State.CAPTURED:
            raise business("TRADE_HAS_SUCCESS", "the trade is paid")
        if known.state is State.CLOSED:
            raise business("TRADE_HAS_CLOSE", "the trade is closed")
        self._book.ask(known)
        return known

    def _known(self, biz: Biz) -> Charge | None:
        trade_no = biz.text("trade_no", most=64, required=False)
        out_trade_no = biz.text("out_trade_no", most=64, required=not trade_no)
        charge = self._book.by_provider_id(trade_no) if trade_no else self._book.get(out_trade_no)
        if charge:
            self._lapse(charge)
        return charge

    def _trade(self, biz: Biz) -> Charge:
        charge = self._known(biz)
        if charge is None or not scanned(charge):
            raise business("TRADE_NOT_EXIST", "the trade does not exist")
        return charge

    def _names(self, charge: Charge) -> dict[str, str]:
        return {"trade_no": charge.provider_id, "out_trade_no": charge.request_id}

    def _refundable(self, charge: Charge, amount: int) -> None:
        if charge.details.get("finished"):
            raise business("TRADE_HAS_FINISHED", "the trade is finished")
        if charge.state is not State.CAPTURED:
            raise business("TRADE_STATUS_ERROR", f"the trade is {trade_status(charge)}")
        if charge.refunded == charge.captured:
            raise business("TRADE_HAS_CLOSE", "the trade is refunded")
        if charge.refunded + amount > charge.captured:
            raise business("REFUND_AMT_NOT_EQUAL_TOTAL", "more than what is left of the trade")

    def _give_back(self, charge: Charge, request_no: str, amount: int, reason: str) -> None:
        refund = Refund(request_no, charge.provider_id, amount, self._clock.now_ms(), reason=reason)
        self._book.give_back(charge, refund)
        self._tell(charge, refund)

    def _expiry(self, biz: Biz, scene: str) -> int:
        """When the trade ends unpaid: time_expire, or timeout_express (1m to 15d, 1c: by midnight)."""
        now_ms = self._clock.now_ms()
        at, after = (
            biz.text("time_expire", most=32, required=False),
            biz.text("timeout_express", most=6, required=False),
        )
        if at:
            found = china_ms(at)
            if found is None or found <= now_ms:
                raise business("INVALID_PARAMETER", "time_expire is no time to come")
            return found
        if after == "1c":
            tomorrow = datetime.fromtimestamp(now_ms / 1000 + 86_400, CHINA).replace(hour=0, minute=0, second=0)
            return int(tomorrow.timestamp()) * 1000
        if not after:
            return now_ms + _EXPIRE_DEFAULT_MS.get(scene, 15 * 86_400_000)
        if not re.fullmatch(r"[1-9][0-9]{0,4}[mhd]", after):
            raise business("INVALID_PARAMETER", "timeout_express is not valid")
        wait_ms = int(after[:-1]) * _UNITS_MS[after[-1]]
        if wait_ms > 15 * 86_400_000:
            raise business("INVALID_PARAMETER", "timeout_express is over 15d")
        return now_ms + wait_ms


def scanned(charge: Charge) -> bool:
    """Tell whether a trade exists: a QR code makes none until a payer scans it."""
    return charge.details["scene"] != "qr" or "scanned" in charge.details


def trade_status(charge: Charge) -> str:
    """Return how the gateway calls the state of a trade."""
    if charge.state is State.CAPTURED:
        if charge.details.get("finished"):
            return "TRADE_FINISHED"
        return "TRADE_CLOSED" if charge.refunded == charge.captured else "TRADE_SUCCESS"
    return "TRADE_CLOSED" if charge.state is State.CLOSED else "WAIT_BUYER_PAY"
