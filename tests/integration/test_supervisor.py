"""Children are kept alive, ended in order, and never outlive their supervisor."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from services.cli.supervisor.child import DELAYS_S, ended

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Start = Callable[..., "Supervised"]

ROOT = Path(__file__).parents[2]
SLEEP = "import time; time.sleep(600)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
)
LOYAL_PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SLEEP!r}])"


class Supervised:
    """A running supervised.py and the events that it wrote so far."""

    def __init__(self, logs: Path, *children: str) -> None:
        """Start it with ``children`` (NAME=TIER=CODE)."""
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, str(ROOT / "tests/integration/supervised.py"), str(logs), *children]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environ)
        self.pids: set[int] = set()

    def next(self, event: str, name: str = "") -> dict[str, Any]:
        """Wait for the next ``event`` (of the child ``name``)."""
        assert self.process.stdout
        for line in self.process.stdout:
            said: dict[str, Any] = json.loads(line)
            if "pid" in said:
                self.pids.add(said["pid"])
            if said["event"] == event and name in {"", said.get("name")}:
                return said
        raise AssertionError(f"the supervisor ended without {event} of {name}")

    def left(self) -> list[int]:
        """Return children that ever ran and still run, after a moment in which the kernel may end them."""
        deadline = time.monotonic() + 2
        while (alive := [pid for pid in self.pids if runs(pid)]) and time.monotonic() < deadline:
            time.sleep(0.02)
        return alive

    def close(self) -> None:
        """End what a failed test left."""
        self.process.kill()
        self.process.communicate()
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def runs(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start Superviseds that end with the test."""
    started: list[Supervised] = []

    def make(*children: str) -> Supervised:
        started.append(Supervised(tmp_path, *children))
        return started[-1]

    yield make
    for each in started:
        each.close()


def test_child_when_killed(start: Start) -> None:
    """A dead child is started again within a second, and its neighbour is left alone."""
    supervised = start(f"one=0={SLEEP}", f"two=0={SLEEP}")
    pids = {said["name"]: said["pid"] for said in (supervised.next("child_ready"), supervised.next("child_ready"))}
    for _ in range(2):
        began = time.monotonic()
        os.kill(pids["one"], signal.SIGKILL)
        assert supervised.next("child_died", "one")["how"] == "was ended by SIGKILL"
        again = supervised.next("child_ready", "one")
        assert time.monotonic() - began < 1
        assert again["pid"] != pids["one"]
        pids["one"] = again["pid"]
    assert runs(pids["two"])


def test_child_when_it_cannot_live(start: Start) -> None:
    """A child that dies at once is started again ever later, and never given up."""
    supervised = start("one=0=raise SystemExit(7)")
    died = [supervised.next("child_died", "one") for _ in range(4)]
    assert {each["how"] for each in died} == {"ended with exit code 7"}
    assert [each["again_in_s"] for each in died] == list(DELAYS_S[:4])


def test_child_when_a_grandchild_holds_its_pipe(start: Start) -> None:
    """A child whose pipe a grandchild holds open is still seen to die."""
    supervised = start(f"one=0={LOYAL_PARENT}")
    pid = supervised.next("child_ready")["pid"]
    deadline = time.monotonic() + 5
    while not (grandchildren := psutil.Process(pid).children()) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    try:
        assert supervised.next("child_died", "one")["at_s"] > 0
        assert supervised.next("child_ready", "one")["starts"] == 2
    finally:
        for each in grandchildren:
            each.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_supervisor_when_signalled(start: Start, number: signal.Signals) -> None:
    """An ordered end leaves nothing, not even a child that is deaf to SIGTERM."""
    supervised = start(f"one=0={SLEEP}", f"deaf=1={STUBBORN}")
    supervised.next("child_ready", "one")
    if len(supervised.pids) < 2:
        supervised.next("child_ready", "deaf")
    time.sleep(0.3)  # until the deaf one has become so
    supervised.process.send_signal(number)
    supervised.next("stopped")
    assert supervised.process.wait(5) == 0
    assert supervised.left() == []


def test_supervisor_when_signalled_twice(start: Start) -> None:
    """A second signal does not wait for the deaf."""
    supervised = start(f"deaf=0={STUBBORN}")
    supervised.next("child_ready")
    time.sleep(0.3)
    supervised.process.send_signal(signal.SIGINT)
    time.sleep(0.1)
    began = time.monotonic()
    supervised.process.send_signal(signal.SIGINT)
    supervised.next("stopped")
    assert time.monotonic() - began < 0.7  # the deaf have 1 s when nobody is in a hurry
    assert supervised.left() == []


def test_supervisor_when_killed(start: Start) -> None:
    """Not even kill -9 of the supervisor leaves a process behind."""
    supervised = start(f"one=0={SLEEP}", f"deaf=1={STUBBORN}")
    supervised.next("child_ready")
    supervised.next("child_ready")
    os.kill(supervised.process.pid, signal.SIGKILL)
    supervised.process.wait(5)
    assert len(supervised.pids) == 2
    assert supervised.left() == []


def test_tiers_when_stopped(start: Start, tmp_path: Path) -> None:
    """A tier is asked to end when the one below is gone."""
    slow = (
        "import pathlib, signal, sys, time\n"
        "def end(*_):\n"
        "    time.sleep(0.2)\n"
        "    with open('order', 'a') as file: file.write(NAME)\n"
        "    sys.exit()\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "print('armed', flush=True)\n"
        "time.sleep(600)"
    )
    supervised = start(*(f"{name}={tier}=NAME={name!r}\n{slow}" for name, tier in (("c", 3), ("a", 1), ("b", 2))))
    deadline = time.monotonic() + 5
    while not all((tmp_path / f"{name}.log").exists() for name in "abc") and time.monotonic() < deadline:
        time.sleep(0.02)
    supervised.process.send_signal(signal.SIGTERM)
    assert supervised.process.wait(5) == 0
    assert (tmp_path / "order").read_text() == "abc"


def test_log_when_a_child_speaks(start: Start, tmp_path: Path) -> None:
    """What a child says is in its log line by line, also without a last line end and when a line is very long."""
    supervised = start("one=0=import sys; print('x' * 200_000); sys.stdout.write('last words')")
    supervised.next("child_died", "one")
    text = (tmp_path / "one.log").read_text()
    assert text.count("x") >= 200_000
    assert "last words\n" in text


def test_ended_when_put_in_words() -> None:
    """An exit code and a signal read differently."""
    assert [ended(3), ended(-9), ended(-200)] == [
        "ended with exit code 3",
        "was ended by SIGKILL",
        "was ended by signal 200",
    ]
