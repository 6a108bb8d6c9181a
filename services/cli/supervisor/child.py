"""One child: started, watched, started again when it dies, stopped when it is told."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Protocol

from services.cli.supervisor.pipe import Pipe
from services.cli.supervisor.tether import tether

if TYPE_CHECKING:
    from services.cli.supervisor.spec import Spec

DELAYS_S = (0.1, 0.3, 0.8, 2.0, 5.0, 10.0)
"""Wait before a start, by how many starts in a row came to nothing. The last one repeats, without an end."""
STEADY_S = 1.0
"""A child that got ready and lived this long did not fail at starting: its next death is the first in a row again."""
_PROBE_S = 0.05


class State(Enum):
    """Where a child stands."""

    STARTING = "starting"
    READY = "ready"
    DOWN = "down"
    STOPPED = "stopped"


class Watcher(Protocol):
    """Who wants to know."""

    def changed(self, child: Child) -> None:
        """Hear that a child's state or pid is another."""
        ...

    def line(self, name: str, text: str) -> None:
        """Hear a line that a child said, without its end."""
        ...

    def died(self, child: Child, how: str, delay_s: float) -> None:
        """Hear that a child ended without being told, and when it is started again."""
        ...


class Child:
    """A child process and what became of it. Times are seconds of the monotonic clock."""

    def __init__(self, spec: Spec, watcher: Watcher) -> None:
        """Prepare; nothing runs until ``keep``."""
        self.spec = spec
        self.state = State.STARTING
        self.pid = 0
        self.starts = 0
        self.futile = 0
        """Starts in a row that came to nothing; the next one that does adds to it."""
        self.began = time.monotonic()
        self.ready_after_s = 0.0
        """From the first ``keep`` or the last restart until it was ready."""
        self.ready = asyncio.Event()
        self._watcher = watcher
        self._told = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None

    async def keep(self) -> None:
        """Run the child, again and again, until ``stop``."""
        while not self._told.is_set():
            self.began = time.monotonic()
            how = await self._run_once()
            lived = time.monotonic() - self.began
            self.futile = 0 if self.ready.is_set() and lived >= STEADY_S else self.futile + 1
            self.ready.clear()
            self.pid = 0
            if self._told.is_set():
                break
            delay = DELAYS_S[min(max(self.futile - 1, 0), len(DELAYS_S) - 1)]
            self._become(State.DOWN)
            self._watcher.died(self, how, delay)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._told.wait(), delay)
        self._become(State.STOPPED)

    async def stop(self) -> None:
        """Drain, ask to end, insist after the grace; return when it is gone for good."""
        running = self._process
        if running and running.returncode is None and self.spec.drain and self.ready.is_set():
            await self.spec.drain()
        self._told.set()
        running = self._process
        if not running or running.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            running.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(running.wait(), self.spec.grace_s)
        except TimeoutError:
            self._watcher.line(self.spec.name, f"did not end within {self.spec.grace_s:g} s of SIGTERM: killed")
            self.abandon()
            await running.wait()

    def abandon(self) -> None:
        """End it at once and for good."""
        self._told.set()
        if self._process and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def _run_once(self) -> str:
        """Start the child and return how it ended."""
        pipe = Pipe(partial(self._watcher.line, self.spec.name))
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self.spec.argv,
                env=dict(self.spec.environ),
                cwd=self.spec.cwd,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=pipe.entry,
                stderr=pipe.entry,
                start_new_session=True,  # the terminal's Ctrl-C goes to the supervisor alone, which stops in order
                preexec_fn=tether(),
            )
        except OSError as error:
            pipe.handed_over()
            pipe.close()
            return f"could not be started: {error}"
        pipe.handed_over()
        self.pid, self.starts = self._process.pid, self.starts + 1
        self._become(State.STARTING)
        if self._told.is_set():  # told while it was being started
            self.abandon()
        probe = asyncio.create_task(self._probe())
        code = await self._process.wait()
        probe.cancel()
        pipe.close()
        return ended(code)

    async def _probe(self) -> None:
        while self.spec.probe and not await self.spec.probe():  # noqa: ASYNC110 - it happens in another process
            await asyncio.sleep(_PROBE_S)
        self.ready_after_s = time.monotonic() - self.began
        self.ready.set()
        self._become(State.READY)

    def _become(self, state: State) -> None:
        self.state = state
        self._watcher.changed(self)


def ended(code: int) -> str:
    """Say in words how a process ended."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
