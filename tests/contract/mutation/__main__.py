"""Leaves every policy line of the contracts out, one at a time, and names who notices: `tox -e mutation [-- WORDS]`.

A rule of the linter refuses the contract without it, or a test of behaviour fails once everything is generated anew. A
line that nobody misses is a survivor, and fails the run: give the rule, or the test, or take the line out. WORDS pick the
lines whose place or text has all of them.
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
from tests.contract.mutation.behaved import BEHAVIOURS, Copy, kind
from tests.contract.mutation.linted import Mutant, mutants, refusal, sources

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def main(words: Iterable[str]) -> int:
    """Print a line for each policy line; exit code 1 when one survived."""
    described = tree.described()
    chosen = [mutant for mutant in mutants(described, sources()) if all(word in _line(mutant) for word in words)]
    survivors, by = [], Counter[str]()
    for mutant, killer in _killed(described.SerializeToString(), chosen):
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
        for mutant in left:
            yield mutant, copy.failing(mutant) if kind(mutant) in BEHAVIOURS else ""


def _rule(described: bytes, mutant: Mutant) -> str:
    found = refusal(described, mutant)
    return found.rule if found else ""


def _line(mutant: Mutant) -> str:
    return f"protos/{mutant.file}:{mutant.line.number} {mutant.element} {mutant.line.says}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
