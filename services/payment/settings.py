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
    providers: str = setting("Folder of what the merchant holds of his providers (alipay.json, wechat.json, cards.json); "
                             "empty: there are none.", "")  # fmt: skip
    alipay_url: str = setting("URL of Alipay's gateway, with its path.", "")
    wechat_url: str = setting("URL of WeChat Pay, without a path.", "")
    cards_url: str = setting("URL of the card network, without a path.", "")
    public_url: str = setting("URL of the edge as providers reach it, without a path; they call back at "
                              "/api/payments/callbacks/ there.", "")  # fmt: skip
    vault_keys: str = setting("Folder of the keys that wrap the keys of the card vault; empty: DIR/vault-keys.", "")
    files: str = setting("Folder of the bills as they came from the providers; empty: DIR/files.", "")
    pay_window_s: int = setting("How long a payer has to pay, in seconds.", 900, low=5, high=86_400)
    capture_window_s: int = setting("How long the amount that a card's issuer holds can be captured, in seconds; afterwards "
                                    "it is let go of.", 604_800, low=5, high=2_592_000)  # fmt: skip
    provider_threads: int = setting("Calls to providers at a time at most, in this instance.", 16, low=1, high=128)
