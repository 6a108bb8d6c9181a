"""P20: migrations that are killed at each of their steps, and begun again."""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import services
from services.cli.migrate import with_migrations
from services.platform.migrations import upgrade
from tests.chaos.report import Row
from tests.e2e.mesh import paymesh

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.chaos.armed import Points
    from tests.chaos.report import Report
    from tests.e2e.mesh import Mesh


def _count(room: str) -> int:
    return len(list((Path(services.__path__[0]) / room / "migrations").glob("0*.py")))


STEPS = tuple((room, step) for room in with_migrations() for step in range(_count(room)))
"""Each step, from 0, of each service's database, in the order in which they are done."""
STEPS_SAMPLE = (("payment", _count("payment") - 1),)
STEP_OF_UP = STEPS[-1]
"""The step that is killed below `paymesh up`; the others below `paymesh migrate`."""


@dataclass(frozen=True, slots=True)
class Interrupted:
    """A step at which a migration was killed: how its command ended, and what it left in the database."""

    room: str
    step: int
    met: bool
    code: int
    left: dict[str, str]
    """Name -> statement of each table and index."""
    whole: list[dict[str, str]]
    """The same of a database before the first step, and after each."""


def interrupted(mesh: Mesh, points: Points, report: Report, steps: Iterable[tuple[str, int]]) -> list[Interrupted]:
    """Migrate the databases of ``mesh``, killed at each of ``steps``; what remains is left to who starts it."""
    found = []
    for room, step in steps:
        name, command = f"P20.{room}", "up" if (room, step) == STEP_OF_UP else "migrate"
        points.arm(name, passes=step)
        done = paymesh(command, "--data", str(mesh.data), settings={"PAYMESH_FAILPOINTS": str(points.folder)})
        points.disarm(name)
        hit = points.told(name)
        left, whole = _schema(mesh.data / f"{room}.db"), _schemas(room)
        found.append(Interrupted(room, step, hit is not None, done.returncode, left, whole))
        verdict = ("nothing left half done" if left in whole else "HALF DONE") if hit else "NEVER MET"
        report.add(Row(name, "-", f"step {step + 1}", command, hit["pid"] if hit else 0, verify=verdict))
    return found


def _schemas(room: str) -> list[dict[str, str]]:
    """Return what a database of a service holds before the first step and after each, undisturbed."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "whole.db"
        schemas: list[dict[str, str]] = [{}]
        for _ in range(_count(room)):
            upgrade(room, f"sqlite:///{path}", "+1")
            schemas.append(_schema(path))
        return schemas


def _schema(path: Path) -> dict[str, str]:
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
        return dict(rows.fetchall())
