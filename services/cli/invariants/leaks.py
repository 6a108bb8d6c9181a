"""I11: what must stand nowhere in clear is looked for in every text of every database, and in every log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Self

from services.cli.invariants.found import RoomFinding
from services.cli.invariants.secrets import Wanted, secrets_of
from services.platform.audit import SHOWN, Finding, texts

if TYPE_CHECKING:
    from services.cli.folder import Folder
    from services.cli.invariants.found import Look
    from services.platform.audit import Texts
    from services.platform.database import Database

IN_DATABASE, IN_LOGS = "text in the database", "lines of logs"
_BYTES = 1 << 20


class Leaks(AbstractContextManager["Leaks"]):
    """The search. When everything is looked at it goes on in a thread of its own, beside checks that wait for databases."""

    def __init__(self, opened: Mapping[str, Database], look: Look, folder: Folder | None) -> None:
        """Look at ``opened`` and at the logs in ``folder``, for the secrets that lie there; None: at nothing."""
        self._opened, self._look, self._folder = opened, look, folder
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="leaks")
        self._begun: Future[list[RoomFinding]] | None = None

    def __enter__(self) -> Self:
        """Begin, if it takes long."""
        if self._folder and self._look.full:
            self._begun = self._pool.submit(self._search)
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for its end."""
        self._pool.shutdown(cancel_futures=True)

    def findings(self) -> list[RoomFinding]:
        """Return what was found."""
        if self._folder is None:
            absent = [
                RoomFinding(room, Finding("I11", IN_DATABASE, 0, absent="not asked for")) for room in self._opened
            ]
            return [*absent, RoomFinding("mesh", Finding("I11", IN_LOGS, 0, absent="not asked for"))]
        return self._begun.result() if self._begun else self._search()

    def _search(self) -> list[RoomFinding]:
        assert self._folder is not None
        wanted = Wanted(self._look.now_ms, secrets_of(self._folder))
        found = [
            RoomFinding(room, self._in_database(room, database, wanted)) for room, database in self._opened.items()
        ]
        return [*found, RoomFinding("mesh", self._in_logs(self._folder, wanted))]

    def _in_database(self, room: str, database: Database, wanted: Wanted) -> Finding:
        examined, breaches = 0, list[str]()
        with database.read() as connection:
            for table in texts(connection, self._look.since(room)):
                examined += table.rows
                for page in table.pages:
                    if wanted.found(table.of(page)) and len(breaches) < SHOWN:
                        breaches += _named(table, page, wanted)
        return Finding("I11", IN_DATABASE, examined, breaches[:SHOWN])

    def _in_logs(self, folder: Folder, wanted: Wanted) -> Finding:
        """Read on in each file where the last run ended; a file that was renamed is known by its inode."""
        since = self._look.since("logs")
        known: dict[str, int] = since.get("ends") or {}
        ends: dict[str, int] = {}
        examined, breaches = 0, list[str]()
        for path in sorted(folder.logs.glob("*.log*")):
            with path.open("rb") as file:
                inode, end = str(path.stat().st_ino), 0
                began = known.get(inode, 0)
                end = file.seek(began if began <= path.stat().st_size else 0)
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
