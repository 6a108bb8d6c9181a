"""Reviews: contradictions that two operators resolve together."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from services.kernel.errors import DomainError
from services.payment import states


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
    """A contradiction as a batch sees and changes it. ``amount`` is what the provider says was moved, in minor units."""

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
        if self.status == states.REVIEW_DECIDED or (decision is Decision.GIVE_BACK and self.refund_id):
            raise self.conflict()
        self.status, self.update_ms = states.REVIEW_PROPOSED, now_ms
        self.decision, self.proposer_id, self.proposal_note = decision, proposer_id, note

    def decide(self, decider_id: int, note: str, now_ms: int, *, agree: bool) -> None:
        """Agree, or open it again. Refuses with REVIEW_STATUS_CONFLICT, REVIEW_NEEDS_SECOND_PERSON."""
        if self.status != states.REVIEW_PROPOSED:
            raise self.conflict()
        if decider_id == self.proposer_id:
            raise DomainError("REVIEW_NEEDS_SECOND_PERSON", review_id=self.id)
        self.status, self.update_ms = states.REVIEW_DECIDED if agree else states.REVIEW_OPEN, now_ms
        self.decider_id, self.decision_note = decider_id, note
        if not agree:
            self.decision = None

    def conflict(self) -> DomainError:
        """Say that the review does not allow what was asked for."""
        return DomainError("REVIEW_STATUS_CONFLICT", review_id=self.id, status=self.status)
