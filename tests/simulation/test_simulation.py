"""Seeded runs of payments and orders with everything that goes wrong in them, and bugs that they must find.

Why a folder and an environment of its own: it needs no socket, but databases on files, two processes and a minute.
A failed run prints its seed, the smallest plan that fails as well, and the end of its trace. `--first-seed SEED --seeds 1`
is the same run to the byte.
"""

from __future__ import annotations

import sys
from collections import Counter

import pytest

from services.payment import states
from services.payment.domain import Method
from tests.simulation.bugs import PLANTED, Bug
from tests.simulation.plan import Plan, plan_of
from tests.simulation.processes import POINTS
from tests.simulation.running import Ran, run_seed, run_seeds, simulate, smallest

SEEDS_MIN = 300
"""From so many runs on, everything that can come up must have."""


@pytest.mark.timeout(3600)
def test_every_run_comes_to_rest_without_a_breach(seeds: range) -> None:
    """Whatever is lost, doubled, late or dead: the books agree, everyone knows, and nobody is charged twice."""
    met, broken = Counter[str](), list[Ran]()
    for ran in run_seeds(seeds):
        met += ran.met
        if ran.breaches:
            broken.append(ran)
    if broken:
        pytest.fail("\n".join(map(str, broken)) + "\n" + explain(broken[0].seed))
    if len(seeds) >= SEEDS_MIN:
        expected = {f"died at {point}" for point in POINTS}
        expected |= {
            f"{method} {status}" for method in Method for status in (states.SUCCESS, states.FAILED, states.REFUNDED)
        }
        expected |= {"bank_card authorized", "refund review", "review late_success", "repeats answered"}
        assert not expected - met.keys(), "the runs did not meet everything that they are for"


def explain(seed: int) -> str:
    """Say what is needed to break it: the smallest plan, and the end of its trace."""
    small = smallest(plan_of(seed), lambda plan: bool(simulate(plan).breaches))
    sim = simulate(small)
    return "\n".join([f"smallest plan of seed {seed}:", *map(repr, small.steps), *sim.lines[-60:]])


def test_seed_repeats_itself() -> None:
    """Twice here and once in a process whose sets are in another order: the same trace to the byte, not the same twice."""
    some = (3, 4, 5)
    here = [run_seed(seed) for seed in some]
    assert [run_seed(seed).hash for seed in some] == [ran.hash for ran in here]
    assert [ran.hash for ran in run_seeds(some)] == [ran.hash for ran in here]
    assert len({ran.hash for ran in here}) == len(some)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("bug", PLANTED, ids=lambda bug: f"{bug.invariant} {bug.name}")
def test_planted_bug_is_found(bug: Bug) -> None:
    """Within the seeds that the code itself passes, and by the invariant that is for it."""
    for seed in range(SEEDS_MIN):
        found = [each for each in simulate(plan_of(seed), bug).breaches if each.invariant == bug.invariant]
        if found:
            sys.stdout.write(f"{bug.name}: seed {seed}, {found[0].what}\n")
            return
    pytest.fail(f"{bug.name}: no seed finds it")


def test_failing_plan_shrinks_to_what_breaks_it() -> None:
    """Of many steps one is left, which still breaks, the same way each time."""
    bug, plan = PLANTED[0], plan_of(3)

    def breaks(each: Plan) -> bool:
        """A payment lost an entry, not only the first top-up."""
        return any(b.what.startswith("transaction") and "-2000" not in b.what for b in simulate(each, bug).breaches)

    small = smallest(plan, breaks)
    assert len(small.steps) == 1 < len(plan.steps)
    assert simulate(small, bug).hash == simulate(small, bug).hash
