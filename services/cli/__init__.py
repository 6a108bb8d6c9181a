"""The `paymesh` command: the whole mesh on one machine, and what one asks of it."""

import sys


def main() -> None:
    """Run the command line; the exit codes are in exits.py."""
    from services.cli.commands import main as run  # noqa: PLC0415 - modules of this package run without typer too

    sys.exit(run())
