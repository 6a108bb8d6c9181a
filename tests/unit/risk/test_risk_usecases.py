"""The work of the risk room, over fakes."""

from __future__ import annotations

import pytest

from services.kernel.errors import DomainError
from services.kernel.idempotency import IdempotencyKey, Scope
from services.kernel.money import Money
from services.kernel.pages import page
from services.risk import usecases
from services.risk.domain import (
    AlertRaised,
    AmountLimit,
    Assessment,
    BlockList,
    Decision,
    Noted,
    Payment,
    PaymentBlocked,
    Unreachable,
    VelocityLimit,
)
from services.risk.usecases import AssessPayments, CreateRule, NotePayment, RulesInForce, SetBlock, UpdateRule
from tests.fakes.risk import SEEDED_MS, FakeRisk

BIG = 5_000_001


class Risk(FakeRisk):
    """The room with its rules in force."""

    def __init__(self) -> None:
        super().__init__()
        self.rules = RulesInForce()
        self.refresh()
        usecases.refill_series(self.ports, self.rules)

    def refresh(self) -> None:
        """Take over what changed."""
        self.rules.refresh(self.ports)

    def assess(self, *payments: Payment) -> list[Assessment]:
        """Judge the payments of one request."""
        [outcome] = usecases.assess_payments(self.ports, self.rules, [AssessPayments(payments)])
        return list(outcome.assessments)

    def note(self, *payments: tuple[int, int], at_ms: int = SEEDED_MS) -> None:
        """Take the events of (payment, user)."""
        commands = [NotePayment(f"e{p}", "payment.initiated", Noted(p, user, at_ms)) for p, user in payments]
        usecases.note_payments(self.ports, self.rules, commands)

    def update(self, rule_id: int, **changes: object) -> None:
        """Change a rule, in force at once."""
        rule = self.store.rows.rules[rule_id]
        values = {"enabled": rule.enabled, "decision": rule.decision, "score": rule.score, "condition": rule.condition}
        usecases.update_rules(self.ports, [UpdateRule(rule_id, **{**values, **changes})])  # type: ignore[arg-type]
        self.refresh()


@pytest.fixture
def risk() -> Risk:
    return Risk()


def pay(payment_id: int, user_id: int = 7, minor_units: int = 100) -> Payment:
    return Payment(payment_id, user_id, "CNY", minor_units)


def test_approvals_leave_nothing_durable(risk: Risk) -> None:
    """No transaction is begun, and one round trip serves the whole batch."""
    found = risk.assess(*(pay(n) for n in range(1, 51)))
    assert {each.verdict.decision for each in found} == {Decision.APPROVE}
    assert [each.payment.payment_id for each in found] == list(range(1, 51))
    assert (risk.store.transactions, risk.velocity.asked, risk.committed) == (0, 1, 0)
    assert len({each.id for each in found}) == 50


def test_series_is_not_asked_without_a_velocity_rule(risk: Risk) -> None:
    """A disabled rule costs nothing."""
    risk.update(2, enabled=False)
    risk.assess(pay(1))
    assert risk.velocity.asked == 0


def test_commands_of_one_batch_get_their_own_answers(risk: Risk) -> None:
    """Payments are judged in order over all commands, and each command gets as many answers as it had payments."""
    commands = [AssessPayments((pay(1), pay(2))), AssessPayments((pay(3, minor_units=BIG),)), AssessPayments((pay(4),))]
    outcomes = usecases.assess_payments(risk.ports, risk.rules, commands)
    assert [[a.payment.payment_id for a in o.assessments] for o in outcomes] == [[1, 2], [3], [4]]
    assert [o.assessments[0].verdict.decision for o in outcomes] == [1, 2, 1]
    assert risk.velocity.asked == 1


def test_review_raises_one_alert_however_often(risk: Risk) -> None:
    """A repeat in the same batch and one later get the first assessment, and nothing more is stored."""
    first, again = risk.assess(pay(1, minor_units=BIG), pay(1, minor_units=BIG))
    [later] = risk.assess(pay(1, minor_units=BIG))
    assert first.id == again.id == later.id
    [alert] = risk.store.rows.alerts
    assert (alert.assessment_id, alert.decision, alert.amount) == (first.id, Decision.REVIEW, Money("CNY", BIG))
    assert risk.store.rows.events == [AlertRaised(alert)]
    assert risk.committed == 1


def test_block_stores_assessment_alert_and_both_events(risk: Risk) -> None:
    """All in one transaction for the batch; neighbours that pass are left alone."""
    usecases.set_blocks(risk.ports, [SetBlock(7, blocked=True, note="fraud")])
    risk.refresh()
    before = risk.store.transactions
    blocked, passed = risk.assess(pay(1), pay(2, user_id=8))
    assert (blocked.verdict, passed.verdict.decision) == ((Decision.BLOCK, 100, ("block_list",)), Decision.APPROVE)
    assert risk.store.transactions == before + 1
    assert [type(event) for event in risk.store.rows.events] == [PaymentBlocked, AlertRaised]
    assert [each.id for each in risk.store.rows.assessments] == [blocked.id]


