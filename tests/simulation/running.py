"""How runs are made: one, many in two processes, and the smallest that still breaks."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache

import hypothesis
from hypothesis import strategies as st

from tests.simulation.bugs import NONE, Bug
from tests.simulation.checks import check
from tests.simulation.plan import Plan, plan_of
from tests.simulation.stage import Stage
from tests.simulation.world import Breach, Sim

PROCESSES = 2


@dataclass(frozen=True, slots=True)
class Ran:
    """What came of a run: its trace's hash, its breaches, how often it met what."""

    seed: int
    hash: str
    breaches: tuple[Breach, ...]
    met: Counter[str]

    def __str__(self) -> str:
        """What a person needs to replay it."""
        lines = "\n".join(f"  {each.invariant} {each.what}" for each in self.breaches)
        return f"seed {self.seed} ({self.hash[:16]}):\n{lines}"


@cache
def stage() -> Stage:
    """The databases of this process."""
    return Stage()


def simulate(plan: Plan, bug: Bug = NONE) -> Sim:
    """Do a run and check it."""
    sim = Sim(stage(), plan, bug)
    sim.run()
    check(sim)
    return sim


def run_seed(seed: int) -> Ran:
    """Do the run of a seed."""
    sim = simulate(plan_of(seed))
    return Ran(seed, sim.hash, tuple(sim.breaches), sim.met)


def run_seeds(seeds: Iterable[int]) -> Iterator[Ran]:
    """Do many, in processes that share nothing, not even the order of their sets."""
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, mp_context=spawned) as pool:
        yield from pool.map(run_seed, seeds, chunksize=5)


def smallest(plan: Plan, breaks: Callable[[Plan], bool]) -> Plan:
    """Leave out of a plan that breaks every step without which it breaks as well: by hypothesis, which knows how."""
    settings = hypothesis.settings(
        max_examples=60, deadline=None, database=None, derandomize=True, suppress_health_check=list(hypothesis.HealthCheck)
    )  # fmt: skip
    # 0 is the simplest number: a step that is left out. A hundredth of the steps are, at first.
    steps = st.lists(st.integers(0, 100), min_size=len(plan.steps), max_size=len(plan.steps))
    kept = steps.map(lambda numbers: [number > 0 for number in numbers])
    return plan.only(hypothesis.find(kept, lambda keep: breaks(plan.only(keep)), settings=settings))
