"""Settling: rows that providers' words change, locked together, and the one place that says what they become.

States move along the published graph alone. What contradicts it opens a review and changes nothing else; the same word
twice, late or out of order changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.kernel.errors import DomainError
from services.kernel.money import Money
from services.payment import states
from services.payment.domain import Attempt, Book, Kind, Method, Point, Reason, Review
from services.payment.domain.ledger import REFUND, REFUND_REVERSAL, transfer
from services.payment.domain.payment import TAKEN
from services.payment.ports import Change, Moved
from services.payment.ports.provider import Phase, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable

    from services.kernel.idempotency import Answer, Scope
    from services.payment.domain import AccountKey, Payment, Refund
    from services.payment.domain.payment import Step
    from services.payment.ports import Ports, Transaction
    from services.payment.ports.provider import Charged, Refunded

_RETURNED = frozenset({states.REFUND_SUCCESS})


class Settling:
    """Payments with their attempts, refunds, reviews and accounts, for one transaction. ``change`` is what it writes."""

    def __init__(self, ports: Ports, tx: Transaction, payment_ids: Iterable[int], scopes: Iterable[Scope] = ()) -> None:
        """Lock everything that words about ``payment_ids`` may change, and the keys ``scopes``."""
        self._ports = ports
        self.payments = tx.payments(payment_ids)
        self.attempts = tx.attempts(self.payments)
        self.refunds = tx.refunds({a.refund_id for a in self.attempts.values() if a.refund_id})
        self.reviews = {review.id: review for review in tx.reviews(self.payments)}
        waiting = [r for r in self.reviews.values() if r.status != states.REVIEW_DECIDED]
        self._reviewed = {(r.payment_id, r.refund_id) for r in waiting}
        self._held = tx.held({a.scope for a in self.attempts.values() if a.scope} | set(scopes))
        for payment in self.payments.values():
            payment.charge = self.attempts.get(payment.id)
        accounts: set[AccountKey] = set()
        for payment in self.payments.values():
            accounts |= accounts_of(payment, ports.merchant_id)
        self.change = Change(ports.clock.now_ms(), book=Book(tx.accounts(accounts)))

    @property
    def now_ms(self) -> int:
        """When all of it happens."""
        return self.change.now_ms

    def tell(self) -> None:
        """Tell the cache and the relay of what was committed."""
        self._ports.cache.put(self.change.changed_payments.values())
        self._ports.committed()

    # -- what a provider says of a charge

    def charged(self, attempt: Attempt, said: Charged) -> None:
        """Take in the outcome of a charge, a capture, a void or a close, or of a query about one."""
        payment = self.payments[attempt.payment_id]
        charge = payment.charge or attempt
        for each in (attempt, charge):
            each.provider_id = said.provider_id or each.provider_id
            each.provider_code = _code(said, each.provider_code)
            self._touch(each)
        match said.phase:
            case phase if said.verdict is Verdict.UNKNOWN and phase is not Phase.WAITING:
                self._unknown(payment, attempt)  # also of money: nobody can tell whether it may stay
            case Phase.CAPTURED | Phase.REFUNDED:
                charge.moved(said.at_ms)
                self._taken(payment, said)
            case Phase.AUTHORIZED:
                self._authorized(payment, attempt, said)
            case Phase.WAITING:
                self._waiting(payment, attempt, said)
            case _:
                self._ended(payment, attempt, said)

    def _taken(self, payment: Payment, said: Charged) -> None:
        due = self._due(payment)
        returned = said.phase is Phase.REFUNDED
        if payment.status in TAKEN:
            if returned and not payment.refunded + payment.refunding:  # WeChat Pay says so of a part, too
                self.review(payment, Reason.LATE_FAILURE, "the provider says that money was given back", 0)
        elif payment.status in {states.FAILED, states.CLOSED}:
            amount = due if said.amount is None else said.amount
            what = f"{payment.status}, yet {amount} were taken"
            self.review(payment, Reason.LATE_SUCCESS, what, _bookable(payment, amount))
        elif payment.status != states.REVIEW:
            if returned or said.amount not in {None, due}:
                amount = said.amount or due
                what = f"{due} were asked for, the provider says {said.phase} of {amount}"
                self.review(payment, Reason.AMOUNT_MISMATCH, what, _bookable(payment, amount))
            else:
                self.capture(payment, due.minor_units)
        self._settle_all(payment)

    def expected(self, payment: Payment, phase: Phase | None) -> list[Money]:
        """Return the amounts that a word of ``phase`` can name: what was taken or is to be, before that what was asked.

        A capture that was refused may have been done nevertheless: that is no forgery, but a contradiction.
        """
        if phase not in {Phase.CAPTURED, Phase.REFUNDED}:
            return [payment.amount]
        if payment.status in TAKEN:
            return [Money(payment.amount.currency_code, payment.captured)]
        return [self._due(payment), *(each.amount for each in self._captures(payment))]

    def _captures(self, payment: Payment) -> list[Attempt]:
        return [a for a in self.attempts.values() if a.payment_id == payment.id and a.kind is Kind.CAPTURE]

    def _due(self, payment: Payment) -> Money:
        """What is to be taken: of a capture that is under way, or the whole."""
        under_way = [each.amount for each in self._captures(payment) if not each.settled]
        return under_way[-1] if under_way else payment.amount

    def capture(self, payment: Payment, captured: int) -> None:
        """Book the money and make the payment a success."""
        step = payment.succeed(self.now_ms, captured)
        self._book_capture(payment, captured)
        self._moved(payment, step)

    def book_beside(self, payment: Payment, captured: int) -> None:
        """Book money of a payment that stays in review, because it is given back beside its order."""
        self._book_capture(payment, captured)
        payment.captured = captured
        self._changed(payment)

    def _book_capture(self, payment: Payment, captured: int) -> None:
        merchant = self._ports.merchant_id
        if payment.charge is not None:
            self._touch(payment.charge.moved(self.now_ms))
        self._post(
            "payment", payment.id, payment.clearing_account(merchant), payment.merchant_account(merchant), captured
        )

    def _authorized(self, payment: Payment, attempt: Attempt, said: Charged) -> None:
        charge = payment.charge or attempt
        if attempt.kind is Kind.VOID and attempt.payer.get("why"):
            self._wait(attempt, Point.UNKNOWN)  # refused, yet nobody else would ask for it again
            return
        if payment.status in {states.FAILED, states.CLOSED}:
            self._void_late(payment, charge)
        elif payment.is_open and charge.capture:
            self._wait(attempt, Point.WAITING)  # asked to take it at once: the network is on its way
            return
        elif payment.is_open and not self._is_changing(payment, attempt):
            if payment.status != states.AUTHORIZED:
                self._moved(payment, payment.enter(states.AUTHORIZED, self.now_ms))
            charge.action = {}
            charge.hold(self.now_ms + self._ports.outside.capture_window_ms, self.now_ms)
            self._answer_waiting(charge)  # it is not taken up before its window ends: nobody else would
        if attempt is not charge:
            attempt.provider_code = said.code
            attempt.settle(self.now_ms)

    def _is_changing(self, payment: Payment, attempt: Attempt) -> bool:
        """Whether a capture or a void is under way that this is not the answer to: what was held before is old news."""
        changes = {Kind.CAPTURE, Kind.VOID}
        of_payment = (each for each in self.attempts.values() if each.payment_id == payment.id)
        return any(each.kind in changes and not each.settled and each.id != attempt.id for each in of_payment)

    def _void_late(self, payment: Payment, charge: Attempt) -> None:
        """An issuer holds money for a payment that has ended: let go of it, no money was taken. Once: the rest is old news."""
        if any(each.kind is Kind.VOID and each.payment_id == payment.id for each in self.attempts.values()):
            return
        self._ports.alarm.alert("payment.held_late", payment_id=payment.id, status=payment.status)
        charge.settle(self.now_ms)
        void = follow(self._ports, charge, Kind.VOID, None, now_ms=self.now_ms, due_ms=self.now_ms, why="late")
        self.attempts[void.id] = void
        self.change.new_attempts.append(void)

    def _waiting(self, payment: Payment, attempt: Attempt, said: Charged) -> None:
        charge = payment.charge or attempt
        charge.action = said.action or charge.action
        if payment.status == states.UNKNOWN:
            self._moved(payment, payment.enter(states.PROCESSING, self.now_ms))
        for each in dict.fromkeys((attempt.id, charge.id)):
            self._wait(self.attempts[each], Point.WAITING)
        self._changed(payment)

    def _ended(self, payment: Payment, attempt: Attempt, said: Charged) -> None:
        if payment.status in TAKEN:
            given = payment.refunded + payment.refunding
            if given < payment.captured and said.phase is not Phase.ABSENT:  # absent: before its payer came
                self.review(payment, Reason.LATE_FAILURE, f"{payment.status}, yet the provider says {said.phase}", 0)
        elif payment.is_open:
            held, charged = payment.status == states.AUTHORIZED, attempt.kind is Kind.CHARGE
            if charged and said.verdict is Verdict.REFUSED and said.phase is not Phase.CLOSED:
                step = payment.fail("PAYMENT_DECLINED", self.now_ms)
            else:
                cancelled = not charged and attempt.payer.get("why") != "expired"
                step = payment.close("PAYMENT_CANCELLED" if cancelled else "PAYMENT_EXPIRED", self.now_ms)
            self._moved(payment, step)
            if held and payment.status == states.FAILED:  # a contradiction: what may be held nevertheless is let go of
                self._settle_all(payment)
                self._void_late(payment, payment.charge or attempt)
                return
        self._settle_all(payment)

    def _unknown(self, payment: Payment, attempt: Attempt) -> None:
        if payment.status == states.PROCESSING and not (payment.charge and payment.charge.action):
            self._moved(payment, payment.enter(states.UNKNOWN, self.now_ms))
        if not attempt.settled:
            self._wait(attempt, Point.UNKNOWN)

    # -- what a provider says of a refund

    def refunded(self, attempt: Attempt, said: Refunded) -> None:
        """Take in the outcome of a refund, or of a query about one."""
        payment, refund = self.payments[attempt.payment_id], self.refunds[attempt.refund_id]
        attempt.provider_code = refund.provider_code = _code(said, refund.provider_code)
        self._touch(attempt)
        self.change.changed_refunds[refund.id] = refund
        match said.verdict:
            case Verdict.DONE:
                attempt.moved(said.at_ms)
                if said.amount not in {None, refund.amount}:
                    what = f"{refund.amount} were to be given back, the provider says {said.amount}"
                    self._doubt(payment, refund, attempt, what)
                else:
                    self._refund_done(payment, refund, attempt)
            case Verdict.REFUSED:
                self._refund_refused(payment, refund, attempt)
            case verdict if refund.status in {states.REFUND_PENDING, states.REFUND_UNKNOWN}:
                waits = verdict is Verdict.PENDING
                refund.enter(states.REFUND_PENDING if waits else states.REFUND_UNKNOWN, self.now_ms)
                self._wait(attempt, Point.WAITING if waits else Point.UNKNOWN)
        if attempt.settled:
            self._answer_waiting(attempt)  # a callback may have settled it, and who asked may be dead

    def _refund_done(self, payment: Payment, refund: Refund, attempt: Attempt) -> None:
        if refund.status == states.REFUND_FAILED:
            self._doubt(payment, refund, attempt, "the refund had failed, yet the provider says that it was done")
        elif refund.status in {states.REFUND_PENDING, states.REFUND_UNKNOWN}:
            self.finish_refund(payment, refund)
        attempt.settle(self.now_ms)

    def finish_refund(self, payment: Payment, refund: Refund) -> None:
        """Book a refund that was set aside, and put it down as done."""
        amount, merchant = refund.amount.minor_units, self._ports.merchant_id
        self._post(REFUND, refund.id, payment.payable_account(merchant), payment.clearing_account(merchant), amount)
        self._touch(self.attempts[refund.id].moved(self.now_ms))
        refund.enter(states.REFUND_SUCCESS, self.now_ms)
        payment.let_go(amount)
        self.change.changed_refunds[refund.id] = refund
        self._moved(payment, payment.refund(amount, self.now_ms), refund)

    def _refund_refused(self, payment: Payment, refund: Refund, attempt: Attempt) -> None:
        if refund.status in {states.REFUND_PENDING, states.REFUND_UNKNOWN} and payment.owed:
            self._doubt(payment, refund, attempt, f"{refund.amount} are owed to the payer, yet the provider refuses")
        elif refund.status in {states.REFUND_PENDING, states.REFUND_UNKNOWN}:
            self.drop_refund(payment, refund)
        elif refund.status in _RETURNED:
            self._doubt(payment, refund, attempt, "the refund was done, yet the provider says that it failed")
        attempt.settle(self.now_ms)

    def drop_refund(self, payment: Payment, refund: Refund) -> None:
        """Put a refund down as failed: what was set aside can be refunded again."""
        amount, merchant = refund.amount.minor_units, self._ports.merchant_id
        back = payment.merchant_account(merchant)
        self._post(REFUND_REVERSAL, refund.id, payment.payable_account(merchant), back, amount)
        refund.enter(states.REFUND_FAILED, self.now_ms)
        payment.let_go(amount)
        self.change.changed_refunds[refund.id] = refund
        self._changed(payment)
        if payment.status == states.REVIEW:
            self._not_given_back(payment, refund)

    def _not_given_back(self, payment: Payment, refund: Refund) -> None:
        """Money that two people gave back is here again: nobody but they says what becomes of it."""
        reason = Reason.AMOUNT_MISMATCH if payment.live else Reason.LATE_SUCCESS
        what = f"{refund.amount} were to be given back, yet {refund.refund_no} failed ({refund.provider_code})"
        self._open_review(payment, 0, reason, what, payment.captured)

    def _doubt(self, payment: Payment, refund: Refund, attempt: Attempt, what: str) -> None:
        attempt.settle(self.now_ms)
        if any(r.refund_id == refund.id and r.status == states.REVIEW_DECIDED for r in self.reviews.values()):
            self._ports.alarm.alert("refund.decided_otherwise", refund_id=refund.id, why=what)
            return  # what two people decided stands
        refund.enter(states.REFUND_REVIEW, self.now_ms)
        self._open_review(payment, refund.id, Reason.REFUND_CONTRADICTION, what, refund.amount.minor_units)

    # -- what follows

    def review(self, payment: Payment, reason: Reason, detail: str, amount: int) -> None:
        """Open a review. A payment that took its money stays what it is until two people say otherwise."""
        if payment.status not in TAKEN and payment.status != states.REVIEW:
            self._moved(payment, payment.enter(states.REVIEW, self.now_ms))
        self._open_review(payment, 0, reason, detail, amount)

    def _open_review(self, payment: Payment, refund_id: int, reason: Reason, detail: str, amount: int) -> None:
        if (payment.id, refund_id) in self._reviewed:
            return
        self._reviewed.add((payment.id, refund_id))
        review_id, now = self._ports.ids.next(0), self.now_ms
        self.change.new_reviews.append(
            Review(review_id, payment.id, refund_id, reason, detail, amount, states.REVIEW_OPEN, now, now)
        )
        self._ports.alarm.alert("payment.review", payment_id=payment.id, refund_id=refund_id, why=str(reason))

    def answer(self, attempt: Attempt, scope: Scope | None = None) -> Answer:
        """Return what whoever waits for an attempt is answered; made and kept under the key unless it is there."""
        scope = scope or attempt.scope
        assert scope is not None
        known = self._held.get(scope)
        if known is None:
            known = self._held[scope] = self.change.late[scope] = self._render(attempt)
        attempt.scope = None
        self._touch(attempt)
        return known

    def _render(self, attempt: Attempt) -> Answer:
        payment, render, code = self.payments[attempt.payment_id], self._ports.render, attempt.provider_code
        refusal = DomainError("PROVIDER_REFUSED", payment_id=payment.id, code=code or "refused")
        match attempt.kind:
            case Kind.CHARGE if payment.status == states.FAILED:
                return DomainError("PAYMENT_DECLINED", payment_id=payment.id, code=code or "declined")
            case Kind.CHARGE:
                return render.created(payment)
            case Kind.REFUND:
                refund = self.refunds[attempt.refund_id]
                return refusal if refund.status == states.REFUND_FAILED else render.refunded(payment, refund)
            case Kind.CAPTURE:
                refused = attempt.settled and payment.status not in TAKEN
                return refusal if refused else render.captured(payment)
            case Kind.VOID:
                refused = attempt.settled and payment.status != states.CLOSED
                return refusal if refused else render.voided(payment)
            case Kind.CLOSE:
                refused = attempt.settled and payment.is_open
                return refusal if refused else render.closed(payment)

    def _settle_all(self, payment: Payment) -> None:
        """Nothing is left to ask about the charge; whoever waits for any of it is answered."""
        for attempt in self.attempts.values():
            if attempt.payment_id == payment.id and attempt.kind is not Kind.REFUND and not attempt.settled:
                attempt.settle(self.now_ms)
                self._touch(attempt)
                self._answer_waiting(attempt)

    def _answer_waiting(self, attempt: Attempt) -> None:
        if attempt.scope is not None:
            self.answer(attempt)

    def _wait(self, attempt: Attempt, point: Point) -> None:
        if not attempt.settled and attempt.point is not Point.HELD:  # what is held waits for its window alone
            attempt.wait(point, self.now_ms, self._ports.outside.jitter())
            self._touch(attempt)

    def _post(self, kind: str, reference_id: int, debit: AccountKey, credit: AccountKey, amount: int) -> None:
        assert self.change.book is not None
        self.change.book.post(transfer(self._ports.ids.next(0), kind, reference_id, debit, credit, amount))

    def _moved(self, payment: Payment, step: Step, refund: Refund | None = None) -> None:
        self.change.moved.append(Moved(step, payment, refund))
        self._changed(payment)

    def _changed(self, payment: Payment) -> None:
        self.change.changed_payments[payment.id] = payment

    def _touch(self, attempt: Attempt) -> None:
        self.change.changed_attempts[attempt.id] = attempt


def _code(said: Charged | Refunded, before: str) -> str:
    """The word for a refusal; what is done has none, and why something is unknown is nobody's word for it."""
    return said.code if said.verdict is Verdict.REFUSED else "" if said.verdict is Verdict.DONE else before


