"""kill -9 at every kill point of every method: clients repeat until they know, and the books say what they know."""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest

from services.cli.exits import Exit
from tests.chaos.harness import Site
from tests.chaos.migrations import STEP_OF_UP, STEPS, STEPS_SAMPLE
from tests.chaos.points import APPLICABLE, CASES, CASES_SAMPLE, METHODS, POINTS
from tests.e2e.recovery import settled

if TYPE_CHECKING:
    from tests.chaos.armed import Points
    from tests.chaos.conftest import Selection
    from tests.chaos.migrations import Interrupted
    from tests.chaos.report import Report
    from tests.e2e.mesh import Mesh


def test_table_of_points() -> None:
    """Every kill point stands in the table, with each method, and has a kill for each operation at which it is met."""
    assert {point for point, _ in APPLICABLE} | {"P20"} == POINTS.keys()
    assert {method for _, method in APPLICABLE} == set(METHODS)
    applicable = {(*pair, operation) for pair, operations in APPLICABLE.items() for operation in operations}
    assert {(case.point, case.method, case.operation) for case in CASES} == applicable
    assert set(CASES) >= set(CASES_SAMPLE)
    assert set(STEPS) >= set(STEPS_SAMPLE)


@pytest.mark.timeout(600)
def test_databases_when_their_migration_is_killed(migrated: list[Interrupted], selection: Selection) -> None:
    """P20: a step that was not committed has left nothing, so that the migration can be begun again."""
    assert [(each.room, each.step) for each in migrated] == list(selection.steps)
    for each in migrated:
        assert each.met, f"P20.{each.room} was never met at step {each.step}"
        assert each.left in each.whole, f"step {each.step} of {each.room} is half done"
        killed = Exit.UNAVAILABLE if (each.room, each.step) == STEP_OF_UP else -signal.SIGKILL
        assert each.code == killed


@pytest.mark.timeout(3600)
async def test_books_when_killed_at_every_point(
    mesh: tuple[Mesh, Points], report: Report, selection: Selection
) -> None:
    """P1 to P19: each point is met, its process comes back within 1 s, every client knows, and every invariant holds."""
    left = list(selection.cases)
    async with aclosing(Site(*mesh, report)) as site:
        site.open(dict.fromkeys(case.method for case in left))
        faults = []
        while left:
            case = await asyncio.to_thread(site.next, left)
            left.remove(case)
            faults.append(await site.kill(case))
        faults = [fault for fault in faults if fault]
        assert not faults, "\n".join(faults)
        ended = time.monotonic()
        await asyncio.to_thread(settled, site.mesh)
        report.settled = f"verify --settled holds {time.monotonic() - ended:.1f} s after the last kill"
        await site.notified()
        await site.ended()
        assert {each.outcome for each in site.clients.history} <= {"ok", "fail"}
    met = {(row.point, row.method, row.operation) for row in report.rows if row.pid}
    assert {(case.armed, case.method, case.operation) for case in selection.cases} <= met
