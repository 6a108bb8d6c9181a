"""Settings of the notification service."""

from __future__ import annotations

from dataclasses import dataclass

from services.platform.settings import ServiceSettings, setting


@dataclass(frozen=True, kw_only=True)
class Settings(ServiceSettings):
    """What the notification service needs beyond what every service needs."""

    smtp: str = setting("host:port of the mail server that takes our mail.")
    sms_url: str = setting("URL that the SMS provider takes messages at, as JSON by POST.")
    push_url: str = setting("URL that the push provider takes messages at, as JSON by POST.")
    mail_from: str = setting("Sender of every e-mail.", "PayMesh <no-reply@paymesh.example>")
    operators_email: str = setting("Address that alerts of risk control go to.", "ops@paymesh.example")
    senders: int = setting("Messages that are sent at the same time.", 8, low=1, high=64)
    send_timeout_s: float = setting("Longest wait for one answer of a provider, in seconds; a try has a lease of 30 s.", 5.0,
                                    low=0.1, high=8)  # fmt: skip
