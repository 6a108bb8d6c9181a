"""I3, the other half: a provider's own book and our payments say the same, in both directions.

The books are those of the sandbox, lines of JSON that are only ever added to. What of them was read is kept in the notes,
by our ids, so that a run reads on where the last one ended.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from services.payment import audit as payment_audit
from services.platform.audit import LESS, PENDING_MS, SHOWN, Finding, P, Q, Range, differing
from services.sandbox.book import lines, moved

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path

    from services.cli.invariants.found import Look
    from services.payment.audit import ProviderPayment, ProviderRefund
    from services.platform.audit import Connection, Figures, Sums

METHODS = {"alipay": "alipay", "wechat": "wechat", "cards": "bank_card"}
"""Name of a book -> the method of payment that its provider is."""
_NAMES = tuple(METHODS)
_OPEN = frozenset({"pending", "processing", "unknown", "authorized"})
_CHARGES, _PAYMENTS, _REFUNDS = (
    "captured charges of the books",
    "captured payments in the books",
    "refunds in the books",
)
_STATES = ("processing", "succeeded", "abnormal", "closed")
_SUCCEEDED = _STATES.index("succeeded")
_READ = 1_000


class Taken(NamedTuple):
    """A charge that the provider took money for, by our payment's id. ``book`` counts in _NAMES, ``currency`` is letters."""

    payment_id: int
    book: int
    captured: int
    currency: int
    at_ms: int


class Given(NamedTuple):
    """A refund that the provider knows, by our refund's id. ``state`` counts in _STATES."""

    refund_id: int
    payment_id: int
    amount: int
    state: int
    at_ms: int


def provider_books(folder: Path | None, payment: Connection, look: Look) -> list[Finding]:
    """Hold the books in ``folder``, if there are any, against the payments that ``payment`` reads."""
    if folder is None or not folder.is_dir():
        return [Finding("I3", what, 0, absent="no provider's book") for what in (_CHARGES, _PAYMENTS, _REFUNDS)]
    comparison = _Comparison(look, payment, _Pages(look))
    comparison.pages.read(folder)
    return comparison.findings()


@dataclass(slots=True)
class _Pages:
    """What was read of the books: all of it in the notes, what is new in memory as well unless everything is new."""

    look: Look
    breaches: list[str] = field(default_factory=list)
    charges: dict[int, Taken] = field(default_factory=dict)
    refunds: dict[int, Given] = field(default_factory=dict)

    @property
    def noted_charges(self) -> Figures:
        """Every charge that took money."""
        return self.look.notes.figures("books_charges", 4)

    @property
    def noted_refunds(self) -> Figures:
        """Every refund."""
        return self.look.notes.figures("books_refunds", 4)

    def read(self, folder: Path) -> None:
        """Read on where the last run ended."""
        since = self.look.since("books")
        if self.look.full:
            self.noted_charges.clear()
            self.noted_refunds.clear()
        ends: dict[str, int] = since.get("ends") or {}
        for place, name in enumerate(_NAMES):
            path, began = folder / f"{name}.jsonl", ends.get(name, 0)
            size = path.stat().st_size if path.exists() else 0
            if size < began:
                self.breaches.append(f"the book of {name} is shorter than the last run saw")
            elif size > began:
                ends[name] = self._read(path, place, began)
        since.put("ends", ends)

    def _read(self, path: Path, place: int, began: int) -> int:
        end, each = began, lines(path, began)
        while some := list(islice(each, _READ)):
            charges: dict[int, Taken] = {}
            refunds: dict[int, Given] = {}
            end = some[-1][1]
            for line, _ in some:
                if (said := moved(line)) is not None:
                    self._take(said["charge"], place, said["at_ms"], charges, refunds)
            self.noted_charges.put(charges.values())
            self.noted_refunds.put(refunds.values())
            if not self.look.full:
                self.charges |= charges
                self.refunds |= refunds
        return end

    def _take(
        self, charge: dict[str, Any], place: int, at_ms: int, charges: dict[int, Taken], refunds: dict[int, Given]
    ) -> None:
        name, request_id = _NAMES[place], charge["request_id"]
        if charge["times_charged"] > 1:
            self._say(f"{name} charged {request_id} {charge['times_charged']} times")
        if not charge["captured"]:
            return
        payment_id = _number("P", request_id)
        if not payment_id:
            self._say(f"{name} charged {request_id}, which is no number of ours")
            return
        currency = int.from_bytes(charge["currency"].encode())
        charges[payment_id] = Taken(payment_id, place, charge["captured"], currency, at_ms)
        for refund in charge["refunds"].values():
            if refund_id := _number("R", refund["request_id"]):
                state = _STATES.index(refund["state"])
                refunds[refund_id] = Given(refund_id, payment_id, refund["amount"], state, at_ms)
            else:
                self._say(f"{name} gave back {refund['request_id']}, which is no number of ours")

    def _say(self, breach: str) -> None:
        if len(self.breaches) < SHOWN:
            self.breaches.append(breach)

    # As a side of `differing`.

    def ends(self) -> Range | None:
        """Return the lowest and the highest id of what was taken."""
        ((low, high),) = self.noted_charges.select("MIN(id), MAX(id)")
        return None if low is None else Range(low, high)

    def sums(self, low: int, width: int) -> Sums:
        """Sum up what was taken, by method and currency."""
        columns = (
            f"((id - :low) - (id - :low) % :width) / :width, n0 * {_CURRENCIES} + n2, COUNT(*), "
            f"SUM(id % {P}), SUM(id % {Q} * (n1 % {LESS}))"
        )
        rows = self.noted_charges.select(f"{columns}", "GROUP BY 1, 2", low=low, width=width)
        return {
            (place, f"{METHODS[_NAMES[kind // _CURRENCIES]]} {_currency(kind % _CURRENCIES)}"): tuple(sums)
            for place, kind, *sums in rows
        }


