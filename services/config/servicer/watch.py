"""Who waits for a change of an entry."""

from __future__ import annotations

import asyncio
import contextlib

HOLD_S = 2.0
"""How long an answer is kept back: config ends no sooner than this after it was asked to."""


class Turns:
    """Counts changes, and wakes who waits for the next one. A part of the App, on the event loop."""

    def __init__(self) -> None:
        """Begin with none."""
        self.count = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken = asyncio.Event()

    async def start(self) -> None:
        """Begin on the running loop."""
        self._loop = asyncio.get_running_loop()

    def stop(self) -> None:
        """Nothing to undo."""

    def turn(self) -> None:
        """Say that something changed. Callable from any thread."""
        self.count += 1
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        woken, self._woken = self._woken, asyncio.Event()
        woken.set()

    async def after(self, count: int, seconds: float) -> bool:
        """Wait for a change after ``count``; whether there was one in time. One just before the wait is not missed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.count <= count:
                    await self._woken.wait()
        return self.count > count
