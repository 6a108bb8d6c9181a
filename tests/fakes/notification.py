"""The notification room's ports in memory; they pass the real ones' suites (tests/integration/test_notification_store.py)."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from services.kernel.errors import DomainError
from services.kernel.idempotency import Answer, IdempotencyKey, Scope, Stored
from services.kernel.pages import Page
from services.notification import states
from services.notification.domain import Attempt, Contact, Notification, Outcome, WebhookDelivery, WebhookEndpoint
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
    endpoints: dict[int, WebhookEndpoint] = field(default_factory=dict)
    deliveries: dict[int, WebhookDelivery] = field(default_factory=dict)

    def copy(self) -> Rows:
        """Return rows that can be changed without changing these; what they hold is frozen."""
        return Rows(dict(self.notifications), dict(self.contacts), dict(self.answers), list(self.taken),
                    list(self.given_up), dict(self.endpoints), dict(self.deliveries))  # fmt: skip


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

    def endpoint_count(self) -> int:
        """Count endpoints."""
        return len(self._rows.endpoints)

    def enabled_endpoints(self) -> list[WebhookEndpoint]:
        """Return those that are enabled."""
        return [each for each in self._rows.endpoints.values() if each.enabled]

    def lock_endpoints(self, endpoint_ids: Collection[int]) -> dict[int, WebhookEndpoint]:
        """Return those of the endpoints that exist."""
        found = self._rows.endpoints
        return {i: found[i] for i in sorted(set(endpoint_ids)) if i in found}

    def add_endpoints(self, endpoints: Sequence[WebhookEndpoint]) -> None:
        """Store new endpoints."""
        assert not {each.id for each in endpoints} & self._rows.endpoints.keys()
        self._rows.endpoints |= {each.id: each for each in endpoints}

    def put_endpoints(self, endpoints: Sequence[WebhookEndpoint]) -> None:
        """Store changed endpoints."""
        assert {each.id for each in endpoints} <= self._rows.endpoints.keys()
        self._rows.endpoints |= {each.id: each for each in endpoints}

    def remove_endpoints(self, endpoint_ids: Sequence[int]) -> None:
        """Remove endpoints with their deliveries."""
        self._rows.endpoints = {i: each for i, each in self._rows.endpoints.items() if i not in endpoint_ids}
        left = {i: each for i, each in self._rows.deliveries.items() if each.endpoint_id not in endpoint_ids}
        self._rows.deliveries = left

    def add_deliveries(self, deliveries: Sequence[WebhookDelivery]) -> None:
        """Store new deliveries; a second one of an event to an endpoint is an AssertionError."""
        for each in deliveries:
            assert each.endpoint_id in self._rows.endpoints
            there = {(d.endpoint_id, d.event_id) for d in self._rows.deliveries.values()}
            assert (each.endpoint_id, each.event_id) not in there
            self._rows.deliveries[each.id] = each

    def lock_deliveries(self, delivery_ids: Collection[int]) -> dict[int, WebhookDelivery]:
        """Return those of the deliveries that exist."""
        found = self._rows.deliveries
        return {i: found[i] for i in sorted(set(delivery_ids)) if i in found}

    def put_deliveries(self, deliveries: Sequence[WebhookDelivery]) -> None:
        """Store changed deliveries."""
        assert {each.id for each in deliveries} <= self._rows.deliveries.keys()
        self._rows.deliveries |= {each.id: each for each in deliveries}

    def give_up_deliveries(self, endpoint_ids: Sequence[int], failure: str) -> None:
        """Make pending ones failed."""
        for each in self._rows.deliveries.values():
            if each.endpoint_id in endpoint_ids and each.status == states.WEBHOOK_DELIVERY_PENDING:
                failed = replace(each, status=states.WEBHOOK_DELIVERY_FAILED, failure=failure)
                self._rows.deliveries[each.id] = failed

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

    def has_endpoint(self, endpoint_id: int) -> bool:
        """Look for an endpoint."""
        return endpoint_id in self.rows.endpoints

    def endpoints(self, page: Page) -> list[WebhookEndpoint]:
        """Read endpoints, newest first."""
        after, newest = page.after_id(), sorted(self.rows.endpoints.values(), key=lambda each: -each.id)
        return [each for each in newest if after is None or each.id < after][: page.limit]

    def deliveries_of(self, endpoint_id: int, page: Page) -> list[WebhookDelivery]:
        """Read the deliveries to an endpoint, newest first."""
        after, newest = page.after_id(), sorted(self.rows.deliveries.values(), key=lambda each: -each.id)
        return [d for d in newest if d.endpoint_id == endpoint_id and (after is None or d.id < after)][: page.limit]

    def due_deliveries(self, now_ms: int, most: int, without: Collection[int]) -> list[tuple[int, int]]:
        """Return what is to be tried."""
        due = sorted((d for d in self.rows.deliveries.values() if d.may_be_tried(now_ms)), key=lambda each: each.due_ms)
        return [(each.id, each.endpoint_id) for each in due if each.endpoint_id not in without][:most]


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


class FakeHooks:
    """Takes every try; ``refused`` URLs may not be called, for the reason given."""

    def __init__(self) -> None:
        """Begin empty."""
        self.refused: dict[str, str] = {}
        self.posted: list[Attempt] = []
        self.outcomes: list[Outcome] = []

    def check(self, url: str) -> None:
        """Refuse what is refused."""
        if url in self.refused:
            raise DomainError("WEBHOOK_URL_REFUSED", why=self.refused[url])

    def post(self, attempt: Attempt) -> Outcome:
        """Note a try; its outcome is the next of ``outcomes``, or a good one."""
        self.posted.append(attempt)
        return self.outcomes.pop(0) if self.outcomes else Outcome()


class FakeSeal:
    """Turns bytes around and writes down what they are about."""

    def seal(self, plain: bytes, about: str) -> bytes:
        """Encrypt."""
        return about.encode() + b"#" + plain[::-1]

    def unseal(self, sealed: bytes, about: str) -> bytes:
        """Decrypt; what is about something else is an AssertionError."""
        said, _, turned = sealed.partition(b"#")
        assert said == about.encode()
        return turned[::-1]


class FakeNotification:
    """The ports together; ``committed`` counts how often the relay was told, ``posted`` how often the sender of webhooks.

    Random bytes count up; there is no jitter.
    """

    def __init__(self) -> None:
        """Begin empty."""
        self.store, self.queue, self.clock, self.committed = FakeStore(), FakeQueue(), FakeClock(), 0
        self.hooks, self.posted, self._secrets = FakeHooks(), 0, 0
        self.ports = Ports(
            store=self.store,
            queue=self.queue,
            texts=FakeTexts(),
            hooks=self.hooks,
            seal=FakeSeal(),
            ids=FakeIds(),
            clock=self.clock,
            random_bytes=self._random,
            jitter=lambda: 0.5,
            render=lambda each: str(each.id).encode(),
            render_created=lambda made, secret: str(made.id).encode() + b":" + secret,
            render_rotated=lambda changed, secret: str(changed.id).encode() + b":" + secret,
            business=frozenset({"WEBHOOK_URL_REFUSED", "WEBHOOK_ENDPOINT_NOT_FOUND"}),
            committed=self._tell,
            posted=self._wake,
            operators_email=OPERATORS,
            time_scale=1.0,
        )

    def _random(self, length: int) -> bytes:
        self._secrets += 1
        return self._secrets.to_bytes(length, "big")

    def _tell(self) -> None:
        self.committed += 1

    def _wake(self) -> None:
        self.posted += 1
