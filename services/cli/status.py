"""`paymesh status`: what runs, and whether it serves."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from services.cli.exits import Exit
from services.cli.folder import Folder, default_folder
from services.cli.probes import Edge

_SERVING = "STATUS_SERVING"
_PASSWORD = re.compile(r"(?<=://)([^:/?#\s]*):[^/?#\s]*@")
"""The password in a URL, with the user name before it."""


def status(
    data: Annotated[Path | None, typer.Option(help="Folder of the mesh.")] = None,
    *,
    json_: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
) -> int:
    """Show the mesh that runs in DIR: 0 it serves, 4 there is none, 6 a service is missing."""
    record = Folder(data or default_folder()).read_record()
    health = Edge(int(record["rest"].rpartition(":")[2]), Path(record["ca"])).health() or {}
    if json_:
        print(json.dumps({**_shareable(record), "health": health}))
    else:
        _show(record, health)
    return Exit.OK if health.get("status") == _SERVING else Exit.UNAVAILABLE


def _shareable(record: dict[str, Any]) -> dict[str, Any]:
    """Return run.json without its secrets: what is printed ends in terminals, logs and bug reports."""
    said = {name: value for name, value in record.items() if name != "admin"}
    said["redis"] = _PASSWORD.sub(r"\1:***@", record["redis"])
    said["databases"] = {room: _PASSWORD.sub(r"\1:***@", url) for room, url in record["databases"].items()}
    return said


def _show(record: dict[str, Any], health: dict[str, Any]) -> None:
    print(f"paymesh, pid {record['pid']}, in {record['data']}")
    print(f"  REST     {record['rest']}\n  gRPC     {record['grpc']}\n  sandbox  {record['sandbox']}")
    said = {each["service"]: each for each in health.get("services", [])}
    for name, instances in record["services"].items():
        pids = ", ".join(str(each["pid"]) for each in instances)
        releases = ", ".join(sorted({each["release"] for each in instances}))
        serve = said.get(name, {}).get("healthy", 0)
        print(f"  {name:<14} {serve} of {len(instances)} serve   (pid {pids}; release {releases})")
    print(
        "serves" if health.get("status") == _SERVING else "does not serve as a whole: see the logs in " + record["data"]
    )
