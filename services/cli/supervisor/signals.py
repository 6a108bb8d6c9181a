"""SIGINT, SIGTERM and a closed terminal: the first asks for an ordered end, the second for one at once."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def asked_to_end(insist: Callable[[], None]) -> asyncio.Event:
    """Return what the first signal sets; each later one calls ``insist``."""
    asked = asyncio.Event()

    def hear() -> None:
        if asked.is_set():
            insist()
        asked.set()

    for number in SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, hear)
    return asked
