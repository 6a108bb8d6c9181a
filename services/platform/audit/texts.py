"""Every text and every run of bytes that a database holds, for who looks for what must not be there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import chain
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

if TYPE_CHECKING:
    from services.platform.audit.since import Found, Query, Since

SHORTEST = 12
"""Characters below which a text holds nothing that is looked for."""
_SHORT = 64
_SAMPLE, _FEW = 10_000, 100
"""A short column that has no more different texts in the first rows of its table is read as the set of them."""
_SET_MAX = 5_000
_PAGE = 500
_TIMES = ("taken_ms", "create_ms", "at_ms", "event_ms")
"""Columns that say when a row was written, where rows are not changed; good where there is an index on them."""
_IDS = frozenset({"event_key", "event_id", "payment_no", "order_no", "refund_no"})
"""Columns whose text the platform makes of ids."""


@dataclass(frozen=True, slots=True)
class Texts:
    """The text of a table: pages of rows, each (its texts in one, the ``keys`` columns of its key, what it has in bytes)."""

    table: str
    rows: int
    keys: int
    pages: Iterator[Sequence[Found]]

    def of(self, page: Sequence[Found]) -> bytes:
        """Put rows into one, with what separates words between them."""
        words = "\n".join([row[0] for row in page]).encode(errors="replace")
        first = self.keys + 1
        return b"\n".join([words, *(blob for row in page for blob in row[first:] if blob)])


def texts(connection: sa.Connection, since: Since) -> Iterator[Texts]:
    """Yield the tables of a database that hold text or bytes; each has to be read to its end before the next one.

    A table that does not say what is new in it is read as a whole: it is one of settings, and small.
    """
    metadata = sa.MetaData()
    metadata.reflect(connection)
    for table in metadata.sorted_tables:
        words = [column for column in table.columns if _holds_words(column)]
        blobs = [column for column in table.columns if isinstance(column.type, sa.LargeBinary)]
        if table.name == "alembic_version" or not (words or blobs):
            continue
        new = _new(connection, table, since)
        few = _few(connection, table, words) if since.full else []
        sets = _sets(connection, few)
        if sets is not None:
            words = [column for column in words if column not in few]
        query = sa.select(_joined(words), *table.primary_key, *blobs).where(*new)
        rows = connection.execute(sa.select(sa.func.count()).select_from(table).where(*new)).scalar_one()
        pages = _pages(connection, query) if words or blobs else iter(())
        yield Texts(table.name, rows, len(table.primary_key), chain([sets or ()], pages))


def _pages(connection: sa.Connection, query: Query) -> Iterator[Sequence[Found]]:
    with connection.execute(query.execution_options(yield_per=_PAGE)) as rows:
        yield from rows.partitions()


def _joined(words: Sequence[sa.Column[Any]]) -> sa.ColumnElement[str]:
    each = [sa.func.coalesce(column, "") for column in words]
    return reduce(lambda before, after: before + sa.literal("\n") + after, each) if each else sa.literal("")


def _few(connection: sa.Connection, table: sa.Table, words: Sequence[sa.Column[Any]]) -> list[sa.Column[Any]]:
    """Return the columns that have few different texts, as far as the first rows tell."""
    short = [column for column in words if column.type.length and column.type.length <= _SHORT]  # type: ignore[attr-defined]
    if not short:
        return []
    some = sa.select(*short).select_from(table).limit(_SAMPLE).subquery()
    counts = connection.execute(sa.select(*(sa.func.count(some.c[column.name].distinct()) for column in short))).one()
    return [column for column, n in zip(short, counts, strict=True) if n <= _FEW]


def _sets(connection: sa.Connection, few: Sequence[sa.Column[Any]]) -> Sequence[Found] | None:
    """Return all combinations of texts of these columns; None: they are many, after all."""
    if not few:
        return None
    found = connection.execute(sa.select(_joined(few)).distinct().limit(_SET_MAX + 1)).all()
    return found if len(found) <= _SET_MAX else None


def _holds_words(column: sa.Column[Any]) -> bool:
    kind = column.type
    return isinstance(kind, sa.String) and (kind.length or SHORTEST) >= SHORTEST and column.name not in _IDS


def _new(connection: sa.Connection, table: sa.Table, since: Since) -> tuple[sa.ColumnElement[bool], ...]:
    """Return what holds for rows that are new: by when they were changed, or made, or by the first column of their key."""
    indexed = {next(iter(index.columns)).name for index in table.indexes}
    written = [name for name in ("update_ms", *(indexed.intersection(_TIMES))) if name in table.c]
    if written:
        return () if since.full else (table.c[written[0]] >= since.ms,)
    first = next(iter(table.primary_key), None)
    if first is None or not isinstance(first.type, sa.Integer):
        return ()
    new = since.ahead(connection, first)
    return () if since.full else (first > new,)
