"""What the use cases need of the world."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from services.kernel.clock import Clock
from services.kernel.idempotency import Answer, IdempotencyKey, Scope, Stored
from services.kernel.pages import Page
from services.risk.domain import Alert, Assessment, Block, Decision, Event, Noted, Payment, Rule, Snapshot


class Missing(Enum):
    """Why there is no count."""

    SILENT = auto()
    """The series do not answer."""
    LOST = auto()
    """The series answer, but are not known to hold all that they should."""


class Ids(Protocol):
    """Makes ids."""

    def next(self, shard: int) -> int:
        """Return the next id on a shard."""
        ...


class Velocity(Protocol):
    """The payments of each user over time, in memory of another process that may lose them all.

    ``refilled`` says that the series of those asked about were put back a moment ago; without it series that were lost
    are neither counted nor added to.
    """

    def count(
        self, payments: Sequence[Payment], windows_ms: Sequence[int], now_ms: int, *, refilled: bool = False
    ) -> list[Sequence[int]] | Missing:
        """Put ``payments`` down as made now, in order, and count for each its user's payments in each window up to it.

        A payment that was put down before keeps its time and counts once. One round trip.
        """
        ...

    def peek(
        self, user_id: int, windows_ms: Sequence[int], now_ms: int, *, refilled: bool = False
    ) -> Sequence[int] | Missing:
        """Count a user's payments in each window, and put nothing down."""
        ...

    def put(self, noted: Sequence[Noted], longest_ms: int) -> bool:
        """Put payments down at their times, for the longest window; False: the series did not answer."""
        ...

    def begin_refill(self) -> str:
        """Ask whether the series are whole, "" when they are or do not answer; else return a name for their refill."""
        ...

    def end_refill(self, name: str) -> None:
        """Say that all was put back since ``begin_refill``; what was lost again meanwhile stays lost."""
        ...


class RuleCache(Protocol):
    """Copies of rules and block list that spare the database; they may be lost at any time."""

    def load(self, version: int) -> Snapshot | None:
        """Return the copy; None: there is none of this version."""
        ...

    def save(self, snapshot: Snapshot) -> None:
        """Put a copy in the place of any other, for an hour."""
        ...

    def holds(self, snapshot: Snapshot) -> bool:
        """Whether the copy of this version is complete; True as well when nobody answers, for nothing can be done."""
        ...


class Transaction(Protocol):
    """One durable change; nothing of it stays unless ``commit`` is called."""

    def stored(self, keys: Iterable[IdempotencyKey | None]) -> Mapping[Scope, Stored]:
        """Read the answers that keys got before."""
        ...

    def keep(self, kept: Sequence[tuple[IdempotencyKey, Answer]], now_ms: int) -> None:
        """Keep answers under their keys."""
        ...

    def assessed(self, payment_ids: Collection[int]) -> tuple[Mapping[tuple[int, Decision], int], set[int]]:
        """Return what was recorded of payments: (payment, decision) -> assessment, and those that have an alert.

        Until the end of the transaction nobody else records anything.
        """
        ...

    def record(self, assessments: Sequence[Assessment], alerts: Sequence[Alert], events: Sequence[Event]) -> None:
        """Store new assessments and alerts with their events."""
        ...

    def unseen(self, event_ids: Sequence[str]) -> set[str]:
        """Return those of the events that had no effect yet."""
        ...

    def note(self, noted: Sequence[Noted], events: Sequence[tuple[str, str]], now_ms: int) -> None:
        """Store payments for the refill of the series, and their events (id, topic) as handled."""
        ...

    def forget(self, before_ms: int, limit: int) -> int:
        """Drop at most ``limit`` of the noted payments that are from before; return how many."""
        ...

    def names_taken(self, names: Collection[str]) -> set[str]:
        """Return those of ``names`` that a rule has."""
        ...

    def rules(self, rule_ids: Collection[int]) -> dict[int, Rule]:
        """Read rules and lock them."""
        ...

    def add_rules(self, rules: Sequence[Rule]) -> None:
        """Store new rules; the version is raised."""
        ...

    def put_rules(self, rules: Sequence[Rule]) -> None:
        """Store other contents of rules; the version is raised."""
        ...

    def blocks(self, user_ids: Collection[int]) -> dict[int, Block]:
        """Read entries of the block list and lock them."""
        ...

    def put_blocks(self, blocks: Mapping[int, Block | None]) -> None:
        """Put users on the block list, or with None take them off; the version is raised."""
        ...

    def commit(self) -> None:
        """Make the change durable."""
        ...


class Store(Protocol):
    """Where risk keeps what must last."""

    def transaction(self) -> AbstractContextManager[Transaction]:
        """Begin a change."""
        ...

    def version(self) -> int:
        """Return the version of rules and block list."""
        ...

    def snapshot(self) -> Snapshot:
        """Read rules and block list; at least as new as the version that it carries."""
        ...

    def noted_of(self, user_ids: Collection[int], since_ms: int, limit: int) -> Sequence[Noted]:
        """Read at most ``limit`` noted payments of users after a time."""
        ...

    def noted_since(self, since_ms: int, after: int, limit: int) -> Sequence[Noted]:
        """Read ``limit`` noted payments after a time, by id, after the id ``after``."""
        ...

    def list_rules(self, page: Page) -> Sequence[Rule]:
        """Read ``page.limit`` rules by name, after ``page.after``."""
        ...

    def list_alerts(self, page: Page) -> Sequence[Alert]:
        """Read ``page.limit`` alerts, newest first, after the id ``page.after``."""
        ...

    def list_blocks(self, page: Page) -> Sequence[Block]:
        """Read ``page.limit`` entries of the block list by user, after the user ``page.after``."""
        ...


@dataclass(frozen=True, kw_only=True)
class Ports:
    """Everything that the use cases reach. ``render`` makes the answer of CreateRule that is kept for repeats."""

    store: Store
    velocity: Velocity
    cache: RuleCache
    ids: Ids
    clock: Clock
    render: Callable[[Rule], bytes]
    business: frozenset[str]
    committed: Callable[[], None]
