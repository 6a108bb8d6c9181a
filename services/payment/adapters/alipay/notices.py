"""Alipay's notifications: a form post whose every parameter is signed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from services.payment.adapters.alipay import signing
from services.payment.adapters.alipay.outcomes import PHASES
from services.payment.adapters.china import china_ms, fen
from services.payment.adapters.outcome import VERDICTS
from services.payment.ports.provider import CallbackForged, Charged, Notice, Phase, Refunded, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from services.payment.adapters.alipay.settings import AlipaySettings

BODY_BYTES_MAX = 64 << 10
PARAMETERS_MAX = 200

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_ANOTHER_PARAMETER = re.compile(r"&[A-Za-z_][A-Za-z0-9_]*=")
"""``&name=`` in a value: the signed text would have a second reading, with ``name`` a parameter of its own.

We send no description with these characters, and no other value has a use for them.
"""


def verified(body: bytes, settings: AlipaySettings, genuine: Callable[[bytes, str], bool]) -> dict[str, str]:
    """Return the parameters of a notification that is Alipay's and for us. Raises CallbackForged."""
    parameters = _parameters(body)
    signature, sign_type = parameters.pop("sign", ""), parameters.pop("sign_type", "")
    if sign_type != signing.SIGN_TYPE:
        raise CallbackForged("sign_type is not RSA2")
    if any(_ANOTHER_PARAMETER.search(value) for value in parameters.values()):
        raise CallbackForged("a value holds another parameter")
    if not genuine(signing.content(parameters), signature):
        raise CallbackForged("the signature does not verify")
    if parameters.get("app_id") != settings.app_id:
        raise CallbackForged("app_id is not ours")
    if parameters.get("seller_id") != settings.seller_id:
        raise CallbackForged("seller_id is not ours")
    return parameters


def notice(parameters: Mapping[str, str]) -> Notice:
    """Read what a verified notification says. Raises CallbackForged where it says nothing that we know.

    With ``refund_fee`` it tells of a refund, whose number of ours is ``out_biz_no``; without that number the refund was
    not made by us, and the notification is about the charge. ``refund_fee`` is the sum of all refunds so far, so the
    amount of this one stays open: a query of the refund tells it.
    """
    try:
        if parameters.get("notify_type", "trade_status_sync") != "trade_status_sync":
            raise ValueError("not of a trade")
        phase = PHASES[parameters["trade_status"]]
        ours, theirs = parameters["out_trade_no"], parameters["trade_no"]
        notice_id = parameters["notify_id"]
        amount = fen(parameters["total_amount"])
        refunded = fen(parameters.get("refund_fee", "0")).minor_units
        refund_id = parameters.get("out_biz_no", "")
        if refunded and refund_id:
            at_ms = china_ms(parameters.get("gmt_refund", "")[:19])  # it alone has milliseconds
            return Notice(notice_id, refund_id, refunded=Refunded(Verdict.DONE, theirs, at_ms=at_ms))
        if refunded and phase is Phase.CLOSED:
            phase = Phase.REFUNDED
        paid = parameters.get("gmt_payment") or parameters.get("gmt_close") or parameters.get("notify_time", "")
        charged = Charged(VERDICTS[phase], phase, theirs, amount=amount, at_ms=china_ms(paid))
        return Notice(notice_id, ours, charged=charged)
    except (KeyError, ValueError) as error:
        raise CallbackForged("verifies, but is no notification of a trade") from error


def _parameters(body: bytes) -> dict[str, str]:
    if len(body) > BODY_BYTES_MAX:
        raise CallbackForged("too large")
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, strict_parsing=True, errors="strict",
                          max_num_fields=PARAMETERS_MAX)  # fmt: skip
    except ValueError as error:
        raise CallbackForged("not a form") from error
    made = dict(pairs)
    if len(made) != len(pairs) or not all(map(_NAME.fullmatch, made)):
        raise CallbackForged("a parameter stands twice, or its name is none")
    if made.get("charset", "utf-8").lower() != "utf-8":
        raise CallbackForged("not in UTF-8")
    return made
