"""The notification room's ports in memory; they pass the real ones' suites (tests/integration/test_notification_store.py)."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from services.kernel.idempotency import Answer, IdempotencyKey, Scope, Stored
from services.kernel.pages import Page
from services.notification import states
from services.notification.domain import Contact, Notification
from services.notification.ports import Ports, Text

OPERATORS = "ops@paymesh.example"


class FakeClock:
    """A clock that stands still until it is moved."""

    def __init__(self, now_ms: int = 1_800_000_000_000) -> None:
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


@dataclass
class Rows:
    """What a database would hold."""

    notifications: dict[int, Notification] = field(default_factory=dict)
    contacts: dict[int, Contact] = field(default_factory=dict)
    answers: dict[Scope, Stored] = field(default_factory=dict)
    taken: list[tuple[str, str]] = field(default_factory=list)
    given_up: list[int] = field(default_factory=list)

    def copy(self) -> Rows:
        """Return rows that can be changed without changing these; what they hold is frozen."""
        return Rows(dict(self.notifications), dict(self.contacts), dict(self.answers), list(self.taken),
                    list(self.given_up))  # fmt: skip


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

    def unseen(self, event_ids: Sequence[str]) -> set[str]:
        """Return those events that had no effect yet."""
        return set(event_ids) - {event_id for event_id, _ in self._rows.taken}

    def mark(self, events: Sequence[tuple[str, str]], now_ms: int) -> None:
        """Note events as handled."""
        assert not set(events) & set(self._rows.taken)
        self._rows.taken += events

    def contacts(self, user_ids: Collection[int]) -> dict[int, Contact]:
        """Return those of the contacts that are known."""
        return {i: self._rows.contacts[i] for i in set(user_ids) if i in self._rows.contacts}

    def put_contacts(self, contacts: Sequence[Contact]) -> None:
        """Replace contacts."""
        self._rows.contacts |= {each.user_id: each for each in contacts}

    def add(self, notifications: Sequence[Notification]) -> None:
        """Store new notifications; a second one of an event is an AssertionError."""
        for each in notifications:
            assert each.id not in self._rows.notifications
            assert each.event_id is None or each.event_id not in {n.event_id for n in self._rows.notifications.values()}
            self._rows.notifications[each.id] = each

    def lock(self, notification_ids: Collection[int]) -> dict[int, Notification]:
        """Return those of the notifications that exist."""
        found = self._rows.notifications
        return {i: found[i] for i in sorted(set(notification_ids)) if i in found}

    def put(self, notifications: Sequence[Notification]) -> None:
        """Store changed notifications."""
        assert {each.id for each in notifications} <= self._rows.notifications.keys()
        self._rows.notifications |= {each.id: each for each in notifications}

    def publish_failed(self, notifications: Sequence[Notification], now_ms: int) -> None:
        """Put down what was given up; twice the same is an AssertionError."""
        self._rows.given_up += [each.id for each in notifications]
        assert len(self._rows.given_up) == len(set(self._rows.given_up))

    def commit(self) -> None:
        """Make it the store's."""
        self._store.rows = self._rows


class FakeStore:
    """The database of the notification room, in memory."""

    def __init__(self) -> None:
        """Begin empty."""
        self.rows = Rows()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[FakeTransaction]:
        """Begin a transaction; it is lost unless it is committed."""
        yield FakeTransaction(self)

    def find(self, notification_id: int, owner: int | None) -> Notification | None:
        """Read a notification."""
        found = self.rows.notifications.get(notification_id)
        return found if found and owner in {None, found.user_id} else None

    def list_of(self, user_id: int, page: Page) -> list[Notification]:
        """Read the notifications to a user, newest first."""
        after = page.after_id()
        newest = sorted(self.rows.notifications.values(), key=lambda each: -each.id)
        return [n for n in newest if n.user_id == user_id and (after is None or n.id < after)][: page.limit]

    def due(self, now_ms: int, most: int) -> list[int]:
        """Return ids of what is to be pushed."""
        waiting = [n for n in self.rows.notifications.values() if n.status == states.QUEUED and n.push_ms <= now_ms]
        return [each.id for each in sorted(waiting, key=lambda each: each.push_ms)][:most]


class FakeQueue:
    """A list, and what is in work."""

    def __init__(self) -> None:
        """Begin empty."""
        self.waiting: deque[int] = deque()
        self.work: list[int] = []

    def push(self, notification_ids: Sequence[int]) -> None:
        """Put ids at the end."""
        self.waiting.extend(notification_ids)

    def take(self, most: int, wait_s: int) -> list[int]:
        """Take ids."""
        taken = [self.waiting.popleft() for _ in range(min(most, len(self.waiting)))]
        self.work += taken
        return taken

    def done(self, notification_ids: Sequence[int]) -> None:
        """Forget ids in work."""
        self.work = [each for each in self.work if each not in notification_ids]

    def recover(self) -> None:
        """Put back what was in work, to be taken first."""
        self.waiting.extendleft(reversed(self.work))
        self.work = []


class FakeTexts:
    """Says the occasion and the values."""

    def render(self, occasion: str, values: Mapping[str, str]) -> Text:
        """Return a text."""
        return Text(occasion, " ".join(f"{key}={value}" for key, value in values.items()))


class FakeNotification:
    """The ports together; ``committed`` counts how often the relay was told."""

    def __init__(self) -> None:
        """Begin empty."""
        self.store, self.queue, self.clock, self.committed = FakeStore(), FakeQueue(), FakeClock(), 0
        self.ports = Ports(
            store=self.store,
            queue=self.queue,
            texts=FakeTexts(),
            ids=FakeIds(),
            clock=self.clock,
            render=lambda each: str(each.id).encode(),
            business=frozenset(),
            committed=self._tell,
            operators_email=OPERATORS,
        )

    def _tell(self) -> None:
        self.committed += 1
