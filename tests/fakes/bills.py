"""Reconciliation's ports in memory: bills over the fake store's rows, files, a provider who has bills; and books to match."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from services.kernel.money import Money
from services.kernel.pages import Page
from services.payment import states, usecases
from services.payment.domain import AccountKey, Attempt, Book, Kind, Method, Payment, Point, Refund
from services.payment.domain.bill import Bill, Booked, Difference, Late, Mismatch, Number, Settled
from services.payment.domain.ledger import CLEARING, transfer
from services.payment.ports import Change, Ports
from services.payment.ports.bills import BillChange
from services.payment.ports.provider import Bill as Fetched
from services.payment.ports.provider import BillLine

if TYPE_CHECKING:
    from tests.fakes.payment import FakeStore, Rows


@dataclass
class BillRows:
    """What a database would hold of bills."""

    bills: dict[int, Bill] = field(default_factory=dict)
    settled: dict[tuple[int, int], Settled] = field(default_factory=dict)
    differences: dict[int, tuple[Difference, int]] = field(default_factory=dict)

    def turn(self, method: Method) -> tuple[int, int]:
        """Return how many bills of a provider there are, and how many of their differences wait for the books."""
        ids = {bill.id for bill in self.bills.values() if bill.method is method}
        waiting = [d for d, _ in self.differences.values() if d.bill_id in ids and d.awaits is not None]
        return len(ids), len(waiting)

    def settled_by(self, reference_id: int) -> int:
        """Return the bill that settled a payment or refund; 0: none did."""
        return next((bill_id for (bill_id, _), s in self.settled.items() if s.settles == reference_id), 0)

    def late(self, rows: Rows, method: Method) -> list[Late]:
        """Return what earlier bills had and the books did not, and now do; unless another bill settled it."""
        waiting = [
            (d, line)
            for d, line in self.differences.values()
            if d.awaits is not None and self.bills[d.bill_id].method is method
        ]
        found = booked(rows, method, (d.awaits for d, _ in waiting if d.awaits))
        chosen: dict[int | None, tuple[Difference, int]] = {}
        for difference, line in waiting:  # the last file of the first day
            first, _ = chosen.setdefault(difference.awaits, (difference, line))
            if self.bills[first.bill_id].day == self.bills[difference.bill_id].day:
                chosen[difference.awaits] = (difference, line)
        return [
            Late(d.id, d.bill_id, line, known)
            for d, line in chosen.values()
            if (known := found.get(d.number)) is not None and not known.settled_by
        ]

    def write(self, change: BillChange) -> None:
        """Write a change; one entry settled twice, or one file imported twice, is what a database would refuse."""
        if (new := change.booked) is not None:
            bill = new.bill
            assert new.serial == len([b for b in self.bills.values() if b.method is bill.method]) + 1, "bills_in_turn"
            files = {(b.method, b.day, b.sha256) for b in self.bills.values()}
            assert (bill.method, bill.day, bill.sha256) not in files, "bills_once"
            self.bills[bill.id] = bill
            lines = {s.number: line for line, s in enumerate(new.settled, 1)}
            for settled in new.settled:
                self._settle((bill.id, lines[settled.number]), settled)
            self.differences |= {d.id: (d, lines.get(d.number, 0)) for d in new.differences}
            self._no_longer({s.settles for s in new.settled if s.settles})
        for late in change.late:
            place, known = (late.bill_id, late.line), late.booked
            self._settle(place, replace(self.settled[place], cleared=known.amount, settles=known.number.reference_id))
        self._no_longer({late.booked.number.reference_id for late in change.late})

    def _settle(self, place: tuple[int, int], settled: Settled) -> None:
        assert settled.settles is None or not self.settled_by(settled.settles), "settled_lines.settles"
        self.settled[place] = settled

    def _no_longer(self, references: set[int]) -> None:
        for number, (difference, line) in self.differences.items():
            if difference.awaits in references:
                self.differences[number] = replace(difference, awaits=None), line


def booked(rows: Rows, method: Method, references: Iterable[int]) -> dict[Number, Booked]:
    """Return what the ledger has of payments and refunds (by id) in the clearing accounts of a provider, by number."""
    wanted = set(references)
    sums: dict[tuple[int, str], int] = {}
    for posting in rows.postings.values():
        for entry in posting.entries:
            if posting.reference_id in wanted and entry.account.kind == CLEARING[method]:
                place = (posting.reference_id, entry.account.currency_code)
                sums[place] = sums.get(place, 0) + entry.amount
    found = {}
    for (reference_id, currency), amount in sums.items():
        kind, letter = ("charge", "P") if amount < 0 else ("refund", "R")
        number = Number(kind, f"{letter}{reference_id}", currency)
        if amount:
            found[number] = Booked(number, abs(amount), rows.bills.settled_by(reference_id))
    return found


class FakeBills:
    """Bills as the fake store holds them."""

    def __init__(self, store: FakeStore) -> None:
        """Read ``store``."""
        self._store = store

    @property
    def rows(self) -> BillRows:
        """What is there now."""
        return self._store.rows.bills

    def find(self, method: Method, day: str, sha256: str) -> Bill | None:
        """Read the bill that was imported from a file."""
        return next((b for b in self._of_day(method, day) if b.sha256 == sha256), None)

    def latest(self, method: Method, day: str) -> Bill | None:
        """Read the bill of a day that was imported last."""
        return next(reversed(self._of_day(method, day)), None)

    def turn(self, method: Method) -> tuple[int, int]:
        """Return how many bills of a provider there are, and how many of their differences wait for the books."""
        return self.rows.turn(method)

    def has(self, bill_id: int) -> bool:
        """Whether there is a bill of this id."""
        return bill_id in self.rows.bills

    def days(self, method: Method, since: str) -> set[str]:
        """Return the days from ``since`` on that a bill was imported of."""
        return {b.day for b in self.rows.bills.values() if b.method is method and b.day >= since}

    def newest(self, page: Page) -> list[Bill]:
        """Read a page of bills, newest first, one more than it holds."""
        after = page.after_id()
        found = [b for b in self.rows.bills.values() if after is None or b.id < after]
        return sorted(found, key=lambda b: -b.id)[: page.limit]

    def differences(self, bill_id: int, page: Page) -> list[Difference]:
        """Read a page of a bill's differences, newest first, one more than it holds."""
        after = page.after_id()
        of_bill = [d for d, _ in self.rows.differences.values() if d.bill_id == bill_id]
        return sorted((d for d in of_bill if after is None or d.id < after), key=lambda d: -d.id)[: page.limit]

    def standing(self, method: Method, day: str) -> tuple[frozenset[int], dict[Number, Settled], set[str]]:
        """Return what the bills of a day left: their ids, how each number last stood, the numbers that were missed."""
        ids = [b.id for b in self._of_day(method, day)]  # in the order in which they came
        lines = sorted(self.rows.settled.items(), key=lambda each: each[0])
        stood = {s.number: s for bill_id in ids for (of, _), s in lines if of == bill_id}
        missed = {
            d.number.request_id
            for d, _ in self.rows.differences.values()
            if d.bill_id in ids and d.mismatch is Mismatch.MISSING_AT_PROVIDER
        }
        return frozenset(ids), stood, missed

    def booked(self, method: Method, numbers: Iterable[Number]) -> dict[Number, Booked]:
        """Return those of ``numbers`` that the ledger has in the clearing accounts of a provider."""
        return booked(self._store.rows, method, (n.reference_id for n in numbers))

    def unsettled(
        self, method: Method, since_ms: int, until_ms: int, besides: Collection[int] = frozenset()
    ) -> list[Booked]:
        """Return what was charged and given back through a provider in a span of time, and no bill had; oldest first."""
        rows = self._store.rows
        awaited = {d.awaits for d, _ in self.rows.differences.values()}
        paid = [
            a
            for a in rows.attempts.values()
            if a.method is method
            and a.kind in {Kind.CHARGE, Kind.REFUND}
            and a.paid_ms is not None
            and since_ms <= a.paid_ms < until_ms
            and a.id not in awaited
            and a.id not in besides
            and not self.rows.settled_by(a.id)
        ]
        ids = [a.id for a in sorted(paid, key=lambda a: (a.paid_ms or 0, a.id))]
        found = {each.number.reference_id: each for each in booked(rows, method, ids).values()}
        return [found[number] for number in ids if number in found]

    def _of_day(self, method: Method, day: str) -> list[Bill]:
        return [b for b in self.rows.bills.values() if (b.method, b.day) == (method, day)]


