"""Alipay behind the port."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.kernel.clock import Clock
from services.payment.adapters import strict_json
from services.payment.adapters.alipay import bills, notices, outcomes
from services.payment.adapters.alipay.gateway import Gateway
from services.payment.adapters.china import CNY, china_ms, china_time, fen, plain, yuan
from services.payment.adapters.exchange import Unanswered
from services.payment.adapters.outcome import (
    ABSENT_REFUND,
    UNVERIFIED,
    VERDICTS,
    unknown,
    unknown_refund,
    unsupported,
)
from services.payment.ports.provider import (
    Acknowledgement,
    Bill,
    Callback,
    Charge,
    Charged,
    Notice,
    Phase,
    Refunded,
    Refunding,
    Verdict,
)
from services.platform import telemetry

if TYPE_CHECKING:
    import httpx

    from services.kernel.money import Money
    from services.payment.adapters.alipay.settings import AlipaySettings

SUBJECT_MAX = 256
_SPECIAL = "/=&,\"'"
"""Alipay forbids the first three in a subject; ``&`` and ``=`` also join what is signed, the rest joins a bill's cells."""

_BY_PAYER = {
    "page": ("alipay.trade.page.pay", "FAST_INSTANT_TRADE_PAY"),
    "wap": ("alipay.trade.wap.pay", "QUICK_WAP_WAY"),
    "app": ("alipay.trade.app.pay", "QUICK_MSECURITY_PAY"),
}
"""Scenes in which the payer brings the request to Alipay: method, product_code. Alipay knows the trade only then."""