_CURRENCIES = 1 << 24


def _currency(letters: int) -> str:
    return letters.to_bytes(3).lstrip(b"\0").decode(errors="replace")


def _number(letter: str, request_id: str) -> int:
    """Read our number in a provider's book; 0: it is none."""
    digits = request_id[1:]
    return int(digits) if request_id[:1] == letter and digits.isascii() and digits.isdecimal() else 0


@dataclass(slots=True)
class _Comparison:
    """Both sides, walked along in the order of ids."""

    look: Look
    payment: Connection
    pages: _Pages
    pending: list[int] = field(default_factory=list)
    of_payments: list[str] = field(default_factory=list)
    of_refunds: list[str] = field(default_factory=list)
    taken: int = 0
    captured: int = 0
    refunded: int = 0

    def findings(self) -> list[Finding]:
        """Compare, and say what was found."""
        since = self.look.since("books")
        changed = payment_audit.changed_payments(self.payment, self.look.since("payment"))
        ids: set[int] | None = None
        if changed is not None:
            of_refunds = {given.payment_id for given in self.pages.refunds.values()}
            ids = set(changed) | self.pages.charges.keys() | of_refunds | set(since.get("pending") or ())
            self._payments(ids)
            charges, captured = self.taken, self.captured
        else:
            ranges, counted = differing(payment_audit.captured_by_providers(self.payment), self.pages)
            for some in ranges:
                if len(self.of_payments) < SHOWN:
                    self._payments(some)
            charges, captured = len(self.pages.noted_charges), sum(counted.values())
        self._refunds(ids)
        since.put("pending", sorted(set(self.pending)))
        return [
            Finding("I3", _CHARGES, charges, self.pages.breaches),
            Finding("I3", _PAYMENTS, captured, self.of_payments, len(self.pending)),
            Finding("I3", _REFUNDS, self.refunded, self.of_refunds),
        ]

    def _payments(self, among: Collection[int] | Range) -> None:
        ours = payment_audit.provider_payments(self.payment, among)
        for payment, taken in _side_by_side(ours, self._taken(among)):
            self.taken += taken is not None
            self.captured += payment is not None and payment.captured > 0
            if (fault := _payment_fault(payment, taken)) is None:
                continue
            at_ms = taken.at_ms if taken else payment.update_ms if payment else 0
            still_open = payment is not None and payment.status in _OPEN
            if still_open or (not self.look.settled and self.look.now_ms - at_ms <= PENDING_MS):
                self.pending.append(payment.payment_id if payment else taken.payment_id if taken else 0)
            elif len(self.of_payments) < SHOWN:
                self.of_payments.append(fault)

    def _refunds(self, ids: Collection[int] | None) -> None:
        ours = payment_audit.provider_refunds(self.payment, ids)
        if ids is not None:
            ours = iter(sorted(ours))
        for refund, given in _side_by_side(ours, self._given(ids)):
            self.refunded += refund is not None
            if (fault := _refund_fault(refund, given)) is None:
                continue
            at_ms = given.at_ms if given else refund.update_ms if refund else 0
            if not self.look.settled and self.look.now_ms - at_ms <= PENDING_MS:
                self.pending.append(given.payment_id if given else refund.payment_id if refund else 0)
            elif len(self.of_refunds) < SHOWN:
                self.of_refunds.append(fault)

    def _taken(self, among: Collection[int] | Range) -> Iterator[Taken]:
        if isinstance(among, Range):
            return (Taken(*row) for row in self.pages.noted_charges.between(*among))
        known = {key: Taken(key, *row) for key, row in self.pages.noted_charges.get(sorted(among)).items()}
        return iter(sorted((known | self.pages.charges).values()))

    def _given(self, ids: Collection[int] | None) -> Iterator[Given]:
        if ids is None:
            return (Given(*row) for row in self.pages.noted_refunds)
        wanted = [refund.refund_id for refund in payment_audit.provider_refunds(self.payment, ids)]
        known = {key: Given(key, *row) for key, row in self.pages.noted_refunds.get(sorted(wanted)).items()}
        return iter(sorted((known | self.pages.refunds).values()))


