"""The port Routes over the contract."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.contract.load import contract
from services.gateway.domain import Route

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.contract.model import Method


class ContractRoutes:
    """Every method of the contract, listed once."""

    def __init__(self) -> None:
        """Read the contract."""
        methods = sorted(contract().methods.values(), key=lambda method: method.full_name)
        self._routes = tuple(_route(method) for method in methods)

    def all(self) -> Sequence[Route]:
        """Every method, by full name."""
        return self._routes


def _route(method: Method) -> Route:
    return Route(
        method=method.full_name,
        http=f"{method.http.verb} {method.http.path}" if method.http else "",
        auth=str(method.auth),
        scopes=method.scopes,
        timeout_ms=method.timeout_ms,
        retries=method.retry_attempts,
        idempotency=str(method.idempotency),
        rate_limit=str(method.rate_limit) if method.rate_limit else "",
        callers=method.callers,
    )
