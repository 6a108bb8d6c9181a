"""The risk room's ports in memory; they pass the suites of the real adapters (tests/integration/test_risk_store.py)."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from services.kernel.idempotency import Answer, IdempotencyKey, Scope, Stored
from services.kernel.money import Money
from services.kernel.pages import Page
from services.risk.domain import (
    Alert,
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
    Snapshot,
    VelocityLimit,
)
from services.risk.ports import Missing, Ports

BUSINESS = frozenset({"RULE_NAME_TAKEN", "RULE_NOT_FOUND"})
SEEDED_MS = 1_800_000_000_000


class FakeClock:
    """A clock that stands still until it is moved."""

    def __init__(self, now_ms: int = SEEDED_MS) -> None:
        """Start at ``now_ms``."""
        self.ms = now_ms

    def now_ms(self) -> int:
        """Milliseconds since 1970 UTC."""
        return self.ms

    def monotonic(self) -> float:
        """Seconds."""
        return self.ms / 1000


class FakeIds:
    """Counts from 1001."""

    def __init__(self) -> None:
        """Begin."""
        self._last = 1000

    def next(self, shard: int) -> int:
        """Return the next number; the shard is not in it."""
        del shard
        self._last += 1
        return self._last


def seeds() -> dict[int, Rule]:
    """The rules that the first migration brings."""

    def rule(number: int, name: str, decision: Decision, score: int, condition: Condition) -> Rule:
        return Rule(number, name, enabled=True, decision=decision, score=score, condition=condition,
                    create_ms=SEEDED_MS, update_ms=SEEDED_MS)  # fmt: skip

    return {
        1: rule(1, "amount_limit_cny", Decision.REVIEW, 40, AmountLimit(Money("CNY", 5_000_000))),
        2: rule(2, "velocity_per_minute", Decision.BLOCK, 80, VelocityLimit(60, 600)),
        3: rule(3, "block_list", Decision.BLOCK, 100, BlockList()),
    }


@dataclass
class Rows:
    """What a database would hold."""

    version: int = 1
    rules: dict[int, Rule] = field(default_factory=seeds)
    blocks: dict[int, Block] = field(default_factory=dict)
    assessments: list[Assessment] = field(default_factory=list)
    alerts: list[Alert] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    answers: dict[Scope, Stored] = field(default_factory=dict)
    noted: dict[int, Noted] = field(default_factory=dict)
    handled: set[str] = field(default_factory=set)

    def copy(self) -> Rows:
        """Return rows that can be changed without changing these; what they hold is frozen."""
        return Rows(self.version, dict(self.rules), dict(self.blocks), list(self.assessments), list(self.alerts),
                    list(self.events), dict(self.answers), dict(self.noted), set(self.handled))  # fmt: skip


class FakeTransaction:
    """Works on a copy of the rows; `commit` makes it theirs."""

    def __init__(self, store: FakeStore) -> None:
        """Copy the rows of ``store``."""
        self._store, self._rows = store, store.rows.copy()

    def stored(self, keys: Iterable[IdempotencyKey | None]) -> Mapping[Scope, Stored]:
        """Return the answers that ``keys`` got."""
        scopes = {key.scope for key in keys if key}
        return {scope: answer for scope, answer in self._rows.answers.items() if scope in scopes}

    def keep(self, kept: Sequence[tuple[IdempotencyKey, Answer]], now_ms: int) -> None:
        """Keep answers."""
        self._rows.answers |= {key.scope: Stored(key.fingerprint, answer) for key, answer in kept}

    def assessed(self, payment_ids: Collection[int]) -> tuple[Mapping[tuple[int, Decision], int], set[int]]:
        """Return what was recorded of payments."""
        known = {
            (a.payment.payment_id, a.verdict.decision): a.id
            for a in self._rows.assessments
            if a.payment.payment_id in payment_ids
        }
        return known, {a.payment_id for a in self._rows.alerts if a.payment_id in payment_ids}

    def record(self, assessments: Sequence[Assessment], alerts: Sequence[Alert], events: Sequence[Event]) -> None:
        """Store; what a constraint of the database forbids is an AssertionError."""
        rows = self._rows
        rows.assessments += assessments
        rows.alerts += alerts
        rows.events += events
        pairs = [(a.payment.payment_id, a.verdict.decision) for a in rows.assessments]
        assert len(pairs) == len(set(pairs))
        assert all(decision is not Decision.APPROVE for _, decision in pairs)
        assert len(rows.alerts) == len({a.payment_id for a in rows.alerts})
        assert {a.assessment_id for a in rows.alerts} <= {a.id for a in rows.assessments}

    def unseen(self, event_ids: Sequence[str]) -> set[str]:
        """Return those of the events that had no effect yet."""
        return set(event_ids) - self._rows.handled

    def note(self, noted: Sequence[Noted], events: Sequence[tuple[str, str]], now_ms: int) -> None:
        """Store payments, and their events as handled."""
        assert not {each.payment_id for each in noted} & self._rows.noted.keys()
        self._rows.noted |= {each.payment_id: each for each in noted}
        self._rows.handled |= {event_id for event_id, _ in events}

    def forget(self, before_ms: int, limit: int) -> int:
        """Drop old payments."""
        old = [each.payment_id for each in self._rows.noted.values() if each.at_ms <= before_ms][:limit]
        for payment_id in old:
            del self._rows.noted[payment_id]
        return len(old)

    def names_taken(self, names: Collection[str]) -> set[str]:
        """Return those of the names that a rule has."""
        return {rule.name for rule in self._rows.rules.values()} & set(names)

    def rules(self, rule_ids: Collection[int]) -> dict[int, Rule]:
        """Return those of the rules that exist."""
        return {i: self._rows.rules[i] for i in sorted(set(rule_ids)) if i in self._rows.rules}

    def add_rules(self, rules: Sequence[Rule]) -> None:
        """Store new rules."""
        assert not self.names_taken([rule.name for rule in rules])
        self._rows.rules |= {rule.id: rule for rule in rules}
        self._rows.version += 1

    def put_rules(self, rules: Sequence[Rule]) -> None:
        """Store changed rules."""
        assert {rule.id for rule in rules} <= self._rows.rules.keys()
        self._rows.rules |= {rule.id: rule for rule in rules}
        self._rows.version += 1

    def blocks(self, user_ids: Collection[int]) -> dict[int, Block]:
        """Return those of the users that are on the list."""
        return {i: self._rows.blocks[i] for i in set(user_ids) if i in self._rows.blocks}

    def put_blocks(self, blocks: Mapping[int, Block | None]) -> None:
        """Replace entries."""
        for user_id, block in blocks.items():
            self._rows.blocks.pop(user_id, None)
            if block is not None:
                self._rows.blocks[user_id] = block
        self._rows.version += 1

    def commit(self) -> None:
        """Make it the store's."""
        self._store.rows = self._rows