A = TypeVar("A", bound=tuple[Any, ...])
B = TypeVar("B", bound=tuple[Any, ...])


def _side_by_side(ours: Iterable[A], theirs: Iterable[B]) -> Iterator[tuple[A | None, B | None]]:
    """Yield what begins with one id on both sides, and None where a side lacks it; both come by id."""
    left, right = iter(ours), iter(theirs)
    at, to = next(left, None), next(right, None)
    while at is not None or to is not None:
        if to is None or (at is not None and at[0] < to[0]):
            yield at, None
            at = next(left, None)
        elif at is None or to[0] < at[0]:
            yield None, to
            to = next(right, None)
        else:
            yield at, to
            at, to = next(left, None), next(right, None)


def _payment_fault(payment: ProviderPayment | None, taken: Taken | None) -> str | None:
    """Say what does not fit between a payment and what its provider took; None: nothing, or a review of it says so."""
    if payment is None:
        return (
            None if taken is None else f"{_NAMES[taken.book]} charged P{taken.payment_id}, which is no payment of ours"
        )
    if payment.reviewed:
        return None
    ours = f"payment {payment.payment_id} ({payment.status}) captured {payment.captured} {payment.currency}"
    if taken is None:
        return f"{ours}, the book of its provider has nothing" if payment.captured else None
    if METHODS[_NAMES[taken.book]] != payment.method:
        return f"{ours} by {payment.method}, yet {_NAMES[taken.book]} charged it"
    if (taken.captured, taken.currency) != (payment.captured, int.from_bytes(payment.currency.encode())):
        return f"{ours}, {_NAMES[taken.book]} took {taken.captured} {_currency(taken.currency)}"
    return None


def _refund_fault(refund: ProviderRefund | None, given: Given | None) -> str | None:
    """Say what does not fit between a refund and what its provider gave back; None: nothing."""
    if refund is None:
        known = given is not None and given.state != _SUCCEEDED
        return None if given is None or known else f"R{given.refund_id} was given back, which is no refund of ours"
    if refund.status in {"pending", "unknown", "review"}:
        return None
    back = given.amount if given is not None and given.state == _SUCCEEDED else 0
    due = refund.amount if refund.status == "success" else 0
    return (
        None
        if back == due
        else f"refund {refund.refund_id} is {refund.status}: {due} are given back, by its provider {back}"
    )
