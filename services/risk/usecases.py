"""The work of the risk service, in order: one function per RPC and per timed task."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING, Protocol, TypeVar

from services.kernel.errors import DomainError
from services.kernel.idempotency import Answer, IdempotencyKey, Once
from services.kernel.ids import shard_of
from services.risk.domain import (
    Alert,
    AlertRaised,
    Assessment,
    Block,
    Condition,
    Decision,
    Event,
    InForce,
    Noted,
    Payment,
    PaymentBlocked,
    Rule,
    RuleBook,
    Snapshot,
    alert_of,
)
from services.risk.ports import Missing

if TYPE_CHECKING:
    from services.kernel.pages import Page
    from services.risk.ports import Ports, Store


T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

REFILL_AT_ONCE = 20_000
"""Payments of a batch's users that are put back while their next payments wait; beyond it these go unjudged meanwhile."""
REFILL_PAGE = 1_000
"""Payments that are put back, or forgotten, in one go."""
KEPT_LEAST_MS = 60_000
"""Payments are noted for a minute even when no rule counts them."""


@dataclass(frozen=True, slots=True)
class AssessPayments:
    """Command: the payments of one request."""

    payments: tuple[Payment, ...]


@dataclass(frozen=True, slots=True)
class Assessed:
    """Outcome of AssessPayments: one assessment for each payment, in order."""

    assessments: Sequence[Assessment]
    unreachable: Decision


@dataclass(frozen=True, slots=True)
class NotePayment:
    """Command: an event told of a payment."""

    event_id: str
    topic: str
    noted: Noted


@dataclass(frozen=True, slots=True)
class CreateRule:
    """Command: make a rule, enabled."""

    name: str
    decision: Decision
    score: int
    condition: Condition
    key: IdempotencyKey | None


@dataclass(frozen=True, slots=True)
class UpdateRule:
    """Command: give a rule other contents."""

    id: int
    enabled: bool
    decision: Decision
    score: int
    condition: Condition


@dataclass(frozen=True, slots=True)
class SetBlock:
    """Command: put a user on the block list, or take him off."""

    user_id: int
    blocked: bool
    note: str


class RulesInForce:
    """The rules and the block list that this process judges by. ``current`` is replaced whole: readers need no lock."""

    def __init__(self) -> None:
        """Begin without any; ``refresh`` before the first payment."""
        self.current = _compile(Snapshot(-1, (), frozenset()))
        self._lock = threading.Lock()

    def refresh(self, ports: Ports) -> None:
        """Take over the newest version, from the cache when it has it, else from SQL. Cheap when nothing changed."""
        with self._lock:
            version = ports.store.version()
            if version == self.current.snapshot.version:
                return
            found = ports.cache.load(version)
            if found is None:
                found = ports.store.snapshot()
                ports.cache.save(found)
            self.current = _compile(found)


def _compile(snapshot: Snapshot) -> InForce:
    return InForce(snapshot, RuleBook(snapshot.rules))


def keep_cache(ports: Ports, rules: RulesInForce) -> None:
    """Put the copies back that Redis lost."""
    snapshot = rules.current.snapshot
    if not ports.cache.holds(snapshot):
        ports.cache.save(snapshot)


def assess_payments(ports: Ports, rules: RulesInForce, commands: Sequence[AssessPayments]) -> list[Assessed]:
    """Judge the payments of all ``commands`` in order; what is not approved is stored and published."""
    snapshot, book = rules.current
    payments = [payment for command in commands for payment in command.payments]
    now_ms = ports.clock.now_ms()
    counts = _counts(ports, book, payments, now_ms)
    next_id, judge, blocked = ports.ids.next, book.judge, snapshot.blocked
    assessments = [
        Assessment(next_id(shard_of(payment.user_id)), payment, judge(payment, count, blocked), now_ms)
        for payment, count in zip(payments, counts or repeat(None), strict=False)
    ]
    if any(each.verdict.decision is not Decision.APPROVE for each in assessments):
        assessments = _record(ports, assessments)
    done, outcomes = 0, []
    for command in commands:
        outcomes.append(Assessed(assessments[done : done + len(command.payments)], book.unreachable))
        done += len(command.payments)
    return outcomes


