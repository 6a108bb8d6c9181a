"""ImportBill: a provider's bill of a day is fetched and kept, held against the books, and booked once.

The file is kept before anything is booked, and matched outside the transaction: what the ledger has never changes. Only
the result is written, in one transaction, as the next bill of its provider: what was matched beside another one is
matched again. What becomes of each number:

agrees    its amount goes from the clearing account to the bank
beyond    what the bill has and the books have not goes through suspense; so does an amount's drift, and what is there twice
missing   what the books have and no bill has stays in the clearing account

So the bank has what the bills say, and a clearing account what no bill has settled.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.kernel.errors import DomainError
from services.kernel.money import Money
from services.payment import states
from services.payment.domain import AccountKey, Book, Reason, Review
from services.payment.domain.bill import (
    NUMBER_MAX,
    ZONES,
    Bill,
    Billed,
    Booked,
    Difference,
    Judged,
    Mismatch,
    Number,
    Settled,
    Settlement,
    Tally,
    day_ms,
    days_due,
    due_ms,
    judge,
)
from services.payment.domain.ledger import BANK, CLEARING, FEES, SUSPENSE, transfer
from services.payment.ports import Change, Deed
from services.payment.ports.bills import BillBooked, BillChange

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from services.kernel.pages import Page
    from services.payment.domain import Method
    from services.payment.ports import Ports, Transaction
    from services.payment.ports.provider import BillLine

    Submit = Callable[[str, Sequence[object]], Sequence[object]]
    """Has commands of a kind done in transactions of their turn; returns an outcome each, exceptions among them."""

_TRIES = 5
_OVERTAKEN = "overtaken"


@dataclass(frozen=True, slots=True)
class ImportBill:
    """Import a provider's bill of a day (YYYY-MM-DD in its zone); ``actor_id`` 0: nobody asked, it was time."""

    method: Method
    day: str
    actor_id: int = 0


@dataclass(frozen=True, slots=True)
class Matched:
    """A bill held against the books: what is to be booked, unless its ``turn`` was overtaken."""

    command: ImportBill
    sha256: str
    turn: tuple[int, int]
    lines: int
    matched: int
    tallies: Mapping[str, Tally]
    """By currency."""
    new: tuple[Judged, ...]
    """The numbers of which the bill says something new."""
    before: Mapping[Number, Settled]
    missing: tuple[Booked, ...]
    payments: dict[int, int]
    """Refund of ours -> its payment, of refunds that do not agree."""


def import_bill(ports: Ports, submit: Submit, command: ImportBill) -> Bill:
    """Return the bill as it was imported, now or before.

    Refuses with PAYMENT_METHOD_UNAVAILABLE, BILL_NOT_AVAILABLE, INVALID_ARGUMENT; UNAVAILABLE where the file cannot be kept.
    """
    method, day = command.method, command.day
    provider = ports.outside.providers.get(method)
    if provider is None or method not in ZONES:
        raise DomainError("PAYMENT_METHOD_UNAVAILABLE", method=method)
    try:
        due_ms(day, method)
    except ValueError:
        raise DomainError("INVALID_ARGUMENT", field="day", value=day) from None
    asked_ms = ports.clock.now_ms()
    fetched = provider.fetch_bill(day)
    if fetched is None:
        raise DomainError("BILL_NOT_AVAILABLE", method=method, day=day)
    sha256 = ports.outside.files.put(fetched.content)
    ports.reach("P21", method)
    for _ in range(_TRIES):
        known = ports.bills.find(method, day, sha256)
        if known is not None:
            return known
        _done(submit("settle_late", [method]))
        matched = match(ports, command, sha256, fetched.lines, asked_ms)
        before = ports.bills.latest(method, day)
        if before is not None and not matched.new and not matched.missing:
            return before  # another file that says the same: Alipay writes into each when it was made
        outcome = _done(submit("book_bills", [matched]))
        if isinstance(outcome, Bill):
            ports.reach("P22", method)
            return outcome
    raise DomainError("UNAVAILABLE")


