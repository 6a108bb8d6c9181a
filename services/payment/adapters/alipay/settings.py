"""What the adapter has to be told."""

from __future__ import annotations

from dataclasses import dataclass, field

from services.payment.adapters.exchange import CONNECT_S, READ_S


@dataclass(frozen=True, kw_only=True, slots=True)
class AlipaySettings:
    """An application at Alipay. The keys are PEM; ``private_key`` is ours, ``alipay_public_key`` is not our own public key.

    ``seller_id`` is the merchant's user id (2088…), which every notification must name. ``return_url`` is where page and
    wap send the payer afterwards. Bills are fetched from the gateway's own origin or from hosts that end in
    ``bill_host``.
    """

    app_id: str
    seller_id: str
    private_key: str = field(repr=False)
    alipay_public_key: str = field(repr=False)
    gateway_url: str
    notify_url: str
    return_url: str = ""
    bill_host: str = ".alipay.com"
    connect_s: float = CONNECT_S
    read_s: float = READ_S
