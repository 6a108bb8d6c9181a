"""What the use cases need of the world."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from services.kernel.clock import Clock
from services.kernel.idempotency import Answer, IdempotencyKey, Scope, Stored
from services.kernel.pages import Page
from services.notification.domain import Attempt, Contact, Notification, Outcome, WebhookDelivery, WebhookEndpoint


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


class Hooks(Protocol):
    """Posts events to endpoints of the merchant."""

    def check(self, url: str) -> None:
        """Look up the host of a URL and every address of it. Raises WEBHOOK_URL_REFUSED when it may not be called."""
        ...

    def post(self, attempt: Attempt) -> Outcome:
        """Check the URL again and make one try, at one of the addresses that were checked."""
        ...


class Seal(Protocol):
    """Encrypts what the store must not hold in clear."""

    def seal(self, plain: bytes, about: str) -> bytes:
        """Encrypt; it opens only as what it is ``about``."""
        ...

    def unseal(self, sealed: bytes, about: str) -> bytes:
        """Decrypt."""
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

    def endpoint_count(self) -> int:
        """Return how many endpoints there are."""
        ...

    def enabled_endpoints(self) -> list[WebhookEndpoint]:
        """Read the endpoints that are enabled."""
        ...

    def lock_endpoints(self, endpoint_ids: Collection[int]) -> dict[int, WebhookEndpoint]:
        """Read endpoints and lock them."""
        ...

    def add_endpoints(self, endpoints: Sequence[WebhookEndpoint]) -> None:
        """Store new endpoints."""
        ...

    def put_endpoints(self, endpoints: Sequence[WebhookEndpoint]) -> None:
        """Store what changed of endpoints: whether they are enabled, and secrets."""
        ...

    def remove_endpoints(self, endpoint_ids: Sequence[int]) -> None:
        """Remove endpoints and the deliveries to them."""
        ...

    def add_deliveries(self, deliveries: Sequence[WebhookDelivery]) -> None:
        """Store new deliveries; a second one of an event to an endpoint breaks the change."""
        ...

    def lock_deliveries(self, delivery_ids: Collection[int]) -> dict[int, WebhookDelivery]:
        """Read deliveries and lock them."""
        ...

    def put_deliveries(self, deliveries: Sequence[WebhookDelivery]) -> None:
        """Store what changed of deliveries: status, tries, failure and times."""
        ...

    def give_up_deliveries(self, endpoint_ids: Sequence[int], failure: str) -> None:
        """Make every pending delivery to some endpoints a failed one."""
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

    def has_endpoint(self, endpoint_id: int) -> bool:
        """Whether there is such an endpoint."""
        ...

    def endpoints(self, page: Page) -> Sequence[WebhookEndpoint]:
        """Read ``page.limit`` endpoints, newest first, after the id ``page.after``."""
        ...

    def deliveries_of(self, endpoint_id: int, page: Page) -> Sequence[WebhookDelivery]:
        """Read ``page.limit`` deliveries to an endpoint, newest first, after the id ``page.after``."""
        ...

    def due_deliveries(self, now_ms: int, most: int, without: Collection[int]) -> list[tuple[int, int]]:
        """Return (delivery, endpoint) of what is to be tried now, the longest waiting first; none to ``without``."""
        ...


@dataclass(frozen=True, kw_only=True)
class Ports:
    """Everything that the use cases reach.

    ``render`` makes the answer of a Send method that is kept for repeats, ``render_created`` and ``render_rotated`` those
    that tell a secret. ``committed`` wakes the relay, ``posted`` the sender of webhooks, whose pauses are multiplied by
    ``time_scale``. ``jitter`` lies between 0 and 1.
    """

    store: Store
    queue: Queue
    texts: Texts
    hooks: Hooks
    seal: Seal
    ids: Ids
    clock: Clock
    random_bytes: Callable[[int], bytes]
    jitter: Callable[[], float]
    render: Callable[[Notification], bytes]
    render_created: Callable[[WebhookEndpoint, bytes], bytes]
    render_rotated: Callable[[WebhookEndpoint, bytes], bytes]
    business: frozenset[str]
    committed: Callable[[], None]
    posted: Callable[[], None]
    operators_email: str
    time_scale: float