def _done(outcomes: Sequence[object]) -> object:
    [outcome] = outcomes
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def match(ports: Ports, command: ImportBill, sha256: str, lines: Sequence[BillLine], asked_ms: int) -> Matched:
    """Hold the lines of a bill against the books, which are read and not locked."""
    method, day = command.method, command.day
    turn = ports.bills.turn(method)  # first of all: what is read afterwards is at least as new
    said = _by_number(lines)
    of_day, before, missed = ports.bills.standing(method, day)
    known = ports.bills.booked(method, said)
    tallies: defaultdict[str, Tally] = defaultdict(Tally)
    new, matched = [], 0
    for number, billed in said.items():
        judged, stood = judge(number, billed, known.get(number), of_day), before.get(number)
        tallies[number.currency_code].add(judged, stood)
        matched += judged.matched
        if not judged.settled.says_same(stood):
            new.append(judged)
    since, until = due_ms(day, method)
    found = ports.bills.unsettled(method, since, min(until, asked_ms), {n.reference_id for n in known if n in said})
    missing = tuple(e for e in found if e.number.request_id not in missed)
    doubted = [j.settled.number for j in new if j.mismatch] + [e.number for e in missing]
    payments = ports.store.payments_of_refunds(n.reference_id for n in doubted if n.kind == "refund" and n.reference_id)
    return Matched(command, sha256, turn, len(lines), matched, tallies, tuple(new), before, missing, payments)


def _by_number(lines: Iterable[BillLine]) -> dict[Number, Billed]:
    found: dict[Number, Billed] = {}
    for line in lines:
        number = Number(line.kind, line.request_id[:NUMBER_MAX], line.amount.currency_code)
        billed = found.get(number)
        if billed is None:
            billed = found[number] = Billed()
        billed.amounts.append(line.amount.minor_units)
        billed.fees += line.fee
    return found


def book_bills(ports: Ports, items: Sequence[Matched]) -> list[Bill | str]:
    """Book what was matched, a transaction a bill; returns the bill, or that another one was booked meanwhile."""
    return [_book(ports, item) for item in items]


def _book(ports: Ports, item: Matched) -> Bill | str:
    method = item.command.method
    with ports.store.transaction() as tx:
        booking = _Booking(ports, tx, item)
        if tx.bill_turn(method) != item.turn:
            return _OVERTAKEN
        bill = booking.book()
        if item.command.actor_id:
            detail = f"{method} {bill.day} {bill.sha256}"
            booking.change.audit.append(Deed(item.command.actor_id, "ImportBill", bill.id, detail))
        tx.write(booking.change)
        tx.commit()
    if bill.differences:
        ports.alarm.alert("bill.differences", method=str(method), day=bill.day, bill_id=bill.id, count=bill.differences)
    return bill


