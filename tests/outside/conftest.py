"""The mesh as `paymesh up` starts it, and the tools of others that judge it."""

from __future__ import annotations

import os
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.mesh import ROOT, Mesh

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RESULTS = ROOT / "docs" / "outside.md"
MARK = "<!-- results: written by `tox -e outside` -->"
_LINES: list[str] = []


@pytest.fixture(scope="session")
def mesh() -> Iterator[Mesh]:
    running = Mesh()
    running.start(PAYMESH_SANDBOX_TIME_SCALE="0.001")
    yield running
    running.stop()
    running.remove()


@pytest.fixture(scope="session")
def tool() -> Callable[[str], str]:
    """Find a tool where install.sh puts it, or on the PATH; one that lacks fails its suite by name."""

    def find(name: str) -> str:
        tools = Path(os.environ.get("OUTSIDE_TOOLS", ROOT))
        places = [str(tools), str(tools / "node_modules" / ".bin"), os.environ["PATH"]]
        found = shutil.which(name, path=os.pathsep.join(places))
        if not found:
            pytest.fail(f"{name} is not installed: run `bash tests/outside/install.sh FOLDER` and read what it says")
        return found

    return find


@pytest.fixture(scope="session")
def record() -> Callable[[str, str], None]:
    """Keep what a suite said, for docs/outside.md."""

    def note(suite: str, said: str) -> None:
        _LINES.append(f"| {suite} | {said} |")

    return note


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the results of a run that tried everything, whatever they are."""
    if session.testscollected < 6 or not _LINES:
        return
    head = RESULTS.read_text().partition(MARK)[0]
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    when = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, commit {commit.stdout.strip()}, {session.testsfailed} failed"
    table = ["| suite | result |", "|---|---|", *_LINES]
    RESULTS.write_text(head + "\n".join([MARK, "", f"Last run: {when}.", "", *table, ""]))
