"""Rules, what they say of a payment, and what follows from it. Pure."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final, NamedTuple

from services.kernel.money import Money

SCORE_MAX = 100


class Decision(IntEnum):
    """What to do with a payment; the worse, the larger. The numbers are the contract's."""

    APPROVE = 1
    REVIEW = 2
    BLOCK = 3

    @property
    def word(self) -> str:
        """The lower-case word that SQL and logs hold."""
        return self.name.lower()

    @classmethod
    def of(cls, word: str) -> Decision:
        """Read the word."""
        return cls[word.upper()]


class Payment(NamedTuple):
    """A payment to assess: what rules look at. ``payment_id`` is 0 for a trial.

    A tuple, not a dataclass: one is made for every payment of the mesh, and this costs a third.
    """

    payment_id: int
    user_id: int
    currency_code: str
    minor_units: int


class Noted(NamedTuple):
    """A payment as its event told of it, with the time in ms: what a user's velocity series is made of again."""

    payment_id: int
    user_id: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class AmountLimit:
    """Hit by an amount above ``limit`` in its currency; payments in others are not looked at."""

    limit: Money


@dataclass(frozen=True, slots=True)
class VelocityLimit:
    """Hit by the payment that makes it more than ``payments_max`` of one user in a sliding window."""

    window_seconds: int
    payments_max: int


@dataclass(frozen=True, slots=True)
class BlockList:
    """Hit by a user on the block list."""


@dataclass(frozen=True, slots=True)
class Unreachable:
    """Hit by nothing: its decision is for payments that cannot be judged."""


Condition = AmountLimit | VelocityLimit | BlockList | Unreachable


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule. Times are milliseconds since 1970 UTC; ``score`` is 0 to 100."""

    id: int
    name: str
    enabled: bool
    decision: Decision
    score: int
    condition: Condition
    create_ms: int
    update_ms: int

    def changed(self, *, enabled: bool, decision: Decision, score: int, condition: Condition, now_ms: int) -> Rule:
        """Return the rule with other contents; id and name stay."""
        return replace(
            self,
            enabled=enabled,
            decision=decision,
            score=score,
            condition=condition,
            update_ms=max(now_ms, self.update_ms),
        )


@dataclass(frozen=True, slots=True)
class Block:
    """A user who may not pay, why, and since when."""

    user_id: int
    note: str
    create_ms: int


class Verdict(NamedTuple):
    """What the rules say of one payment: the worst decision of those hit, the sum of their scores up to 100."""

    decision: Decision
    score: int
    rules_hit: tuple[str, ...]


APPROVED: Final = Verdict(Decision.APPROVE, 0, ())
VELOCITY_UNJUDGED: Final = "velocity_unjudged"
"""Stands among the rules hit while the velocity series cannot be read and no rule of the operators says what to do."""


class _Hit(NamedTuple):
    name: str
    decision: Decision
    score: int


def _hit(rule: Rule) -> _Hit:
    return _Hit(rule.name, rule.decision, rule.score)


class RuleBook:
    """Enabled rules, sorted once so that judging a payment costs a few look-ups."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        """Compile ``rules``; those that are not enabled are left out."""
        enabled = sorted((rule for rule in rules if rule.enabled), key=lambda rule: rule.name)
        velocity = [(rule, rule.condition) for rule in enabled if isinstance(rule.condition, VelocityLimit)]
        self.windows_ms: tuple[int, ...] = tuple(sorted({limit.window_seconds * 1000 for _, limit in velocity}))
        """Windows whose payments have to be counted, shortest first; none: the series need not be asked."""
        self._velocity = tuple(
            (self.windows_ms.index(limit.window_seconds * 1000), limit.payments_max, _hit(rule))
            for rule, limit in velocity
        )
        self._amounts: dict[str, list[tuple[int, _Hit]]] = {}
        for rule in enabled:
            if isinstance(rule.condition, AmountLimit):
                limit = rule.condition.limit
                self._amounts.setdefault(limit.currency_code, []).append((limit.minor_units, _hit(rule)))
        self._block_list = tuple(_hit(rule) for rule in enabled if isinstance(rule.condition, BlockList))
        unreachable = [_hit(rule) for rule in enabled if isinstance(rule.condition, Unreachable)]
        worst = max(unreachable, key=lambda hit: hit.decision, default=None)
        self.unreachable: Decision = worst.decision if worst else Decision.BLOCK
        """What callers do while this service cannot be reached."""
        self._unjudged = worst or _Hit(VELOCITY_UNJUDGED, Decision.REVIEW, 0)

    def judge(self, payment: Payment, counts: Sequence[int] | None, blocked: Container[int]) -> Verdict:
        """Judge a payment.

        ``counts`` has, for each of ``windows_ms``, the user's payments in the window that ends with this one, this one
        counted; None: they could not be counted. ``blocked`` are the users on the block list.
        """
        hits: list[_Hit] = []
        for limit, hit in self._amounts.get(payment.currency_code, ()):
            if payment.minor_units > limit:
                hits.append(hit)
        if self._velocity:
            if counts is None:
                hits.append(self._unjudged)
            else:
                hits += [hit for window, most, hit in self._velocity if counts[window] > most]
        if payment.user_id in blocked:
            hits += self._block_list
        if not hits:
            return APPROVED
        score = min(sum(hit.score for hit in hits), SCORE_MAX)
        return Verdict(max(hit.decision for hit in hits), score, tuple(sorted(hit.name for hit in hits)))


class Snapshot(NamedTuple):
    """Rules and block list as they were at a version, which every change of either raises."""

    version: int
    rules: tuple[Rule, ...]
    blocked: frozenset[int]


class InForce(NamedTuple):
    """A snapshot and its compiled rules."""

    snapshot: Snapshot
    book: RuleBook


class Assessment(NamedTuple):
    """What was said of one payment, and when (milliseconds since 1970 UTC)."""

    id: int
    payment: Payment
    verdict: Verdict
    create_ms: int


@dataclass(frozen=True, slots=True)
class Alert:
    """Something that an operator should look at; one for a payment at most."""

    id: int
    assessment_id: int
    payment_id: int
    user_id: int
    decision: Decision
    rules_hit: tuple[str, ...]
    amount: Money
    create_ms: int


@dataclass(frozen=True, slots=True)
class AlertRaised:
    """Event: an operator should look at a payment."""

    alert: Alert


@dataclass(frozen=True, slots=True)
class PaymentBlocked:
    """Event: a payment was blocked."""

    assessment: Assessment


Event = AlertRaised | PaymentBlocked


def alert_of(assessment: Assessment, alert_id: int) -> Alert:
    """Make the alert that an assessment raises."""
    payment, verdict = assessment.payment, assessment.verdict
    amount = Money(payment.currency_code, payment.minor_units)
    return Alert(
        id=alert_id,
        assessment_id=assessment.id,
        payment_id=payment.payment_id,
        user_id=payment.user_id,
        decision=verdict.decision,
        rules_hit=verdict.rules_hit,
        amount=amount,
        create_ms=assessment.create_ms,
    )
