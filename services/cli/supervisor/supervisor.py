"""All children: started at once, kept, stopped tier by tier."""

from __future__ import annotations

import asyncio
import sys
from itertools import groupby
from typing import TYPE_CHECKING

from services.cli.supervisor.child import Child

if TYPE_CHECKING:
    from services.cli.supervisor.child import Watcher
    from services.cli.supervisor.spec import Spec


class Supervisor:
    """Keeps every child that it was given until ``stop``. Lives on the main thread's event loop."""

    def __init__(self, watcher: Watcher) -> None:
        """Report to ``watcher``."""
        self._watcher = watcher
        self.children: dict[str, Child] = {}
        self._keeping: dict[str, asyncio.Task[None]] = {}
        self._stopping = False
        _watch_by_descriptor()

    def start(self, spec: Spec) -> Child:
        """Start a child and keep it; after ``stop`` it stays unborn."""
        child = Child(spec, self._watcher)
        self.children[spec.name] = child
        if not self._stopping:
            self._keeping[spec.name] = asyncio.create_task(child.keep(), name=spec.name)
        return child

    async def stop(self) -> None:
        """End all children, the lowest tier first; a tier begins when the one before is gone."""
        self._stopping = True
        ordered = sorted(self.children.values(), key=lambda child: child.spec.tier)
        for _, tier in groupby(ordered, key=lambda child: child.spec.tier):
            await asyncio.gather(*(self._end(child) for child in tier))

    async def _end(self, child: Child) -> None:
        await child.stop()
        if keeping := self._keeping.get(child.spec.name):
            await keeping

    async def remove(self, name: str) -> None:
        """End a child and know it no longer; the others stay."""
        await self._end(self.children[name])
        del self.children[name]

    def kill(self) -> None:
        """End all children at once; for whoever cannot wait for ``stop``."""
        self._stopping = True
        for child in self.children.values():
            child.abandon()


def _watch_by_descriptor() -> None:
    """Let asyncio wait for children by pidfd: up to Python 3.11 its default is a thread for each child."""
    if sys.version_info < (3, 12) and sys.platform == "linux":
        watcher = asyncio.PidfdChildWatcher()
        watcher.attach_loop(asyncio.get_running_loop())
        asyncio.set_child_watcher(watcher)
