"""Webhook endpoints, deliveries to them, and how they are signed (Standard Webhooks). Pure. Times are ms since 1970 UTC."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from services.notification import states

PAUSES_MS: Final = (
    5_000,
    5 * 60_000,
    30 * 60_000,
    2 * 3_600_000,
    5 * 3_600_000,
    10 * 3_600_000,
    14 * 3_600_000,
    20 * 3_600_000,
    24 * 3_600_000,
)
"""From a failed try to the next: the schedule that Standard Webhooks gives."""
TRIES_MAX: Final = len(PAUSES_MS) + 1
JITTER: Final = 0.1
"""A pause is longer or shorter by up to this share, so that what failed together is not tried together again."""
LEASE_MS: Final = 60_000
"""How long a try may take before another sender takes it for dead: longer than the time-out and a slow look-up of the host."""
SCHEDULE_MS: Final = int(sum(PAUSES_MS) * (1 + JITTER)) + TRIES_MAX * LEASE_MS
"""By then a delivery is at rest."""
OLD_SECRET_MS: Final = 24 * 3_600_000
"""How long a secret signs beside the one that replaced it."""
SECRET_BYTES: Final = 32
ENDPOINTS_MAX: Final = 20
"""Each event is a row and a request for each endpoint that wants it."""
FAILURE_MAX: Final = 300
UNKNOWN_OUTCOME: Final = "the sender ended before it noted the outcome"
DISABLED: Final = "the endpoint is disabled"
GONE: Final = "gone"
BY_OPERATOR: Final = "operator"


@dataclass(frozen=True, slots=True)
class WebhookEndpoint:
    """A URL of the merchant and the topics that it wants. Secrets are sealed; ``old_secret`` is b"" when there is none."""

    id: int
    url: str
    event_types: tuple[str, ...]
    description: str
    enabled: bool
    disable_reason: str
    secret: bytes = field(repr=False)
    old_secret: bytes = field(repr=False)
    old_until_ms: int
    create_ms: int

    def wants(self, topic: str) -> bool:
        """Whether events of a topic are posted to it."""
        return self.enabled and topic in self.event_types

    def switched(self, *, on: bool, reason: str) -> WebhookEndpoint:
        """Enable it, or disable it for a reason."""
        return replace(self, enabled=on, disable_reason="" if on else reason)

    def rotated(self, secret: bytes, now_ms: int) -> WebhookEndpoint:
        """Sign with another secret; the one before is good for a day, one that is older still no more."""
        return replace(self, secret=secret, old_secret=self.secret, old_until_ms=now_ms + OLD_SECRET_MS)

    def secrets(self, now_ms: int) -> tuple[bytes, ...]:
        """Return the sealed secrets that sign now, the newest first."""
        return (self.secret, self.old_secret) if self.old_secret and now_ms < self.old_until_ms else (self.secret,)


@dataclass(frozen=True, slots=True)
class WebhookDelivery:
    """An event on its way to one endpoint.

    ``spent`` are the tries before it was last sent again by hand, which was at ``begin_ms``. ``due_ms``: until then nobody
    may try it, for somebody does or has just failed.
    """

    id: int
    endpoint_id: int
    event_id: str
    topic: str
    body: str
    status: str
    attempts: int
    spent: int
    failure: str
    create_ms: int
    begin_ms: int
    due_ms: int
    deliver_ms: int | None

    @property
    def webhook_id(self) -> str:
        """What the receiver knows it by: one event, one id, however often it is tried. It has no full stop."""
        return f"msg_{self.endpoint_id}_{self.event_id}"

    @property
    def is_spent(self) -> bool:
        """Whether no try is left."""
        return self.attempts - self.spent >= TRIES_MAX

    def may_be_tried(self, now_ms: int) -> bool:
        """Whether a sender may take it now."""
        return self.status == states.WEBHOOK_DELIVERY_PENDING and self.due_ms <= now_ms

    def claimed(self, now_ms: int) -> WebhookDelivery:
        """Begin a try: it is counted, and nobody else begins one until its lease ends."""
        assert self.may_be_tried(now_ms)
        return replace(self, attempts=self.attempts + 1, due_ms=now_ms + LEASE_MS)

    def delivered(self, now_ms: int) -> WebhookDelivery:
        """The endpoint took it."""
        return replace(self._moved(states.WEBHOOK_DELIVERY_DELIVERED), failure="", deliver_ms=now_ms)

    def tried(self, failure: str, now_ms: int, stretch: float) -> WebhookDelivery:
        """The try failed: pause, longer each time, or give it up after the last; ``stretch`` is the jitter."""
        if self.is_spent:
            return self.given_up(failure)
        pause_ms = int(PAUSES_MS[self.attempts - self.spent - 1] * stretch)
        return replace(self, failure=failure[:FAILURE_MAX], due_ms=now_ms + pause_ms)

    def given_up(self, failure: str) -> WebhookDelivery:
        """Try it no more."""
        return replace(self._moved(states.WEBHOOK_DELIVERY_FAILED), failure=failure[:FAILURE_MAX])

    def resent(self, now_ms: int) -> WebhookDelivery:
        """Try it again, at once and with all its pauses."""
        return replace(
            self._moved(states.WEBHOOK_DELIVERY_PENDING), spent=self.attempts, begin_ms=now_ms, due_ms=now_ms
        )

    def _moved(self, status: str) -> WebhookDelivery:
        assert status in states.WEBHOOK_DELIVERY_NEXT[self.status], f"{self.status} -> {status}"
        return replace(self, status=status)


def pending(
    delivery_id: int, *, endpoint_id: int, event_id: str, topic: str, body: str, now_ms: int
) -> WebhookDelivery:
    """Make a delivery that waits for its first try."""
    return WebhookDelivery(
        id=delivery_id,
        endpoint_id=endpoint_id,
        event_id=event_id,
        topic=topic,
        body=body,
        status=states.WEBHOOK_DELIVERY_PENDING,
        attempts=0,
        spent=0,
        failure="",
        create_ms=now_ms,
        begin_ms=now_ms,
        due_ms=now_ms,
        deliver_ms=None,
    )


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of a delivery, number ``attempt``, with the secrets in clear."""

    delivery_id: int
    endpoint_id: int
    attempt: int
    url: str
    webhook_id: str
    body: bytes
    secrets: tuple[bytes, ...] = field(repr=False)

    def headers(self, now_ms: int) -> Mapping[str, str]:
        """Return what Standard Webhooks puts into the head of the request: one signature for each secret."""
        at_s = now_ms // 1000
        signatures = (signature(secret, self.webhook_id, at_s, self.body) for secret in self.secrets)
        return {
            "webhook-id": self.webhook_id,
            "webhook-timestamp": str(at_s),
            "webhook-signature": " ".join(signatures),
        }


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a try ended: ``failure`` is "" when the endpoint took it; ``gone``: it wants nothing any more."""

    failure: str = ""
    gone: bool = False


def signature(secret: bytes, webhook_id: str, at_s: int, body: bytes) -> str:
    """Sign one try."""
    signed = hmac.digest(secret, f"{webhook_id}.{at_s}.".encode() + body, "sha256")
    return f"v1,{base64.b64encode(signed).decode()}"


def secret_text(secret: bytes) -> str:
    """Render a secret as it is told to people."""
    return f"whsec_{base64.b64encode(secret).decode()}"
