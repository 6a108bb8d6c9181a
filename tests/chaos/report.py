"""The table of a run: every kill, and what came of it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one kill."""

    point: str
    method: str
    operation: str
    process: str
    pid: int = 0
    """0: the point was never met."""
    restart_ms: int = 0
    """From the death to the start of the next process, by the kernel's clock, to 10 ms."""
    serving_ms: int = 0
    """From the death until it was sent calls again."""
    answered_ms: int = 0
    """From the death until every client had his answer; 0: they had it before."""
    rested_ms: int = 0
    """From the death until every payment and refund was seen at rest."""
    doubts: int = 0
    """Attempts that left a client in doubt."""
    verify: str = ""


@dataclass
class Report:
    """Every kill of the run."""

    rows: list[Row] = field(default_factory=list)
    settled: str = ""
    """What `paymesh verify --settled` said after the last kill."""

    def add(self, row: Row) -> None:
        """Note a kill."""
        self.rows.append(row)

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        kills = [asdict(row) for row in self.rows]
        text = json.dumps({"kills": kills, "settled": self.settled}, indent=1)
        path.write_text(text + "\n")

    def lines(self) -> list[str]:
        """Render it as a table."""
        names = tuple(name.replace("_", " ") for name in Row.__slots__)
        table = [names, *(tuple(map(str, asdict(row).values())) for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = ["  ".join(map(str.ljust, cells, widths)).rstrip() for cells in table]
        return [*lines, "", self.settled]
