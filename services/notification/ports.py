"""What the use cases need of the world."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from services.kernel.clock import Clock
from services.kernel.idempotency import Answer, IdempotencyKey, Scope, Stored
from services.kernel.pages import Page
from services.notification.domain import Contact, Notification


class Ids(Protocol):
    """Makes ids."""

    def next(self, shard: int) -> int:
        """Return the next id on a shard."""
        ...


class Text(NamedTuple):
    """What a message says."""

    subject: str
    text: str


class Texts(Protocol):
    """The texts of what happened."""

    def render(self, occasion: str, values: Mapping[str, str]) -> Text:
        """Return the text for an occasion, such as ``order_paid``, in Chinese and English."""
        ...


class Queue(Protocol):
    """Ids of notifications that wait for a sender. Nothing is lost with it: SQL knows what waits."""

    def push(self, notification_ids: Sequence[int]) -> None:
        """Put ids at the end."""
        ...

    def take(self, most: int, wait_s: int) -> list[int]:
        """Take up to ``most`` ids, after at most ``wait_s`` seconds; they count as in work until ``done``."""
        ...

    def done(self, notification_ids: Sequence[int]) -> None:
        """Forget ids in work."""
        ...

    def recover(self) -> None:
        """Put back what was in work when this instance last ended."""
        ...


class Sender(Protocol):
    """A provider of one channel."""

    def send(self, notification: Notification) -> str:
        """Hand a message over; a repeat of the same id is recognised there. Returns why it failed, "" when it was taken."""
        ...


class Transaction(Protocol):
    """One durable change; nothing of it stays unless ``commit`` is called."""

    def stored(self, keys: Iterable[IdempotencyKey | None]) -> Mapping[Scope, Stored]:
        """Read the answers that keys got before."""
        ...

    def keep(self, kept: Sequence[tuple[IdempotencyKey, Answer]], now_ms: int) -> None:
        """Keep answers under their keys."""
        ...

    def unseen(self, event_ids: Sequence[str]) -> set[str]:
        """Return those of the events that had no effect yet."""
        ...

    def mark(self, events: Sequence[tuple[str, str]], now_ms: int) -> None:
        """Note (event id, topic) pairs as handled."""
        ...

    def contacts(self, user_ids: Collection[int]) -> dict[int, Contact]:
        """Read contacts and lock them."""
        ...

    def put_contacts(self, contacts: Sequence[Contact]) -> None:
        """Store contacts in the place of older ones."""
        ...

    def add(self, notifications: Sequence[Notification]) -> None:
        """Store new notifications."""
        ...

    def lock(self, notification_ids: Collection[int]) -> dict[int, Notification]:
        """Read notifications and lock them."""
        ...

    def put(self, notifications: Sequence[Notification]) -> None:
        """Store what changed of notifications: recipient, status, attempts, failure and times."""
        ...

    def publish_failed(self, notifications: Sequence[Notification], now_ms: int) -> None:
        """Put down that notifications were given up."""
        ...

    def commit(self) -> None:
        """Make the change durable."""
        ...


class Store(Protocol):
    """Where notifications are kept. Ids, contacts and whole notifications: no statement, so that documents fit as well."""

    def transaction(self) -> AbstractContextManager[Transaction]:
        """Begin a change."""
        ...

    def find(self, notification_id: int, owner: int | None) -> Notification | None:
        """Read a notification, of a user when ``owner`` is given."""
        ...

    def list_of(self, user_id: int, page: Page) -> Sequence[Notification]:
        """Read ``page.limit`` notifications to a user, newest first, after the id ``page.after``."""
        ...

    def due(self, now_ms: int, most: int) -> list[int]:
        """Return ids of queued notifications that are to be pushed now, the longest waiting first."""
        ...


@dataclass(frozen=True, kw_only=True)
class Ports:
    """Everything that the use cases reach. ``render`` makes the answer of a Send method that is kept for repeats."""

    store: Store
    queue: Queue
    texts: Texts
    ids: Ids
    clock: Clock
    render: Callable[[Notification], bytes]
    business: frozenset[str]
    committed: Callable[[], None]
    operators_email: str