def _counts(ports: Ports, book: RuleBook, payments: Sequence[Payment], now_ms: int) -> Sequence[Sequence[int]] | None:
    """Count the payments in their windows; None: no rule asks for it, or it cannot be done."""
    if not book.windows_ms:
        return None
    count = partial(ports.velocity.count, payments, book.windows_ms, now_ms)
    return _asked(ports, book, {payment.user_id for payment in payments}, now_ms, count)


class _Ask(Protocol[T_co]):
    def __call__(self, *, refilled: bool = False) -> T_co | Missing: ...


def _asked(ports: Ports, book: RuleBook, users: Collection[int], now_ms: int, ask: _Ask[T]) -> T | None:
    """Ask the series; those of ``users`` are put back first when they were lost. The others follow (refill_series)."""
    found = ask()
    if found is Missing.LOST:
        longest_ms = book.windows_ms[-1]
        noted = ports.store.noted_of(users, now_ms - longest_ms, REFILL_AT_ONCE + 1)
        if len(noted) > REFILL_AT_ONCE or not ports.velocity.put(noted, longest_ms):
            return None
        found = ask(refilled=True)
    return None if isinstance(found, Missing) else found


def refill_series(ports: Ports, rules: RulesInForce) -> int:
    """Put every series back when they were lost; returns how many payments were."""
    windows_ms = rules.current.book.windows_ms
    name = ports.velocity.begin_refill() if windows_ms else ""
    if not name:
        return 0
    since_ms, after, done = ports.clock.now_ms() - windows_ms[-1], 0, 0
    while noted := ports.store.noted_since(since_ms, after, REFILL_PAGE):
        if not ports.velocity.put(noted, windows_ms[-1]):
            return done
        after, done = noted[-1].payment_id, done + len(noted)
    ports.velocity.end_refill(name)
    return done


def note_payments(ports: Ports, rules: RulesInForce, commands: Sequence[NotePayment]) -> list[None]:
    """Store payments that events told of, as far as a window reaches, then put them down in the series.

    They stand there since they were judged, unless the series were lost in between: a refill cannot know a payment
    whose event is still on its way.
    """
    now_ms, windows_ms = ports.clock.now_ms(), rules.current.book.windows_ms
    with ports.store.transaction() as tx:
        unseen = tx.unseen([command.event_id for command in commands])
        fresh = list({c.event_id: c for c in commands if c.event_id in unseen}.values())
        since_ms = now_ms - _kept_ms(rules)
        noted = [command.noted for command in fresh if command.noted.at_ms > since_ms]
        tx.note(noted, [(command.event_id, command.topic) for command in fresh], now_ms)
        tx.commit()
    if windows_ms and (late := [each for each in noted if each.at_ms > now_ms - windows_ms[-1]]):
        ports.velocity.put(late, windows_ms[-1])
    return [None] * len(commands)


def forget_payments(ports: Ports, rules: RulesInForce) -> int:
    """Drop the noted payments that no window reaches any more, page by page; returns how many."""
    dropped, before_ms = 0, ports.clock.now_ms() - _kept_ms(rules)
    while True:
        with ports.store.transaction() as tx:
            page = tx.forget(before_ms, REFILL_PAGE)
            tx.commit()
        dropped += page
        if page < REFILL_PAGE:
            return dropped


def _kept_ms(rules: RulesInForce) -> int:
    """How long payments are noted: as long as the longest window, and a while for a rule that comes."""
    return max([*rules.current.book.windows_ms, KEPT_LEAST_MS])


def _record(ports: Ports, assessments: Sequence[Assessment]) -> list[Assessment]:
    """Store what is not an approval, unless it is known; a known assessment takes the place of its repeat."""
    grave = {a.payment.payment_id for a in assessments if a.verdict.decision is not Decision.APPROVE}
    events: list[Event] = []
    fresh: list[Assessment] = []
    alerts: list[Alert] = []
    answers: list[Assessment] = []
    with ports.store.transaction() as tx:
        seen, alerted = tx.assessed(grave)
        known = dict(seen)
        for each in assessments:
            payment, decision = each.payment, each.verdict.decision
            if decision is Decision.APPROVE:
                answers.append(each)
                continue
            first = known.setdefault((payment.payment_id, decision), each.id)
            if first != each.id:
                answers.append(each._replace(id=first))
                continue
            answers.append(each)
            fresh.append(each)
            if decision is Decision.BLOCK:
                events.append(PaymentBlocked(each))
            if payment.payment_id not in alerted:
                alerted.add(payment.payment_id)
                alerts.append(alert_of(each, ports.ids.next(shard_of(payment.user_id))))
                events.append(AlertRaised(alerts[-1]))
        if fresh:
            tx.record(fresh, alerts, events)
            tx.commit()
    if fresh:
        ports.committed()
    return answers


