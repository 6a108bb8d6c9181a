"""I10: the hash chains of the ledger and of the audit log, and that what lies behind the last link seen is still there."""

from __future__ import annotations

from collections import defaultdict
from functools import reduce
from typing import TYPE_CHECKING

import sqlalchemy as sa

from services.payment.audit.scope import Link, seen_link
from services.payment.domain import chain_hash
from services.payment.ports import Deed
from services.payment.store import tables as t
from services.payment.store.lifecycle import audit_hash
from services.platform.audit import SHOWN, Finding, count, streamed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from services.platform.audit import Since

X, E, C, L = t.ledger_transactions.c, t.ledger_entries.c, t.ledger_chain.c, t.audit_log.c
_LINKS = 500
"""Links that are read at a time."""
_FAR = 10_000_000_000_000_000
"""More than any amount: what is added to one is positive, so that % means the same in SQL and in Python."""


def ledger_chain(connection: sa.Connection, since: Since) -> Finding:
    """I10: each new link of the chain follows from its entries and the link before, and the last one is the tail.

    Entries behind the link that was seen last are not hashed again: their sums must be what they were.
    """
    began, breaches = seen_link(since), list[str]()
    if began.seq and not _is_there(connection, began):
        breaches.append(
            f"link {began.seq} is not what the last run saw: an older state was put back, or it was changed"
        )
        return Finding("I10", "links of the ledger chain", 1, breaches)
    at, entries = began, 0
    for seq, link, lines in _links(connection, began.seq):
        if seq != at.seq + 1 or chain_hash(at.hash, lines) != link:
            breaches.append(f"link {seq} does not follow from its entries and the link before")
            break
        at, entries = Link(seq, link), entries + len(lines)
    tail = connection.execute(sa.select(t.ledger_tail.c.seq, t.ledger_tail.c.hash)).one()
    if not breaches and (tail.seq, bytes(tail.hash)) != (at.seq, at.hash):
        breaches.append(f"the chain ends at link {at.seq}, its tail says {tail.seq}")
    if not breaches and (links := count(connection, t.ledger_chain)) != at.seq:
        breaches.append(f"the chain has {links} links and ends at number {at.seq}")
    total = _sums(connection)
    if not breaches and began.seq:
        behind, ahead = since.get("behind"), _sums(connection, after=began.seq)
        if total != [old + new for old, new in zip(behind, ahead, strict=True)]:
            breaches.append(f"entries behind link {began.seq} are not what the last run saw")
    elif not breaches:
        beyond = count(connection, t.ledger_transactions, sa.or_(X.chain_seq < 1, X.chain_seq > at.seq))
        if entries != total[0] or beyond:
            breaches.append(f"of {total[0]} entries {total[0] - entries} are in no link, nor are {beyond} transactions")
    since.put("chain", {"seq": at.seq, "hash": at.hash.hex()})
    since.put("behind", total)
    return Finding("I10", "links of the ledger chain", max(at.seq - began.seq, int(at.seq > 0)), breaches)


def _is_there(connection: sa.Connection, link: Link) -> bool:
    found = connection.execute(sa.select(C.hash).where(C.seq == link.seq)).scalar()
    return found is not None and bytes(found) == link.hash


def _links(connection: sa.Connection, after: int) -> Iterator[tuple[int, bytes, list[tuple[str]]]]:
    """Yield each link after ``after`` with its lines in the order in which they were hashed.

    A line comes as one text, put together as `chain_hash` does: by the database, which is quicker at it.
    """
    said = (E.transaction_id, E.line, E.account_id, E.amount_minor, X.kind, X.reference_id, X.at_ms)
    words: list[sa.ColumnElement[str]] = [sa.cast(each, sa.String(32)) for each in said]
    text = reduce(lambda before, each: before + sa.literal(",") + each, words)
    lines_of = (
        sa.select(X.chain_seq, text)
        .join_from(t.ledger_transactions, t.ledger_entries, E.transaction_id == X.id)
        .order_by(X.chain_seq, X.id, E.line)
    )
    while True:
        page = connection.execute(sa.select(C.seq, C.hash).where(C.seq > after).order_by(C.seq).limit(_LINKS)).all()
        if not page:
            return
        last = page[-1].seq
        lines: defaultdict[int, list[tuple[str]]] = defaultdict(list)
        for seq, line in connection.execute(lines_of.where(X.chain_seq > after, X.chain_seq <= last)):
            lines[seq].append((line,))
        for seq, link in page:
            yield seq, bytes(link), lines[seq]
        after = last


def _sums(connection: sa.Connection, after: int = 0) -> list[int]:
    """Return how many entries and transactions there are after a link, and a sum over each of what they say.

    Whatever is changed by accident changes the sums; whoever means to deceive finds a change that does not, and has
    then the hashes of the chain against him, which a full run computes again.
    """
    entries = (E.transaction_id % 8191 + E.line) * ((E.amount_minor + _FAR) % 131071 + E.account_id % 65537)
    booked = (X.id % 8191 + X.chain_seq) * (X.reference_id % 131071 + X.at_ms % 65537 + sa.func.length(X.kind))
    of_entries: sa.FromClause = t.ledger_entries
    if after:
        of_entries = t.ledger_transactions.join(t.ledger_entries, E.transaction_id == X.id)
    new = (X.chain_seq > after,) if after else ()
    found: list[int] = []
    for rows, said in ((of_entries, entries), (t.ledger_transactions, booked)):
        query = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(said), 0)).select_from(rows).where(*new)
        found += map(int, connection.execute(query).one())
    return found


def audit_log(connection: sa.Connection, since: Since) -> Finding:
    """I10: each row of the audit log follows from the one before, without a gap, and the last one seen is still there.

    All rows are looked at in every run: they tell what operators did, and that is not much.
    """
    known, at, breaches = since.get("log") or {"seq": 0, "hash": ""}, Link(), list[str]()
    for row in streamed(connection, sa.select(t.audit_log).order_by(L.seq)):
        deed = Deed(row.actor_id, row.action, row.about_id, row.detail)
        if row.seq != at.seq + 1 or audit_hash(at.hash, row.seq, row.at_ms, deed) != bytes(row.hash):
            breaches.append(f"row {row.seq} of the audit log does not follow from the one before")
            break
        at = Link(row.seq, bytes(row.hash))
        if at.seq == known["seq"] and at.hash.hex() != known["hash"]:
            breaches.append(f"row {at.seq} of the audit log is not what the last run saw")
    if not breaches and at.seq < known["seq"]:
        breaches.append(f"the audit log ends at row {at.seq}, the last run saw {known['seq']}")
    since.put("log", {"seq": at.seq, "hash": at.hash.hex()})
    return Finding("I10", "rows of the audit log", at.seq, breaches[:SHOWN])
