"""Timed work: a thread that calls a function every so often, with jitter, and outlives its failures."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING

from services.platform import telemetry

if TYPE_CHECKING:
    from collections.abc import Callable


class Every:
    """Calls ``work`` every ``seconds`` (10 % jitter). A part of an App."""

    def __init__(self, seconds: float, work: Callable[[], object], name: str) -> None:
        """Prepare the thread."""
        self._seconds, self._work, self._name = seconds, work, name
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start; the first call comes at once."""
        self._thread.start()

    def stop(self) -> None:
        """End after the call that runs."""
        self._stopping.set()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._work()
            except Exception:  # noqa: BLE001 - a job outlives its failures
                telemetry.log.exception("job.failed", job=self._name)
            self._stopping.wait(self._seconds * random.uniform(0.9, 1.1))  # noqa: S311 - jitter
