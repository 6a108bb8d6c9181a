"""Reviews: protobuf <-> domain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paymesh.payment.v1 import payment_service_pb2 as pb
from paymesh.payment.v1 import review_pb2
from services.payment import states, usecases
from services.payment.domain import Decision, Reason
from services.platform import wire

if TYPE_CHECKING:
    from services.payment.domain import Review
    from services.platform.interceptor import Call

_REASON = {reason: review_pb2.Review.Reason.Value(f"REASON_{reason.upper()}") for reason in Reason}
_STATUS = {word: review_pb2.Review.Status.Value(f"STATUS_{word.upper()}") for word in states.REVIEW_ALL}
_DECISION = {decision: review_pb2.Review.Decision.Value(f"DECISION_{decision.upper()}") for decision in Decision}
_DECISION_FROM = {number: decision for decision, number in _DECISION.items()}


def propose_review(call: Call, request: pb.ProposeReviewRequest) -> usecases.ProposeReview:
    """Read a proposal."""
    return usecases.ProposeReview(call.caller, request.id, _DECISION_FROM[request.decision], request.note)


def decide_review(call: Call, request: pb.DecideReviewRequest) -> usecases.DecideReview:
    """Read a decision."""
    key = wire.idempotency_key(call, request)
    assert key is not None
    decision = _DECISION_FROM[request.decision]
    return usecases.DecideReview(call.caller, key, request.id, decision, request.agree, request.note)


def review(r: Review) -> review_pb2.Review:
    """Render a review."""
    return review_pb2.Review(
        id=r.id,
        payment_id=r.payment_id,
        refund_id=r.refund_id,
        reason=_REASON[r.reason],
        detail=r.detail,
        status=_STATUS[r.status],
        decision=review_pb2.Review.DECISION_UNSPECIFIED if r.decision is None else _DECISION[r.decision],
        proposer_id=r.proposer_id,
        proposal_note=r.proposal_note,
        decider_id=r.decider_id,
        decision_note=r.decision_note,
        create_time=wire.timestamp(r.create_ms),
        update_time=wire.timestamp(r.update_ms),
    )


def decided(r: Review) -> bytes:
    """Render the answer of DecideReview."""
    return pb.DecideReviewResponse(review=review(r)).SerializeToString(deterministic=True)