class Alipay:
    """Alipay. Amounts are CNY; a wallet takes money at once, so capture and void are not supported."""

    def __init__(self, settings: AlipaySettings, clock: Clock, transport: httpx.BaseTransport | None = None) -> None:
        """Make the adapter; ``transport`` replaces the network. Raises ValueError where a key or URL is none."""
        self._settings = settings
        self._gateway = Gateway(settings, clock, transport)

    def charge(self, charge: Charge) -> Charged:
        """Begin a trade. No outcome but pending means that the payer can act; the action says how."""
        if charge.amount.currency_code != CNY or not charge.capture or charge.scene not in {"qr", *_BY_PAYER}:
            return unsupported()
        content = {
            "out_trade_no": charge.request_id,
            "total_amount": yuan(charge.amount),
            "subject": plain(charge.description, _SPECIAL, SUBJECT_MAX) or charge.request_id,
            "time_expire": china_time(charge.expire_ms),
        }
        if charge.scene == "qr":
            return self._precreate(content)
        method, product = _BY_PAYER[charge.scene]
        content["product_code"] = product
        if charge.scene == "app":
            action = {"app_parameters": self._gateway.query_string(method, content)}
        else:
            action = {"redirect_url": self._gateway.redirect_url(method, content)}
        return Charged(Verdict.PENDING, Phase.WAITING, action=action)

    def _precreate(self, content: dict[str, str]) -> Charged:
        try:
            answer = self._gateway.call("alipay.trade.precreate", content)
            verdict, phase = outcomes.of_charge(answer)
            if verdict is not Verdict.PENDING:
                return Charged(verdict, phase, code=answer.word)
            code = strict_json.string(answer.members, "qr_code")
            if answer.members.get("out_trade_no") != content["out_trade_no"] or not code:
                raise ValueError("of another trade, or without a code")
        except Unanswered as none:
            return unknown(none.word)
        except ValueError:
            return unknown(UNVERIFIED)
        return Charged(verdict, phase, action={"qr_code": code})

    def query(self, request_id: str) -> Charged:
        """Ask for a trade by our number."""
        try:
            answer = self._gateway.call("alipay.trade.query", {"out_trade_no": request_id})
            if answer.sub_code == outcomes.TRADE_NOT_EXIST:
                return Charged(VERDICTS[Phase.ABSENT], Phase.ABSENT, code=answer.word)
            if answer.code != outcomes.SUCCESS:
                return unknown(answer.word)
            return _standing(answer.members, request_id)
        except Unanswered as none:
            return unknown(none.word)
        except ValueError:
            return unknown(UNVERIFIED)

    def capture(self, request_id: str, provider_id: str, amount: Money) -> Charged:  # noqa: ARG002 - the port's
        """Refuse: a wallet takes the money at once."""
        return unsupported()

    def void(self, request_id: str, provider_id: str) -> Charged:  # noqa: ARG002 - the port's
        """Refuse: a wallet sets nothing aside."""
        return unsupported()

    def close(self, request_id: str) -> Charged:
        """End a trade that nobody paid.

        ABSENT: nobody scanned or opened it, so Alipay has nothing to close; ``time_expire`` ends it. Not by
        alipay.trade.cancel, which gives money back when the payer was faster.
        """
        try:
            answer = self._gateway.call("alipay.trade.close", {"out_trade_no": request_id})
        except Unanswered as none:
            return unknown(none.word)
        verdict, phase = outcomes.of_close(answer)
        return Charged(verdict, phase, code="" if answer.code == outcomes.SUCCESS else answer.word)

    def refund(self, refunding: Refunding) -> Refunded:
        """Give money back; the same out_request_no repeats the same refund."""
        content = {
            "out_trade_no": refunding.charge_request_id,
            "out_request_no": refunding.request_id,
            "refund_amount": yuan(refunding.amount),
            "refund_reason": plain(refunding.reason, _SPECIAL, SUBJECT_MAX),
        }
        try:
            answer = self._gateway.call("alipay.trade.refund", content)
            verdict = outcomes.of_refund(answer)
            if answer.code != outcomes.SUCCESS:
                return Refunded(verdict, code=answer.word)
            return self._refunded(verdict, answer.members, refunding)
        except Unanswered as none:
            return unknown_refund(none.word)
        except ValueError:
            return unknown_refund(UNVERIFIED)

    def query_refund(self, refunding: Refunding) -> Refunded:
        """Ask for a refund by our number. Without a refund_status Alipay did not get it, or it failed: unknown."""
        content = {
            "out_trade_no": refunding.charge_request_id,
            "out_request_no": refunding.request_id,
            "query_options": ["gmt_refund_pay"],
        }
        try:
            answer = self._gateway.call("alipay.trade.fastpay.refund.query", content)
            if answer.sub_code == outcomes.TRADE_NOT_EXIST:
                return unknown_refund(ABSENT_REFUND)
            if answer.code != outcomes.SUCCESS:
                return unknown_refund(answer.word)
            status = strict_json.string(answer.members, "refund_status")
            if status != outcomes.REFUND_SUCCESS:
                return unknown_refund(status or ABSENT_REFUND)
            if answer.members.get("out_request_no") != refunding.request_id:
                raise ValueError("of another refund")
            return self._refunded(Verdict.DONE, answer.members, refunding)
        except Unanswered as none:
            return unknown_refund(none.word)
        except ValueError:
            return unknown_refund(UNVERIFIED)

    def parse(self, callback: Callback, now_ms: int) -> Notice:  # noqa: ARG002 - repeats come for 25 hours: no time is too old
        """Verify and read a notification."""
        return notices.notice(notices.verified(callback.body, self._settings, self._gateway.verified))

    def acknowledge(self, *, taken: bool) -> Acknowledgement:
        """Answer exactly ``success``, or anything else to be told again."""
        if taken:
            return Acknowledgement(200, "text/plain", b"success")
        return Acknowledgement(500, "text/plain", b"fail")

    def fetch_bill(self, day: str) -> Bill | None:
        """Fetch the bill of trades of a day."""
        try:
            answer = self._gateway.call(
                "alipay.data.dataservice.bill.downloadurl.query", {"bill_type": "trade", "bill_date": day}
            )
            if answer.code != outcomes.SUCCESS:
                if answer.sub_code != outcomes.NO_BILL:
                    telemetry.log.warning("bill.refused", provider="alipay", day=day, code=answer.word)
                return None
            content = self._gateway.download(strict_json.string(answer.members, "bill_download_url"))
            return Bill(content, bills.lines(content))
        except (Unanswered, ValueError) as error:
            telemetry.log.warning("bill.not_fetched", provider="alipay", day=day, error=str(error))
            return None

    def stop(self) -> None:
        """Close the connections."""
        self._gateway.stop()

    @staticmethod
    def _refunded(verdict: Verdict, members: strict_json.JsonObject, refunding: Refunding) -> Refunded:
        """Read a refund. Only a query tells its own amount: ``refund_fee`` is the sum of all refunds of the trade."""
        if members.get("out_trade_no") != refunding.charge_request_id:
            raise ValueError("of another trade")
        amount = strict_json.string(members, "refund_amount")
        return Refunded(
            verdict,
            strict_json.string(members, "trade_no"),
            amount=fen(amount) if amount else None,
            at_ms=china_ms(strict_json.string(members, "gmt_refund_pay")),
        )


def _standing(members: strict_json.JsonObject, request_id: str) -> Charged:
    """Read where a trade stands. Raises ValueError where it is another one or makes no sense."""
    phase = outcomes.PHASES.get(strict_json.string(members, "trade_status"))
    if phase is None or members.get("out_trade_no") != request_id:
        raise ValueError("of another trade, or in a state that is none")
    return Charged(
        VERDICTS[phase],
        phase,
        strict_json.string(members, "trade_no"),
        amount=fen(strict_json.string(members, "total_amount")),
        at_ms=china_ms(strict_json.string(members, "send_pay_date")),
    )
