"""Failpoints: places in the code where a test ends the process, as a crash there would.

Inert unless PAYMESH_FAILPOINTS names a folder. A file in it arms a point, or one label of it, by its name: ``P4`` or
``P4.balance``; a number in it says how often the point is passed before. Exactly one process takes the file: it renames
it to ``….hit``, writes there which point it was, who it is and when, and is gone by SIGKILL, so that nothing of it is
put in order.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from pathlib import Path

_folder: Path | None = None


def arm(folder: str) -> None:
    """Look for armed points in ``folder`` from now on; "": nowhere. Once, when a process starts."""
    global _folder  # noqa: PLW0603 - of the process, like its environment
    _folder = Path(folder) if folder else None


def reach(point: str, label: str = "") -> None:
    """Die here when this point is armed, alone or with this label; else do nothing."""
    if _folder is not None:
        _die_if_armed(_folder, (f"{point}.{label}", point) if label else (point,))


def _die_if_armed(folder: Path, names: tuple[str, ...]) -> None:
    for name in names:
        try:
            file = (folder / name).open("r+")
        except FileNotFoundError:
            continue
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_still(folder / name, file.fileno()):
                continue  # who had the lock before took it
            passes = int(file.read() or 0)
            file.seek(0)
            file.truncate()
            if passes:
                file.write(str(passes - 1))
                continue
            (folder / name).rename(folder / f"{name}.hit")
            json.dump({"point": name, "pid": os.getpid(), "time_ms": time.time_ns() // 1_000_000}, file)
            file.flush()
            os.fsync(file.fileno())
            os.kill(os.getpid(), signal.SIGKILL)


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
