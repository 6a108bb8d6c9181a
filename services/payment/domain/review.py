"""Reviews: contradictions that two operators resolve together."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import TYPE_CHECKING

from services.kernel.errors import DomainError
from services.payment import states
from services.payment.domain.ledger import REFUND, REFUND_LATE, REFUND_REVERSAL, REFUND_UNDONE
from services.payment.domain.payment import ENDED, TAKEN

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from services.payment.domain.payment import Payment, Refund


class Reason(StrEnum):
    """What contradicts what; SQL stores these words."""

    LATE_SUCCESS = "late_success"
    AMOUNT_MISMATCH = "amount_mismatch"
    LATE_FAILURE = "late_failure"
    REFUND_CONTRADICTION = "refund_contradiction"
    BILL_MISMATCH = "bill_mismatch"


class Decision(StrEnum):
    """What is done about it; SQL stores these words."""

    ACCEPT = "accept"
    REFUSE = "refuse"
    GIVE_BACK = "give_back"


@dataclass(slots=True)
class Review:
    """A contradiction as a batch sees and changes it.

    ``amount`` is what the provider says was moved, in minor units of the payment's currency; 0: nothing that can be booked.
    """

    id: int
    payment_id: int
    refund_id: int
    reason: Reason
    detail: str
    amount: int
    status: str
    create_ms: int
    update_ms: int
    decision: Decision | None = None
    proposer_id: int = 0
    proposal_note: str = ""
    decider_id: int = 0
    decision_note: str = ""

    def propose(self, decision: Decision, proposer_id: int, note: str, now_ms: int) -> None:
        """Say what is true; replaces what was proposed before. Refuses with REVIEW_STATUS_CONFLICT."""
        if decision is Decision.GIVE_BACK and self.refund_id:
            raise self.conflict()
        self._enter(states.REVIEW_PROPOSED, now_ms)
        self.decision, self.proposer_id, self.proposal_note = decision, proposer_id, note
        self.decider_id, self.decision_note = 0, ""  # who turned the one before down has not seen this one

    def decide(self, decision: Decision, decider_id: int, note: str, now_ms: int, *, agree: bool) -> None:
        """Agree to ``decision``, or open it again.

        Refuses with REVIEW_STATUS_CONFLICT, REVIEW_NEEDS_SECOND_PERSON, REVIEW_PROPOSAL_CHANGED.
        """
        if self.status != states.REVIEW_PROPOSED or self.decision is None:
            raise self.conflict()
        if decider_id == self.proposer_id:
            raise DomainError("REVIEW_NEEDS_SECOND_PERSON", review_id=self.id)
        if decision is not self.decision:
            raise DomainError("REVIEW_PROPOSAL_CHANGED", review_id=self.id, decision=self.decision)
        self._enter(states.REVIEW_DECIDED if agree else states.REVIEW_OPEN, now_ms)
        self.decider_id, self.decision_note = decider_id, note
        if not agree:
            self.decision = None

    def _enter(self, status: str, now_ms: int) -> None:
        """Move along the published graph, or stay."""
        if status != self.status and status not in states.REVIEW_NEXT[self.status]:
            raise self.conflict()
        self.status, self.update_ms = status, now_ms

    def conflict(self) -> DomainError:
        """Say that the review does not allow what was asked for."""
        return DomainError("REVIEW_STATUS_CONFLICT", review_id=self.id, status=self.status)


class Place(Enum):
    """Where the money of a refund is, by what the ledger booked of it."""

    SET_ASIDE = "set aside"
    LET_GO = "let go"
    GIVEN_BACK = "given back"


def place_of(booked: AbstractSet[str]) -> Place:
    """Return where the money of a refund is; ``booked`` has the kinds of its ledger transactions."""
    if booked & {REFUND, REFUND_LATE} and REFUND_UNDONE not in booked:
        return Place.GIVEN_BACK
    return Place.LET_GO if booked & {REFUND_REVERSAL, REFUND_UNDONE} else Place.SET_ASIDE


def check_decision(review: Review, decision: Decision, payment: Payment, refund: Refund | None, place: Place) -> None:
    """Refuse with REVIEW_STATUS_CONFLICT what cannot be carried out as things stand now. ``place`` is the ``refund``'s."""
    fits = (
        _fits_payment(review, decision, payment) if refund is None else _fits_refund(decision, payment, refund, place)
    )
    if not fits:
        raise review.conflict()


def _fits_payment(review: Review, decision: Decision, payment: Payment) -> bool:
    if payment.status in TAKEN:  # it stands as booked, or what is left of it is given back
        return decision is Decision.ACCEPT or (decision is Decision.GIVE_BACK and payment.refundable > 0)
    told_by_bill = review.reason is Reason.BILL_MISMATCH and payment.status in ENDED
    if payment.status != states.REVIEW and not told_by_bill:
        return False
    if payment.captured:  # it was to be given back, which failed: that it was taken is decided
        return decision is not Decision.REFUSE and payment.refundable > 0
    return decision is Decision.REFUSE or 0 < review.amount <= payment.amount.minor_units


def _fits_refund(decision: Decision, payment: Payment, refund: Refund, place: Place) -> bool:
    if decision is Decision.ACCEPT:  # what was let go of may have been given back by another refund since
        return place is not Place.LET_GO or payment.refundable >= refund.amount.minor_units
    asked = refund.status in {
        states.REFUND_PENDING,
        states.REFUND_UNKNOWN,
    }  # a bill was faster: the provider may do it yet
    return decision is Decision.REFUSE and not asked
