"""Reviews: one operator says what is true, another one decides, and what they agree about is carried out at once.

Of a payment in review, that is one whose money is not booked yet:

accept     its money is booked, it becomes success and holds its order; refused where another payment does
refuse     no money: it is failed, or closed as it was
give back  its money is booked beside the order and a refund of the whole begins; it stays in review until that is done.
           Where the refund fails another review is opened, which can only be accepted or given back

Of a payment that had failed or was closed, and a bill says that it was paid: as of one in review, which it enters by the
decision.

Of a payment that kept its state, because its money was booked long before:

accept     it stands as it is
give back  a refund of what is left of it begins

Of a refund, by where its money was when the doubt came up (`place_of`):

set aside   accept: given back, as if the provider had just said so · refuse: let go, likewise
let go      accept: booked after all, from the merchant to the provider; refused where less than that is left ·
            refuse: it is failed, as it was
given back  accept: it is success, as it was · refuse: the booking is undone, and the payment is what it was without it;
            one beside its order goes back to review, for its money is here again

Where the payment is owed to the payer, because its order could not take it or is refunded, what a refused refund leaves is
given back by another one, which begins at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from services.kernel.errors import DomainError
from services.kernel.idempotency import Answer, IdempotencyKey, Once
from services.kernel.money import Money
from services.payment import states
from services.payment.domain import Decision, Place, check_decision, place_of
from services.payment.domain.ledger import REFUND_LATE, REFUND_UNDONE
from services.payment.domain.payment import ENDED
from services.payment.ports import Deed
from services.payment.usecases.reaching import reach_moved
from services.payment.usecases.refund import give_back
from services.payment.usecases.settling import Settling

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from services.kernel.caller import Caller
    from services.kernel.pages import Page
    from services.payment.domain import Payment, Refund, Review
    from services.payment.ports import Ports, Transaction


_REFUNDABLE = frozenset({states.SUCCESS, states.PARTIALLY_REFUNDED})


@dataclass(frozen=True, slots=True)
class ProposeReview:
    """Say what is to be done about a review."""

    caller: Caller
    review_id: int
    decision: Decision
    note: str


@dataclass(frozen=True, slots=True)
class DecideReview:
    """Agree to the ``decision`` that another operator proposed, or open the review again."""

    caller: Caller
    key: IdempotencyKey
    review_id: int
    decision: Decision
    agree: bool
    note: str


def list_reviews(ports: Ports, page: Page, *, decided: bool) -> tuple[Sequence[Review], str]:
    """Return a page of reviews, oldest first, and the token of the next; with ``decided`` also those."""
    return page.cut(ports.store.reviews_from(page, decided=decided), lambda review: review.id)


def propose_reviews(ports: Ports, items: Sequence[ProposeReview]) -> list[Review | DomainError]:
    """Put proposals down; each replaces the one before, and one that says the same as before changes nothing."""
    payments = ports.store.payments_of_reviews({item.review_id for item in items})
    outcomes: list[Review | DomainError] = []
    with ports.store.transaction() as tx:
        deciding = _Deciding(ports, tx, set(payments.values()))
        for item in items:
            try:
                outcomes.append(deciding.propose(item))
            except DomainError as refusal:
                outcomes.append(refusal)
        tx.write(deciding.change)
        tx.commit()
    return outcomes


def decide_reviews(ports: Ports, items: Sequence[DecideReview]) -> list[Answer]:
    """Decide, and carry out what is agreed in the same transaction; answers with the rendered review, or the refusal."""
    keys = [item.key for item in items]
    payments = ports.store.payments_of_reviews({item.review_id for item in items})
    ports.cache.hold(set(payments.values()))
    with ports.store.transaction() as tx:
        once = Once(keys, tx.stored(keys))
        asked = [items[place] for place in once.fresh]
        deciding = _Deciding(ports, tx, {payments[i.review_id] for i in asked if i.review_id in payments})
        for place, item in zip(once.fresh, asked, strict=True):
            try:
                once.settle(place, ports.render.decided(deciding.decide(item)))
            except DomainError as refusal:
                once.settle(place, refusal)
        deciding.change.answers = once.kept(business=ports.business)
        tx.write(deciding.change)
        tx.commit()
    reach_moved(ports, deciding.change)
    deciding.tell()
    return once.done()


class _Deciding(Settling):
    """Reviews with all that their decisions change, locked together."""

    def __init__(self, ports: Ports, tx: Transaction, payment_ids: Iterable[int]) -> None:
        """Lock everything that decisions about ``payment_ids`` may change."""
        super().__init__(ports, tx, payment_ids)
        booked = tx.booked({review.refund_id for review in self.reviews.values() if review.refund_id})
        self._places = {refund_id: place_of(booked.get(refund_id, set())) for refund_id in self.refunds}
        self._live = tx.live_payments({payment.order_id for payment in self.payments.values()})

    def propose(self, item: ProposeReview) -> Review:
        """Put a proposal down that could be carried out now."""
        review, actor = self._find(item.review_id), item.caller.subject
        same = (review.decision, review.proposer_id, review.proposal_note) == (item.decision, actor, item.note)
        if review.status == states.REVIEW_PROPOSED and same:
            return review
        review.propose(item.decision, actor, item.note, self.now_ms)
        self._check(review, item.decision)
        return self._keep(review, Deed(actor, "review.propose", review.id, f"{item.decision}: {item.note}"))

    def decide(self, item: DecideReview) -> Review:
        """Decide; what was agreed to is carried out."""
        review, actor, decision = self._find(item.review_id), item.caller.subject, item.decision
        review.decide(decision, actor, item.note, self.now_ms, agree=item.agree)
        if item.agree:
            self._check(review, decision)
            self._carry_out(review, decision)
        deed = Deed(actor, "review.decide", review.id, f"{'agreed' if item.agree else 'no'} to {decision}: {item.note}")
        return self._keep(review, deed)

    def _find(self, review_id: int) -> Review:
        """Return a copy, so that what is refused changes nothing."""
        found = self.reviews.get(review_id)
        if found is None:
            raise DomainError("REVIEW_NOT_FOUND", review_id=review_id)
        return replace(found)

    def _keep(self, review: Review, deed: Deed) -> Review:
        self.reviews[review.id] = self.change.changed_reviews[review.id] = review
        if review.status == states.REVIEW_DECIDED:
            self._reviewed.discard((review.payment_id, review.refund_id))
        self.change.audit.append(deed)
        return replace(review)

    def _check(self, review: Review, decision: Decision) -> None:
        payment, refund = self.payments[review.payment_id], self.refunds.get(review.refund_id)
        place = Place.SET_ASIDE if refund is None else self._places[refund.id]
        check_decision(self.reviews[review.id], decision, payment, refund, place)

    def _carry_out(self, review: Review, decision: Decision) -> None:
        payment, refund = self.payments[review.payment_id], self.refunds.get(review.refund_id)
        if refund is None and payment.status in ENDED and decision is not Decision.REFUSE:
            self._moved(payment, payment.enter(states.REVIEW, self.now_ms))
        if refund is not None:
            self._carry_out_refund(payment, refund, accepted=decision is Decision.ACCEPT)
        elif decision is Decision.GIVE_BACK:
            self._give_back(payment, review)
        elif payment.status == states.REVIEW:
            if decision is Decision.ACCEPT:
                self._accept(payment, review)
            else:
                self._moved(payment, payment.refuse(self.now_ms))
                if self._live.get(payment.order_id) == payment.id:
                    del self._live[payment.order_id]

    def _accept(self, payment: Payment, review: Review) -> None:
        other = self._live.setdefault(payment.order_id, payment.id)
        if other != payment.id:
            raise DomainError("ORDER_HAS_LIVE_PAYMENT", order_id=payment.order_id, payment_id=other)
        if not payment.captured:
            self.book_beside(payment, review.amount)
        self._moved(payment, payment.accept(self.now_ms))

    def _give_back(self, payment: Payment, review: Review) -> None:
        if not payment.captured:
            self.book_beside(payment, review.amount)
        give_back(self._ports, self.change, payment, payment.refundable, str(review.reason), None)

    def _carry_out_refund(self, payment: Payment, refund: Refund, *, accepted: bool) -> None:
        place = self._places[refund.id]
        refund.enter(states.REFUND_REVIEW, self.now_ms)
        self.change.changed_refunds[refund.id] = refund
        if place is Place.SET_ASIDE:
            (self.finish_refund if accepted else self.drop_refund)(payment, refund)
        elif accepted and place is Place.LET_GO:
            self._book_late(payment, refund)
        elif not accepted and place is Place.GIVEN_BACK:
            self._undo(payment, refund)
        refund.enter(states.REFUND_SUCCESS if accepted else states.REFUND_FAILED, self.now_ms)
        if payment.owed and payment.status in _REFUNDABLE and payment.refundable:
            give_back(self._ports, self.change, payment, payment.refundable, refund.note, None)

    def _book_late(self, payment: Payment, refund: Refund) -> None:
        """Book a refund that was let go of: nothing is set aside for it any more."""
        amount, merchant = refund.amount.minor_units, self._ports.merchant_id
        give, take = payment.merchant_account(merchant), payment.clearing_account(merchant)
        self._touch(self.attempts[refund.id].moved(self.now_ms))
        self._post(REFUND_LATE, refund.id, give, take, amount)
        self._moved(payment, payment.refund(amount, self.now_ms), refund)

    def _undo(self, payment: Payment, refund: Refund) -> None:
        """Take a refund out of the books. An order that was told that all was given back is none that is paid: it is owed."""
        amount, merchant = refund.amount.minor_units, self._ports.merchant_id
        self._post(
            REFUND_UNDONE, refund.id, payment.clearing_account(merchant), payment.merchant_account(merchant), amount
        )
        payment.owed = payment.owed or (payment.live and payment.status == states.REFUNDED)
        payment.refunded -= amount
        self._ports.alarm.alert("payment.refund_undone", payment_id=payment.id, refund_id=refund.id)
        if payment.status != states.REVIEW:
            self._moved(payment, payment.enter(states.REVIEW, self.now_ms))
        if not payment.live:
            self._not_given_back(payment, refund)
        elif payment.refunded:
            nothing = replace(refund, amount=Money(refund.amount.currency_code, 0))
            self._moved(payment, payment.enter(states.PARTIALLY_REFUNDED, self.now_ms), nothing)
        else:
            self._moved(payment, payment.enter(states.SUCCESS, self.now_ms))
