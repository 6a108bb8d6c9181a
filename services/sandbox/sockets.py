"""Answers that never come: a socket that is dropped after the work was done, or that hangs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar

from starlette.responses import Response
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

HANG_MAX_S = 300.0
"""A client that waits longer than this waits for ever; its socket is dropped."""


class DroppableProtocol(H11Protocol):
    """HTTP/1.1 whose connections can be found by the client's address, to be cut off in the middle of a request."""

    open: ClassVar[dict[tuple[str, int], asyncio.Transport]] = {}

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Remember the connection."""
        super().connection_made(transport)
        if self.client:
            self.open[self.client] = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        if self.client:
            self.open.pop(self.client, None)
        super().connection_lost(exc)


class Dropped(Response):
    """No answer: the connection is reset. Whoever calls without a socket (a test of the app alone) gets the error itself."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's form
        """Cut the connection."""
        await _cut(scope, receive)


class Hanging(Response):
    """No answer while the client waits."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's form
        """Wait until the client goes, or has waited long enough to be cut off."""
        try:
            await asyncio.wait_for(_gone(receive), HANG_MAX_S)
        except TimeoutError:
            await _cut(scope, receive)


async def _cut(scope: Scope, receive: Receive) -> None:
    client: Any = scope.get("client")
    transport = DroppableProtocol.open.get(tuple(client)) if client else None
    if transport is None:
        raise ConnectionResetError("the provider dropped the connection")
    transport.abort()
    await _gone(receive)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