def assess_risk(ports: Ports, rules: RulesInForce, payment: Payment) -> Assessment:
    """Judge a payment that is only thought of: it is counted as the next one, and nothing stays of it."""
    snapshot, book = rules.current
    now_ms = ports.clock.now_ms()
    peek = partial(ports.velocity.peek, payment.user_id, book.windows_ms, now_ms)
    counts = _asked(ports, book, {payment.user_id}, now_ms, peek) if book.windows_ms else None
    with_this = None if counts is None else [count + 1 for count in counts]
    verdict = book.judge(payment, with_this, snapshot.blocked)
    return Assessment(ports.ids.next(shard_of(payment.user_id)), payment, verdict, now_ms)


def create_rules(ports: Ports, commands: Sequence[CreateRule]) -> list[Answer]:
    """Make rules; a name that is taken is refused."""
    now_ms = ports.clock.now_ms()
    with ports.store.transaction() as tx:
        once = Once([command.key for command in commands], tx.stored(command.key for command in commands))
        taken = tx.names_taken({commands[place].name for place in once.fresh})
        made = []
        for place in once.fresh:
            command = commands[place]
            if command.name in taken:
                once.settle(place, DomainError("RULE_NAME_TAKEN", name=command.name))
                continue
            taken.add(command.name)
            rule = Rule(
                id=ports.ids.next(0),
                name=command.name,
                enabled=True,
                decision=command.decision,
                score=command.score,
                condition=command.condition,
                create_ms=now_ms,
                update_ms=now_ms,
            )
            made.append(rule)
            once.settle(place, ports.render(rule))
        if made:
            tx.add_rules(made)
        tx.keep(once.kept(business=ports.business), now_ms)
        tx.commit()
    return once.done()


def update_rules(ports: Ports, commands: Sequence[UpdateRule]) -> list[Rule | DomainError]:
    """Give rules other contents; of several commands for one rule the last stays."""
    now_ms = ports.clock.now_ms()
    outcomes: list[Rule | DomainError] = []
    with ports.store.transaction() as tx:
        rules = tx.rules({command.id for command in commands})
        for command in commands:
            rule = rules.get(command.id)
            if rule is None:
                outcomes.append(DomainError("RULE_NOT_FOUND", rule_id=command.id))
                continue
            rules[command.id] = rule.changed(
                enabled=command.enabled,
                decision=command.decision,
                score=command.score,
                condition=command.condition,
                now_ms=now_ms,
            )
            outcomes.append(rules[command.id])
        if rules:
            tx.put_rules(list(rules.values()))
            tx.commit()
    return outcomes


def set_blocks(ports: Ports, commands: Sequence[SetBlock]) -> list[Block | None]:
    """Put users on the block list or take them off; who is on it already stays since then, with the new note."""
    now_ms = ports.clock.now_ms()
    outcomes: list[Block | None] = []
    with ports.store.transaction() as tx:
        known = tx.blocks({command.user_id for command in commands})
        changed: dict[int, Block | None] = {}
        for command in commands:
            before = changed.get(command.user_id, known.get(command.user_id))
            since = before.create_ms if before else now_ms
            changed[command.user_id] = Block(command.user_id, command.note, since) if command.blocked else None
            outcomes.append(changed[command.user_id])
        tx.put_blocks(changed)
        tx.commit()
    return outcomes


def list_rules(store: Store, page: Page) -> tuple[Sequence[Rule], str]:
    """Return a page of the rules by name, and the token of the next."""
    return page.cut(store.list_rules(page), lambda rule: rule.name)


def list_alerts(store: Store, page: Page) -> tuple[Sequence[Alert], str]:
    """Return a page of the alerts, newest first, and the token of the next."""
    return page.cut(store.list_alerts(page), lambda alert: alert.id)


def list_blocks(store: Store, page: Page) -> tuple[Sequence[Block], str]:
    """Return a page of the block list by user, and the token of the next."""
    return page.cut(store.list_blocks(page), lambda block: block.user_id)
