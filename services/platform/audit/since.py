"""What a run looks at: everything, or what is new since the last one that found no breach."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import sqlalchemy as sa

from services.platform.audit.notes import Notes

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

T = TypeVar("T")

Connection = sa.Connection
"""What audits read by."""
Query = sa.Select[*tuple[Any, ...]]
"""Any query."""
Found = sa.Row[*tuple[Any, ...]]
"""A row of any query."""

PENDING_MS = 60_000
"""Items younger than this are on their way; with --settled they are breaches."""
OVERLAP_MS = 2 * PENDING_MS
"""How far an incremental run looks back behind the last one: over what was on its way then, transactions that committed
late, and clocks that differ or step back by less."""
_OVERLAP_IDS = OVERLAP_MS << 22
"""The same in ids, whose low 22 bits are no time (services.kernel.ids)."""
_STREAMED = 2_000
_KEYS_MAX = 500


class Range(NamedTuple):
    """Ids from the first to the last."""

    first: int
    last: int


@dataclass(slots=True)
class Since:
    """What earlier runs have seen of a room. ``ms`` is the time from which on changes are looked at; 0: from the beginning."""

    ms: int = 0
    room: str = ""
    notes: Notes = field(default_factory=Notes)
    _known: dict[str, Any] = field(default_factory=dict)
    _noted: dict[str, object] = field(default_factory=dict)

    @property
    def full(self) -> bool:
        """Whether everything is looked at."""
        return not self.ms

    def get(self, name: str) -> Any:  # noqa: ANN401 - any JSON
        """Return what an earlier run noted of this room; None: nothing, or this run looks at everything."""
        return None if self.full else self.notes.get(f"{self.room}.{name}")

    def put(self, name: str, value: object) -> None:
        """Note something of this room, for the next run; this one goes on with what was noted before."""
        self._noted[f"{self.room}.{name}"] = value

    def save(self) -> None:
        """Hand over what was noted."""
        for name, value in self._noted.items():
            self.notes.put(name, value)

    def once(self, name: str, find: Callable[[], T]) -> T:
        """Return what ``find`` finds; it is asked once in this run."""
        if name not in self._known:
            self._known[name] = find()
        found: T = self._known[name]
        return found

    def new_ids(self, connection: sa.Connection, table: sa.Table) -> int:
        """Return the id above which rows of ``table`` are new; 0: all are to be looked at.

        Rows are only ever added to it, with ids that ascend, more or less. When rows came or went further below than
        the overlap reaches, all of them are looked at.
        """
        return self.once(f"{table.name}.new", lambda: self._new_ids(connection, table))

    def ahead(self, connection: sa.Connection, key: sa.Column[Any]) -> int:
        """Return the value of ``key``, which ascends as rows are added, above which they are new; -1: all are."""
        name = f"{key.table.fullname}.ahead"
        return self.once(name, lambda: self._ahead(connection, key, name))

    def _ahead(self, connection: sa.Connection, key: sa.Column[Any], name: str) -> int:
        last = connection.execute(sa.select(sa.func.max(key))).scalar() or 0
        self.put(name, last - _OVERLAP_IDS if last > _OVERLAP_IDS else last)
        known = self.get(name)
        return -1 if known is None else int(known)

    def _new_ids(self, connection: sa.Connection, table: sa.Table) -> int:
        column = table.c.id

        def old(low: int) -> int:
            # Not count(id <= low): that reads the rows themselves, where an index has all the ids.
            new = connection.execute(sa.select(sa.func.count()).select_from(table).where(column > low)).scalar_one()
            return total - int(new)

        total = count(connection, table)
        known = self.get(f"{table.name}.ids")
        low = int(known["low"]) if known else 0
        if known and old(low) != known["rows"]:
            low = 0
        last = connection.execute(sa.select(sa.func.max(column))).scalar() or 0
        ahead = max(0, last - _OVERLAP_IDS)
        self.put(f"{table.name}.ids", {"low": ahead, "rows": old(ahead)})
        return low


def count(connection: sa.Connection, table: sa.Table, *where: sa.ColumnElement[bool]) -> int:
    """Return how many rows a table has."""
    return int(connection.execute(sa.select(sa.func.count()).select_from(table).where(*where)).scalar_one())


def streamed(connection: sa.Connection, query: Query) -> Iterator[Found]:
    """Yield a query's rows in constant memory; on some databases nothing else can be asked meanwhile."""
    with connection.execute(query.execution_options(yield_per=_STREAMED)) as rows:
        yield from rows


def over(
    connection: sa.Connection, query: Query, column: sa.ColumnElement[Any], keys: Collection[Any] | None
) -> Iterator[Found]:
    """Yield a query's rows whose ``column`` is one of ``keys``, asked some keys at a time; None: all rows, streamed."""
    if keys is None:
        yield from streamed(connection, query)
        return
    for some in chunks(keys):
        yield from connection.execute(query.where(column.in_(some))).all()


def chunks(keys: Iterable[T], size: int = _KEYS_MAX) -> Iterator[list[T]]:
    """Cut keys into lists that one statement takes."""
    each = iter(keys)
    while some := list(islice(each, size)):
        yield some


def within(
    connection: sa.Connection,
    query: Query,
    column: sa.ColumnElement[Any],
    among: Collection[Any] | Range | None,
) -> Iterator[Found]:
    """Yield a query's rows in the order of ``column``: those of some keys, those of a range of them, or all, streamed."""
    if among is None:
        yield from streamed(connection, query)
    elif isinstance(among, Range):
        yield from connection.execute(query.where(column.between(*among))).all()
    else:
        yield from over(connection, query, column, sorted(set(among)))


def pages(
    connection: sa.Connection, query: Query, by: sa.ColumnElement[int], size: int = _KEYS_MAX
) -> Iterator[Sequence[Found]]:
    """Yield a query's rows by their ``id``, some at a time, so that others can be asked for between."""
    last = 0
    while rows := connection.execute(query.where(by > last).order_by(by).limit(size)).all():
        yield rows
        last = rows[-1].id
