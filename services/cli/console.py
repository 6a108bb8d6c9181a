"""What `paymesh up` shows: the start-up list with times, the children's lines with prefixes, and a log file for each."""

from __future__ import annotations

import json
import sys
import time
import zlib
from collections import deque
from typing import IO, TYPE_CHECKING

from services.cli.supervisor.child import State

if TYPE_CHECKING:
    from pathlib import Path

    from services.cli.supervisor.child import Child

LOG_MAX = 16 << 20
"""Bytes of a log file; then it becomes NAME.log.1 and a new one begins, so a child takes twice this at most."""
LAST_LINES = 10
"""Lines of a child that are repeated when it is given up: a traceback's end, and what came just before."""
_COLOURS = (36, 32, 33, 35, 34, 96, 92, 93, 95, 94)
_WIDTH = 20


class LogFile:
    """A child's log, cut at LOG_MAX. ``last`` are the newest lines of this run."""

    def __init__(self, path: Path) -> None:
        """Append to ``path``."""
        self.path = path
        self.last: deque[str] = deque(maxlen=LAST_LINES)
        self._open()

    def _open(self) -> None:
        self._file: IO[str] = self.path.open("a", encoding="utf-8", buffering=1)
        self._size = self.path.stat().st_size

    def write(self, line: str) -> None:
        """Add a line."""
        if self._size > LOG_MAX:
            self._file.close()
            self.path.replace(self.path.with_suffix(".log.1"))
            self._open()
        self.last.append(line)
        self._file.write(line + "\n")
        self._size += len(line) + 1

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


class Console:
    """Shows, and remembers for nobody. With ``as_json`` standard output has events alone, one JSON object a line.

    What children say goes to standard error, so that standard output can be read by a program or a person in a hurry.
    """

    def __init__(self, logs: Path, *, as_json: bool) -> None:
        """Keep log files in the folder ``logs``."""
        self._logs, self._as_json = logs, as_json
        self._files: dict[str, LogFile] = {}
        self._began = time.monotonic()
        self._colour = sys.stderr.isatty()
        self._mark = "\x1b[32m✓\x1b[0m" if sys.stdout.isatty() else "✓"

    def line(self, name: str, text: str) -> None:
        """Show and file a line of a child."""
        self._log(name).write(text)
        prefix = f"{name:<{_WIDTH}}│ "
        if self._colour:  # the same name has the same colour in every run
            prefix = f"\x1b[{_COLOURS[zlib.crc32(name.encode()) % len(_COLOURS)]}m{prefix}\x1b[0m"
        sys.stderr.write(f"{prefix}{text}\n")

    def _log(self, name: str) -> LogFile:
        if name not in self._files:
            self._files[name] = LogFile(self._logs / f"{name}.log")
        return self._files[name]

    def last_words(self, name: str) -> list[str]:
        """Return the newest lines that a child said in this run, and where all of them are."""
        log = self._log(name)
        return [*(f"{name}: {line}" for line in log.last), f"Everything that {name} said is in {log.path}."]

    def changed(self, child: Child) -> None:
        """Show a child that got ready: when, and how long it took. A program also hears of those that were stopped."""
        if child.state is State.STOPPED:
            self.event("child_stopped", None, name=child.spec.name)
        if child.state is State.READY:
            again = f", start no. {child.starts}" if child.starts > 1 else ""
            self.event(
                "child_ready",
                f"  {self._mark} {child.spec.name:<{_WIDTH}} {child.ready_after_s:6.2f} s{again}",
                name=child.spec.name, pid=child.pid, took_s=round(child.ready_after_s, 3), starts=child.starts,
            )  # fmt: skip

    def died(self, child: Child, how: str, delay_s: float) -> None:
        """Show that a child died, and when it comes back."""
        self.line(child.spec.name, f"{how} after {time.monotonic() - child.began:.2f} s; starts again in {delay_s:g} s")
        self.event("child_died", None, name=child.spec.name, how=how, again_in_s=delay_s)

    def event(self, event: str, text: str | None, **fields: object) -> None:
        """Show ``text`` to a person (None: nothing), or the event with its fields to a program."""
        if self._as_json:
            at = round(time.monotonic() - self._began, 3)
            print(json.dumps({"event": event, "at_s": at, **fields}), flush=True)
        elif text is not None:
            print(text, flush=True)

    def since(self) -> float:
        """Seconds since this console began."""
        return time.monotonic() - self._began

    def close(self) -> None:
        """Let go of the log files."""
        for file in self._files.values():
            file.close()
