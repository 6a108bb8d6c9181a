"""A service running in this process behind its unix socket, called as its own Envoy would call it."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, Self, TypeVar

import grpc

from services.platform.process import App, Running

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


R = TypeVar("R")


class Served:
    """Starts an App in a thread with an event loop of its own; `call` sends what an Envoy would send."""

    def __init__(self, app: App) -> None:
        """Serve ``app`` at its settings' socket."""
        self._app, self._loop = app, asyncio.new_event_loop()
        self._stopped = False
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.channel = grpc.insecure_channel(app.settings.listen)

    def __enter__(self) -> Self:
        """Start it; it serves when this returns."""
        self._thread.start()
        self._running = self._await(self._make)
        self._await(self._running.start)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it, unless that was done."""
        self.channel.close()
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def stop(self) -> None:
        """Stop it in order."""
        if not self._stopped:
            self._stopped = True
            self._await(self._running.stop)

    def call(
        self,
        method: Callable[..., R],
        request: object,
        *,
        user: int = 0,
        scope: str = "",
        peer: str = "edge",
        key: str = "",
        timeout: float = 10,
        **metadata: str,
    ) -> R:
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

    def _await(self, make: Callable[[], Coroutine[Any, Any, R]]) -> R:
        return asyncio.run_coroutine_threadsafe(make(), self._loop).result(15)
