"""Rows <-> domain objects of the payment room."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import sqlalchemy as sa

from services.kernel.idempotency import Scope
from services.kernel.money import Money
from services.payment.domain import (
    Attempt,
    Decision,
    Kind,
    KnownOrder,
    Method,
    Payment,
    Point,
    Reason,
    Refund,
    Review,
    Scene,
)
from services.payment.domain.card import Brand, Card, Expiry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.payment.domain.payment import Step

Row = dict[str, Any]


def payment_row(payment: Payment) -> Row:
    """All columns of a payment. ``live_order_id`` is what makes a second live payment of an order impossible."""
    return {
        "id": payment.id,
        "payment_no": payment.payment_no,
        "order_id": payment.order_id,
        "user_id": payment.user_id,
        "amount_minor": payment.amount.minor_units,
        "currency_code": payment.amount.currency_code,
        "payment_method": str(payment.method),
        "create_ms": payment.create_ms,
        **payment_state(payment),
    }


def payment_state(payment: Payment) -> Row:
    """The columns of a payment that change."""
    return {
        "live_order_id": payment.order_id if payment.live else None,
        "captured_minor": payment.captured,
        "refunded_minor": payment.refunded,
        "status": payment.status,
        "version": payment.version,
        "failure_reason": payment.failure_reason,
        "update_ms": payment.update_ms,
        "events": payment.events,
        "refunding_minor": payment.refunding,
        "owed": int(payment.owed),
    }


def step_row(step: Step) -> Row:
    """A row of a payment's history."""
    return {"payment_id": step.payment_id, "version": step.version, "status": step.status, "at_ms": step.at_ms}


def refund_row(refund: Refund) -> Row:
    """All columns of a refund."""
    return {
        "id": refund.id,
        "refund_no": refund.refund_no,
        "payment_id": refund.payment_id,
        "amount_minor": refund.amount.minor_units,
        "currency_code": refund.amount.currency_code,
        "note": refund.note,
        "create_ms": refund.create_ms,
        **refund_state(refund),
    }


def refund_state(refund: Refund) -> Row:
    """The columns of a refund that change."""
    return {"status": refund.status, "update_ms": refund.update_ms, "provider_code": refund.provider_code}


def payment_of(row: sa.Row[Any]) -> Payment:
    """Read a payment."""
    return Payment(
        id=row.id,
        order_id=row.order_id,
        user_id=row.user_id,
        amount=Money(row.currency_code, row.amount_minor),
        method=Method(row.payment_method),
        status=row.status,
        version=row.version,
        captured=row.captured_minor,
        refunded=row.refunded_minor,
        failure_reason=row.failure_reason,
        create_ms=row.create_ms,
        update_ms=row.update_ms,
        events=row.events,
        refunding=row.refunding_minor,
        owed=bool(row.owed),
        live=row.live_order_id is not None,
    )


def refund_of(row: sa.Row[Any]) -> Refund:
    """Read a refund."""
    amount = Money(row.currency_code, row.amount_minor)
    return Refund(row.id, row.payment_id, amount, row.note, row.status, row.create_ms, row.update_ms, row.provider_code)


def order_row(order: KnownOrder) -> Row:
    """All columns of a known order."""
    return {
        "order_id": order.id,
        "user_id": order.user_id,
        "amount_minor": order.amount.minor_units,
        "currency_code": order.amount.currency_code,
        "status": order.status,
        "expire_ms": order.expire_ms,
        "version": order.version,
    }


def order_of(row: sa.Row[Any]) -> KnownOrder:
    """Read a known order."""
    amount = Money(row.currency_code, row.amount_minor)
    return KnownOrder(row.order_id, row.user_id, amount, row.status, row.expire_ms, row.version)


def attempt_row(attempt: Attempt) -> Row:
    """All columns of an attempt."""
    return {
        "id": attempt.id,
        "payment_id": attempt.payment_id,
        "refund_id": attempt.refund_id,
        "kind": str(attempt.kind),
        "payment_method": str(attempt.method),
        "request_id": attempt.request_id,
        "amount_minor": attempt.amount.minor_units,
        "currency_code": attempt.amount.currency_code,
        "scene": str(attempt.scene or ""),
        "payer": _text(attempt.payer),
        "card": "" if attempt.card is None else _text(card_shown(attempt.card)),
        "capture": int(attempt.capture),
        "create_ms": attempt.create_ms,
        **attempt_state(attempt),
    }


