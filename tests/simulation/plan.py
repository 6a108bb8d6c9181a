"""What happens in a run: steps that follow from its seed. Each has its own noise, so that leaving one out moves no other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from random import Random

HORIZON_MS = 240_000
"""Until then clients act and things go wrong; afterwards everything settles."""


class What(StrEnum):
    """Kinds of steps."""

    JOURNEY = "journey"
    """A user orders, pays, and does what users and operators do with payments."""
    CRASH = "crash"
    """A process dies: at once, or at one of the next points where that would hurt."""
    FORGE = "forge"
    """Somebody makes up a callback."""
    FLUSH = "flush"
    """The cache forgets everything."""
    SKEW = "skew"
    """Wall clocks jump."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step: ``id`` names its noise."""

    id: int
    at_ms: int
    what: What


@dataclass(frozen=True, slots=True)
class Plan:
    """A run. ``seed`` makes the noise, ``steps`` is what happens."""

    seed: int
    steps: tuple[Step, ...]

    def noise(self, *names: object) -> Random:
        """Return the source of chance of something, the same in every run of the seed."""
        return Random("/".join(map(str, (self.seed, *names))))

    def only(self, kept: list[bool]) -> Plan:
        """Return the plan with those of its steps that are kept."""
        return replace(self, steps=tuple(step for step, keep in zip(self.steps, kept, strict=True) if keep))


def plan_of(seed: int) -> Plan:
    """Make the plan of a seed."""
    rng = Random(seed)
    kinds = [What.JOURNEY] * rng.randint(3, 8)
    kinds += [What.CRASH] * rng.choice((0, 1, 2, 4, 8))
    kinds += [What.FORGE] * rng.choice((0, 1, 3))
    kinds += [What.FLUSH] * rng.choice((0, 0, 1))
    kinds += [What.SKEW] * rng.choice((0, 0, 0, 1))
    # Half of a run's journeys begin at one moment: they share batches.
    together = rng.randrange(30_000)
    steps = [
        Step(n, together if what is What.JOURNEY and rng.random() < 0.5 else rng.randrange(HORIZON_MS // 2), what)
        for n, what in enumerate(kinds)
    ]
    return Plan(seed, tuple(sorted(steps, key=lambda step: (step.at_ms, step.id))))
