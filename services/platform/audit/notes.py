"""Notes: what `paymesh verify` has seen, in a SQLite file for its owner alone, so that the next run looks at what is new.

All that a run notes becomes true at once, when it found no breach; otherwise nothing does, and the next run sees it again.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

FORMAT = 1
"""What is noted, and how; notes of another format are not read."""
_CHUNK = 500
_LOCK_WAIT_S = 0.5


class NotesUnusable(Exception):
    """The file is not one of notes."""


class Notes:
    """Names with JSON values, and `Figures`. ``path`` None: forgotten with this object, and kept on disk meanwhile.

    While another run writes, this one reads what was noted before and notes nothing (``kept`` is false).
    """

    def __init__(self, path: Path | None = None) -> None:
        """Open the notes, or begin them. Raises NotesUnusable."""
        if path is not None:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._connection = sqlite3.connect(path or "", isolation_level=None, timeout=_LOCK_WAIT_S)
        try:
            self.kept = self._begin()
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise NotesUnusable(f"{path} is no file of notes: {error}") from None

    def _begin(self) -> bool:
        connection = self._connection
        connection.execute("PRAGMA journal_mode = WAL")
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise
            connection.execute("BEGIN")
            connection.execute("PRAGMA query_only = ON")
            return False
        connection.execute("CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, value TEXT NOT NULL)")
        return True

    def get(self, name: str) -> Any:  # noqa: ANN401 - any JSON
        """Return what was noted; None: nothing."""
        try:
            found = self._connection.execute("SELECT value FROM notes WHERE name = ?", (name,)).fetchone()
        except sqlite3.OperationalError:  # another run has just begun the file
            found = None
        return None if found is None else json.loads(found[0])

    def put(self, name: str, value: object) -> None:
        """Note a value."""
        if self.kept:
            self._connection.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", (name, json.dumps(value)))

    def figures(self, name: str, width: int) -> Figures:
        """Return the table ``name`` of ids with ``width`` whole numbers each."""
        return Figures(self._connection, name, width, kept=self.kept)

    def forget(self) -> None:
        """Forget everything: what is noted from now on stands alone."""
        if self.kept:
            names = self._connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            for (name,) in names:
                self._connection.execute(f"DELETE FROM {name}")  # noqa: S608 - a table of our own

    def commit(self) -> None:
        """Make what was noted true."""
        self._connection.commit()

    def close(self) -> None:
        """Let go of the file; what was not committed was never noted."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.rollback()
        self._connection.close()


class Figures:
    """Ids with numbers, kept in the order of the ids, however many there are."""

    def __init__(self, connection: sqlite3.Connection, name: str, width: int, *, kept: bool) -> None:
        """Use the table ``name``, or make it."""
        self._connection, self._name, self._kept = connection, name, kept
        columns = "".join(f", n{place} INTEGER NOT NULL" for place in range(width))
        if kept:
            connection.execute(f"CREATE TABLE IF NOT EXISTS {name} (id INTEGER PRIMARY KEY{columns})")
        self._put = f"INSERT OR REPLACE INTO {name} VALUES ({', '.join('?' * (width + 1))})"  # noqa: S608 - of our own

    def put(self, rows: Iterable[tuple[int, ...]]) -> None:
        """Note rows of an id and its numbers; each replaces what was noted of the id."""
        if self._kept:
            self._connection.executemany(self._put, rows)

    def clear(self) -> None:
        """Forget every row."""
        if self._kept:
            self._connection.execute(f"DELETE FROM {self._name}")  # noqa: S608 - a table of our own

    def get(self, ids: Iterable[int]) -> dict[int, tuple[int, ...]]:
        """Return what was noted of ids."""
        found: dict[int, tuple[int, ...]] = {}
        each = iter(ids)
        while some := list(islice(each, _CHUNK)):
            marks = ", ".join("?" * len(some))
            query = f"SELECT * FROM {self._name} WHERE id IN ({marks})"  # noqa: S608 - a table of our own
            found |= {row[0]: row[1:] for row in self._connection.execute(query, some)}
        return found

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        """Every row, by id."""
        return iter(self._connection.execute(f"SELECT * FROM {self._name} ORDER BY id"))  # noqa: S608 - a table of our own

    def __len__(self) -> int:
        """How many rows there are."""
        return int(self._connection.execute(f"SELECT COUNT(*) FROM {self._name}").fetchone()[0])  # noqa: S608 - as above

    def between(self, first: int, last: int) -> Iterator[tuple[int, ...]]:
        """Rows within a range of ids, by id."""
        query = f"SELECT * FROM {self._name} WHERE id BETWEEN ? AND ? ORDER BY id"  # noqa: S608 - as above
        return iter(self._connection.execute(query, (first, last)))

    def select(self, columns: str, rest: str = "", **parameters: int) -> list[tuple[Any, ...]]:
        """Return ``columns``, SQL over ``id`` and ``n0``, ``n1``, …; ``rest`` is what comes after FROM."""
        return self._connection.execute(f"SELECT {columns} FROM {self._name} {rest}", parameters).fetchall()  # noqa: S608 - as above
