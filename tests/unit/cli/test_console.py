"""What is shown and filed of the children."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from services.cli import console
from services.cli.console import Console, LogFile


def test_line_when_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line goes to standard error with its child's name, and to the child's log without."""
    shown = Console(tmp_path, as_json=False)
    shown.line("payment-1", "serving")
    shown.close()
    assert capsys.readouterr().err == f"{'payment-1':<20}│ serving\n"
    assert (tmp_path / "payment-1.log").read_text() == "serving\n"


def test_event_when_json_is_wanted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A program gets every event as an object, a person only what has words."""
    Console(tmp_path, as_json=True).event("child_died", None, name="payment-1")
    Console(tmp_path, as_json=False).event("child_died", None, name="payment-1")
    (line,) = capsys.readouterr().out.splitlines()
    assert {**json.loads(line), "at_s": 0} == {"event": "child_died", "at_s": 0, "name": "payment-1"}


def test_log_when_it_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log is cut: it and the one before it stay below their limit, and the newest lines are kept."""
    monkeypatch.setattr(console, "LOG_MAX", 100)
    log = LogFile(tmp_path / "x.log")
    for number in range(100):
        log.write(f"line {number}")
    log.close()
    sizes = [path.stat().st_size for path in sorted(tmp_path.iterdir())]
    assert len(sizes) == 2
    assert max(sizes) < 120
    assert (tmp_path / "x.log").read_text().endswith("line 99\n")