class _Booking:
    """One bill in one transaction."""

    def __init__(self, ports: Ports, tx: Transaction, item: Matched) -> None:
        """Lock what it may change: payments that do not agree, their reviews, the accounts, in this order."""
        self._ports, self._item = ports, item
        doubted = [j.settled.number for j in item.new if j.mismatch] + [e.number for e in item.missing]
        owned = {n: owner for n in doubted if (owner := self._owner(n))}
        payments = tx.payments(set(owned.values())) if owned else {}
        method = item.command.method
        self._owned = {n: p for n, p in owned.items() if p in payments and payments[p].method is method}
        reviews = tx.reviews(set(self._owned.values())) if self._owned else []
        self._reviews = {(r.payment_id, r.refund_id): r.id for r in reviews if r.status != states.REVIEW_DECIDED}
        accounts = accounts_of(method, item.tallies, ports.merchant_id)
        self.change = Change(ports.clock.now_ms(), book=Book(tx.accounts(accounts)))
        self._bill_id = ports.ids.next(0)

    def book(self) -> Bill:
        """Put together everything that the bill changes."""
        item, command = self._item, self._item.command
        settlements = tuple(self._settle(currency, tally) for currency, tally in sorted(item.tallies.items()))
        differences = [self._differ(j) for j in item.new if j.mismatch]
        differences += [self._miss(entry) for entry in item.missing]
        bill = Bill(self._bill_id, command.method, command.day, item.sha256, item.lines, item.matched, len(differences),
                    self.change.now_ms, settlements)  # fmt: skip
        booked = BillBooked(bill, item.turn[0] + 1, [j.settled for j in item.new], differences)
        self.change.bills = BillChange(booked)
        return bill

    def _settle(self, currency: str, tally: Tally) -> Settlement:
        """Book what agrees, the fees, and what agrees by now though an earlier bill of the day said otherwise."""
        number = self._ports.ids.next(0)
        bank, clearing, spent, suspense = (self._account(kind, currency) for kind in self._kinds())
        self._move("settlement", number, bank, clearing, tally.cleared)
        self._move("fees", number, spent, bank, tally.kept)
        self._move("correction", number, bank, suspense, tally.put_right)
        sums = (tally.charged, tally.refunded, tally.fees, tally.fees_returned)
        return Settlement(number, currency, *sums, tally.cleared)

    def _differ(self, judged: Judged) -> Difference:
        """Book what does not agree through suspense."""
        now, mismatch = judged.settled, judged.mismatch
        assert mismatch is not None
        before = self._item.before.get(now.number)
        correction = now.suspense - (before.suspense if before else 0)
        currency = now.number.currency_code
        booked = None if judged.booked is None else Money(currency, judged.booked)
        made = self._difference(now.number, mismatch, booked, Money(currency, judged.difference), correction)
        bank, _, _, suspense = (self._account(kind, currency) for kind in self._kinds())
        self._move("correction", made.id, bank, suspense, correction)
        return made

    def _miss(self, entry: Booked) -> Difference:
        """Nothing came, so nothing is booked: the provider still owes it, or is owed it."""
        booked = Money(entry.number.currency_code, entry.amount)
        return self._difference(entry.number, Mismatch.MISSING_AT_PROVIDER, booked, None, 0)

    def _difference(
        self, number: Number, mismatch: Mismatch, booked: Money | None, billed: Money | None, correction: int
    ) -> Difference:
        payment_id = self._owned.get(number, 0)
        refund_id = number.reference_id if payment_id and number.kind == "refund" else 0
        review_id = self._review(payment_id, refund_id, mismatch, booked, billed) if payment_id else 0
        awaits = number.reference_id if payment_id and mismatch is Mismatch.MISSING_HERE else None
        return Difference(self._ports.ids.next(0), self._bill_id, mismatch, number, payment_id, refund_id, booked, billed,
                          correction, review_id, self.change.now_ms, awaits)  # fmt: skip

    def _review(
        self, payment_id: int, refund_id: int, mismatch: Mismatch, booked: Money | None, billed: Money | None
    ) -> int:
        """Return the review that is open over a payment or refund, or open one; the payment stays what it is."""
        known = self._reviews.get((payment_id, refund_id))
        if known is not None:
            return known
        number, now, command = self._ports.ids.next(0), self.change.now_ms, self._item.command
        what = f"{mismatch}: the bill of {command.day} says {billed or 'nothing'}, the books say {booked or 'nothing'}"
        amount = billed.minor_units if billed else 0
        self.change.new_reviews.append(
            Review(number, payment_id, refund_id, Reason.BILL_MISMATCH, what, amount, states.REVIEW_OPEN, now, now)
        )
        self._reviews[payment_id, refund_id] = number
        return number

    def _owner(self, number: Number) -> int:
        """The payment that a number is, or is a refund of; 0: of nothing of ours."""
        found = number.reference_id
        return self._item.payments.get(found, 0) if number.kind == "refund" else found

    def _kinds(self) -> tuple[str, ...]:
        return BANK, CLEARING[self._item.command.method], FEES, SUSPENSE

    def _account(self, kind: str, currency: str) -> AccountKey:
        return AccountKey(kind, self._ports.merchant_id, currency)

    def _move(self, kind: str, reference_id: int, debit: AccountKey, credit: AccountKey, amount: int) -> None:
        _move(self._ports, self.change, (kind, reference_id), debit, credit, amount)


