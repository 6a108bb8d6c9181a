"""The providers of payments that a folder of merchant's keys says: alipay.json, wechat.json, cards.json."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from services.payment.adapters.alipay import Alipay, AlipaySettings
from services.payment.adapters.card import CardNetwork, CardSettings
from services.payment.adapters.exchange import CONNECT_S, READ_S
from services.payment.adapters.wechat import WechatPay, WechatSettings
from services.payment.domain import Method

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from services.kernel.clock import Clock
    from services.payment.ports.cards import CvvRelay, Vault
    from services.payment.ports.provider import Provider


@dataclass(frozen=True, slots=True)
class Merchant:
    """Where the providers are, where they call back, and whose cards are used.

    ``urls`` has a base URL per method; one without is not offered. ``public_url`` is the edge as providers reach it.
    ``connect_s`` and ``read_s`` are how long a provider may take to be reached and for each piece of an answer.
    """

    folder: Path
    urls: dict[Method, str]
    public_url: str
    merchant_id: int
    connect_s: float = CONNECT_S
    read_s: float = READ_S


def providers(merchant: Merchant, vault: Vault, cvvs: CvvRelay, clock: Clock) -> dict[Method, Provider]:
    """Make the adapters whose keys and URLs are there. Raises ValueError, KeyError or OSError for keys that are none."""
    makers: dict[Method, tuple[str, Callable[[Any, str, str], Provider]]] = {
        Method.ALIPAY: ("alipay", lambda keys, url, notify: _alipay(merchant, keys, url, notify, clock)),
        Method.WECHAT: ("wechat", lambda keys, url, notify: _wechat(merchant, keys, url, notify, clock)),
        Method.BANK_CARD: ("cards", lambda keys, url, notify: _cards(merchant, keys, url, notify, vault, cvvs, clock)),
    }
    made = {}
    for method, (name, make) in makers.items():
        path, url = merchant.folder / f"{name}.json", merchant.urls.get(method, "")
        if url and path.is_file():
            notify = f"{merchant.public_url.rstrip('/')}/api/payments/callbacks/{method}"
            made[method] = make(json.loads(path.read_bytes()), url, notify)
    return made


def _alipay(merchant: Merchant, keys: dict[str, Any], url: str, notify: str, clock: Clock) -> Provider:
    settings = AlipaySettings(
        **keys, gateway_url=url, notify_url=notify, connect_s=merchant.connect_s, read_s=merchant.read_s
    )
    return Alipay(settings, clock)


def _wechat(merchant: Merchant, keys: dict[str, Any], url: str, notify: str, clock: Clock) -> Provider:
    settings = WechatSettings(
        mchid=keys["mchid"],
        app_id=keys["appid"],
        serial_no=keys["serial_no"],
        private_key=keys["private_key"],
        apiv3_key=keys["api_v3_key"].encode(),
        base_url=url,
        notify_url=notify,
        public_keys={keys["public_key_id"]: keys["public_key"]},
        certificates=keys["platform_certificates"],
        fetch_certificates=True,
        connect_s=merchant.connect_s,
        read_s=merchant.read_s,
    )
    return WechatPay(settings, clock)


def _cards(
    merchant: Merchant, keys: dict[str, str], url: str, notify: str, vault: Vault, cvvs: CvvRelay, clock: Clock
) -> Provider:
    settings = CardSettings(
        base_url=url,
        merchant_id=keys["merchant_id"],
        key_id=keys["key_id"],
        request_secret=base64.b64decode(keys["request_secret"]),
        answer_secret=base64.b64decode(keys["answer_secret"]),
        notify_url=notify,
        vault_merchant_id=merchant.merchant_id,
        connect_s=merchant.connect_s,
        read_s=merchant.read_s,
    )
    return CardNetwork(settings, vault, cvvs, clock)
