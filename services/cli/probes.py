"""Whether something does its work: asked over the very thing that it is asked by others."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import ssl
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

_TIMEOUT_S = 1.0
FAILURES = (OSError, TimeoutError, http.client.HTTPException, ValueError)
DRAIN_S = 8.0
"""Longer than the longest time-out of the contract, 5 s."""
_QUIET_LOOKS = 15
_LEAVE_S = 1.0
"""Time for clients that are busy, on a machine that may be too, to see `connection: close` or GOAWAY, and to leave."""


def accepts(socket: Path) -> Callable[[], Awaitable[bool]]:
    """Probe: a unix socket takes connections."""

    async def probe() -> bool:
        with contextlib.suppress(*FAILURES):
            _, writer = await asyncio.wait_for(asyncio.open_unix_connection(str(socket)), _TIMEOUT_S)
            writer.close()
            return True
        return False

    return probe


def pongs(socket: Path) -> Callable[[], Awaitable[bool]]:
    """Probe: a Redis on a unix socket answers PING."""

    async def probe() -> bool:
        with contextlib.suppress(*FAILURES):
            reader, writer = await asyncio.wait_for(asyncio.open_unix_connection(str(socket)), _TIMEOUT_S)
            writer.write(b"PING\r\n")
            answer = await asyncio.wait_for(reader.readline(), _TIMEOUT_S)
            writer.close()
            return answer == b"+PONG\r\n"
        return False

    return probe


def answers(port: int, path: str) -> Callable[[], Awaitable[bool]]:
    """Probe: a server on loopback answers GET ``path`` with 200."""

    async def probe() -> bool:
        with contextlib.suppress(*FAILURES):
            return (await asyncio.to_thread(ask, port, path))[0] == http.client.OK
        return False

    return probe


def ask(port: int, path: str, *, verb: str = "GET", context: ssl.SSLContext | None = None) -> tuple[int, bytes]:
    """Ask a server on loopback; return status and body. Raises OSError or HTTPException."""
    connection: http.client.HTTPConnection
    if context:
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=_TIMEOUT_S, context=context)
    else:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)
    with contextlib.closing(connection):
        connection.request(verb, path)
        answer = connection.getresponse()
        return answer.status, answer.read()


class Edge:
    """The edge as a client finds it, with its certificate checked against the CA of the mesh."""

    def __init__(self, port: int, ca: Path) -> None:
        """Ask at ``port``."""
        self._port, self._ca = port, ca
        self._context: ssl.SSLContext | None = None

    def health(self) -> dict[str, Any] | None:
        """Return what GET /healthz says; None: it says nothing yet."""
        with contextlib.suppress(*FAILURES):
            self._context = self._context or ssl.create_default_context(cafile=str(self._ca))
            status, body = ask(self._port, "/healthz", context=self._context)
            if status == http.client.OK:
                health: dict[str, Any] = json.loads(body)["health"]
                return health
        return None


def drained(admin: int) -> Callable[[], Awaitable[None]]:
    """Make an Envoy end what it has begun, DRAIN_S at most.

    First each answer asks its client to go; then nobody new is let in; then what is still at work is waited for.
    """

    async def drain() -> None:
        with contextlib.suppress(*FAILURES):
            async with asyncio.timeout(DRAIN_S):
                await asyncio.to_thread(ask, admin, "/drain_listeners?graceful", verb="POST")
                await asyncio.sleep(_LEAVE_S)
                await asyncio.to_thread(ask, admin, "/drain_listeners", verb="POST")
                quiet = 0  # looks in a row: a request that was sent may not have been read yet
                while quiet < _QUIET_LOOKS:
                    quiet = 0 if await asyncio.to_thread(_active_requests, admin) else quiet + 1
                    await asyncio.sleep(0.02)

    return drain


def _active_requests(admin: int) -> int:
    """Return how many requests of clients an Envoy has; its admin listener's own are not among them."""
    _, body = ask(admin, "/stats?filter=downstream_rq_active$&format=json")
    stats = json.loads(body)["stats"]
    return sum(each["value"] for each in stats if ".admin." not in each.get("name", ""))
