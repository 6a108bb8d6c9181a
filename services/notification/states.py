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

EVENTS: Final[Mapping[str, str]] = MappingProxyType({})
"""State -> the topic of the event that entering it publishes."""

CHECK: Final = f"({', '.join(map(repr, ALL))})"
"""The list behind IN of the SQL CHECK."""
