"""`paymesh status`: what runs, and whether it serves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from services.cli.exits import Exit
from services.cli.folder import Folder, default_folder
from services.cli.probes import Edge

_SERVING = "STATUS_SERVING"


def status(
    data: Annotated[Path | None, typer.Option(help="Folder of the mesh.")] = None,
    *,
    json_: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
) -> int:
    """Show the mesh that runs in DIR: 0 it serves, 4 there is none, 6 a service is missing."""
    record = Folder(data or default_folder()).read_record()
    health = Edge(int(record["rest"].rpartition(":")[2]), Path(record["ca"])).health() or {}
    if json_:
        print(json.dumps({**record, "health": health}))
    else:
        _show(record, health)
    return Exit.OK if health.get("status") == _SERVING else Exit.UNAVAILABLE


def _show(record: dict[str, Any], health: dict[str, Any]) -> None:
    print(f"paymesh, pid {record['pid']}, in {record['data']}")
    print(f"  REST     {record['rest']}\n  gRPC     {record['grpc']}\n  sandbox  {record['sandbox']}")
    said = {each["service"]: each for each in health.get("services", [])}
    for name, instances in record["services"].items():
        pids = ", ".join(str(each["pid"]) for each in instances)
        print(f"  {name:<14} {said.get(name, {}).get('healthy', 0)} of {len(instances)} serve   (pid {pids})")
    print(
        "serves" if health.get("status") == _SERVING else "does not serve as a whole: see the logs in " + record["data"]
    )
