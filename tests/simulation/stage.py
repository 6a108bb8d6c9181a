"""The databases of a run: the rooms' own tables, made by their migrations, on files that are put back between runs."""

from __future__ import annotations

import sqlite3
import tempfile
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from services.platform import migrations
from services.platform.database import Database

ROOMS = ("payment", "order")


class Stage:
    """Two databases on files in memory where the system has such a place; nothing is synced, for nothing survives."""

    def __init__(self) -> None:
        """Make them once; `reset` makes them empty again."""
        shared = Path("/dev/shm")
        self._folder = tempfile.TemporaryDirectory(prefix="paymesh-sim-", dir=shared if shared.is_dir() else None)
        self.pragmas: tuple[str, ...] = ()
        """What each connection is told beside: a planted bug may need a database that checks nothing."""
        self.files = {room: Path(self._folder.name) / f"{room}.db" for room in ROOMS}
        self.databases: dict[str, Database] = {}
        self._empty: dict[str, bytes] = {}
        for room, file in self.files.items():
            url = f"sqlite:///{file}"
            migrations.upgrade(room, url)
            with sqlite3.connect(file) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.close()
            self._empty[room] = file.read_bytes()
            self.databases[room] = Database(url, readers=2)
            for engine in (self.databases[room]._writer, self.databases[room]._reader):
                sa.event.listen(engine, "connect", self._connected)

    def _connected(self, connection: Any, _record: object) -> None:  # noqa: ANN401 - a DBAPI connection
        for pragma in ("synchronous=OFF", *self.pragmas):
            connection.execute(f"PRAGMA {pragma}")

    def reset(self, pragmas: tuple[str, ...] = ()) -> None:
        """Make the databases empty."""
        self.pragmas = pragmas
        for room, file in self.files.items():
            self.databases[room].stop()
            for beside in ("-wal", "-shm"):
                file.with_name(file.name + beside).unlink(missing_ok=True)
            file.write_bytes(self._empty[room])

    def contents(self) -> bytes:
        """Return every byte of the databases, as somebody has who steals the files."""
        for database in self.databases.values():
            database.stop()
        return b"".join(file.read_bytes() for file in self.files.values())

    def close(self) -> None:
        """Remove the files."""
        for database in self.databases.values():
            database.stop()
        self._folder.cleanup()
