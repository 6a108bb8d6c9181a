"""The limits of the contract that all edges count together, by the full name of their method."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.contract.load import contract
from services.gateway.domain import Limit

if TYPE_CHECKING:
    from collections.abc import Mapping


def limits() -> Mapping[str, Limit]:
    """Read them."""
    rules = {method.full_name: method.rate_limit for method in contract().methods.values()}
    return {name: Limit(rule.requests, rule.per_ms) for name, rule in rules.items() if rule and rule.is_global}
