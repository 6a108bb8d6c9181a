"""Entries and the addresses of instances, in SQL. An entry, its history and its event are one transaction."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from services.config import mapping
from services.config.domain import Entry, Name
from services.platform import outbox as events
from services.platform.database import for_update, insert_rows, update_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from services.kernel.clock import Clock
    from services.kernel.ids import IdMaker
    from services.kernel.pages import Page
    from services.platform.database import Database

METADATA = sa.MetaData()

_KEY = 64
_VALUE = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
"""65,536 characters may be 262,144 bytes, more than MySQL's TEXT holds."""

ENTRIES = sa.Table(
    "config_entries",
    METADATA,
    sa.Column("config_key", sa.String(_KEY), primary_key=True),
    sa.Column("value", _VALUE, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("updated_by", sa.BigInteger, nullable=False),
    sa.Column("update_ms", sa.BigInteger, nullable=False),
)
HISTORY = sa.Table(
    "config_history",
    METADATA,
    sa.Column("config_key", sa.String(_KEY), primary_key=True),
    sa.Column("version", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("value", _VALUE, nullable=False),
    sa.Column("updated_by", sa.BigInteger, nullable=False),
    sa.Column("update_ms", sa.BigInteger, nullable=False),
)
INSTANCES = sa.Table(
    "instances",
    METADATA,
    sa.Column("service", sa.String(32), primary_key=True),
    sa.Column("instance", sa.String(64), primary_key=True),
    sa.Column("mesh_address", sa.String(255), nullable=False),
    sa.Column("register_ms", sa.BigInteger, nullable=False),
)
OUTBOX, RELAY_LEASE = events.outbox_tables(METADATA)

_ENTRY = (ENTRIES.c.config_key, ENTRIES.c.value, ENTRIES.c.version, ENTRIES.c.updated_by, ENTRIES.c.update_ms)


def _row(entry: Entry) -> dict[str, Any]:
    return {
        "config_key": entry.key,
        "value": entry.value,
        "version": entry.version,
        "updated_by": entry.updated_by,
        "update_ms": entry.update_ms,
    }


class _Transaction:
    def __init__(self, connection: sa.Connection, ids: IdMaker, clock: Clock) -> None:
        self._connection, self._ids, self._clock = connection, ids, clock

    def entries(self, keys: Iterable[str]) -> dict[str, Entry]:
        query = sa.select(*_ENTRY).where(ENTRIES.c.config_key.in_(list(keys))).order_by(ENTRIES.c.config_key)
        rows = self._connection.execute(for_update(query, self._connection.dialect.name))
        return {row.config_key: Entry(*row) for row in rows}

    def save_entries(self, changes: Sequence[Entry]) -> None:
        """Write the last version of each entry, and every version to the history and the outbox."""
        latest = {entry.key: entry for entry in changes}
        first = {entry.key: entry.version for entry in reversed(changes)}
        insert_rows(self._connection, ENTRIES, [_row(entry) for key, entry in latest.items() if first[key] == 1])
        update_rows(
            self._connection, ENTRIES, ("config_key",), [_row(entry) for key, entry in latest.items() if first[key] > 1]
        )
        insert_rows(self._connection, HISTORY, [_row(entry) for entry in changes])
        changed = [mapping.config_changed(entry) for entry in changes]
        events.append(self._connection, OUTBOX, changed, self._ids, self._clock.now_ms())

    def instances(self) -> dict[Name, str]:
        i = INSTANCES.c
        rows = self._connection.execute(sa.select(i.service, i.instance, i.mesh_address))
        return {Name(row.service, row.instance): row.mesh_address for row in rows}

    def keep_instances(self, addresses: Mapping[Name, str]) -> None:
        self.forget_instances(addresses)
        now = self._clock.now_ms()
        rows = [
            {"service": name.service, "instance": name.instance, "mesh_address": address, "register_ms": now}
            for name, address in sorted(addresses.items())
        ]
        insert_rows(self._connection, INSTANCES, rows)

    def forget_instances(self, names: Iterable[Name]) -> None:
        i = INSTANCES.c
        for name in sorted(names):  # a handful at most
            gone = sa.delete(INSTANCES).where(i.service == name.service, i.instance == name.instance)
            self._connection.execute(gone)

    def commit(self) -> None:
        self._connection.commit()


class SqlStore:
    """The port Store."""

    def __init__(self, database: Database, ids: IdMaker, clock: Clock) -> None:
        """Keep everything in ``database``; ids are for the outbox."""
        self._database, self._ids, self._clock = database, ids, clock

    @contextlib.contextmanager
    def write(self) -> Iterator[_Transaction]:
        """Begin a change."""
        with self._database.write() as connection:
            yield _Transaction(connection, self._ids, self._clock)

    def entry(self, key: str) -> Entry | None:
        """Read an entry."""
        with self._database.read() as connection:
            row = connection.execute(sa.select(*_ENTRY).where(ENTRIES.c.config_key == key)).first()
        return Entry(*row) if row else None

    def list_entries(self, prefix: str, page: Page) -> Sequence[Entry]:
        """Read ``page.limit`` entries by key after ``page.after``."""
        key = ENTRIES.c.config_key
        query = sa.select(*_ENTRY).where(key > page.after).order_by(key).limit(page.limit)
        if prefix:
            query = query.where(key.startswith(prefix, autoescape=True))
        with self._database.read() as connection:
            return [Entry(*row) for row in connection.execute(query)]
