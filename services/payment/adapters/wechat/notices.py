"""WeChat Pay's callbacks: a signed body whose content is encrypted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.payment.adapters import strict_json
from services.payment.adapters.wechat import readings, resource
from services.payment.ports.provider import CallbackForged, Notice

if TYPE_CHECKING:
    from services.payment.adapters.wechat.settings import WechatSettings

BODY_BYTES_MAX = 64 << 10


def notice(body: bytes, settings: WechatSettings) -> Notice:
    """Decrypt and read a body that was verified. Raises CallbackForged where it is not for us or says nothing we know."""
    try:
        envelope = strict_json.parse(body.decode())
        content = resource.opened(settings.apiv3_key, strict_json.nested(envelope, "resource"))
        members = strict_json.parse(content)
        return _read(strict_json.string(envelope, "event_type"), strict_json.string(envelope, "id"), members, settings)
    except ValueError as error:
        raise CallbackForged(f"verifies, but cannot be taken: {error}") from error


def _read(event: str, notice_id: str, members: strict_json.JsonObject, settings: WechatSettings) -> Notice:
    if event.startswith("TRANSACTION."):
        ours = strict_json.string(members, "out_trade_no")
        made = Notice(notice_id, ours, charged=readings.charged(members, settings))
    elif event.startswith("REFUND."):
        if strict_json.string(members, "mchid") != settings.mchid:
            raise ValueError("of another merchant")
        ours = strict_json.string(members, "out_refund_no")
        status = strict_json.string(members, "refund_status")
        made = Notice(notice_id, ours, refunded=readings.refunded(members, status))
    else:
        raise ValueError("an event of another kind")
    if not notice_id or not ours:
        raise ValueError("without a number")
    return made
