"""Settings of the notification service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from services.platform.settings import ServiceSettings, setting


class Address(str):
    """``host:port``."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """Refuse what is none."""
        host, _, port = text.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
            raise ValueError("is not host:port")
        return super().__new__(cls, text)


class Url(str):
    """A URL that messages are posted to."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """Refuse what is none."""
        parts = urlsplit(text)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("is not a URL that begins with http:// or https://")
        return super().__new__(cls, text)


class Places(frozenset[str]):
    """host:port, several joined by commas."""

    __slots__ = ()

    def __new__(cls, text: str = "") -> Self:
        """Refuse what is none."""
        return super().__new__(cls, [Address(each.strip().lower()) for each in text.split(",") if each.strip()])


@dataclass(frozen=True, kw_only=True)
class Settings(ServiceSettings):
    """What the notification service needs beyond what every service needs."""

    smtp: Address = setting("host:port of the mail server that takes our mail.")
    sms_url: Url = setting("URL that the SMS provider takes messages at, as JSON by POST.")
    push_url: Url = setting("URL that the push provider takes messages at, as JSON by POST.")
    mail_from: str = setting("Sender of every e-mail.", "PayMesh <no-reply@paymesh.example>")
    operators_email: str = setting("Address that alerts of risk control go to.", "ops@paymesh.example")
    senders: int = setting("Messages that are sent at the same time.", 8, low=1, high=64)
    send_timeout_s: float = setting("Longest wait for one answer of a provider, in seconds; a try has a lease of 30 s.", 5.0,
                                    low=0.1, high=8)  # fmt: skip
    webhook_allow: Places = setting("host:port, joined by commas, that webhooks may go to although they are private or speak "
                                    "plain http: a receiver on this machine.", Places())  # fmt: skip
    webhook_senders: int = setting("Webhooks that are sent at the same time, at most half of them to one endpoint.", 8,
                                   low=2, high=64)  # fmt: skip
    webhook_timeout_s: float = setting("Longest wait for one answer of an endpoint, in seconds; a try has a lease of 60 s.",
                                       15.0, low=0.1, high=20)  # fmt: skip
    webhook_time_scale: float = setting("What the pauses between tries of a webhook are multiplied by; 1 is the schedule of "
                                        "Standard Webhooks.", 1.0, low=0, high=1)  # fmt: skip
