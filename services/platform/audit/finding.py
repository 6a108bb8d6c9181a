"""What a room's audit finds."""

from __future__ import annotations

from dataclasses import dataclass, field

SHOWN = 20
"""Breaches of one check that are put in words; the first tells most."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one invariant in one room: rows examined, breaches in words, items that are still on their way.

    ``absent`` says why there was nothing to look at: such a check proves nothing, and nobody owes it rows.
    """

    invariant: str
    what: str
    examined: int
    breaches: list[str] = field(default_factory=list)
    pending: int = 0
    absent: str = ""
