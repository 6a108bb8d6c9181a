"""What the adapter has to be told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from services.payment.adapters.exchange import CONNECT_S, READ_S


@dataclass(frozen=True, kw_only=True, slots=True)
class WechatSettings:
    """A merchant at WeChat Pay. ``private_key`` is ours, PEM; ``serial_no`` is that of our certificate.

    WeChat Pay signs with the key of a platform certificate or with a public key (``PUB_KEY_ID_…``). ``public_keys`` are
    the latter, id -> PEM. With ``fetch_certificates`` the former are fetched and kept fresh; ``certificates``, serial ->
    PEM, are known before. While WeChat Pay switches from one to the other both occur, so both can be set; one must be.

    ``apiv3_key`` is the 32 bytes that callbacks and certificates are encrypted with. ``refund_notify_url`` is where
    callbacks of refunds come; empty: where those of charges do.
    """

    mchid: str
    app_id: str
    serial_no: str
    private_key: str = field(repr=False)
    apiv3_key: bytes = field(repr=False)
    base_url: str
    notify_url: str
    refund_notify_url: str = ""
    public_keys: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    certificates: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    fetch_certificates: bool = False
    connect_s: float = CONNECT_S
    read_s: float = READ_S
