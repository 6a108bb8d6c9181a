"""What rules say of a payment."""

from __future__ import annotations

import dataclasses

import pytest

from services.kernel.money import Money
from services.risk.domain import (
    APPROVED,
    VELOCITY_UNJUDGED,
    AmountLimit,
    BlockList,
    Condition,
    Decision,
    Payment,
    Rule,
    RuleBook,
    Unreachable,
    VelocityLimit,
)

REVIEW, BLOCK, APPROVE = Decision.REVIEW, Decision.BLOCK, Decision.APPROVE


def rule(
    name: str, condition: Condition, decision: Decision = REVIEW, score: int = 10, *, enabled: bool = True
) -> Rule:
    return Rule(1, name, enabled=enabled, decision=decision, score=score, condition=condition, create_ms=1, update_ms=1)


def pay(minor_units: int = 100, user_id: int = 7, currency: str = "CNY") -> Payment:
    return Payment(1, user_id, currency, minor_units)


@pytest.mark.parametrize(
    ("amount", "currency", "hit"), [(1000, "CNY", False), (1001, "CNY", True), (9999, "JPY", False)]
)
def test_amount_limit_is_hit_above_it(amount: int, currency: str, hit: bool) -> None:  # noqa: FBT001 - a column of the table
    """The limit itself passes, and so does any amount of another currency."""
    verdict = RuleBook([rule("big", AmountLimit(Money("CNY", 1000)))]).judge(pay(amount, currency=currency), None, ())
    assert (verdict.rules_hit, verdict.decision) == ((("big",), REVIEW) if hit else ((), APPROVE))


def test_velocity_is_hit_by_the_payment_above_the_limit() -> None:
    """Counts include the payment that is judged; each rule looks at its own window."""
    book = RuleBook(
        [
            rule("minute", VelocityLimit(60, 3), BLOCK),
            rule("hour", VelocityLimit(3600, 5)),
            rule("m2", VelocityLimit(60, 9)),
        ]
    )
    assert book.windows_ms == (60_000, 3_600_000)
    assert book.judge(pay(), [3, 5], ()) is APPROVED
    assert book.judge(pay(), [4, 5], ()).rules_hit == ("minute",)
    assert book.judge(pay(), [3, 6], ()).decision is REVIEW


def test_user_on_the_list_is_blocked() -> None:
    """The list alone does nothing: the rule says what it leads to."""
    book = RuleBook([rule("listed", BlockList(), BLOCK)])
    assert book.judge(pay(user_id=7), None, {7}).decision is BLOCK
    assert book.judge(pay(user_id=8), None, {7}) is APPROVED
    assert RuleBook([]).judge(pay(user_id=7), None, {7}) is APPROVED


def test_worst_decision_wins_and_scores_add_up_to_100() -> None:
    """Every hit is named, in the order of names; a rule that approves adds its score alone."""
    limit = AmountLimit(Money("CNY", 1))
    book = RuleBook([rule("c", limit, REVIEW, 60), rule("a", limit, BLOCK, 60), rule("b", limit, APPROVE, 5)])
    assert book.judge(pay(), None, ()) == (BLOCK, 100, ("a", "b", "c"))
    assert RuleBook([rule("b", limit, APPROVE, 5)]).judge(pay(), None, ()) == (APPROVE, 5, ("b",))


def test_disabled_rule_says_nothing() -> None:
    """Neither its condition nor its window counts."""
    book = RuleBook(
        [rule("off", VelocityLimit(60, 1), BLOCK, enabled=False), rule("u", Unreachable(), APPROVE, enabled=False)]
    )
    assert book.windows_ms == ()
    assert book.unreachable is BLOCK
    assert book.judge(pay(), None, ()) is APPROVED


def test_unjudged_velocity_is_reviewed_unless_a_rule_says_otherwise() -> None:
    """Nothing is approved in silence: without an Unreachable rule it is a review, with one its decision, by its name."""
    velocity = rule("minute", VelocityLimit(60, 3), BLOCK)
    assert RuleBook([velocity]).judge(pay(), None, ()) == (REVIEW, 0, (VELOCITY_UNJUDGED,))
    for decision in Decision:
        stated = rule("stated", Unreachable(), decision, 7)
        assert RuleBook([velocity, stated]).judge(pay(), None, ()) == (decision, 7, ("stated",))


def test_callers_block_while_risk_is_unreachable_unless_a_rule_says_otherwise() -> None:
    """Of several rules the worst counts."""
    assert RuleBook([]).unreachable is BLOCK
    assert RuleBook([rule("u", Unreachable(), APPROVE)]).unreachable is APPROVE
    assert RuleBook([rule("u", Unreachable(), APPROVE), rule("v", Unreachable(), REVIEW)]).unreachable is REVIEW


def test_changed_rule_keeps_id_and_name() -> None:
    """Time never goes back, whatever the clock does."""
    before = rule("r", BlockList())
    after = before.changed(enabled=False, decision=BLOCK, score=3, condition=Unreachable(), now_ms=0)
    assert after == dataclasses.replace(before, enabled=False, decision=BLOCK, score=3, condition=Unreachable())
    assert before.changed(enabled=True, decision=BLOCK, score=3, condition=Unreachable(), now_ms=9).update_ms == 9
