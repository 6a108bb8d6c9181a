"""`paymesh scale`: more or fewer instances of a service in a mesh that runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from services.cli.exits import CommandError, Exit
from services.cli.folder import Folder, default_folder


def scale(
    service: Annotated[str, typer.Argument(help="The service.")],
    count: Annotated[int, typer.Argument(help="How many instances it is to have: 1 to 15.")],
    data: Annotated[Path | None, typer.Option(help="Folder of the mesh.")] = None,
    *,
    json_: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
) -> None:
    """Bring a service to COUNT instances while it serves; the next `up` starts as many as its settings say."""
    from services.cli.control import order  # noqa: PLC0415 - heavy imports late, for a quick --help
    from services.cli.fleet import check  # noqa: PLC0415

    check(service, count)
    folder = Folder(data or default_folder())
    for event in order(folder, {"do": "scale", "service": service, "count": count}):
        if "exit_code" in event:
            if event["exit_code"]:
                raise CommandError(Exit(event["exit_code"]), *event["faults"])
        elif not json_ and event["text"]:
            print(event["text"], flush=True)
    names = [each["name"] for each in folder.read_record()["services"][service]]
    print(json.dumps({"service": service, "instances": names}) if json_ else f"{service}: {', '.join(names)}")