class FakeFiles:
    """Files in memory; ``failure`` is what putting one raises."""

    def __init__(self) -> None:
        """Keep none."""
        self.kept: dict[str, bytes] = {}
        self.failure: Exception | None = None

    def put(self, content: bytes) -> str:
        """Keep a file and return its SHA-256."""
        if self.failure is not None:
            raise self.failure
        name = hashlib.sha256(content).hexdigest()
        self.kept[name] = content
        return name

    def get(self, sha256: str) -> bytes | None:
        """Return a file; None: there is none."""
        return self.kept.get(sha256)


class FakeBiller:
    """The part of a provider that has bills: ``days`` has the lines of each."""

    def __init__(self) -> None:
        """Have none."""
        self.days: dict[str, tuple[BillLine, ...]] = {}
        self.asked: list[str] = []

    def fetch_bill(self, day: str) -> Fetched | None:
        """Return the bill of a day; the file is its lines in words."""
        self.asked.append(day)
        lines = self.days.get(day)
        return None if lines is None else Fetched(repr(lines).encode(), lines)


def charged(ports: Ports, number: int, amount: int, at_ms: int, method: Method = Method.ALIPAY, currency: str = "CNY",
            status: str = states.SUCCESS) -> Payment:  # fmt: skip
    """Write a payment through a provider, booked if its status says that it took money."""
    taken = status == states.SUCCESS
    money, captured = Money(currency, amount), amount if taken else 0
    payment = Payment(number, number, 7, money, method, status, 1, captured, 0, "", at_ms, at_ms, live=taken)
    payment.charge = Attempt(number, number, 0, Kind.CHARGE, method, f"P{number}", money, at_ms, at_ms, 0, 1,
                             point=Point.SETTLED)  # fmt: skip
    with ports.store.transaction() as tx:
        tx.write(Change(at_ms, new_payments=[payment], new_attempts=[payment.charge]))
        tx.commit()
    if taken:
        booked_late(ports, payment, at_ms)
    return payment