def settle_late(ports: Ports, items: Sequence[Method]) -> list[None]:
    """Settle what earlier bills had before the books: it goes from suspense to the clearing account that owes it."""
    for method in items:
        with ports.store.transaction() as tx:
            late = tx.late(method)
            if not late:
                continue
            currencies = {each.booked.number.currency_code for each in late}
            book = Book(tx.accounts(accounts_of(method, currencies, ports.merchant_id)))
            change = Change(ports.clock.now_ms(), book=book, bills=BillChange(late=late))
            for each in late:
                number, amount = each.booked.number, each.booked.amount
                suspense, clearing = (
                    AccountKey(kind, ports.merchant_id, number.currency_code) for kind in (SUSPENSE, CLEARING[method])
                )
                reference = ("late_settlement", each.difference_id)
                _move(ports, change, reference, suspense, clearing, number.sign * amount)
            tx.write(change)
            tx.commit()
    return [None] * len(items)


def accounts_of(method: Method, currencies: Collection[str], merchant_id: int) -> list[AccountKey]:
    """The accounts that a bill moves money between."""
    kinds = (BANK, CLEARING[method], FEES, SUSPENSE)
    return [AccountKey(kind, merchant_id, currency) for currency in currencies for kind in kinds]


def _move(
    ports: Ports, change: Change, reference: tuple[str, int], debit: AccountKey, credit: AccountKey, amount: int
) -> None:
    """Book ``amount`` from ``debit`` to ``credit``, the other way where it is negative, nothing where it is 0."""
    assert change.book is not None
    if amount < 0:
        debit, credit, amount = credit, debit, -amount
    if amount:
        change.book.post(transfer(ports.ids.next(0), *reference, debit, credit, amount))


def due_bills(ports: Ports) -> list[ImportBill]:
    """Return the bills that providers should have by now and that were not imported, oldest first."""
    due: list[ImportBill] = []
    for method in ports.outside.providers:
        days = days_due(method, ports.clock.now_ms())
        there = ports.bills.days(method, days[0])
        due += [ImportBill(method, day) for day in days if day not in there]
    return due


def import_due(ports: Ports, submit: Submit, command: ImportBill) -> Bill | None:
    """Import a bill because it is time; None: there is none. A day's work that stays without a bill needs a person."""
    method, day = command.method, command.day
    try:
        return import_bill(ports, submit, command)
    except DomainError as refusal:
        if refusal.reason != "BILL_NOT_AVAILABLE":
            raise
    overdue = day != days_due(method, ports.clock.now_ms())[-1]
    if overdue and (entries := ports.bills.unsettled(method, *day_ms(day, method))):
        ports.alarm.alert("bill.overdue", method=str(method), day=day, entries=len(entries))
    return None


def list_bills(ports: Ports, page: Page) -> tuple[Sequence[Bill], str]:
    """Return a page of bills, newest first, and the token of the next."""
    return page.cut(ports.bills.newest(page), lambda bill: bill.id)


def list_bill_differences(ports: Ports, bill_id: int, page: Page) -> tuple[Sequence[Difference], str]:
    """Return a page of a bill's differences, newest first. Refuses with BILL_NOT_FOUND."""
    if not ports.bills.has(bill_id):
        raise DomainError("BILL_NOT_FOUND", bill_id=bill_id)
    return page.cut(ports.bills.differences(bill_id, page), lambda difference: difference.id)
