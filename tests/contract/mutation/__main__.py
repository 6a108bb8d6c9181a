"""Leaves every policy line of the contracts out, one at a time, and names who notices: `tox -e mutation [-- WORDS]`.

A rule of the linter refuses the contract without it, or a test of behaviour fails once everything is generated anew. A
line that nobody misses is a survivor, and fails the run: give the rule, or the test, or take the line out. WORDS pick the
lines whose place or text has all of them.

With `--shown` the linter is not asked, and real Envoys show what goes wrong without a policy that it insists on: breakers,
outliers, retries and their budget, time-outs, limits.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from services.cli.generate import tree
from tests.contract.mutation.behaved import BEHAVIOURS, SHOWN, Copy, kind
from tests.contract.mutation.linted import Mutant, mutants, refusal, sources

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def main(words: Iterable[str]) -> int:
    """Print a line for each policy line; exit code 1 when one survived."""
    words = [*words]
    shown = "--shown" in words
    words = [word for word in words if word != "--shown"]
    described = tree.described()
    chosen = [mutant for mutant in mutants(described, sources()) if all(word in _line(mutant) for word in words)]
    survivors, by = [], Counter[str]()
    if shown:
        chosen = [mutant for mutant in chosen if (mutant.element, kind(mutant)) in SHOWN]
    for mutant, killer in _shown(chosen) if shown else _killed(described.SerializeToString(), chosen):
        print(f"{_line(mutant)}  {killer or 'SURVIVED'}", flush=True)
        by[killer.partition("::")[0]] += 1
        survivors += [] if killer else [mutant]
    print(f"\n{len(chosen)} policy lines, each left out once:")
    for killer, count in by.most_common():
        print(f"  {count:5}  {killer or 'SURVIVED'}")
    return 1 if survivors else 0


def _killed(described: bytes, chosen: list[Mutant]) -> Iterator[tuple[Mutant, str]]:
    """Yield each mutant with who noticed: the linter's first, for it is a thousand times faster."""
    left = []
    with ProcessPoolExecutor() as pool:
        for mutant, rule in zip(chosen, pool.map(partial(_rule, described), chosen, chunksize=16), strict=True):
            if rule:
                yield mutant, f"linter: {rule}"
            else:
                left.append(mutant)
    with tempfile.TemporaryDirectory(prefix="paymesh-mutation-") as made:
        copy = Copy(Path(made))
        _sound(copy, {test for mutant in left if kind(mutant) in BEHAVIOURS for test in copy.tests(mutant)})
        for mutant in left:
            yield mutant, copy.failing(mutant) if kind(mutant) in BEHAVIOURS else ""


def _sound(copy: Copy, tests: set[str]) -> None:
    """Check that nothing fails while no line is left out: else a failure would say nothing."""
    if failed := copy.first_failure(*sorted(tests)) if tests else "":
        sys.exit(f"{failed} fails on the contracts as they are")


def _shown(chosen: list[Mutant]) -> Iterator[tuple[Mutant, str]]:
    """Yield each mutant with the test of behaviour that missed the line."""
    with tempfile.TemporaryDirectory(prefix="paymesh-mutation-") as made:
        copy = Copy(Path(made))
        _sound(copy, {SHOWN[mutant.element, kind(mutant)] for mutant in chosen})
        for mutant in chosen:
            yield mutant, copy.failing(mutant, SHOWN[mutant.element, kind(mutant)])


def _rule(described: bytes, mutant: Mutant) -> str:
    found = refusal(described, mutant)
    return found.rule if found else ""


def _line(mutant: Mutant) -> str:
    return f"protos/{mutant.file}:{mutant.line.number} {mutant.element} {mutant.line.says}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
