"""What the order service can be told."""

from __future__ import annotations

from dataclasses import dataclass

from services.platform.settings import ServiceSettings, setting


@dataclass(frozen=True, kw_only=True)
class OrderSettings(ServiceSettings):
    """Settings of the order service."""

    hold_s: int = setting(
        "How long the stock of a pending order is held, in seconds; the contract promises 30 minutes.",
        1800,
        low=1,
        high=86_400,
    )
    expire_every_s: float = setting(
        "How often pending orders whose time is over are cancelled, in seconds.",
        5.0,
        low=0.05,
        high=600,
    )
    batch_max: int = setting("Commands in one transaction at most.", 200, low=1, high=1000)
    linger_ms: float = setting(
        "How long a batch waits for company when it is busy, in milliseconds.", 1.0, low=0, high=20
    )
