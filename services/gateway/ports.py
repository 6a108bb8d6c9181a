"""What the gateway's use cases need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.gateway.domain import MeshHealth, Route
    from services.kernel.caller import Caller


class Mesh(Protocol):
    """Who knows how the services are."""

    def health(self, caller: Caller) -> MeshHealth:
        """Ask, within the caller's deadline. Raises DomainError when there is no answer."""
        ...


class Routes(Protocol):
    """Where the methods of the contract are listed."""

    def all(self) -> Sequence[Route]:
        """Every method, by full name."""
        ...
