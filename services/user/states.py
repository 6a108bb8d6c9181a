"""States and their allowed changes. Generated from protos/paymesh/user/v1 by `tox -e gen`; do not edit."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

# paymesh.user.v1.User.Status
ACTIVE: Final = "active"
INACTIVE: Final = "inactive"
SUSPENDED: Final = "suspended"

ALL: Final[tuple[str, ...]] = (
    ACTIVE,
    INACTIVE,
    SUSPENDED,
)
"""Every state, in the order of the contract."""

INITIAL: Final[tuple[str, ...]] = (ACTIVE,)
"""The states in which an entity is made."""

NEXT: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        ACTIVE: frozenset({INACTIVE, SUSPENDED}),
        INACTIVE: frozenset(),
        SUSPENDED: frozenset(),
    }
)
"""State -> the states that may follow it; none: at rest for ever."""

EVENTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        ACTIVE: "user.created",
    }
)
"""State -> the topic of the event that entering it publishes."""

CHECK: Final = f"({', '.join(map(repr, ALL))})"
"""The list behind IN of the SQL CHECK."""
