"""WeChat Pay behind the port."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from services.payment.adapters import strict_json
from services.payment.adapters.china import CNY, china_rfc3339, plain
from services.payment.adapters.exchange import Unanswered
from services.payment.adapters.outcome import (
    ABSENT_REFUND,
    UNVERIFIED,
    VERDICTS,
    unknown,
    unknown_refund,
    unsupported,
)
from services.payment.adapters.wechat import bills, notices, outcomes, readings, scenes
from services.payment.adapters.wechat.client import Client
from services.payment.adapters.wechat.signing import Unverified
from services.payment.ports.provider import (
    Acknowledgement,
    Bill,
    Callback,
    CallbackForged,
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

    from services.kernel.clock import Clock
    from services.kernel.money import Money
    from services.payment.adapters.wechat.settings import WechatSettings

DESCRIPTION_MAX = 127
REASON_MAX = 80
_SPECIAL = "`"
"""A bill's cells begin with it."""

_TRANSACTIONS = "/v3/pay/transactions"
_REFUNDS = "/v3/refund/domestic/refunds"
_TAKEN = b'{"code":"SUCCESS","message":"OK"}'
_AGAIN = b'{"code":"FAIL","message":"send again"}'


class WechatPay:
    """WeChat Pay v3. Amounts are CNY; a wallet takes money at once, so capture and void are not supported."""

    def __init__(self, settings: WechatSettings, clock: Clock, transport: httpx.BaseTransport | None = None) -> None:
        """Make the adapter; ``transport`` replaces the network. Raises ValueError where a key or URL is none."""
        self._settings, self._clock = settings, clock
        self._client = Client(settings, clock, transport)

    def charge(self, charge: Charge) -> Charged:
        """Make an order. No outcome but pending means that the payer can act; the action says how."""
        if charge.amount.currency_code != CNY or not charge.capture or charge.scene not in scenes.SCENES:
            return unsupported()
        if scenes.missing(charge.scene, charge.payer):
            return Charged(Verdict.REFUSED, code="payer_incomplete")
        content = {
            "appid": self._settings.app_id,
            "mchid": self._settings.mchid,
            "description": plain(charge.description, _SPECIAL, DESCRIPTION_MAX) or charge.request_id,
            "out_trade_no": charge.request_id,
            "time_expire": china_rfc3339(charge.expire_ms),
            "notify_url": self._settings.notify_url,
            "amount": {"total": charge.amount.minor_units, "currency": CNY},
            **scenes.asked(charge.scene, charge.payer),
        }
        try:
            answer = self._client.post(f"{_TRANSACTIONS}/{charge.scene}", content)
            if not answer.taken:
                verdict, phase = outcomes.of_charge(answer)
                return Charged(verdict, phase, code=answer.code)
            seconds = self._clock.now_ms() // 1000
            action = scenes.action(charge.scene, answer.members, self._settings, self._client.signer, seconds)
        except Unanswered as none:
            return unknown(none.word)
        except ValueError:
            return unknown(UNVERIFIED)
        return Charged(Verdict.PENDING, Phase.WAITING, action=action)

    def query(self, request_id: str) -> Charged:
        """Ask for an order by our number."""
        try:
            answer = self._client.get(f"{_path(request_id)}?{urlencode({'mchid': self._settings.mchid})}")
            if outcomes.absent(answer):
                return Charged(VERDICTS[Phase.ABSENT], Phase.ABSENT, code=answer.code)
            if not answer.taken:
                return unknown(answer.code)
            if answer.members.get("out_trade_no") != request_id:
                raise ValueError("of another order")
            return readings.charged(answer.members, self._settings)
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
        """End an order that nobody paid."""
        try:
            answer = self._client.post(f"{_path(request_id)}/close", {"mchid": self._settings.mchid})
        except Unanswered as none:
            return unknown(none.word)
        verdict, phase = outcomes.of_close(answer)
        return Charged(verdict, phase, code=answer.code)

    def refund(self, refunding: Refunding) -> Refunded:
        """Give money back; the same out_refund_no repeats the same refund."""
        content = {
            "out_trade_no": refunding.charge_request_id,
            "out_refund_no": refunding.request_id,
            "notify_url": self._settings.refund_notify_url or self._settings.notify_url,
            "amount": {
                "refund": refunding.amount.minor_units,
                "total": refunding.charged.minor_units,
                "currency": CNY,
            },
        }
        if reason := plain(refunding.reason, _SPECIAL, REASON_MAX):
            content["reason"] = reason
        try:
            answer = self._client.post(_REFUNDS, content)
            if not answer.taken:
                return Refunded(outcomes.of_refund(answer), code=answer.code)
            return self._refunded(answer.members, refunding)
        except Unanswered as none:
            return unknown_refund(none.word)
        except ValueError:
            return unknown_refund(UNVERIFIED)

    def query_refund(self, refunding: Refunding) -> Refunded:
        """Ask for a refund by our number."""
        try:
            answer = self._client.get(f"{_REFUNDS}/{quote(refunding.request_id, safe='')}")
            if outcomes.absent(answer):
                return unknown_refund(ABSENT_REFUND)
            if not answer.taken:
                return unknown_refund(answer.code)
            return self._refunded(answer.members, refunding)
        except Unanswered as none:
            return unknown_refund(none.word)
        except ValueError:
            return unknown_refund(UNVERIFIED)

    def parse(self, callback: Callback, now_ms: int) -> Notice:
        """Verify a callback on its exact bytes, then decrypt and read it."""
        if len(callback.body) > notices.BODY_BYTES_MAX:
            raise CallbackForged("too large")
        try:
            self._client.verify(callback.headers, callback.body, now_ms)
        except Unverified as error:
            raise CallbackForged(str(error)) from error
        return notices.notice(callback.body, self._settings)

    def acknowledge(self, *, taken: bool) -> Acknowledgement:
        """Answer 200, or anything that is no 2xx to be told again."""
        return Acknowledgement(200 if taken else 500, "application/json", _TAKEN if taken else _AGAIN)

    def fetch_bill(self, day: str) -> Bill | None:
        """Fetch the bill of all transactions of a day."""
        try:
            answer = self._client.get(f"/v3/bill/tradebill?{urlencode({'bill_date': day, 'bill_type': 'ALL'})}")
            if not answer.taken:
                if not outcomes.no_bill(answer):
                    telemetry.log.warning("bill.refused", provider="wechat", day=day, code=answer.code)
                return None
            words = [strict_json.string(answer.members, each) for each in ("download_url", "hash_type", "hash_value")]
            content = self._client.download(*words)
            return Bill(content, bills.lines(content))
        except (Unanswered, ValueError) as error:
            telemetry.log.warning("bill.not_fetched", provider="wechat", day=day, error=str(error))
            return None

    def stop(self) -> None:
        """Close the connections."""
        self._client.stop()

    @staticmethod
    def _refunded(members: strict_json.JsonObject, refunding: Refunding) -> Refunded:
        ours = (refunding.request_id, refunding.charge_request_id)
        if (members.get("out_refund_no"), members.get("out_trade_no")) != ours:
            raise ValueError("another refund")
        return readings.refunded(members, strict_json.string(members, "status"))


def _path(request_id: str) -> str:
    return f"{_TRANSACTIONS}/out-trade-no/{quote(request_id, safe='')}"
