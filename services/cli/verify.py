"""`paymesh verify`: the invariants of money, on data alone."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.cli.exits import CommandError, Exit
from services.cli.folder import Folder, default_folder
from services.cli.migrate import with_migrations

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.cli.invariants import RoomFinding


_NOT_YET = "Not checked yet: card data (I11) comes with cards."


def database_urls(folder: Folder) -> dict[str, str]:
    """Return room -> database URL: what the environment names, else the files in DIR. Raises CommandError."""
    urls, missing = {}, []
    for room in with_migrations():
        path = folder.path / f"{room}.db"
        named = os.environ.get(f"PAYMESH_{room.upper()}_DATABASE_URL")
        if not named and not path.exists():
            missing.append(f"There is no {path}. Give the mesh's folder with --data.")
        urls[room] = named or f"sqlite:///{path}"
    if missing:
        raise CommandError(Exit.NOT_FOUND, *missing)
    return urls


def failures(found: Sequence[RoomFinding]) -> list[str]:
    """Return every breach with its invariant, and every check that looked at nothing although it had to."""
    from services.cli.invariants import lacking  # noqa: PLC0415 - heavy imports late, for a quick --help

    return [f"{f.invariant} {room}: {breach}" for room, f in found for breach in f.breaches] + lacking(found)


def verify(
    data: Annotated[Path | None, typer.Option(help="Folder of the mesh.")] = None,
    *,
    settled: Annotated[bool, typer.Option("--settled", help="Nothing may be on its way any more.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
) -> int:
    """Check that no money was lost or made: 0 all holds, 1 a breach, named."""
    from services.cli.invariants import findings  # noqa: PLC0415 - heavy imports late, for a quick --help

    urls, began = database_urls(Folder(data or default_folder())), time.monotonic()
    found = list(findings(urls, time.time_ns() // 1_000_000, settled=settled))
    faults, took = failures(found), time.monotonic() - began
    if json_:
        rows = [{"room": room, **dataclasses.asdict(finding)} for room, finding in found]
        print(json.dumps({"holds": not faults, "took_s": round(took, 3), "faults": faults, "findings": rows}))
    else:
        for room, f in sorted(found, key=lambda each: (len(each.finding.invariant), each.finding.invariant)):
            mark, pending = "✗" if f.breaches else "✓", f", {f.pending} on their way" if f.pending else ""
            print(f"  {mark} {f.invariant:<6} {f.what:<36} {room:<22} {f.examined:>9} examined{pending}")
        print("\n".join(["", *(f"  BREACH {fault}" for fault in faults)]) if faults else "")
        print(f"{'BROKEN' if faults else 'holds'}: {len(found)} checks in {took:.2f} s. {_NOT_YET}")
    return Exit.CHECK_FAILED if faults else Exit.OK
