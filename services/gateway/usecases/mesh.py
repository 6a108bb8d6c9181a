"""What the edge answers. Nothing here writes, so nothing is batched: one call, one answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.kernel.errors import DomainError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.gateway import ports
    from services.gateway.domain import MeshHealth, Route
    from services.kernel.caller import Caller
    from services.kernel.clock import Clock
    from services.kernel.pages import Page


class Health:
    """GetHealth, with its last answer at hand. Safe to use from threads."""

    def __init__(self, mesh: ports.Mesh, clock: Clock, stale_s: float) -> None:
        """Ask ``mesh``; give an answer again while it is at most ``stale_s`` old and no newer one can be had."""
        self._mesh, self._clock, self._stale_s = mesh, clock, stale_s
        self._last: tuple[float, MeshHealth] | None = None

    def get_health(self, caller: Caller) -> MeshHealth:
        """How the mesh is. Raises UNAVAILABLE when that is not known: whoever asks us must then take us for down."""
        try:
            found = self._mesh.health(caller)
        except DomainError:
            return self._remembered()
        if not found.services:
            raise DomainError("UNAVAILABLE")
        self._last = (self._clock.monotonic(), found)
        return found

    def _remembered(self) -> MeshHealth:
        last = self._last
        if last is None or self._clock.monotonic() - last[0] > self._stale_s:
            raise DomainError("UNAVAILABLE") from None
        return last[1]


def list_routes(routes: ports.Routes, page: Page) -> tuple[Sequence[Route], str]:
    """One page of the methods by full name, and the token of the next page."""
    following = [route for route in routes.all() if route.method > page.after]
    return page.cut(following[: page.limit], lambda route: route.method)
