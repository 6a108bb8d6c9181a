"""I11: what must stand nowhere in clear is looked for in every text of every database, and in every log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from services.cli.invariants.found import RoomFinding
from services.cli.invariants.secrets import Wanted, secrets_of
from services.platform.audit import SHOWN, Finding, texts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from services.cli.folder import Folder
    from services.cli.invariants.found import Look
    from services.platform.audit import Since, Texts
    from services.platform.database import Database

IN_DATABASE, IN_LOGS = "text in the database", "lines of logs"
_BYTES = 1 << 20


def leaks(opened: Mapping[str, Database], look: Look, folder: Folder | None) -> Iterator[RoomFinding]:
    """Look at ``opened`` and at the logs in ``folder``, for card numbers and the secrets that lie there; None: at nothing."""
    if folder is None:
        yield from (RoomFinding(room, Finding("I11", IN_DATABASE, 0, absent="not asked for")) for room in opened)
        return
    wanted = Wanted(look.now_ms, secrets_of(folder))
    for room, database in opened.items():
        yield RoomFinding(room, _in_database(database, look.since(room), wanted))
    yield RoomFinding("mesh", _in_logs(folder, look.since("logs"), wanted))


def _in_database(database: Database, since: Since, wanted: Wanted) -> Finding:
    examined, breaches = 0, list[str]()
    with database.read() as connection:
        for table in texts(connection, since):
            examined += table.rows
            for page in table.pages:
                if wanted.found(table.of(page)) and len(breaches) < SHOWN:
                    breaches += _named(table, page, wanted)
    return Finding("I11", IN_DATABASE, examined, breaches[:SHOWN])


def _in_logs(folder: Folder, since: Since, wanted: Wanted) -> Finding:
    """Read on in each file where the last run ended; a file that was renamed is known by its inode."""
    known: dict[str, int] = since.get("ends") or {}
    ends: dict[str, int] = {}
    examined, breaches = 0, list[str]()
    for path in sorted(folder.logs.glob("*.log*")):
        with path.open("rb") as file:
            inode, size = str(path.stat().st_ino), path.stat().st_size
            began = known.get(inode, 0)
            end = file.seek(began if began <= size else 0)
            while lines := file.readlines(_BYTES):
                if not lines[-1].endswith(b"\n"):
                    lines.pop()  # it is being written
                if not lines:
                    break
                examined, end = examined + len(lines), end + sum(map(len, lines))
                if wanted.found(b"".join(lines)):
                    breaches += [f"{path.name} holds {what}" for line in lines for what in wanted.found(line)]
            ends[inode] = end
    since.put("ends", ends)
    return Finding("I11", IN_LOGS, examined, list(dict.fromkeys(breaches))[:SHOWN])


def _named(table: Texts, page: Sequence[Any], wanted: Wanted) -> Iterator[str]:
    for row in page:
        for what in wanted.found(table.of([row])):
            yield f"{table.table} holds {what}, at {', '.join(map(str, row[1 : table.keys + 1]))}"
