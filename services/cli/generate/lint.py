"""Stops before anything is rendered from a contract that lacks a policy, and says what to write."""

import sys

from services.cli.generate import tree


def check() -> None:
    """Print a line for each complaint of the linter; with any of them generation ends."""
    from services.contract.lint import complaints  # noqa: PLC0415 - reads what the stages before this one have written

    found = [str(complaint) for complaint in complaints(tree.described())]
    for complaint in found:
        print(complaint, file=sys.stderr)
    if found:
        raise SystemExit(f"{len(found)} complaint(s) about the contracts")
