"""What the gateway can be told."""

from __future__ import annotations

from dataclasses import dataclass

from services.platform.settings import ServiceSettings, setting


@dataclass(frozen=True, kw_only=True)
class GatewaySettings(ServiceSettings):
    """Settings of the gateway."""

    health_ask_ms: int = setting(
        "Longest wait for config's answer about the mesh, in milliseconds; below the 2 s of GetHealth, so that an "
        "older answer can still be given in time.",
        1000,
        low=10,
        high=1900,
    )
    health_stale_s: float = setting(
        "Age in seconds up to which an older answer about the mesh's health is given while config does not answer.",
        5.0,
        low=0,
        high=60,
    )
