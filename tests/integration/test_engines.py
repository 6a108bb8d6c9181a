"""The engines of these tests: none outlives the run, and one that is missing is missed by name."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.integration.engines import MARIADB, POSTGRESQL, Engines, program

RUN = """
import sys, time
from tests.integration.engines import Engines
engines = Engines()
print(engines.empty(sys.argv[1]), flush=True)
time.sleep(60)
"""


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
    started = psutil.Process(run.pid).children(recursive=True)
    assert started
    run.send_signal(signal.SIGKILL)
    run.wait(10)
    _, left = psutil.wait_procs(started, timeout=10)
    assert left == []


@pytest.mark.parametrize(("ci", "ended"), [("", pytest.skip.Exception), ("true", pytest.fail.Exception)])
def test_missing_server_is_named(monkeypatch: pytest.MonkeyPatch, ci: str, ended: type[BaseException]) -> None:
    """Skipped, so that the report says it; failed where it has to be there."""
    monkeypatch.setenv("CI", ci)
    with pytest.raises(ended, match=r"^no-such-server is not on this machine$"):
        program("no-such-server")
