"""A service running in this process behind its unix socket, called as its own Envoy would call it."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, Self

import grpc

from services.platform.process import App, Running

if TYPE_CHECKING:
    from collections.abc import Callable


class Served:
    """Starts an App in a thread with an event loop of its own; `call` sends what an Envoy would send."""

    def __init__(self, app: App) -> None:
        """Serve ``app`` at its settings' socket."""
        self._app, self._loop = app, asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.channel = grpc.insecure_channel(app.settings.listen)

    def __enter__(self) -> Self:
        """Start it; it serves when this returns."""
        self._thread.start()
        self._running = self._await(self._make)
        self._await(self._running.start)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it in order."""
        self.channel.close()
        self._await(self._running.stop)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def call(
        self,
        method: Callable[..., Any],
        request: object,
        *,
        user: int = 0,
        scope: str = "",
        peer: str = "edge",
        key: str = "",
        timeout: float = 10,
        **metadata: str,
    ) -> Any:
        """Call a stub's method as ``peer`` on behalf of ``user``; ``key`` is the idempotency key."""
        headers = {
            "x-forwarded-client-cert": f"Hash=00;URI=spiffe://paymesh/ns/default/sa/{peer}",
            "x-paymesh-sub": str(user or ""),
            "x-paymesh-scope": scope,
            "x-paymesh-sid": metadata.pop("sid", "s1"),
            "idempotency-key": key,
            **{k.replace("_", "-"): v for k, v in metadata.items()},
        }
        return method(request, timeout=timeout, metadata=[(k, v) for k, v in headers.items() if v])

    async def _make(self) -> Running:
        return Running(self._app)  # grpc.aio binds the server to the loop that makes it

    def _await(self, make: Callable[[], Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(make(), self._loop).result(15)
