"""Settings of the risk service."""

from __future__ import annotations

from dataclasses import dataclass

from services.platform.settings import ServiceSettings, setting


@dataclass(frozen=True, kw_only=True)
class Settings(ServiceSettings):
    """What the risk service needs beyond what every service needs."""

    rules_refresh_ms: int = setting("How often the version of the rules is asked; with 500 a change is in force within "
                                    "the promised second.", 500, low=50, high=900)  # fmt: skip
    velocity_timeout_ms: int = setting("Longest wait for the velocity series, well below the 250 ms that payment waits.",
                                       120, low=5, high=200)  # fmt: skip
