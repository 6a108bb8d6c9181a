"""What audits of rooms stand on: findings, what is new since the last run, and the checks that several rooms share."""

from services.platform.audit.digest import LESS, P, Q, Rows, Sums, differing
from services.platform.audit.effects import Pair, effects
from services.platform.audit.finding import SHOWN, Finding
from services.platform.audit.notes import FORMAT, Figures, Notes, NotesUnusable
from services.platform.audit.outbox import each_told, events_told, new_keys, outbox_published, versions_without_gap
from services.platform.audit.since import (
    OVERLAP_MS,
    PENDING_MS,
    Connection,
    Found,
    Query,
    Range,
    Since,
    chunks,
    count,
    over,
    pages,
    streamed,
    within,
)
from services.platform.audit.texts import Texts, texts

__all__ = [
    "FORMAT",
    "LESS",
    "OVERLAP_MS",
    "PENDING_MS",
    "SHOWN",
    "Connection",
    "Figures",
    "Finding",
    "Found",
    "Notes",
    "NotesUnusable",
    "P",
    "Pair",
    "Q",
    "Query",
    "Range",
    "Rows",
    "Since",
    "Sums",
    "Texts",
    "chunks",
    "count",
    "differing",
    "each_told",
    "effects",
    "events_told",
    "new_keys",
    "outbox_published",
    "over",
    "pages",
    "streamed",
    "texts",
    "versions_without_gap",
    "within",
]
