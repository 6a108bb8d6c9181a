"""What bills settled: their tables, and the part of a transaction that writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from services.payment.domain.bill import Booked, Late, Mismatch, Number
from services.payment.domain.ledger import CLEARING
from services.payment.store import tables as t
from services.platform.database import insert_rows, update_rows

if TYPE_CHECKING:
    from collections.abc import Iterable

    from services.payment.domain import Method
    from services.payment.domain.bill import Bill, Difference, Settled
    from services.payment.ports.bills import BillBooked, BillChange

bills = sa.Table(
    "bills",
    t.metadata,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("payment_method", sa.String(16), nullable=False),
    sa.Column("serial", sa.Integer, nullable=False),
    sa.Column("day", sa.String(10), nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("line_count", sa.Integer, nullable=False),
    sa.Column("matched_count", sa.Integer, nullable=False),
    sa.Column("difference_count", sa.Integer, nullable=False),
    sa.Column("create_ms", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("payment_method", "day", "sha256", name="bills_once"),
    sa.UniqueConstraint("payment_method", "serial", name="bills_in_turn"),
)
"""``serial`` counts a provider's bills from 1: of two that were matched at once, the second is matched again."""

bill_settlements = sa.Table(
    "bill_settlements",
    t.metadata,
    sa.Column("bill_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("currency_code", sa.String(3), primary_key=True),
    sa.Column("id", sa.BigInteger, nullable=False, unique=True),
    sa.Column("charged_minor", sa.BigInteger, nullable=False),
    sa.Column("refunded_minor", sa.BigInteger, nullable=False),
    sa.Column("fees_minor", sa.BigInteger, nullable=False),
    sa.Column("fees_returned_minor", sa.BigInteger, nullable=False),
    sa.Column("cleared_minor", sa.BigInteger, nullable=False),
)

settled_lines = sa.Table(
    "settled_lines",
    t.metadata,
    sa.Column("bill_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("line", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("kind", sa.String(8), nullable=False),
    sa.Column("request_id", sa.String(64), nullable=False),
    sa.Column("currency_code", sa.String(3), nullable=False),
    sa.Column("line_count", sa.Integer, nullable=False),
    sa.Column("billed_minor", sa.BigInteger, nullable=False),
    sa.Column("fees_minor", sa.BigInteger, nullable=False),
    sa.Column("cleared_minor", sa.BigInteger, nullable=False),
    sa.Column("settles", sa.BigInteger, unique=True),
    sa.CheckConstraint("kind IN ('charge', 'refund')", name="settled_lines_kind"),
    sa.CheckConstraint("settles IS NULL OR cleared_minor > 0", name="settled_lines_settles"),
)
"""``settles`` is unique: no payment and no refund is settled by two bills."""

bill_differences = sa.Table(
    "bill_differences",
    t.metadata,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("bill_id", sa.BigInteger, nullable=False),
    sa.Column("line", sa.Integer, nullable=False),
    sa.Column("mismatch", sa.String(24), nullable=False),
    sa.Column("kind", sa.String(8), nullable=False),
    sa.Column("request_id", sa.String(64), nullable=False),
    sa.Column("payment_id", sa.BigInteger, nullable=False),
    sa.Column("refund_id", sa.BigInteger, nullable=False),
    sa.Column("currency_code", sa.String(3), nullable=False),
    sa.Column("booked_minor", sa.BigInteger),
    sa.Column("billed_minor", sa.BigInteger),
    sa.Column("correction_minor", sa.BigInteger, nullable=False),
    sa.Column("review_id", sa.BigInteger, nullable=False),
    sa.Column("awaits", sa.BigInteger, index=True),
    sa.Column("create_ms", sa.BigInteger, nullable=False),
    sa.CheckConstraint(f"mismatch IN {tuple(map(str, sorted(Mismatch)))}", name="bill_differences_mismatch"),
    sa.Index("bill_differences_of_bill", "bill_id", "id"),
)


class Settlements:
    """The part of a transaction that bills have to do with."""

    _connection: sa.Connection

    def bill_turn(self, method: Method) -> tuple[int, int]:
        """Return how many bills of a provider there are, and how many of their differences wait for the books."""
        return turn(self._connection, method)

    def late(self, method: Method) -> list[Late]:
        """Return what earlier bills had and the books did not, and now do; unless another bill settled it.

        The first day that had it settles it, as it stands by the last file of that day: later ones are held against that.
        """
        d, b = bill_differences.c, bills.c
        waiting = (
            sa.select(d.id, d.bill_id, d.line, d.kind, d.request_id, d.currency_code, d.awaits, b.day)
            .join_from(bill_differences, bills, d.bill_id == b.id)
            .where(d.awaits.is_not(None), b.payment_method == str(method))
            .order_by(b.serial, d.id)
        )
        rows: dict[int, Any] = {}
        for row in self._connection.execute(waiting):
            if rows.setdefault(row.awaits, row).day == row.day:
                rows[row.awaits] = row
        found = booked(self._connection, method, rows)
        names = {ref: Number(row.kind, row.request_id, row.currency_code) for ref, row in rows.items()}
        return [
            Late(row.id, row.bill_id, row.line, known)
            for ref, row in rows.items()
            if (known := found.get(names[ref])) is not None and not known.settled_by
        ]

    def _write_bills(self, change: BillChange) -> None:
        if change.booked is not None:
            self._write_bill(change.booked)
        c, late = self._connection, change.late
        lines = [
            {"bill_id": x.bill_id, "line": x.line, "cleared_minor": x.booked.amount, "settles": x.booked.number.reference_id}
            for x in late
        ]  # fmt: skip
        update_rows(c, settled_lines, ("bill_id", "line"), lines)
        self._settled(x.booked.number.reference_id for x in late)

    def _write_bill(self, booked: BillBooked) -> None:
        c, bill = self._connection, booked.bill
        insert_rows(c, bills, [_bill_row(bill, booked.serial)])
        settlements = [
            {"bill_id": bill.id, "currency_code": s.currency_code, "id": s.id, "charged_minor": s.charged,
             "refunded_minor": s.refunded, "fees_minor": s.fees, "fees_returned_minor": s.fees_returned,
             "cleared_minor": s.cleared}
            for s in bill.settlements
        ]  # fmt: skip
        insert_rows(c, bill_settlements, settlements)
        insert_rows(c, settled_lines, [_settled_row(bill.id, line, s) for line, s in enumerate(booked.settled, 1)])
        lines = {s.number: line for line, s in enumerate(booked.settled, 1)} if booked.differences else {}
        rows = [_difference_row(d, lines.get(d.number, 0)) for d in booked.differences]
        insert_rows(c, bill_differences, rows)
        self._settled(s.settles for s in booked.settled if s.settles)

    def _settled(self, references: Iterable[int]) -> None:
        """No difference waits any longer for what was settled."""
        waiting = sa.select(bill_differences.c.awaits).where(bill_differences.c.awaits.is_not(None))
        known = set(self._connection.execute(waiting).scalars())
        if done := known & set(references):
            change = sa.update(bill_differences).where(bill_differences.c.awaits.in_(done))
            self._connection.execute(change.values(awaits=None))


def turn(connection: sa.Connection, method: Method) -> tuple[int, int]:
    """Return how many bills of a provider there are, and how many of their differences wait for the books."""
    of_method = bills.c.payment_method == str(method)
    count = sa.select(sa.func.count()).select_from(bills).where(of_method)
    waiting = (
        sa.select(sa.func.count())
        .select_from(bill_differences.join(bills, bill_differences.c.bill_id == bills.c.id))
        .where(of_method, bill_differences.c.awaits.is_not(None))
    )
    return connection.execute(count).scalar_one(), connection.execute(waiting).scalar_one()


_CHUNK = 500


def booked(connection: sa.Connection, method: Method, references: Iterable[int]) -> dict[Number, Booked]:
    """Return what the ledger has of payments and refunds (by id) in the clearing accounts of a provider, by number."""
    x, e, a, s = t.ledger_transactions.c, t.ledger_entries.c, t.accounts.c, settled_lines.c
    query = (
        sa.select(x.reference_id, a.currency_code, sa.func.sum(e.amount_minor).label("amount"), s.bill_id)
        .join_from(t.ledger_transactions, t.ledger_entries, e.transaction_id == x.id)
        .join(t.accounts, sa.and_(a.id == e.account_id, a.kind == CLEARING[method]))
        .outerjoin(settled_lines, s.settles == x.reference_id)
        .where(x.reference_id.in_(sa.bindparam("some", expanding=True)))
        .group_by(x.reference_id, a.currency_code, s.bill_id)
    )
    wanted, found = sorted(set(references)), {}
    for begin in range(0, len(wanted), _CHUNK):
        for row in connection.execute(query, {"some": wanted[begin : begin + _CHUNK]}):
            if (entry := _booked_of(row)) is not None:
                found[entry.number] = entry
    return found


def _booked_of(row: Any) -> Booked | None:  # noqa: ANN401 - a SQLAlchemy Row
    """What a provider owes is a debit: a charge; what it is owed a credit: a refund. Nothing: it was reversed."""
    amount = int(row.amount)  # a sum is a Decimal to some drivers
    kind, letter = ("charge", "P") if amount < 0 else ("refund", "R")
    number = Number(kind, f"{letter}{row.reference_id}", row.currency_code)
    return Booked(number, abs(amount), row.bill_id or 0) if amount else None


def _bill_row(bill: Bill, serial: int) -> dict[str, Any]:
    return {
        "id": bill.id, "payment_method": str(bill.method), "serial": serial, "day": bill.day, "sha256": bill.sha256,
        "line_count": bill.lines, "matched_count": bill.matched, "difference_count": bill.differences,
        "create_ms": bill.create_ms,
    }  # fmt: skip


def _settled_row(bill_id: int, line: int, s: Settled) -> dict[str, Any]:
    kind, request_id, currency_code = s.number
    return {
        "bill_id": bill_id, "line": line, "kind": kind, "request_id": request_id, "currency_code": currency_code,
        "line_count": s.lines, "billed_minor": s.billed, "fees_minor": s.fees, "cleared_minor": s.cleared,
        "settles": s.settles,
    }  # fmt: skip


def _difference_row(d: Difference, line: int) -> dict[str, Any]:
    return {
        "id": d.id, "bill_id": d.bill_id, "line": line, "mismatch": str(d.mismatch), "kind": d.number.kind,
        "request_id": d.number.request_id, "payment_id": d.payment_id, "refund_id": d.refund_id,
        "currency_code": d.number.currency_code, "booked_minor": d.booked and d.booked.minor_units,
        "billed_minor": d.billed and d.billed.minor_units, "correction_minor": d.correction, "review_id": d.review_id,
        "awaits": d.awaits, "create_ms": d.create_ms,
    }  # fmt: skip
