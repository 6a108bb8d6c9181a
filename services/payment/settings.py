"""Settings of the payment service."""

from __future__ import annotations

from dataclasses import dataclass

from services.platform.settings import ServiceSettings, setting


@dataclass(frozen=True, kw_only=True)
class Settings(ServiceSettings):
    """What the payment service needs beyond what every service needs."""

    merchant_id: int = setting("The merchant whose settlement account payments are booked to.", 1, low=1)
    batch_max: int = setting("Payments in one transaction at most.", 200, low=1, high=200)
    linger_ms: float = setting("How long a batch waits for company when it is busy.", 1.0, low=0, high=20)
    providers: str = setting("Folder of the merchant's keys at providers (alipay.json, wechat.json, cards.json); empty: "
                             "payments from balances alone.", "")  # fmt: skip
    alipay_url: str = setting("URL of Alipay's gateway; empty: not offered.", "")
    wechat_url: str = setting("Base URL of WeChat Pay's API; empty: not offered.", "")
    cards_url: str = setting("Base URL of the card network; empty: not offered.", "")
    public_url: str = setting("Base URL of the edge as providers reach it, for their callbacks.", "")
    vault_keys: str = setting("Folder of the card vault's key-encryption keys; empty: DIR/vault-keys.", "")
    files: str = setting("Where bills are kept: a folder, or s3://bucket/prefix; empty: DIR/files.", "")
    pay_window_s: int = setting("How long a payer has, in seconds.", 900, low=5, high=86_400)
    capture_window_s: int = setting("How long an authorization is held for a capture, in seconds.", 604_800, low=5)
    provider_threads: int = setting("Calls to providers at a time.", 16, low=1, high=128)
