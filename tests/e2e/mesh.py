"""`paymesh up` as a user would start it: real processes behind real Envoys, in a folder with a short path."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ROOT = Path(__file__).parents[2]
START_S = 120.0
"""A cold start takes 15 s on an idle machine; tests may run on a busy one."""
STOP_S = 45.0
_ORDINARY = re.compile('"reason":"OK"|"event":"(span|registered|xds.joined)"|config stream to xds closed')
"""Lines of a log that say nothing about a failure."""


def until(what: Callable[[], object], seconds: float = 20.0, *, every: float = 0.05) -> float:
    """Wait until ``what`` is truthy; returns how long it took, in seconds."""
    began = time.monotonic()
    while not what():
        assert time.monotonic() - began < seconds, f"it did not come to pass within {seconds:g} s"
        time.sleep(every)
    return time.monotonic() - began


def environ(**settings: str) -> dict[str, str]:
    """Return an environment in which the code is found and nothing of a user's own mesh is set."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PAYMESH_")}
    roots = [str(ROOT), str(ROOT / "gen" / "python"), *filter(None, [kept.get("PYTHONPATH")])]
    free = {"PAYMESH_REST_PORT": "0", "PAYMESH_GRPC_PORT": "0"}
    return {**kept, "PYTHONPATH": os.pathsep.join(roots), **free, **settings}


def paymesh(
    *arguments: str, settings: Mapping[str, str] | None = None, seconds: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run a `paymesh` command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "services.cli", *arguments],
        env=environ(**(settings or {})), capture_output=True, text=True, check=False, timeout=seconds,
    )  # fmt: skip


class Mesh:
    """One `paymesh up`. Its record is read anew each time: a process that was started again has another pid."""

    def __init__(self) -> None:
        """Choose a folder; nothing runs until ``start``."""
        self.top = Path(tempfile.mkdtemp(prefix="pm-", dir="/tmp"))
        self.data, self.ready = self.top / "d", self.top / "ready.json"
        self._output = self.top / "up.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, **settings: str) -> None:
        """Start it; everything serves when this returns."""
        command = ["up", "--data", str(self.data), "--ready-file", str(self.ready)]
        with self._output.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "services.cli", *command],
                env=environ(**settings), stdout=output, stderr=output, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + START_S
        while not self.ready.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                said = self.said()
                self.stop(signal.SIGKILL)
                self.remove()
                raise AssertionError(f"the mesh did not start:\n{said}")
            time.sleep(0.05)

    def stop(self, number: signal.Signals = signal.SIGINT) -> tuple[int, list[str]]:
        """End it by a signal; returns the exit code and the processes that outlived it (which are killed)."""
        assert self.process is not None
        family = self.family()
        self.process.send_signal(number)
        try:
            code = self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        _, alive = psutil.wait_procs(family, timeout=2)  # what is killed by the kernel takes a moment to go
        left = []
        for each in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                left.append(f"{each.pid} {' '.join(each.cmdline())}")
                each.kill()
        return code, left

    def family(self) -> list[psutil.Process]:
        """Every process below `paymesh up`."""
        assert self.process is not None
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def remove(self) -> None:
        """Forget the folder."""
        shutil.rmtree(self.top, ignore_errors=True)

    @property
    def record(self) -> dict[str, Any]:
        """What the ready file says now: where, and who runs."""
        record: dict[str, Any] = json.loads(self.ready.read_text())
        return record

    def pid(self, instance: str) -> int:
        """Process of an instance such as ``payment-1``; 0 while it is dead."""
        for each in self.record["services"][instance.rpartition("-")[0]]:
            if each["name"] == instance:
                return int(each["pid"])
        raise KeyError(instance)

    def kill(self, instance: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Kill -9 an instance's process, or send it another signal; returns its pid, 0: it was dead already."""
        pid = self.pid(instance)
        if not pid:
            return 0
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return 0
        return pid

    def verify(self, *options: str) -> tuple[int, dict[str, Any]]:
        """Run `paymesh verify --json`; returns the exit code and what it says."""
        done = paymesh("verify", "--data", str(self.data), "--json", *options)
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    def log(self, name: str) -> str:
        """Return what a child such as ``payment-1`` or ``edge-1`` has said."""
        path = self.data / "logs" / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def said(self, characters: int = 4000) -> str:
        """Return the end of what `paymesh up` showed."""
        return self._output.read_text(errors="replace")[-characters:] if self._output.exists() else ""

    def tails(self, lines: int = 8) -> str:
        """Return the last lines of every log that are no ordinary calls: what one wants to see after a failure."""
        parts = []
        for path in sorted((self.data / "logs").glob("*.log")):
            told = [line for line in path.read_text(errors="replace").splitlines() if not _ORDINARY.search(line)]
            parts.append("\n".join([f"--- {path.stem}", *(line[:400] for line in told[-lines:])]))
        return "\n".join(parts)
