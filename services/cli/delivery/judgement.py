"""Whether a release is as good as the one before it: by its share of failed calls and by its slowest calls. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    Span = tuple[float, float]
    """From and to, in milliseconds."""

_SURE = 2.58
"""Standard deviations: of a hundred good releases one may be sent back for its bad luck."""
_SLOWEST = 0.01
"""Share of the calls that p99 leaves out."""
FAILED_MIN = 5
"""So many failures are enough to stop before a step is over."""


class Verdict(StrEnum):
    """What was found."""

    GOOD = "good"
    BAD = "bad"
    UNKNOWN = "unknown"
    """Too few calls to say."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What a release did: its calls, those of them that failed by its fault, and how many took how long."""

    calls: int
    failed: int
    times: Mapping[Span, int]

    @property
    def p99_ms(self) -> float | None:
        """The time that 99 of 100 calls took no longer than; None: there were none."""
        return percentile(self.times, 1 - _SLOWEST)

    def slower_than(self, most_ms: float) -> int:
        """Count calls that took longer for sure."""
        return sum(count for (at_least_ms, _), count in self.times.items() if at_least_ms > most_ms)

    def __str__(self) -> str:
        """Write them for people."""
        share = 100 * self.failed / self.calls if self.calls else 0.0
        p99 = "unknown" if self.p99_ms is None else f"{self.p99_ms:.0f} ms"
        return f"{self.calls} calls, {self.failed} failed ({share:.1f} %), p99 {p99}"


@dataclass(frozen=True, slots=True)
class Limits:
    """How much worse a release may be than the one before it."""

    calls_min: int = 30
    """With fewer calls a release is not judged."""
    failed_more: float = 0.01
    """Share of its calls that may fail beyond what fails with the other."""
    slower_times: float = 2.0
    slower_ms: float = 100.0
    """Its p99 may be so many times the other's, or so much beyond it, whichever is more."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was found, and why in words."""

    verdict: Verdict
    why: str


def judge(new: Figures, old: Figures, limits: Limits) -> Judgement:
    """Compare a release with the one before it, by what its calls prove: a single one that went wrong proves nothing."""
    if new.calls < limits.calls_min and new.failed < FAILED_MIN:
        return Judgement(Verdict.UNKNOWN, f"{new.calls} calls prove nothing: {limits.calls_min} are needed")
    allowed = limits.failed_more + (old.failed / old.calls if old.calls else 0.0)
    failing = at_least(new.failed, new.calls)
    if failing > allowed:
        return Judgement(Verdict.BAD, f"{100 * failing:.1f} % of its calls fail at least; {100 * allowed:.1f} % may")
    if old.p99_ms is not None:
        most = max(old.p99_ms * limits.slower_times, old.p99_ms + limits.slower_ms)
        slow = at_least(new.slower_than(most), new.calls)
        if slow > _SLOWEST:
            why = f"{100 * slow:.1f} % of its calls at least take longer than {most:.0f} ms; 1 % may, by the old p99"
            return Judgement(Verdict.BAD, why)
    return Judgement(Verdict.GOOD, "no worse than the release before it")


def at_least(some: int, calls: int) -> float:
    """Return the share that ``some`` of so many calls prove: the lower end of Wilson's interval."""
    if not calls:
        return 0.0
    share, z2 = some / calls, _SURE**2
    middle = share + z2 / (2 * calls)
    width = _SURE * math.sqrt(share * (1 - share) / calls + z2 / (4 * calls**2))
    return max(0.0, (middle - width) / (1 + z2 / calls))


def percentile(times: Mapping[Span, int], share: float) -> float | None:
    """Return the upper end of the span in which the ``share`` of all times is reached; None: there are none."""
    wanted, seen = share * sum(times.values()), 0
    for (_, to), count in sorted(times.items()):
        seen += count
        if seen >= wanted:
            return to
    return None
