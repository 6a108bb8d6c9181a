"""The engines of these tests: none outlives the run, and one that is missing is missed by name."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.integration.engines import MARIADB, POSTGRESQL, SQLITE, Engines, program

RUN = """
import sys, time
from tests.integration.engines import Engines
engines = Engines()
print(engines.empty(sys.argv[1]), flush=True)
time.sleep(60)
"""


def servers(of: int) -> list[psutil.Process]:
    """The children of a process, and theirs."""
    return psutil.Process(of).children(recursive=True)


@pytest.mark.parametrize("engine", [MARIADB, POSTGRESQL])
def test_server_ends_with_the_run_that_started_it(engine: str, engines: Engines, run_dir: Path) -> None:
    """Killed without a word, the run takes it along."""
    engines.empty(engine)  # skipped by name where there is none
    run_dir.chmod(0o711)  # the servers are another user's
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(run_dir)}
    run = subprocess.Popen([sys.executable, "-c", RUN, engine], env=environ, stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    with run.stdout:
        assert "/t1" in run.stdout.readline()
    started = servers(run.pid)
    assert started
    run.send_signal(signal.SIGKILL)
    run.wait(10)
    _, left = psutil.wait_procs(started, timeout=10)
    assert left == []


@pytest.mark.parametrize("engine", [SQLITE, MARIADB, POSTGRESQL])
def test_nothing_is_left_behind(engine: str, engines: Engines) -> None:
    """Each run has databases of its own, which go with it."""
    engines.empty(engine)
    before = set(servers(os.getpid()))
    own = Engines()
    assert own.empty(engine) != own.empty(engine)
    assert own.folder.is_dir()
    own.stop()
    assert not own.folder.exists()
    assert set(servers(os.getpid())) <= before


@pytest.mark.parametrize(("ci", "ended"), [("", pytest.skip.Exception), ("true", pytest.fail.Exception)])
def test_missing_server_is_named(monkeypatch: pytest.MonkeyPatch, ci: str, ended: type[BaseException]) -> None:
    """Skipped, so that the report says it; failed where it has to be there."""
    monkeypatch.setenv("CI", ci)
    with pytest.raises(ended, match=r"^no-such-server is not on this machine$"):
        program("no-such-server")
