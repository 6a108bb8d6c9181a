"""Roles, and the scopes that a token gets from them."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from services.kernel.errors import DomainError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

CUSTOMER: Final = "customer"
SUPPORT: Final = "support"
OPERATOR: Final = "operator"

ROLES: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        # One's own data needs no scope.
        CUSTOMER: frozenset(),
        # Reads what customers ask about, changes nothing.
        SUPPORT: frozenset(
            {"balance:read", "notifications:read", "orders:read", "payments:read", "risk:read", "users:read"}
        ),
        # Everything; a test compares it with the scopes of the contract.
        OPERATOR: frozenset(
            {
                "balance:read",
                "balance:write",
                "config:read",
                "config:write",
                "inventory:write",
                "keys:read",
                "keys:write",
                "ledger:read",
                "mesh:read",
                "mesh:write",
                "notifications:read",
                "notifications:send",
                "orders:read",
                "orders:write",
                "payments:capture",
                "payments:read",
                "payments:reconcile",
                "payments:refund",
                "payments:review",
                "risk:assess",
                "risk:read",
                "risk:write",
                "users:read",
                "users:write",
                "webhooks:read",
                "webhooks:write",
            }
        ),
    }
)
"""Role -> scopes."""


def check_roles(roles: Iterable[str]) -> tuple[str, ...]:
    """Return the roles in a fixed order. Refuses with ROLE_UNKNOWN."""
    wanted = tuple(sorted(set(roles)))
    for role in wanted:
        if role not in ROLES:
            raise DomainError("ROLE_UNKNOWN", role=role)
    return wanted


def scopes_of(roles: Iterable[str]) -> frozenset[str]:
    """Join the scopes of ``roles``. A role that this version does not know any more gives none."""
    return frozenset[str]().union(*(ROLES.get(role, frozenset()) for role in roles))
