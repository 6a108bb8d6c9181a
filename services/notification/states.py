"""States and their allowed changes. Generated from protos/paymesh/notification/v1 by `tox -e gen`; do not edit."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

# paymesh.notification.v1.Notification.Status
QUEUED: Final = "queued"
SENT: Final = "sent"
FAILED: Final = "failed"

ALL: Final[tuple[str, ...]] = (
    QUEUED,
    SENT,
    FAILED,
)
"""Every state, in the order of the contract."""

INITIAL: Final[tuple[str, ...]] = (QUEUED,)
"""The states in which an entity is made."""

NEXT: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        QUEUED: frozenset({SENT, FAILED}),
        SENT: frozenset(),
        FAILED: frozenset(),
    }
)
"""State -> the states that may follow it; none: at rest for ever."""

EVENTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        FAILED: "notification.failed",
    }
)
"""State -> the topic of the event that entering it publishes."""

CHECK: Final = f"({', '.join(map(repr, ALL))})"
"""The list behind IN of the SQL CHECK."""

# paymesh.notification.v1.WebhookDelivery.Status
WEBHOOK_DELIVERY_PENDING: Final = "pending"
WEBHOOK_DELIVERY_DELIVERED: Final = "delivered"
WEBHOOK_DELIVERY_FAILED: Final = "failed"

WEBHOOK_DELIVERY_ALL: Final[tuple[str, ...]] = (
    WEBHOOK_DELIVERY_PENDING,
    WEBHOOK_DELIVERY_DELIVERED,
    WEBHOOK_DELIVERY_FAILED,
)
"""Every state, in the order of the contract."""

WEBHOOK_DELIVERY_INITIAL: Final[tuple[str, ...]] = (WEBHOOK_DELIVERY_PENDING,)
"""The states in which an entity is made."""

WEBHOOK_DELIVERY_NEXT: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        WEBHOOK_DELIVERY_PENDING: frozenset({WEBHOOK_DELIVERY_DELIVERED, WEBHOOK_DELIVERY_FAILED}),
        WEBHOOK_DELIVERY_DELIVERED: frozenset(),
        WEBHOOK_DELIVERY_FAILED: frozenset({WEBHOOK_DELIVERY_PENDING}),
    }
)
"""State -> the states that may follow it; none: at rest for ever."""

WEBHOOK_DELIVERY_EVENTS: Final[Mapping[str, str]] = MappingProxyType({})
"""State -> the topic of the event that entering it publishes."""

WEBHOOK_DELIVERY_CHECK: Final = f"({', '.join(map(repr, WEBHOOK_DELIVERY_ALL))})"
"""The list behind IN of the SQL CHECK."""