class FakeStore:
    """The database of the risk room, in memory. ``transactions`` counts those that were begun."""

    def __init__(self) -> None:
        """Begin with the seeded rules."""
        self.rows = Rows()
        self.transactions = 0

    @contextlib.contextmanager
    def transaction(self) -> Iterator[FakeTransaction]:
        """Begin a transaction; it is lost unless it is committed."""
        self.transactions += 1
        yield FakeTransaction(self)

    def version(self) -> int:
        """Return the version."""
        return self.rows.version

    def snapshot(self) -> Snapshot:
        """Read rules and block list."""
        rules = tuple(sorted(self.rows.rules.values(), key=lambda rule: rule.name))
        return Snapshot(self.rows.version, rules, frozenset(self.rows.blocks))

    def noted_of(self, user_ids: Collection[int], since_ms: int, limit: int) -> list[Noted]:
        """Read payments of users."""
        found = self.rows.noted.values()
        return [each for each in found if each.user_id in user_ids and each.at_ms > since_ms][:limit]

    def noted_since(self, since_ms: int, after: int, limit: int) -> list[Noted]:
        """Read payments by id."""
        found = sorted(self.rows.noted.values())
        return [each for each in found if each.payment_id > after and each.at_ms > since_ms][:limit]

    def list_rules(self, page: Page) -> list[Rule]:
        """Read rules by name."""
        return [rule for rule in self.snapshot().rules if rule.name > page.after][: page.limit]

    def list_alerts(self, page: Page) -> list[Alert]:
        """Read alerts, newest first."""
        after = page.after_id()
        newest = sorted(self.rows.alerts, key=lambda alert: -alert.id)
        return [alert for alert in newest if after is None or alert.id < after][: page.limit]

    def list_blocks(self, page: Page) -> list[Block]:
        """Read the block list by user."""
        after = page.after_id() or 0
        return [block for user_id, block in sorted(self.rows.blocks.items()) if user_id > after][: page.limit]


