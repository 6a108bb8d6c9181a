"""Run the stages in order; with --check, fail and name the files that were not what the contracts say."""

import argparse
import subprocess
import sys
from collections.abc import Callable

from services.cli.generate import comments, currencies, lint, planes, states, stubs, third_party, tree

STAGES: dict[str, Callable[[], None]] = {
    "third_party": third_party.write,
    "stubs": stubs.write,
    "comments": comments.write,
    "lint": lint.check,
    "currencies": currencies.write,
    "states": states.write,
    "planes": planes.write,
}
"""In the order of need. Each runs in a fresh interpreter, for it may import what the one before has written."""


def main() -> int:
    """Exit code: 0 done (or nothing to do), 1 the tree was stale under --check, else that of the failed stage."""
    parser = argparse.ArgumentParser(prog="python -m services.cli.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail when the tree was not what the contracts generate")
    parser.add_argument("--stage", choices=STAGES, help="run one stage in this process")
    options = parser.parse_args()
    if options.stage:
        STAGES[options.stage]()
        return 0
    before = tree.fingerprints()
    for stage in STAGES:
        done = subprocess.run(
            [sys.executable, "-m", "services.cli.generate", "--stage", stage],
            cwd=tree.ROOT,
            env=tree.environment(),
            check=False,
        )
        if done.returncode:
            print(f"generation stopped at stage {stage}", file=sys.stderr)
            return done.returncode
    stale = tree.changes(before, tree.fingerprints())
    for path in stale:
        print(f"  {path}")
    if stale and options.check:
        print(
            "The files above were not what the contracts generate: run `tox -e gen` and commit them.", file=sys.stderr
        )
        return 1
    print(f"generated: {len(stale)} file(s) changed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