def test_review_that_becomes_a_block_is_stored_without_a_second_alert(risk: Risk) -> None:
    """Another answer is another assessment and its risk.block; the operator was alerted already."""
    risk.assess(pay(1, minor_units=BIG))
    usecases.set_blocks(risk.ports, [SetBlock(7, blocked=True, note="")])
    risk.refresh()
    [found] = risk.assess(pay(1, minor_units=BIG))
    assert found.verdict.decision is Decision.BLOCK
    assert [type(event) for event in risk.store.rows.events] == [AlertRaised, PaymentBlocked]
    assert [a.verdict.decision for a in risk.store.rows.assessments] == [Decision.REVIEW, Decision.BLOCK]


def test_velocity_blocks_above_the_limit_and_forgets_after_the_window(risk: Risk) -> None:
    """In order within a batch, for that user alone; a repeat counts once; after the window all is well again."""
    risk.update(2, condition=VelocityLimit(60, 3))
    found = risk.assess(*(pay(n) for n in (1, 2, 2, 3, 4)), pay(5, user_id=8))
    assert [each.verdict.decision for each in found] == [1, 1, 1, 1, 3, 1]
    risk.clock.ms += 59_999
    assert risk.assess(pay(6))[0].verdict.decision is Decision.BLOCK
    risk.clock.ms += 60_000
    assert risk.assess(pay(7))[0].verdict.decision is Decision.APPROVE


def test_silent_series_never_approves_in_silence(risk: Risk) -> None:
    """Without an Unreachable rule it is a review that an operator sees; amounts and list are judged as ever."""
    risk.velocity.down = True
    found = risk.assess(pay(1), pay(2, minor_units=BIG))
    assert [each.verdict.rules_hit for each in found] == [
        ("velocity_unjudged",),
        ("amount_limit_cny", "velocity_unjudged"),
    ]
    assert len(risk.store.rows.alerts) == 2
    stated = CreateRule("if_unreachable", Decision.APPROVE, 0, Unreachable(), None)
    usecases.create_rules(risk.ports, [stated])
    risk.refresh()
    assert risk.assess(pay(3))[0].verdict == (Decision.APPROVE, 0, ("if_unreachable",))
    [outcome] = usecases.assess_payments(risk.ports, risk.rules, [AssessPayments((pay(4),))])
    assert outcome.unreachable is Decision.APPROVE


def test_lost_series_is_put_back_before_its_user_is_judged(risk: Risk) -> None:
    """Who was above the limit stays above it; neighbours of a batch are still judged in order; others follow."""
    risk.update(2, condition=VelocityLimit(60, 3))
    risk.note((1, 7), (2, 7), (3, 8))
    risk.velocity.lose()
    assert [a.verdict.decision for a in risk.assess(pay(4), pay(5))] == [1, 3]
    assert usecases.assess_risk(risk.ports, risk.rules, pay(0)).verdict.decision is Decision.BLOCK
    assert 8 not in risk.velocity.series
    assert usecases.refill_series(risk.ports, risk.rules) == 3
    assert risk.velocity.series[8] == {3: SEEDED_MS}
    assert usecases.refill_series(risk.ports, risk.rules) == 0
    risk.velocity.asked = 0
    risk.assess(pay(6))
    assert risk.velocity.asked == 1


def test_payment_whose_event_comes_after_the_refill_is_counted(risk: Risk) -> None:
    """At its own time; a repeat of the event has no effect, and one that no window reaches is only handled."""
    risk.velocity.lose()
    usecases.refill_series(risk.ports, risk.rules)
    risk.note((1, 7), (1, 7), at_ms=SEEDED_MS - 59_999)
    risk.note((1, 7), (2, 7), at_ms=SEEDED_MS - 60_000)
    assert risk.velocity.series == {7: {1: SEEDED_MS - 59_999}}
    assert list(risk.store.rows.noted) == [1]
    assert risk.store.rows.handled == {"e1", "e2"}


