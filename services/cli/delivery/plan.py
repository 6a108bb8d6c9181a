"""The steps by which a release replaces the one before it, and the weights of each. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

ROLLING, CANARY, BLUE_GREEN = "rolling", "canary", "blue-green"
STRATEGIES = (ROLLING, CANARY, BLUE_GREEN)
SHARES = (10, 50)
"""Percent of the calls that a canary gets, step by step, before it gets all."""


@dataclass(frozen=True, slots=True)
class Step:
    """So many instances of both releases, of which the new ones get ``share`` percent of the calls."""

    new: int
    old: int
    share: int


def steps(strategy: str, count: int, shares: Sequence[int] = SHARES) -> tuple[Step, ...]:
    """Return the steps for a service of ``count`` instances. After the last one no old instance is left.

    At the last step the new release has all calls, and an old instance at least is still there to take them back.
    """
    match strategy:
        case "rolling":
            return tuple(Step(new, count - new + 1, 100 * new // count) for new in range(1, count + 1))
        case "canary":
            # As many new instances as their share needs: one that gets 10 % is enough for a service of up to ten.
            grown = (Step(max(1, math.ceil(count * share / 100)), count, share) for share in shares)
            return (*grown, Step(count, count, 100))
        case "blue-green":
            return (Step(count, count, 0), Step(count, count, 100))
    raise ValueError(strategy)


def most(plan: Sequence[Step]) -> int:
    """Return how many instances there are at a time at most."""
    return max(step.new + step.old for step in plan)


def weights(new: Sequence[str], old: Sequence[str], share: int) -> dict[str, int]:
    """Return the weight of each instance, such that the new ones together get ``share`` percent of the calls."""
    each_new = share * max(1, len(old))
    each_old = (100 - share) * max(1, len(new))
    return dict.fromkeys(old, each_old) | dict.fromkeys(new, each_new)
