"""States and their allowed changes. Generated from protos/paymesh/order/v1 by `tox -e gen`; do not edit."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

# paymesh.order.v1.Order.Status
PENDING: Final = "pending"
PAID: Final = "paid"
CANCELLED: Final = "cancelled"
REFUNDED: Final = "refunded"

ALL: Final[tuple[str, ...]] = (
    PENDING,
    PAID,
    CANCELLED,
    REFUNDED,
)
"""Every state, in the order of the contract."""

INITIAL: Final[tuple[str, ...]] = (PENDING,)
"""The states in which an entity is made."""

NEXT: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        PENDING: frozenset({PAID, CANCELLED}),
        PAID: frozenset({REFUNDED}),
        CANCELLED: frozenset(),
        REFUNDED: frozenset(),
    }
)
"""State -> the states that may follow it; none: at rest for ever."""

EVENTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        PENDING: "order.created",
        PAID: "order.paid",
        CANCELLED: "order.cancelled",
        REFUNDED: "order.refunded",
    }
)
"""State -> the topic of the event that entering it publishes."""

CHECK: Final = f"({', '.join(map(repr, ALL))})"
"""The list behind IN of the SQL CHECK."""
