"""I2 of reconciliation: what bills moved between accounts is what their lines say."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import sqlalchemy as sa

from services.payment.domain.bill import Number
from services.payment.domain.ledger import BANK, CLEARING, FEES, SUSPENSE
from services.payment.store import settled
from services.payment.store import tables as t
from services.platform.audit import SHOWN, Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from services.platform.audit import Found

X, E, A = t.ledger_transactions.c, t.ledger_entries.c, t.accounts.c
B, S = settled.bills.c, settled.settled_lines.c
_OF_BILLS = ("settlement", "fees", "correction", "late_settlement")


def accounts_follow_bills(connection: sa.Connection) -> Finding:
    """I2: bills took from clearing what their lines settled, and put the rest into suspense; the bank has what they paid.

    Each number counts once a day, as it stands by the last file of the day. Sums over everything, in every run.
    """
    due: defaultdict[tuple[str, str], int] = defaultdict(int)
    for method, row in _standing(connection):
        sign, currency = Number(row.kind, "", row.currency_code).sign, row.currency_code
        billed, cleared, fees = sign * int(row.billed), sign * int(row.cleared), int(row.fees)
        due[CLEARING[method], currency] += cleared
        due[SUSPENSE, currency] += billed - cleared
        due[FEES, currency] -= fees
        due[BANK, currency] -= billed - fees
    moved = (
        sa.select(A.kind, A.currency_code, sa.func.sum(E.amount_minor))
        .join_from(t.ledger_transactions, t.ledger_entries, E.transaction_id == X.id)
        .join(t.accounts, E.account_id == A.id)
        .where(X.kind.in_(_OF_BILLS))
        .group_by(A.kind, A.currency_code)
    )
    has = {(kind, currency): int(amount) for kind, currency, amount in connection.execute(moved)}
    breaches = [
        f"bills moved {has.get((kind, currency), 0)} {currency} of {kind}, their lines say {due[kind, currency]}"
        for kind, currency in sorted(due.keys() | has.keys())
        if has.get((kind, currency), 0) != due[kind, currency]
    ]
    return Finding("I2", "accounts and bills", len(due), breaches[:SHOWN])


def _standing(connection: sa.Connection) -> Iterator[tuple[str, Found]]:
    """Yield the method of a day's bills with sums over how its numbers last stood: by kind and currency."""
    days: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for row in connection.execute(sa.select(B.id, B.payment_method, B.day).order_by(B.serial)):
        days[row.payment_method, row.day].append(row.id)
    for (method, _), ids in days.items():
        yield from ((method, found) for found in connection.execute(_sums(ids)))


def _sums(bill_ids: Sequence[int]) -> sa.Select[tuple[str, str, int, int, int]]:
    lines: sa.FromClause = settled.settled_lines
    if len(bill_ids) > 1:
        last = sa.func.row_number().over(partition_by=(S.kind, S.request_id, S.currency_code), order_by=B.serial.desc())
        ranked = sa.select(lines, last.label("place")).join(settled.bills, S.bill_id == B.id)
        lines = ranked.where(S.bill_id.in_(bill_ids)).subquery()
    c = lines.c
    sums = ((c.billed_minor, "billed"), (c.cleared_minor, "cleared"), (c.fees_minor, "fees"))
    query = sa.select(c.kind, c.currency_code, *(sa.func.sum(column).label(name) for column, name in sums))
    kept = c.place == 1 if "place" in c else c.bill_id == bill_ids[0]
    return query.where(kept).group_by(c.kind, c.currency_code)
