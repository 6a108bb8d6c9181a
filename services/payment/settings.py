"""Settings of the payment service."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from services.platform.settings import ServiceSettings, SettingsError, setting


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
    files: str = setting("Where bills are kept as they came from the providers: a folder, or s3://bucket/prefix; empty: "
                         "DIR/files.", "")  # fmt: skip
    s3_endpoint: str = setting("URL of what speaks S3's protocol; empty: Amazon's own of the region.", "")
    s3_region: str = setting("Region that requests to S3 are signed for.", "us-east-1")
    s3_key_id: str = setting("Id of the key to S3.", "")
    s3_secret: str = dataclasses.field(
        default="", repr=False, metadata={"help": "The key to S3.", "low": None, "high": None}
    )
    pay_window_s: int = setting("How long a payer has to pay, in seconds.", 900, low=5, high=86_400)
    capture_window_s: int = setting("How long the amount that a card's issuer holds can be captured, in seconds; afterwards "
                                    "it is let go of.", 604_800, low=5, high=2_592_000)  # fmt: skip
    provider_threads: int = setting("Calls to providers at a time at most, in this instance.", 16, low=1, high=128)

    def __post_init__(self) -> None:
        """Refuse a bucket without a name, or without the key to it."""
        faults = []
        if self.files.startswith("s3://"):
            if not self.files.removeprefix("s3://").partition("/")[0]:
                faults.append(f"PAYMESH_FILES={self.files!r}: write s3://bucket or s3://bucket/prefix.")
            if not self.s3_key_id or not self.s3_secret:
                faults.append("PAYMESH_FILES is a bucket: set PAYMESH_S3_KEY_ID and PAYMESH_S3_SECRET.")
        if faults:
            raise SettingsError(faults)
