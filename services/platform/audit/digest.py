"""Sums over rows that two tables must have in common, range of ids by range of ids: where they agree, so do the rows.

Databases sum millions of rows faster than they hand them over. What differs in a range changes its sums, except by a chance
of one in many millions; only the ranges that differ are then looked at row by row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import sqlalchemy as sa

from services.platform.audit.since import Range

_RANGES = 1_000
P, Q = 1_000_003, 32_749
"""Primes: an id leaves other rests in both."""

LESS = 65_537
"""What ``said`` is taken modulo of, where it is an id: sums of products fit 63 bits."""
Sums = dict[tuple[int, Any], tuple[int, ...]]
"""(Number of the range, kind of rows) -> how many rows, and two sums over them."""


@dataclass(frozen=True, slots=True)
class Rows:
    """One side: rows told by ``key`` and sorted by ``kind``; ``said`` is what else they say, a whole number from 0 on.

    ``times``: how many rows of the other side a row stands for; None: one.
    """

    connection: sa.Connection
    key: sa.ColumnElement[int]
    kind: sa.ColumnElement[Any]
    said: sa.ColumnElement[Any] | int = 1
    where: Sequence[sa.ColumnElement[bool]] = ()
    times: sa.ColumnElement[int] | None = None

    def ends(self) -> Range | None:
        """Return the lowest and the highest key; None: there are no rows."""
        ends = sa.select(sa.func.min(self.key), sa.func.max(self.key)).where(*self.where)
        low, high = self.connection.execute(ends).one()
        return None if low is None else Range(int(low), int(high))

    def sums(self, low: int, width: int) -> Sums:
        """Sum up ranges of ``width`` keys from ``low``."""
        off = self.key - low
        place = ((off - off % width) // width).label("place")  # divides without a rest, which some databases round
        n = sa.func.count() if self.times is None else sa.func.sum(self.times)
        first = sa.func.sum(self.key % P * (1 if self.times is None else self.times))
        query = sa.select(place, self.kind, n, first, sa.func.sum(self.key % Q * self.said))
        constant = isinstance(self.kind, sa.BindParameter)  # MariaDB would take a number for that of a column
        rows = self.connection.execute(query.where(*self.where).group_by(place, *(() if constant else (self.kind,))))
        return {(int(each[0]), each[1]): tuple(map(int, each[2:])) for each in rows}


class Summed(Protocol):
    """A side, wherever its rows are. Sums are by P and Q as `Rows` makes them."""

    def ends(self) -> Range | None:
        """Return the lowest and the highest key; None: there are no rows."""
        ...

    def sums(self, low: int, width: int) -> Sums:
        """Sum up ranges of ``width`` keys from ``low``."""
        ...


def differing(left: Summed, right: Summed) -> tuple[list[Range], dict[Any, int]]:
    """Return the ranges in which the sides differ, and how many rows of each kind ``left`` has."""
    ends = left.ends() or right.ends()
    if ends is None:
        return [], {}
    low, width = ends.first, (ends.last - ends.first) // _RANGES + 1
    ours, theirs = left.sums(low, width), right.sums(low, width)
    total: dict[Any, int] = {}
    for (_, kind), (n, *_) in ours.items():
        total[kind] = total.get(kind, 0) + n
    places = sorted({key[0] for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)})
    return [_range(low, width, place) for place in places], total


def _range(low: int, width: int, place: int) -> Range:
    """Where a range is. SQL divides towards zero: below ``low`` ranges end with what is one of them above it."""
    first = low + place * width
    return Range(first - (width - 1 if place <= 0 else 0), first if place < 0 else first + width - 1)
