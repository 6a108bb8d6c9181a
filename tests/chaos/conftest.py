"""One mesh whose databases were migrated with interruptions, whose points can be armed, and the report of all kills."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.chaos.armed import Points
from tests.chaos.migrations import STEPS, STEPS_SAMPLE, Interrupted, interrupted
from tests.chaos.points import CASES, CASES_SAMPLE, Case
from tests.chaos.report import Report
from tests.e2e.mesh import Mesh

_REPORT = pytest.StashKey[Report]()
_MESH = pytest.StashKey[Mesh]()


@dataclass(frozen=True)
class Selection:
    """The kills of a run."""

    cases: tuple[Case, ...]
    steps: tuple[tuple[str, int], ...]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--sample", action="store_true", help="Of the chaos suite, the kills that every change must pass.")
    parser.addoption(
        "--kill", default="", help="Of the chaos suite, the kills in whose name this is found, as 'P9.* refund'."
    )
    parser.addoption("--chaos-report", type=Path, help="File to which the table of kills is written as JSON.")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_REPORT] = Report()


@pytest.fixture(scope="session")
def selection(pytestconfig: pytest.Config) -> Selection:
    """What this run kills."""
    sampled, wanted = (pytestconfig.getoption(name, default="") for name in ("--sample", "--kill"))
    cases, steps = (CASES_SAMPLE, STEPS_SAMPLE) if sampled else (CASES, STEPS)
    if wanted:
        return Selection(tuple(case for case in cases if re.search(wanted, str(case))), STEPS_SAMPLE)
    return Selection(cases, steps)


@pytest.fixture(scope="session")
def report(pytestconfig: pytest.Config) -> Report:
    """What is shown at the end of the run."""
    return pytestconfig.stash[_REPORT]


@pytest.fixture(scope="session")
def folder() -> Iterator[tuple[Mesh, Points]]:
    """The folder of a mesh that does not run yet, and of its points."""
    mesh = Mesh()
    yield mesh, Points(mesh.top / "points")
    mesh.remove()


@pytest.fixture(scope="session")
def migrated(folder: tuple[Mesh, Points], report: Report, selection: Selection) -> list[Interrupted]:
    """Databases whose migration was killed."""
    return interrupted(*folder, report, selection.steps)


@pytest.fixture(scope="session")
def mesh(
    folder: tuple[Mesh, Points], migrated: list[Interrupted], pytestconfig: pytest.Config
) -> Iterator[tuple[Mesh, Points]]:
    """A mesh that runs on them; its end by SIGINT must be orderly and leave nothing behind."""
    running, points = folder
    # Hours of providers are seconds; nobody has to sign in again within the run, which is longer than a token's 15 minutes.
    clock = {"PAYMESH_SANDBOX_TIME_SCALE": "0.001", "PAYMESH_ACCESS_TOKEN_S": "3600", "PAYMESH_SESSION_IDLE_S": "7200"}
    running.start(PAYMESH_FAILPOINTS=str(points.folder), **clock)
    pytestconfig.stash[_MESH] = running
    yield running, points
    assert running.stop() == (0, []), running.said()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the ends of the logs beside a test that failed."""
    report = yield
    if report.failed and _MESH in item.config.stash and item.path.is_relative_to(Path(__file__).parent):
        report.sections.append(("logs", item.config.stash[_MESH].tails()))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Show what every kill came to."""
    report = config.stash[_REPORT]
    if report.rows:
        terminalreporter.section("kills")
        for line in report.lines():
            terminalreporter.write_line(line)
        if path := config.getoption("--chaos-report", default=None):
            report.write(path)
