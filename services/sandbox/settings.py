"""Where the sandbox listens."""

from dataclasses import dataclass

from services.platform.settings import setting


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Both ports are on loopback: what pretends to be a provider must never be reached from elsewhere."""

    sandbox_http: int = setting("Port of the HTTP providers and of what they received.", low=1, high=65535)
    sandbox_smtp: int = setting("Port of the mail sink.", low=1, high=65535)
