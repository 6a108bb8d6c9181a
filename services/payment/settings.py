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
