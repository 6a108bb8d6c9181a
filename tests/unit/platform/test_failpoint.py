"""Failpoints: nothing unless armed, one process exactly, and a note before the death. Each dies in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from services.platform import failpoint

ROOT = Path(__file__).parents[3]
DIED = -signal.SIGKILL
_START = "import sys; from services.platform import failpoint; failpoint.arm(sys.argv[1]);"


def started(code: str, folder: Path) -> subprocess.Popen[str]:
    """Start a process whose failpoints are in ``folder``."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "PAYMESH_FAILPOINTS": str(folder)}
    return subprocess.Popen(
        [sys.executable, "-c", _START + code, str(folder)], env=environ, cwd=folder, stdout=subprocess.PIPE, text=True
    )


def reached(code: str, folder: Path) -> tuple[int, str]:
    """Run a process to its end; returns its exit code and what it printed."""
    process = started(code, folder)
    said, _ = process.communicate(timeout=30)
    return process.returncode, said


def test_point_when_nothing_is_armed(tmp_path: Path) -> None:
    """A process that was not told of a folder passes, whatever lies in it; one that was, passes what is not named there."""
    (tmp_path / "P4").write_text("")
    failpoint.arm("")
    failpoint.reach("P4", "balance")
    assert reached("failpoint.arm(''); failpoint.reach('P4'); print('alive')", tmp_path) == (0, "alive\n")
    assert reached("failpoint.reach('P40', 'P4'); print('alive')", tmp_path) == (0, "alive\n")
    assert [each.name for each in tmp_path.iterdir()] == ["P4"]


def test_point_when_armed(tmp_path: Path) -> None:
    """Its process is killed on the spot, and has written before which point it was, who it is and when."""
    (tmp_path / "P4.balance").write_text("")
    began = time.time_ns() // 1_000_000
    process = started("failpoint.reach('P4', 'balance'); print('alive', flush=True)", tmp_path)
    said, _ = process.communicate(timeout=30)
    assert (process.returncode, said) == (DIED, "")
    assert [each.name for each in tmp_path.iterdir()] == ["P4.balance.hit"]
    hit = json.loads((tmp_path / "P4.balance.hit").read_text())
    assert (hit["point"], hit["pid"]) == ("P4.balance", process.pid)
    assert began <= hit["time_ms"] <= time.time_ns() // 1_000_000


@pytest.mark.parametrize(
    ("armed", "label", "code"),
    [("P4", "balance", DIED), ("P4", "", DIED), ("P4.alipay", "balance", 0), ("P4.balance", "", 0)],
)
def test_point_when_armed_by_label(armed: str, label: str, code: int, tmp_path: Path) -> None:
    """A point that is armed without a label takes every label; one that is armed with a label takes that alone."""
    (tmp_path / armed).write_text("")
    assert reached(f"failpoint.reach('P4', '{label}')", tmp_path)[0] == code
    assert (tmp_path / f"{armed}.hit").exists() == (code == DIED)


def test_point_when_passes_are_given(tmp_path: Path) -> None:
    """It is passed as often as the file says, counted over all processes."""
    (tmp_path / "P4").write_text("3")
    assert reached("failpoint.reach('P4'); print('alive')", tmp_path) == (0, "alive\n")
    said = "[print(n, flush=True) for n in range(9) if failpoint.reach('P4') is None]"
    assert reached(said, tmp_path) == (DIED, "0\n1\n")
    assert json.loads((tmp_path / "P4.hit").read_text())["point"] == "P4"


def test_point_when_many_processes_reach_it_at_once(tmp_path: Path) -> None:
    """Exactly one of them takes it, and it is the one that is named."""
    code = (
        "import pathlib; go = pathlib.Path('go'); print('there', flush=True)\n"
        "while not go.exists(): pass\n"
        "for _ in range(1000): failpoint.reach('P4')"
    )
    processes = [started(code, tmp_path) for _ in range(6)]
    for each in processes:
        assert each.stdout
        assert each.stdout.readline() == "there\n"
    (tmp_path / "P4").write_text("5")
    (tmp_path / "go").write_text("")
    for each in processes:
        each.communicate(timeout=30)
    assert sorted(each.returncode for each in processes) == [DIED, 0, 0, 0, 0, 0]
    (killed,) = [each.pid for each in processes if each.returncode == DIED]
    assert json.loads((tmp_path / "P4.hit").read_text())["pid"] == killed
