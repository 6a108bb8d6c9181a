"""`paymesh deploy`: a new release of a service in a mesh that runs, taken back by itself when it is worse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from services.cli.delivery.plan import SHARES, STRATEGIES
from services.cli.exits import CommandError, Exit
from services.cli.folder import Folder, default_folder


def deploy(
    service: Annotated[str, typer.Argument(help="The service.")],
    strategy: Annotated[str, typer.Option(help=f"{', '.join(STRATEGIES)}.")],
    version: Annotated[str, typer.Option(help="Name of the new release.")],
    env: Annotated[list[str] | None, typer.Option(help="KEY=VALUE, a setting of the new release; several.")] = None,
    tree: Annotated[Path | None, typer.Option(help="Tree of paymesh that holds the code of the new release.")] = None,
    shares: Annotated[str, typer.Option(help="Percent of the calls that a canary gets, step by step.")] = ",".join(
        map(str, SHARES)
    ),
    window: Annotated[float, typer.Option(help="Seconds for which each step is watched.")] = 15.0,
    min_calls: Annotated[int, typer.Option(help="Calls without which a step proves nothing.")] = 30,
    data: Annotated[Path | None, typer.Option(help="Folder of the mesh.")] = None,
    *,
    json_: Annotated[bool, typer.Option("--json", help="Events, one JSON object a line.")] = False,
) -> int:
    """Replace a service's release step by step, judged by its errors and its p99: 0 it is deployed, 1 it was rolled back.

    A release is our code with other settings, or another tree's. Ending this command does not end the rollout.
    """
    from services.cli.control import order  # noqa: PLC0415 - heavy imports late, for a quick --help

    environ, wanted = _environ(service, env or [], tree), _shares(shares)
    faults = [
        *([] if strategy in STRATEGIES else [f"--strategy {strategy!r}: one of {', '.join(STRATEGIES)}."]),
        *([] if 1 <= window <= 3600 else [f"--window {window:g}: from 1 to 3600 seconds."]),
        *([] if min_calls >= 0 else [f"--min-calls {min_calls}: 0 or more."]),
    ]
    if faults:
        raise CommandError(Exit.BAD_INPUT, *faults)
    what = {
        "do": "deploy",
        "service": service,
        "strategy": strategy,
        "version": version,
        "environ": environ,
        "tree": str(tree.absolute()) if tree else "",
        "shares": wanted,
        "window_s": window,
        "calls_min": min_calls,
    }
    for event in order(Folder(data or default_folder()), what):
        if "exit_code" in event:
            if event["faults"]:
                raise CommandError(Exit(event["exit_code"]), *event["faults"])
            return int(event["exit_code"])
        if json_:
            print(json.dumps({name: value for name, value in event.items() if name != "text"}), flush=True)
        elif event["text"]:
            print(event["text"], flush=True)
    return Exit.BUG


def _environ(service: str, env: list[str], tree: Path | None) -> dict[str, str]:
    """Read the settings of the new release. Raises CommandError with every fault that can be known now."""
    from services.cli.layout import RESERVED  # noqa: PLC0415 - heavy imports late
    from services.cli.preflight import service_faults, unknown  # noqa: PLC0415
    from services.cli.releases import tree_fault  # noqa: PLC0415
    from services.cli.settings import ROOMS, SINGLE  # noqa: PLC0415

    if service not in ROOMS or service in SINGLE:
        raise CommandError(Exit.BAD_INPUT, f"{service!r} cannot be deployed: one of {', '.join(set(ROOMS) - SINGLE)}.")
    pairs = dict(each.split("=", 1) for each in env if "=" in each)
    faults = [f"--env {each!r}: write KEY=VALUE." for each in env if "=" not in each]
    faults += [f"--env {name}: every release has that of the mesh." for name in pairs if name in RESERVED]
    if tree:  # other code may know other settings
        faults += [fault for fault in [tree_fault(str(tree.absolute()), service)] if fault]
    else:
        faults += [*unknown(pairs), *service_faults(pairs, [service])]
    if faults:
        raise CommandError(Exit.BAD_INPUT, *faults)
    return pairs


def _shares(text: str) -> list[int]:
    found = [int(each) for each in text.split(",") if each.strip().isdecimal()]
    if len(found) != len(text.split(",")) or found != sorted(set(found)) or not all(1 <= each <= 99 for each in found):
        raise CommandError(Exit.BAD_INPUT, f"--shares {text!r}: percents from 1 to 99 that ascend, joined by commas.")
    return found
