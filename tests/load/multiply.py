"""Multiplies what stands in a mesh's folder: orders and payments again and again, each copy later than the one before.

SQL alone, on SQLite, by the names of columns: ids and times move on, so that everything refers to what it did, one copy
further; users and accounts are the same. What events and answers say inside is copied as it is: no audit reads it.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections import defaultdict
from pathlib import Path
from typing import Any

from services.payment.domain import chain_hash

TABLES = {
    "order": ("orders", "order_items", "order_history", "outbox", "inbox"),
    "payment": ("payments", "payment_history", "refunds", "attempts", "known_orders", "ledger_transactions",
                "ledger_entries", "outbox", "inbox", "idempotency_keys"),
    "notification": ("notifications", "inbox"),
    "risk": ("assessed_payments", "inbox"),
}  # fmt: skip
"""Room -> the tables that grow with payments."""
_SAME = {
    "ledger_transactions": "kind <> 'top_up'",
    "ledger_entries": "transaction_id IN (SELECT id FROM made.ledger_transactions WHERE kind <> 'top_up')",
    "idempotency_keys": "method <> 'TopUpBalance'",
    "notifications": "event_id NOT LIKE 'user-%'",
    "inbox": "event_id NOT LIKE 'user-%'",
}
"""Table -> which of its rows are copied; all, where it is not named."""
_IDS = frozenset({"id", "payment_id", "order_id", "refund_id", "live_order_id", "reference_id", "transaction_id"})
_NUMBERS = frozenset({"payment_no", "order_no", "refund_no", "request_id"})


def multiply(folder: Path, copies: int, span_ms: int) -> None:
    """Add ``copies`` of what is there, which happened within ``span_ms``."""
    if copies < 1:
        return
    for room, tables in TABLES.items():
        with contextlib.closing(_opened(folder, room)) as connection:
            links = _links(connection) if room == "payment" else (0, 0)
            for copy in range(1, copies + 1):
                for table in tables:
                    _copy(connection, table, copy, span_ms, links)
            if room == "payment":
                _book(connection)
            elif room == "order":
                _reserve(connection)
            connection.execute("COMMIT")
            connection.execute("DROP TABLE IF EXISTS made")
    for path in (folder / "providers" / "book").glob("*.jsonl"):
        _append(path, copies, span_ms)


def _opened(folder: Path, room: str) -> sqlite3.Connection:
    """Open a room's database with a copy of it as it stands, ``made``, to read from."""
    path = folder / f"{room}.db"
    kept = path.with_suffix(".made")
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(f"VACUUM INTO '{kept}'")
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA cache_size = -200000")
    connection.execute("PRAGMA wal_autocheckpoint = 10000")
    connection.execute(f"ATTACH '{kept}' AS made")
    kept.unlink()
    connection.execute("BEGIN")
    return connection


def _links(connection: sqlite3.Connection) -> tuple[int, int]:
    """Return the last link of the ledger's chain that payments are not in, and the last of all."""
    kind = "SELECT MAX(chain_seq) FROM ledger_transactions WHERE kind = 'top_up'"
    return connection.execute(kind).fetchone()[0] or 0, connection.execute("SELECT seq FROM ledger_tail").fetchone()[0]


def _copy(connection: sqlite3.Connection, table: str, copy: int, span_ms: int, links: tuple[int, int]) -> None:
    columns = [row[1] for row in connection.execute(f"PRAGMA made.table_info({table})")]
    moved = {"copy": copy, "ids": copy * span_ms << 22, "ms": copy * span_ms, "links": copy * (links[1] - links[0])}
    values = ", ".join(_moved(column) for column in columns)
    where = f" WHERE {_SAME[table]}" if table in _SAME else ""
    connection.execute(
        f"INSERT INTO main.{table} ({', '.join(columns)}) SELECT {values} FROM made.{table}{where}", moved
    )


def _moved(column: str) -> str:
    """Say in SQL what a column is one copy further."""
    if column in _IDS:
        return f"CASE {column} WHEN 0 THEN 0 ELSE {column} + :ids END"
    if column.endswith("_ms"):
        return f"CASE {column} WHEN 0 THEN 0 ELSE {column} + :ms END"
    if column in _NUMBERS:
        return f"substr({column}, 1, 1) || (CAST(substr({column}, 2) AS INTEGER) + :ids)"
    return {
        "event_key": "CAST(CAST(event_key AS INTEGER) + :ids AS TEXT)",
        "event_id": "substr(event_id, 1, instr(event_id, '-')) || "
                    "(CAST(substr(event_id, instr(event_id, '-') + 1) AS INTEGER) + :ids)",
        "chain_seq": "chain_seq + :links",
        "idempotency_key": "idempotency_key || '-' || :copy",
        "response": "CASE WHEN response IS NOT NULL THEN CAST(idempotency_key || '-' || :copy || response AS BLOB) END",
    }.get(column, column)  # fmt: skip


def _book(connection: sqlite3.Connection) -> None:
    """Make the links of the chain that the copies need, and the balances."""
    seq, link = connection.execute("SELECT seq, hash FROM ledger_tail").fetchone()
    lines_of = (
        "SELECT x.chain_seq, e.transaction_id, e.line, e.account_id, e.amount_minor, x.kind, x.reference_id, x.at_ms "
        "FROM ledger_transactions x JOIN ledger_entries e ON e.transaction_id = x.id WHERE x.chain_seq BETWEEN ? AND ? "
        "ORDER BY x.chain_seq, x.id, e.line"
    )
    last = connection.execute("SELECT MAX(chain_seq) FROM ledger_transactions").fetchone()[0]
    while seq < last:
        lines: defaultdict[int, list[tuple[Any, ...]]] = defaultdict(list)
        for number, *line in connection.execute(lines_of, (seq + 1, seq + 200)):
            lines[number].append(tuple(line))
        made = []
        for number in sorted(lines):
            link = chain_hash(link, lines[number])
            made.append((number, link))
        connection.executemany("INSERT INTO ledger_chain VALUES (?, ?)", made)
        seq = made[-1][0]
    connection.execute("UPDATE ledger_tail SET seq = ?, hash = ?", (seq, link))
    summed = "(SELECT SUM(amount_minor) FROM ledger_entries WHERE account_id = accounts.id)"
    connection.execute(f"UPDATE accounts SET balance_minor = {summed}")


def _reserve(connection: sqlite3.Connection) -> None:
    """Reserve what the copies of pending orders hold."""
    held = (
        "SELECT SUM(quantity) FROM order_items JOIN orders ON orders.id = order_id "
        "WHERE status = 'pending' AND order_items.sku = stock.sku"
    )
    connection.execute(f"UPDATE stock SET reserved = COALESCE(({held}), 0)")


def _append(path: Path, copies: int, span_ms: int) -> None:
    """Copy a provider's book line by line, numbers and times moved on."""
    lines = path.read_bytes()

    def number(match: re.Match[bytes]) -> bytes:
        return b'"%s%d"' % (match[1], int(match[2]) + (moved_ms << 22))

    def time(match: re.Match[bytes]) -> bytes:
        return b'_ms":%d' % (int(match[1]) + moved_ms)

    with path.open("ab") as file:
        for copy in range(1, copies + 1):
            moved_ms = copy * span_ms
            file.write(re.sub(rb'_ms":(\d{13})', time, re.sub(rb'"([PR])(\d+)"', number, lines)))
