"""ExportLedger: the journal of a day, as a file in the file store."""

from __future__ import annotations

import csv
import gzip
import io
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from services.kernel.errors import DomainError
from services.payment.domain import JournalLine

if TYPE_CHECKING:
    from services.payment.ports import Ports

_OVER_MS = 600_000
"""So long after midnight nothing is booked any more with yesterday's time, whatever instance's clock it is of."""


class LedgerExport(NamedTuple):
    """A day (YYYY-MM-DD, UTC), the name of its file, and how many entries are in it."""

    day: str
    sha256: str
    entries: int


def export_ledger(ports: Ports, day: str) -> LedgerExport:
    """Keep the entries of a day as gzip of CSV. Refuses with INVALID_ARGUMENT a day that is none, or not over.

    A day that is over has its entries for good, and so the file is the same each time. What is held in memory is the
    compressed file.
    """
    try:
        begins = datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise DomainError("INVALID_ARGUMENT", field="day", value=day) from None
    ends_ms = _ms(begins + timedelta(days=1))
    if ports.clock.now_ms() < ends_ms + _OVER_MS:
        raise DomainError("INVALID_ARGUMENT", field="day", value=day)
    kept, entries = io.BytesIO(), 0
    with (
        gzip.GzipFile(fileobj=kept, mode="wb", mtime=0, filename="") as packed,
        io.TextIOWrapper(packed, "ascii", newline="") as text,
    ):
        table = csv.writer(text)
        table.writerow("time" if name == "at_ms" else name for name in JournalLine._fields)
        for entries, entry in enumerate(ports.store.journal(_ms(begins), ends_ms), 1):  # noqa: B007 - the last one counts
            at = datetime.fromtimestamp(entry.at_ms / 1000, UTC).isoformat(timespec="milliseconds")
            table.writerow((*entry[:2], at, *entry[3:]))
    return LedgerExport(day, ports.outside.files.put(kept.getvalue()), entries)


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)