def booked_late(ports: Ports, payment: Payment, at_ms: int) -> None:
    """Book a payment, as it is when the provider's word comes."""
    clearing, merchant = payment.clearing_account(ports.merchant_id), payment.merchant_account(ports.merchant_id)
    payment.status, payment.captured = states.SUCCESS, payment.amount.minor_units
    assert payment.charge is not None
    payment.charge.paid_ms = at_ms
    with ports.store.transaction() as tx:
        change = Change(at_ms, book=Book(tx.accounts([clearing, merchant])))
        change.changed_payments[payment.id], change.changed_attempts[payment.id] = payment, payment.charge
        _post(ports, change, "payment", payment.id, clearing, merchant, payment.captured)
        tx.write(change)
        tx.commit()


def given_back(
    ports: Ports, payment: Payment, number: int, amount: int, at_ms: int, *, done: bool = True
) -> Callable[[int], None]:
    """Write a refund of a payment, booked if it is done; returns what books it later."""
    merchant, payable = payment.merchant_account(ports.merchant_id), payment.payable_account(ports.merchant_id)
    money = Money(payment.amount.currency_code, amount)
    refund = Refund(number, payment.id, money, "", states.REFUND_PENDING, at_ms, at_ms)
    asked = Attempt(number, payment.id, number, Kind.REFUND, payment.method, f"R{number}", money, at_ms, at_ms, 0, 1,
                    point=Point.SETTLED)  # fmt: skip
    payment.refunding += amount
    with ports.store.transaction() as tx:
        change = Change(at_ms, refunds=[refund], new_attempts=[asked], book=Book(tx.accounts([merchant, payable])))
        change.changed_payments[payment.id] = payment
        _post(ports, change, "refund_payable", number, merchant, payable, amount)
        tx.write(change)
        tx.commit()

    def book(now_ms: int) -> None:
        clearing = payment.clearing_account(ports.merchant_id)
        refund.status, asked.paid_ms = states.REFUND_SUCCESS, now_ms
        payment.refunding, payment.refunded = payment.refunding - amount, payment.refunded + amount
        whole = payment.refunded == payment.captured
        payment.status = states.REFUNDED if whole else states.PARTIALLY_REFUNDED
        with ports.store.transaction() as tx:
            change = Change(now_ms, book=Book(tx.accounts([payable, clearing])))
            change.changed_payments[payment.id], change.changed_refunds[number] = payment, refund
            change.changed_attempts[number] = asked
            _post(ports, change, "refund", number, payable, clearing, amount)
            tx.write(change)
            tx.commit()

    if done:
        book(at_ms)
    return book


def _post(
    ports: Ports, change: Change, kind: str, number: int, debit: AccountKey, credit: AccountKey, amount: int
) -> None:
    assert change.book is not None
    change.book.post(transfer(ports.ids.next(0), kind, number, debit, credit, amount))


def line(number: str, amount: int, fee: int = 0, currency: str = "CNY", at_ms: int = 0) -> BillLine:
    """A line of a bill: P… is a charge, R… a refund, with what it gives back of fees (< 0)."""
    kind = "refund" if number.startswith("R") else "charge"
    return BillLine(kind, number, number, "2026", Money(currency, amount), fee, at_ms)


def submitted(ports: Ports) -> Callable[[str, Sequence[Any]], Sequence[object]]:
    """Do what an import hands to the Batcher, at once."""
    handlers: dict[str, Callable[..., Sequence[object]]] = {
        "book_bills": usecases.book_bills,
        "settle_late": usecases.settle_late,
    }
    return lambda kind, commands: handlers[kind](ports, commands)
