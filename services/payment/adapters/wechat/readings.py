"""What WeChat Pay says of a transaction or refund, in an answer and in a callback alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.payment.adapters.china import CNY, cny, rfc3339_ms
from services.payment.adapters.outcome import VERDICTS
from services.payment.adapters.strict_json import JsonObject, integer, nested, string
from services.payment.adapters.wechat.outcomes import PHASES, REFUND_VERDICTS
from services.payment.ports.provider import Charged, Refunded, Verdict

if TYPE_CHECKING:
    from services.kernel.money import Money
    from services.payment.adapters.wechat.settings import WechatSettings


def charged(members: JsonObject, settings: WechatSettings) -> Charged:
    """Read a transaction of ours. Raises ValueError where it is another's, or makes no sense."""
    if string(members, "mchid") != settings.mchid or string(members, "appid") != settings.app_id:
        raise ValueError("of another merchant or app")
    state = string(members, "trade_state")
    phase = PHASES.get(state)
    if phase is None:
        raise ValueError("a state that is none")
    verdict = VERDICTS[phase]
    amount = _amount(nested(members, "amount"), "total") if "amount" in members else None
    if amount is None and verdict is Verdict.DONE:
        raise ValueError("paid, but not how much")
    return Charged(
        verdict,
        phase,
        string(members, "transaction_id"),
        code=state if verdict is Verdict.REFUSED else "",
        amount=amount,
        at_ms=rfc3339_ms(string(members, "success_time")),
    )


def refunded(members: JsonObject, status: str) -> Refunded:
    """Read a refund of ours; ``status`` is its state. Raises ValueError where it makes no sense."""
    verdict = REFUND_VERDICTS.get(status)
    if verdict is None:
        raise ValueError("a state that is none")
    return Refunded(
        verdict,
        string(members, "refund_id"),
        code="" if verdict in {Verdict.DONE, Verdict.PENDING} else status,
        amount=_amount(nested(members, "amount"), "refund"),
        at_ms=rfc3339_ms(string(members, "success_time")),
    )


def _amount(members: JsonObject, name: str) -> Money:
    if members.get("currency", CNY) != CNY:
        raise ValueError("not in CNY")
    return cny(integer(members, name))