def _bookable(payment: Payment, said: Money) -> int:
    """What can be booked of an amount: minor units of the payment's currency; of another currency none."""
    return said.minor_units if said.currency_code == payment.amount.currency_code else 0


def accounts_of(payment: Payment, merchant_id: int) -> set[AccountKey]:
    """The accounts that a change of a payment may touch."""
    merchant = payment.merchant_account(merchant_id)
    if payment.method is Method.BALANCE:
        return {payment.balance_account, merchant}
    return {merchant, payment.clearing_account(merchant_id), payment.payable_account(merchant_id)}


def follow(
    ports: Ports, charge: Attempt, kind: Kind, scope: Scope | None, *, now_ms: int, due_ms: int,
    amount: Money | None = None, why: str = ""
) -> Attempt:  # fmt: skip
    """Make an attempt about a charge; ``due_ms`` is when the completer takes it up, ``why`` the reason if nobody asked."""
    return Attempt(
        id=ports.ids.next(0), payment_id=charge.payment_id, refund_id=0, kind=kind, method=charge.method,
        request_id=charge.request_id, amount=amount or charge.amount, create_ms=now_ms, update_ms=now_ms,
        next_ms=due_ms, owner=ports.outside.instance, scope=scope, payer={"why": why} if why else {},
        provider_id=charge.provider_id, expire_ms=charge.expire_ms,
    )  # fmt: skip
