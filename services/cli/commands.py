"""Every `paymesh` command, and how each ends: exit code, and faults in words or as JSON.

A command is a function in a module of its own name here; what is heavy it imports when it is called.
"""

from __future__ import annotations

import importlib
import json
import sys
import traceback
from typing import Any

import typer

from services.cli.exits import CommandError, Exit

_MISUSE: tuple[type[Any], ...] = tuple(each for each in typer.BadParameter.__mro__ if each.__name__ == "ClickException")
"""What is raised for arguments that no command takes; typer gives the class no name of its own."""
COMMANDS = ("up", "status", "down", "demo", "verify", "bench", "cert", "migrate", "rotate", "scale", "deploy")


def application() -> typer.Typer:
    """Gather the commands."""
    app = typer.Typer(
        name="paymesh",
        help="A payment platform as a service mesh, on one machine.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # it takes longer to import than --help may take
    )
    for name in COMMANDS:
        app.command(name)(getattr(importlib.import_module(f"services.cli.{name}"), name))
    return app


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        ended = application()(arguments, standalone_mode=False)
    except CommandError as error:
        tell(error.code, error.faults, as_json="--json" in arguments)
        return error.code
    except (typer.Exit, SystemExit) as asked:
        return int(getattr(asked, "exit_code", None) or getattr(asked, "code", None) or 0)
    except typer.Abort:
        return Exit.CHECK_FAILED
    except Exception as error:  # noqa: BLE001 - the last place where a fault of ours can be told from the user's
        if isinstance(error, _MISUSE):
            tell(Exit.BAD_INPUT, [f"{error.format_message()} Try `paymesh --help`."], as_json="--json" in arguments)
            return Exit.BAD_INPUT
        traceback.print_exc()
        tell(Exit.BUG, ["This is a fault of paymesh; the lines above say where."], as_json="--json" in arguments)
        return Exit.BUG
    return int(ended or 0)


def tell(code: Exit, faults: tuple[str, ...] | list[str], *, as_json: bool) -> None:
    """Say every fault: as a list to a person, as one object on standard output to a program."""
    if as_json:
        print(json.dumps({"error": {"exit_code": int(code), "faults": list(faults)}}), flush=True)
        return
    for fault in faults:
        sys.stderr.write(f"paymesh: {fault}\n")