def attempt_state(attempt: Attempt) -> Row:
    """The columns of an attempt that change."""
    scope = attempt.scope
    return {
        "subject": scope and scope.subject,
        "method": scope and scope.method,
        "idempotency_key": scope and scope.key,
        "expire_ms": attempt.expire_ms,
        "point": str(attempt.point),
        "tries": attempt.tries,
        "provider_id": attempt.provider_id,
        "provider_code": attempt.provider_code,
        "action": _text(attempt.action),
        "owner": attempt.owner,
        "next_ms": None if attempt.settled else attempt.next_ms,
        "update_ms": attempt.update_ms,
        "paid_ms": attempt.paid_ms,
    }


def attempt_of(row: sa.Row[Any]) -> Attempt:
    """Read an attempt."""
    return Attempt(
        id=row.id,
        payment_id=row.payment_id,
        refund_id=row.refund_id,
        kind=Kind(row.kind),
        method=Method(row.payment_method),
        request_id=row.request_id,
        amount=Money(row.currency_code, row.amount_minor),
        create_ms=row.create_ms,
        update_ms=row.update_ms,
        next_ms=row.next_ms or 0,
        owner=row.owner,
        scope=None if row.idempotency_key is None else Scope(row.subject, row.method, row.idempotency_key),
        scene=Scene(row.scene) if row.scene else None,
        payer=orjson.loads(row.payer),
        card=card_of(orjson.loads(row.card)) if row.card else None,
        capture=bool(row.capture),
        expire_ms=row.expire_ms,
        point=Point(row.point),
        tries=row.tries,
        provider_id=row.provider_id,
        provider_code=row.provider_code,
        action=orjson.loads(row.action),
        paid_ms=row.paid_ms,
    )


def card_shown(card: Card) -> Row:
    """What is kept of a card outside the vault."""
    return {
        "token": card.token,
        "merchant_id": card.merchant_id,
        "brand": str(card.brand),
        "first6": card.first6,
        "last4": card.last4,
        "expire_year": card.expiry.year,
        "expire_month": card.expiry.month,
    }


def card_of(shown: Mapping[str, Any]) -> Card:
    """Read what is kept of a card outside the vault."""
    expiry = Expiry(shown["expire_year"], shown["expire_month"])
    brand, first6, last4 = Brand(shown["brand"]), shown["first6"], shown["last4"]
    return Card(shown["token"], shown["merchant_id"], brand, first6, last4, expiry)


def review_row(review: Review) -> Row:
    """All columns of a review."""
    return {
        "id": review.id,
        "payment_id": review.payment_id,
        "refund_id": review.refund_id,
        "reason": str(review.reason),
        "detail": review.detail,
        "amount_minor": review.amount,
        "create_ms": review.create_ms,
        **review_state(review),
    }


def review_state(review: Review) -> Row:
    """The columns of a review that change."""
    return {
        "status": review.status,
        "decision": str(review.decision or ""),
        "proposer_id": review.proposer_id,
        "proposal_note": review.proposal_note,
        "decider_id": review.decider_id,
        "decision_note": review.decision_note,
        "update_ms": review.update_ms,
    }


def review_of(row: sa.Row[Any]) -> Review:
    """Read a review."""
    return Review(
        id=row.id,
        payment_id=row.payment_id,
        refund_id=row.refund_id,
        reason=Reason(row.reason),
        detail=row.detail,
        amount=row.amount_minor,
        status=row.status,
        create_ms=row.create_ms,
        update_ms=row.update_ms,
        decision=Decision(row.decision) if row.decision else None,
        proposer_id=row.proposer_id,
        proposal_note=row.proposal_note,
        decider_id=row.decider_id,
        decision_note=row.decision_note,
    )


def _text(members: Mapping[str, Any]) -> str:
    return orjson.dumps(dict(members)).decode()