def test_too_much_to_put_back_at_once_goes_unjudged(risk: Risk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the series are back as a whole; nobody waits beyond his deadline."""
    monkeypatch.setattr(usecases, "REFILL_AT_ONCE", 2)
    risk.note((1, 7), (2, 7), (3, 7))
    risk.velocity.lose()
    assert risk.assess(pay(4))[0].verdict.rules_hit == ("velocity_unjudged",)
    usecases.refill_series(risk.ports, risk.rules)
    assert risk.assess(pay(4))[0].verdict.decision is Decision.APPROVE


def test_payments_are_noted_as_long_as_a_window_reaches(risk: Risk, monkeypatch: pytest.MonkeyPatch) -> None:
    """And forgotten page by page."""
    monkeypatch.setattr(usecases, "REFILL_PAGE", 2)
    risk.note(*((n, 7) for n in range(1, 6)))
    risk.clock.ms += 59_999
    assert usecases.forget_payments(risk.ports, risk.rules) == 0
    risk.clock.ms += 1
    assert usecases.forget_payments(risk.ports, risk.rules) == 5
    assert risk.store.rows.noted == {}


def test_trial_counts_itself_and_leaves_nothing(risk: Risk) -> None:
    """A trial says what the next payment would meet, and the next one meets it still."""
    risk.update(2, condition=VelocityLimit(60, 2))
    before = risk.store.rows.copy()
    risk.assess(pay(1))
    for _ in range(3):
        assert usecases.assess_risk(risk.ports, risk.rules, pay(0)).verdict.decision is Decision.APPROVE
    risk.assess(pay(2))
    assert usecases.assess_risk(risk.ports, risk.rules, pay(0)).verdict.decision is Decision.BLOCK
    assert risk.store.rows == before


def test_rules_come_from_the_cache_when_it_has_the_version(risk: Risk) -> None:
    """SQL says the version; a copy of another version is not believed, and a lost one is put back."""
    usecases.create_rules(risk.ports, [CreateRule("more", Decision.REVIEW, 1, BlockList(), None)])
    other = Risk()
    other.store, other.rules = risk.store, RulesInForce()
    ports = risk.ports
    other.rules.refresh(ports)
    assert risk.cache.kept is not None
    assert risk.cache.kept.version == other.rules.current.snapshot.version == 2
    copied = risk.cache.kept._replace(blocked=frozenset({99}))
    risk.cache.kept = copied
    risk.rules.refresh(ports)
    assert risk.rules.current.snapshot is copied
    risk.cache.kept = None
    usecases.keep_cache(ports, risk.rules)
    assert risk.cache.kept is copied


def test_rule_is_made_once_for_one_key(risk: Risk) -> None:
    """Repeats in the batch and later get the first answer; a taken name is refused, and that is kept as well."""
    key = IdempotencyKey(Scope(1, "CreateRule", "key-0001"), b"a")
    command = CreateRule("mine", Decision.REVIEW, 1, AmountLimit(Money("CNY", 5)), key)
    assert usecases.create_rules(risk.ports, [command, command]) == [b"mine", b"mine"]
    assert usecases.create_rules(risk.ports, [command]) == [b"mine"]
    taken = CreateRule("mine", Decision.BLOCK, 1, BlockList(), IdempotencyKey(Scope(1, "CreateRule", "key-0002"), b"b"))
    for _ in range(2):
        [refusal] = usecases.create_rules(risk.ports, [taken])
        assert isinstance(refusal, DomainError)
        assert (refusal.reason, refusal.metadata) == ("RULE_NAME_TAKEN", {"name": "mine"})
    assert len(risk.store.rows.rules) == 4


def test_unknown_rule_is_refused_alone(risk: Risk) -> None:
    """Its neighbours in the batch are changed; the later command for a rule stays."""
    update = UpdateRule(1, enabled=False, decision=Decision.BLOCK, score=1, condition=BlockList())
    later = UpdateRule(1, enabled=True, decision=Decision.REVIEW, score=2, condition=BlockList())
    unknown = UpdateRule(99, enabled=True, decision=Decision.BLOCK, score=1, condition=BlockList())
    first, refusal, second = usecases.update_rules(risk.ports, [update, unknown, later])
    assert isinstance(refusal, DomainError)
    assert refusal.reason == "RULE_NOT_FOUND"
    assert (first, second) != (second, first)
    assert risk.store.rows.rules[1] == second


def test_block_list_keeps_since_when(risk: Risk) -> None:
    """A repeat with another note changes the note; taking somebody off twice is no error; the version tells of each."""
    [first] = usecases.set_blocks(risk.ports, [SetBlock(7, blocked=True, note="a")])
    risk.clock.ms += 5
    [again] = usecases.set_blocks(risk.ports, [SetBlock(7, blocked=True, note="b")])
    assert first is not None
    assert again is not None
    assert (again.note, again.create_ms) == ("b", first.create_ms)
    off = SetBlock(7, blocked=False, note="")
    assert usecases.set_blocks(risk.ports, [off, off]) == [None, None]
    assert risk.store.rows.blocks == {}
    assert risk.store.version() == 4


def test_lists_are_paged(risk: Risk) -> None:
    """Rules by name; the token leads to the rest and ends with the last page."""
    first, token = usecases.list_rules(risk.store, page(2, ""))
    rest, end = usecases.list_rules(risk.store, page(2, token))
    assert [rule.name for rule in [*first, *rest]] == ["amount_limit_cny", "block_list", "velocity_per_minute"]
    assert end == ""
