"""Ties a child to this process: when this process dies, however it dies, the kernel kills the child."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def tether() -> Callable[[], None] | None:
    """Return what a child must run between fork and exec; None where the kernel has no such thing.

    To be called, and the child to be started, on the main thread: the kernel takes the end of the forking thread for
    the end of the parent. The signal is SIGKILL, since nobody is left to wait for an orderly end.
    """
    if _LIBC is None:
        return None
    prctl, parent = _LIBC.prctl, os.getpid()

    def arm() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)

    return arm
