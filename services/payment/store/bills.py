"""Bills as they are read: what was imported, what the ledger has of their numbers, what no bill has settled."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from services.kernel.money import Money
from services.payment.domain import Kind, Method
from services.payment.domain.bill import Bill, Difference, Mismatch, Number, Settled, Settlement
from services.payment.store import settled
from services.payment.store import tables as t
from services.payment.store.sql import paged

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from services.kernel.pages import Page
    from services.payment.domain.bill import Booked
    from services.platform.database import Database

_BILL, _DIFFERENCE = settled.bills.c, settled.bill_differences.c


class SqlBills:
    """Bills in the room's database."""

    def __init__(self, database: Database) -> None:
        """Read them in ``database``."""
        self._database = database

    def find(self, method: Method, day: str, sha256: str) -> Bill | None:
        """Read the bill that was imported from a file."""
        found = sa.select(settled.bills).where(*_of_day(method, day), _BILL.sha256 == sha256)
        return next(iter(self._bills(found)), None)

    def latest(self, method: Method, day: str) -> Bill | None:
        """Read the bill of a day that was imported last."""
        found = sa.select(settled.bills).where(*_of_day(method, day)).order_by(_BILL.serial.desc()).limit(1)
        return next(iter(self._bills(found)), None)

    def turn(self, method: Method) -> tuple[int, int]:
        """Return how many bills of a provider there are, and how many of their differences wait for the books."""
        with self._database.read() as connection:
            return settled.turn(connection, method)

    def has(self, bill_id: int) -> bool:
        """Whether there is a bill of this id."""
        with self._database.read() as connection:
            return connection.execute(sa.select(_BILL.id).where(_BILL.id == bill_id)).first() is not None

    def days(self, method: Method, since: str) -> set[str]:
        """Return the days from ``since`` on that a bill was imported of."""
        query = sa.select(_BILL.day).where(_BILL.payment_method == str(method), _BILL.day >= since)
        with self._database.read() as connection:
            return set(connection.execute(query).scalars())

    def newest(self, page: Page) -> list[Bill]:
        """Read a page of bills, newest first, one more than it holds."""
        return self._bills(paged(sa.select(settled.bills), _BILL.id, page))

    def differences(self, bill_id: int, page: Page) -> list[Difference]:
        """Read a page of a bill's differences, newest first, one more than it holds."""
        query = sa.select(settled.bill_differences).where(_DIFFERENCE.bill_id == bill_id)
        with self._database.read() as connection:
            return [_difference_of(row) for row in connection.execute(paged(query, _DIFFERENCE.id, page))]

    def standing(self, method: Method, day: str) -> tuple[frozenset[int], dict[Number, Settled], set[str]]:
        """Return what the bills of a day left: their ids, how each number last stood, the numbers that were missed."""
        s = settled.settled_lines
        with self._database.read() as connection:
            ids = frozenset(connection.execute(sa.select(_BILL.id).where(*_of_day(method, day))).scalars())
            of_day = sa.select(s).join_from(s, settled.bills, s.c.bill_id == _BILL.id).where(*_of_day(method, day))
            lines = connection.execute(of_day.order_by(_BILL.serial, s.c.line))
            stood = {known.number: known for known in map(_settled_of, lines)}
            missed = sa.select(_DIFFERENCE.request_id).where(
                _DIFFERENCE.bill_id.in_(ids), _DIFFERENCE.mismatch == str(Mismatch.MISSING_AT_PROVIDER)
            )
            return ids, stood, set(connection.execute(missed).scalars())

    def booked(self, method: Method, numbers: Iterable[Number]) -> dict[Number, Booked]:
        """Return those of ``numbers`` that the ledger has in the clearing accounts of a provider."""
        with self._database.read() as connection:
            return settled.booked(connection, method, (ref for number in numbers if (ref := number.reference_id)))

    def unsettled(
        self, method: Method, since_ms: int, until_ms: int, besides: Collection[int] = frozenset()
    ) -> list[Booked]:
        """Return what was charged and given back through a provider in a span of time, and no bill had; oldest first."""
        a, s = t.attempts.c, settled.settled_lines.c
        query = (
            sa.select(a.id)
            .join_from(t.attempts, settled.settled_lines, s.settles == a.id, isouter=True)
            .where(
                a.payment_method == str(method),
                a.kind.in_((Kind.CHARGE, Kind.REFUND)),
                a.paid_ms >= since_ms,
                a.paid_ms < until_ms,
                s.settles.is_(None),
                a.id.not_in(sa.select(_DIFFERENCE.awaits).where(_DIFFERENCE.awaits.is_not(None))),
            )
            .order_by(a.paid_ms, a.id)
        )
        with self._database.read() as connection:
            ids = [number for number in connection.execute(query).scalars() if number not in besides]
            found = {each.number.reference_id: each for each in settled.booked(connection, method, ids).values()}
        return [found[number] for number in ids if number in found]

    def _bills(self, query: sa.Select[Any]) -> list[Bill]:
        s = settled.bill_settlements
        with self._database.read() as connection:
            rows = connection.execute(query).all()
            wanted = sa.select(s).where(s.c.bill_id.in_([row.id for row in rows])).order_by(s.c.currency_code)
            of_bill = defaultdict(list)
            for r in connection.execute(wanted):
                of_bill[r.bill_id].append(Settlement(r.id, r.currency_code, r.charged_minor, r.refunded_minor,
                                                     r.fees_minor, r.fees_returned_minor, r.cleared_minor))  # fmt: skip
        return [
            Bill(row.id, Method(row.payment_method), row.day, row.sha256, row.line_count, row.matched_count,
                 row.difference_count, row.create_ms, tuple(of_bill[row.id]))
            for row in rows
        ]  # fmt: skip


def _of_day(method: Method, day: str) -> tuple[sa.ColumnElement[bool], ...]:
    return _BILL.payment_method == str(method), _BILL.day == day


def _settled_of(row: Any) -> Settled:  # noqa: ANN401 - a SQLAlchemy Row
    number = Number(row.kind, row.request_id, row.currency_code)
    return Settled(number, row.line_count, row.billed_minor, row.fees_minor, row.cleared_minor, row.settles)


def _difference_of(row: Any) -> Difference:  # noqa: ANN401 - a SQLAlchemy Row
    def money(minor_units: int | None) -> Money | None:
        return None if minor_units is None else Money(row.currency_code, minor_units)

    return Difference(
        id=row.id,
        bill_id=row.bill_id,
        mismatch=Mismatch(row.mismatch),
        number=Number(row.kind, row.request_id, row.currency_code),
        payment_id=row.payment_id,
        refund_id=row.refund_id,
        booked=money(row.booked_minor),
        billed=money(row.billed_minor),
        correction=row.correction_minor,
        review_id=row.review_id,
        create_ms=row.create_ms,
        awaits=row.awaits,
    )
