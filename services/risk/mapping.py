"""Protobuf <-> domain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paymesh.payment.v1 import payment_event_pb2
from paymesh.risk.v1 import risk_event_pb2 as events_pb
from paymesh.risk.v1 import risk_pb2
from paymesh.risk.v1 import risk_service_pb2 as pb
from services.kernel.money import Money
from services.platform import wire
from services.risk import usecases
from services.risk.domain import (
    Alert,
    AlertRaised,
    AmountLimit,
    Assessment,
    Block,
    BlockList,
    Condition,
    Decision,
    Event,
    Noted,
    Payment,
    Rule,
    Unreachable,
    VelocityLimit,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.platform.interceptor import Call


def assess_payments(request: pb.BatchAssessPaymentsRequest) -> usecases.AssessPayments:
    """Read the payments. Raises CURRENCY_UNSUPPORTED."""
    payments = []
    for each in request.payments:
        amount = each.amount
        payments.append(Payment(each.payment_id, each.user_id, amount.currency_code, amount.minor_units))
    for currency_code in {payment.currency_code for payment in payments}:
        Money(currency_code, 0)  # refuses what is no currency, once for the batch
    return usecases.AssessPayments(tuple(payments))


def payment(request: pb.AssessRiskRequest) -> Payment:
    """Read a payment that is only thought of. Raises CURRENCY_UNSUPPORTED."""
    amount = wire.money_from(request.amount)
    return Payment(0, request.user_id, amount.currency_code, amount.minor_units)


def payment_initiated(event: payment_event_pb2.PaymentInitiated, event_id: str) -> usecases.NotePayment:
    """Read the event."""
    at_ms = event.event_time.ToMilliseconds()
    return usecases.NotePayment(event_id, "payment.initiated", Noted(event.payment_id, event.user_id, at_ms))


def create_rule(call: Call, request: pb.CreateRuleRequest) -> usecases.CreateRule:
    """Read the command."""
    return usecases.CreateRule(
        name=request.name,
        decision=Decision(request.decision),
        score=request.score,
        condition=_condition(request.condition),
        key=wire.idempotency_key(call, request),
    )


def update_rule(request: pb.UpdateRuleRequest) -> usecases.UpdateRule:
    """Read the command."""
    return usecases.UpdateRule(
        id=request.id,
        enabled=request.enabled,
        decision=Decision(request.decision),
        score=request.score,
        condition=_condition(request.condition),
    )


def set_block(request: pb.SetBlockRequest) -> usecases.SetBlock:
    """Read the command."""
    return usecases.SetBlock(request.user_id, request.blocked, request.note)


def _condition(message: risk_pb2.RuleCondition) -> Condition:
    kind = message.WhichOneof("kind")
    if kind == "amount_limit":
        return AmountLimit(wire.money_from(message.amount_limit.limit))
    if kind == "velocity_limit":
        return VelocityLimit(message.velocity_limit.window_seconds, message.velocity_limit.payments_max)
    return BlockList() if kind == "block_list" else Unreachable()


def assessed(outcome: usecases.Assessed) -> pb.BatchAssessPaymentsResponse:
    """Render the answers to a batch. Written for speed: most items are approvals without score and hits."""
    response = pb.BatchAssessPaymentsResponse(unreachable_decision=_decision(outcome.unreachable))
    add = response.assessments.add
    for each in outcome.assessments:
        judged, verdict = each.payment, each.verdict
        decision = _decision(verdict.decision)
        item = add(id=each.id, payment_id=judged.payment_id, user_id=judged.user_id, decision=decision)
        time = item.create_time
        time.seconds, time.nanos = each.create_ms // 1000, each.create_ms % 1000 * 1_000_000
        if verdict.rules_hit:
            item.score = verdict.score
            item.rules_hit.extend(verdict.rules_hit)
    return response


def assessment(made: Assessment) -> pb.AssessRiskResponse:
    """Render the answer to a trial."""
    return pb.AssessRiskResponse(
        assessment=risk_pb2.Assessment(
            id=made.id,
            payment_id=made.payment.payment_id,
            user_id=made.payment.user_id,
            decision=_decision(made.verdict.decision),
            score=made.verdict.score,
            rules_hit=made.verdict.rules_hit,
            create_time=wire.timestamp(made.create_ms),
        )
    )


def rule_created(rule: Rule) -> bytes:
    """Render the answer to CreateRule, as it is kept for repeats."""
    return pb.CreateRuleResponse(rule=_rule(rule)).SerializeToString()


def rule_updated(rule: Rule) -> pb.UpdateRuleResponse:
    """Render the answer to UpdateRule."""
    return pb.UpdateRuleResponse(rule=_rule(rule))


def rules(found: Sequence[Rule], next_page_token: str) -> pb.ListRulesResponse:
    """Render a page of rules."""
    return pb.ListRulesResponse(rules=[_rule(rule) for rule in found], next_page_token=next_page_token)


def alerts(found: Sequence[Alert], next_page_token: str) -> pb.ListAlertsResponse:
    """Render a page of alerts."""
    return pb.ListAlertsResponse(alerts=[_alert(alert) for alert in found], next_page_token=next_page_token)


def blocks(found: Sequence[Block], next_page_token: str) -> pb.ListBlocksResponse:
    """Render a page of the block list."""
    return pb.ListBlocksResponse(blocks=[_block(block) for block in found], next_page_token=next_page_token)


def block_set(block: Block | None) -> pb.SetBlockResponse:
    """Render the answer to SetBlock; None: the user was taken off."""
    return pb.SetBlockResponse(block=None if block is None else _block(block))


def event(happened: Event) -> events_pb.RiskAlert | events_pb.RiskBlock:
    """Render an event."""
    if isinstance(happened, AlertRaised):
        alert = happened.alert
        return events_pb.RiskAlert(
            alert_id=alert.id,
            version=1,
            event_time=wire.timestamp(alert.create_ms),
            payment_id=alert.payment_id,
            user_id=alert.user_id,
            amount=wire.money(alert.amount),
            rules_hit=alert.rules_hit,
        )
    made = happened.assessment
    return events_pb.RiskBlock(
        assessment_id=made.id,
        version=1,
        event_time=wire.timestamp(made.create_ms),
        payment_id=made.payment.payment_id,
        user_id=made.payment.user_id,
        amount=wire.money(Money(made.payment.currency_code, made.payment.minor_units)),
        rules_hit=made.verdict.rules_hit,
    )


def _decision(decision: Decision) -> risk_pb2.Assessment.Decision.ValueType:
    return risk_pb2.Assessment.Decision.ValueType(decision)


def _rule(rule: Rule) -> risk_pb2.Rule:
    return risk_pb2.Rule(
        id=rule.id,
        name=rule.name,
        enabled=rule.enabled,
        decision=_decision(rule.decision),
        score=rule.score,
        condition=_condition_of(rule.condition),
        create_time=wire.timestamp(rule.create_ms),
        update_time=wire.timestamp(rule.update_ms),
    )


def _condition_of(condition: Condition) -> risk_pb2.RuleCondition:
    if isinstance(condition, AmountLimit):
        return risk_pb2.RuleCondition(amount_limit=risk_pb2.AmountLimit(limit=wire.money(condition.limit)))
    if isinstance(condition, VelocityLimit):
        limit = risk_pb2.VelocityLimit(window_seconds=condition.window_seconds, payments_max=condition.payments_max)
        return risk_pb2.RuleCondition(velocity_limit=limit)
    if isinstance(condition, BlockList):
        return risk_pb2.RuleCondition(block_list=risk_pb2.BlockList())
    return risk_pb2.RuleCondition(unreachable=risk_pb2.Unreachable())


def _alert(alert: Alert) -> risk_pb2.Alert:
    return risk_pb2.Alert(
        id=alert.id,
        assessment_id=alert.assessment_id,
        payment_id=alert.payment_id,
        user_id=alert.user_id,
        decision=_decision(alert.decision),
        rules_hit=alert.rules_hit,
        amount=wire.money(alert.amount),
        create_time=wire.timestamp(alert.create_ms),
    )


def _block(block: Block) -> risk_pb2.Block:
    return risk_pb2.Block(user_id=block.user_id, note=block.note, create_time=wire.timestamp(block.create_ms))
