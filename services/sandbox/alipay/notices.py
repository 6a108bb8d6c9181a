"""The gateway's notices: signed forms, true ones and forged ones."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from services.sandbox import signing
from services.sandbox.alipay.requests import signed_text
from services.sandbox.alipay.trades import BUYER, trade_status
from services.sandbox.china import china_time, yuan
from services.sandbox.notifier import Notice, Outgoing

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    from services.kernel.clock import Clock
    from services.sandbox.book import Charge, Refund

FORGERIES = frozenset({"signature", "amount", "seller", "app_id", "order", "sha1"})
_UNSIGNED = frozenset({"sign", "sign_type"})


def notice(
    charge: Charge, refund: Refund | None, *, app_id: str, seller_id: str, key: RSAPrivateKey, clock: Clock
) -> Notice:
    """Return the notice about a trade as it stands now, or about a refund of it."""
    notice_id = uuid.uuid4().hex
    params = {
        "notify_type": "trade_status_sync",
        "notify_id": notice_id,
        "charset": "utf-8",
        "version": "1.0",
        "sign_type": "RSA2",
        "app_id": app_id,
        "auth_app_id": app_id,
        "seller_id": seller_id,
        "seller_email": "sel***@sandbox.com",
        "buyer_id": BUYER["buyer_user_id"],
        "buyer_logon_id": BUYER["buyer_logon_id"],
        "trade_no": charge.provider_id,
        "out_trade_no": charge.request_id,
        "trade_status": trade_status(charge),
        "total_amount": yuan(charge.amount),
        "subject": charge.details["subject"],
        "body": charge.details["body"],
        "passback_params": charge.details["passback_params"],
        "gmt_create": china_time(charge.created_ms),
    }
    if charge.captured:
        paid = yuan(charge.captured)
        params |= {"receipt_amount": paid, "buyer_pay_amount": paid, "invoice_amount": paid, "point_amount": "0.00"}
        params |= {"gmt_payment": china_time(charge.paid_ms),
                   "fund_bill_list": f'[{{"amount":"{paid}","fundChannel":"ALIPAYACCOUNT"}}]'}  # fmt: skip
    if charge.ended_ms:
        params["gmt_close"] = china_time(charge.ended_ms)
    if refund:
        params |= {
            "out_biz_no": refund.request_id,
            "refund_fee": yuan(charge.refunded),
            "gmt_refund": china_time(refund.at_ms) + f".{refund.at_ms % 1000:03}",
        }
    ids = (charge.request_id, *((refund.request_id,) if refund else ()))

    def render(forge: str) -> Outgoing:
        """Sign it for this attempt: notify_time moves on, notify_id does not."""
        sent = {name: value for name, value in params.items() if value}
        sent |= {"notify_time": china_time(clock.now_ms()), **_forged(forge, charge)}
        text = signed_text(sent, without=_UNSIGNED).encode()
        if forge == "signature":
            text += b" "
        sent["sign"] = signing.sign_sha1(key, text) if forge == "sha1" else signing.sign(key, text)
        content_type = "application/x-www-form-urlencoded; charset=utf-8"
        return Outgoing({"content-type": content_type}, urlencode(sent).encode())

    return Notice(notice_id=notice_id, ids=ids, url=charge.details["notify_url"], render=render)


def _forged(forge: str, charge: Charge) -> dict[str, str]:
    """Return what a forger who has the key would write differently."""
    return {
        "amount": {"total_amount": yuan(charge.amount + 1)},
        "seller": {"seller_id": "2088000000000000"},
        "app_id": {"app_id": "2021000000000000"},
        "order": {"out_trade_no": f"{charge.request_id}0"[-64:]},
        "sha1": {"sign_type": "RSA"},
    }.get(forge, {})
