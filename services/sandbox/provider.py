"""What every provider brings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.routing import BaseRoute

    from services.sandbox.script import Scripted


class Provider(Protocol):
    """A part of the outside world. Its ``name`` is the one of its script, /scripts/{name}."""

    name: str

    @property
    def script(self) -> Scripted:
        """How it misbehaves."""
        ...

    def routes(self) -> Sequence[BaseRoute]:
        """Return what it answers over HTTP."""
        ...

    async def start(self) -> None:
        """Open what it listens on beside HTTP."""
        ...

    async def stop(self) -> None:
        """Close it."""
        ...
