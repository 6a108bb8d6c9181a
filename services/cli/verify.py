"""`paymesh verify`: the invariants of money, on data alone."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import hashlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.cli.exits import CommandError, Exit
from services.cli.folder import Folder, default_folder, keep_private
from services.cli.migrate import with_migrations

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from services.cli.invariants import RoomFinding
    from services.platform.audit import Notes

NOTES = "verify.db"


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


def failures(found: Sequence[RoomFinding], before: Sequence[Sequence[str]] = ()) -> list[str]:
    """Return every breach with its invariant, and every check that looked at nothing although it had to.

    ``before``: the checks (room, invariant, what) that had rows in earlier runs.
    """
    from services.cli.invariants import lacking  # noqa: PLC0415 - heavy imports late, for a quick --help

    known = {(room, invariant, what) for room, invariant, what in before}
    return [f"{f.invariant} {room}: {breach}" for room, f in found for breach in f.breaches] + lacking(found, known)


@dataclass(frozen=True, slots=True)
class Verified:
    """What a run found. ``since_ms`` is the time from which on changes were looked at, 0: from the beginning.

    ``why`` says why it began where it did, when that is not what was asked for.
    """

    found: list[RoomFinding]
    faults: list[str]
    since_ms: int
    why: str


def run(folder: Folder, now_ms: int, *, full: bool, settled: bool) -> Verified:
    """Check a mesh's data, go on from where the last run ended unless ``full``, and note where this one did.

    What is found broken is not noted: the next run sees it again. Raises CommandError where there is no data.
    """
    from services.cli.invariants import findings  # noqa: PLC0415 - heavy imports late, for a quick --help
    from services.cli.invariants.owed import examined  # noqa: PLC0415 - as above

    urls = database_urls(folder)
    with _begin(folder, urls, now_ms, full=full) as (notes, since_ms, why):
        found = list(findings(urls, now_ms, settled=settled, since_ms=since_ms, notes=notes, folder=folder))
        before = (notes.get("examined") or []) if since_ms else []
        faults = failures(found, before)
        if not faults:
            seen = {*map(tuple, before), *(key for key, rows in examined(found).items() if rows)}
            notes.put("examined", sorted(seen))
            notes.commit()
    return Verified(found, faults, since_ms, why)


@contextlib.contextmanager
def _begin(folder: Folder, urls: Mapping[str, str], now_ms: int, *, full: bool) -> Iterator[tuple[Notes, int, str]]:
    """Open what the last run noted in DIR, and see whether it can be gone on from: notes, since when, why."""
    from services.platform.audit import FORMAT, OVERLAP_MS, Notes, NotesUnusable  # noqa: PLC0415 - as above

    path, why = folder.path / NOTES, ""
    try:
        notes = Notes(path)
    except NotesUnusable as error:
        for each in folder.path.glob(f"{NOTES}*"):
            each.unlink()
        notes, why = Notes(path), f"{error}, and begun anew"
    same = {"format": FORMAT, "databases": hashlib.sha256(json.dumps(sorted(urls.items())).encode()).hexdigest()}
    last = None if full else notes.get("run")
    if last and last["of"] != same:
        last, why = None, "the last run was of other databases"
    elif last and now_ms < last["at_ms"]:
        last, why = None, "the clock went back since the last run"
    if not notes.kept:
        why = f"another run is under way, this one notes nothing{'; ' + why if why else ''}"
        if not last:
            notes.close()
            notes = Notes()
    elif not last:
        notes.forget()
    notes.put("run", {"of": same, "at_ms": now_ms})
    try:
        yield notes, max(1, last["at_ms"] - OVERLAP_MS) if last else 0, why
    finally:
        notes.close()


def verify(
    data: Annotated[Path | None, typer.Option(help="Folder of the mesh.")] = None,
    *,
    settled: Annotated[bool, typer.Option("--settled", help="Nothing may be on its way any more.")] = False,
    full: Annotated[
        bool, typer.Option("--full", help="Look at everything, not at what is new since the last run.")
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
) -> int:
    """Check that no money was lost or made: 0 all holds, 1 a breach, named.

    Looks at what is new since the last run that found no breach, which is noted in DIR/verify.db.
    """
    keep_private()
    began = time.monotonic()
    said = run(Folder(data or default_folder()), time.time_ns() // 1_000_000, full=full, settled=settled)
    took, faults = time.monotonic() - began, said.faults
    if json_:
        rows = [{"room": room, **dataclasses.asdict(finding)} for room, finding in said.found]
        begun = {"since_ms": said.since_ms, "why": said.why}
        print(json.dumps({"holds": not faults, "took_s": round(took, 3), **begun, "faults": faults, "findings": rows}))
    else:
        _show(said.found, faults)
        at = dt.datetime.fromtimestamp(said.since_ms / 1000).astimezone()
        since = f"since {at:%F %T}" if said.since_ms else "over everything"
        why = f" ({said.why})" if said.why else ""
        print(f"{'BROKEN' if faults else 'holds'}: {len(said.found)} checks in {took:.2f} s, {since}{why}.")
    return Exit.CHECK_FAILED if faults else Exit.OK


def _show(found: Sequence[RoomFinding], faults: Sequence[str]) -> None:
    for room, f in sorted(found, key=lambda each: (len(each.finding.invariant), each.finding.invariant)):
        mark, pending = "✗" if f.breaches else "✓", f", {f.pending} on their way" if f.pending else ""
        if f.absent:
            print(f"  - {f.invariant:<6} {f.what:<36} {room:<22} not checked: {f.absent}")
        else:
            print(f"  {mark} {f.invariant:<6} {f.what:<36} {room:<22} {f.examined:>9} examined{pending}")
    print("\n".join(["", *(f"  BREACH {fault}" for fault in faults)]) if faults else "")