class FakeVelocity:
    """The series of each user; silent while ``down``, lost without ``whole``. ``asked`` counts the round trips."""

    def __init__(self) -> None:
        """Begin without any payment, as a Redis that was just started."""
        self.series: dict[int, dict[int, int]] = {}
        self.down, self.whole, self.asked, self.refills = False, False, 0, 0

    def lose(self) -> None:
        """Forget everything."""
        self.series, self.whole = {}, False

    def count(
        self, payments: Sequence[Payment], windows_ms: Sequence[int], now_ms: int, *, refilled: bool = False
    ) -> list[Sequence[int]] | Missing:
        """Put payments down and count."""
        self.asked += 1
        if missing := self._missing(refilled=refilled):
            return missing
        counts: list[Sequence[int]] = []
        for payment in payments:
            series = self.series.setdefault(payment.user_id, {})
            series.setdefault(payment.payment_id, now_ms)
            for old in [p for p, ms in series.items() if ms <= now_ms - max(windows_ms)]:
                del series[old]
            counts.append([sum(ms > now_ms - window for ms in series.values()) for window in windows_ms])
        return counts

    def peek(
        self, user_id: int, windows_ms: Sequence[int], now_ms: int, *, refilled: bool = False
    ) -> Sequence[int] | Missing:
        """Count only."""
        self.asked += 1
        if missing := self._missing(refilled=refilled):
            return missing
        series = self.series.get(user_id, {})
        return [sum(ms > now_ms - window for ms in series.values()) for window in windows_ms]

    def put(self, noted: Sequence[Noted], longest_ms: int) -> bool:
        """Put payments down at their times."""
        for each in () if self.down else noted:
            self.series.setdefault(each.user_id, {}).setdefault(each.payment_id, each.at_ms)
        return not self.down

    def begin_refill(self) -> str:
        """Begin one unless all is there."""
        if self.down or self.whole:
            return ""
        self.refills += 1
        return f"refill-{self.refills}"

    def end_refill(self, name: str) -> None:
        """All is there again."""
        assert name
        self.whole = not self.down

    def _missing(self, *, refilled: bool) -> Missing | None:
        if self.down:
            self.whole = False
            return Missing.SILENT
        return None if self.whole or refilled else Missing.LOST


class FakeRuleCache:
    """Holds one snapshot, until it is lost."""

    def __init__(self) -> None:
        """Begin empty."""
        self.kept: Snapshot | None = None

    def load(self, version: int) -> Snapshot | None:
        """Return the copy of a version."""
        return self.kept if self.kept and self.kept.version == version else None

    def save(self, snapshot: Snapshot) -> None:
        """Replace the copy."""
        self.kept = snapshot

    def holds(self, snapshot: Snapshot) -> bool:
        """Whether there is a copy of the same version."""
        return self.kept is not None and self.kept.version == snapshot.version


class FakeRisk:
    """The ports together; ``committed`` counts how often the relay was told."""

    def __init__(self) -> None:
        """Begin with the seeded rules."""
        self.store, self.velocity, self.cache, self.clock = FakeStore(), FakeVelocity(), FakeRuleCache(), FakeClock()
        self.committed = 0
        self.ports = Ports(
            store=self.store,
            velocity=self.velocity,
            cache=self.cache,
            ids=FakeIds(),
            clock=self.clock,
            render=lambda rule: rule.name.encode(),
            business=BUSINESS,
            committed=self._tell,
        )

    def _tell(self) -> None:
        self.committed += 1
