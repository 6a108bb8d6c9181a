"""Rules of notifications and of webhooks: pure, no I/O, clock or randomness."""

from services.notification.domain.notification import Channel, Contact, Notification, queued
from services.notification.domain.target import Target, admitted, target_of
from services.notification.domain.webhook import Attempt, Outcome, WebhookDelivery, WebhookEndpoint, pending

__all__ = [
    "Attempt",
    "Channel",
    "Contact",
    "Notification",
    "Outcome",
    "Target",
    "WebhookDelivery",
    "WebhookEndpoint",
    "admitted",
    "pending",
    "queued",
    "target_of",
]
