"""What the use cases need of the world."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from services.kernel.caller import Caller
from services.kernel.idempotency import Answer, IdempotencyKey, Scope, Stored
from services.kernel.money import Money
from services.kernel.pages import Page
from services.payment.domain import (
    Account,
    AccountKey,
    Attempt,
    Book,
    JournalLine,
    KnownOrder,
    Method,
    Payment,
    Refund,
    Review,
    TrialBalanceLine,
)
from services.payment.domain.payment import Step
from services.payment.ports.bills import BillChange, Bills, BillWrites, Files
from services.payment.ports.cards import CvvRelay, Vault
from services.payment.ports.methods import SavedCards
from services.payment.ports.provider import Provider


class Ids(Protocol):
    """Makes ids."""

    def next(self, shard: int) -> int:
        """Return the next id on a shard."""
        ...


class Clock(Protocol):
    """Tells the time."""

    def now_ms(self) -> int:
        """Milliseconds since 1970 UTC."""
        ...


@dataclass(frozen=True, slots=True)
class ToAssess:
    """A payment that risk is asked about."""

    payment_id: int
    user_id: int
    order_id: int
    amount: Money
    method: Method


class Risk(Protocol):
    """Asks the risk service."""

    def blocked(self, payments: Sequence[ToAssess], cause: Caller) -> list[bool]:
        """Return for each payment whether it is to be refused. ``cause`` has the deadline, and the trace to follow.

        Raises UNAVAILABLE when risk does not answer, unless the last rule set heard says what to do then.
        """
        ...


class Orders(Protocol):
    """Asks the order service."""

    def find(self, order_ids: Sequence[int], cause: Caller) -> list[KnownOrder]:
        """Return those of the orders that exist. ``cause`` as in `Risk`. Raises UNAVAILABLE."""
        ...


@dataclass(frozen=True, slots=True)
class Moved:
    """A state that a payment entered, with what its event tells."""

    step: Step
    payment: Payment
    refund: Refund | None = None


class CancelledOrder(Protocol):
    """An order that was cancelled."""

    @property
    def order_id(self) -> int:
        """Id of the order."""
        ...

    @property
    def user_id(self) -> int:
        """Whose it is."""
        ...

    @property
    def version(self) -> int:
        """Version of the event that says so."""
        ...


@dataclass(frozen=True, slots=True)
class CallbackTaken:
    """A provider's notice that has had its effect."""

    provider: Method
    notice_id: str
    request_id: str


@dataclass(frozen=True, slots=True)
class Deed:
    """What an operator did, for the audit log, where it stays."""

    actor_id: int
    action: str
    about_id: int
    detail: str


@dataclass(slots=True)
class Change:
    """All that one transaction writes.

    ``answers`` are kept under their keys, ``held`` are keys whose answer comes later, ``late`` the answers of such.
    """

    now_ms: int
    new_payments: list[Payment] = field(default_factory=list)
    changed_payments: dict[int, Payment] = field(default_factory=dict)
    moved: list[Moved] = field(default_factory=list)
    refunds: list[Refund] = field(default_factory=list)
    changed_refunds: dict[int, Refund] = field(default_factory=dict)
    new_attempts: list[Attempt] = field(default_factory=list)
    changed_attempts: dict[int, Attempt] = field(default_factory=dict)
    new_reviews: list[Review] = field(default_factory=list)
    changed_reviews: dict[int, Review] = field(default_factory=dict)
    book: Book | None = None
    answers: list[tuple[IdempotencyKey, Answer]] = field(default_factory=list)
    held: list[IdempotencyKey] = field(default_factory=list)
    late: dict[Scope, Answer] = field(default_factory=dict)
    taken: list[tuple[str, str]] = field(default_factory=list)
    callbacks: list[CallbackTaken] = field(default_factory=list)
    audit: list[Deed] = field(default_factory=list)
    bills: BillChange | None = None


class Transaction(BillWrites, Protocol):
    """One transaction; it rolls back unless ``commit`` is called. Rows that it reads to change them stay locked."""

    def stored(self, keys: Iterable[IdempotencyKey | None]) -> Mapping[Scope, Stored]:
        """Return the answers that ``keys`` got."""
        ...

    def live_payments(self, order_ids: Iterable[int]) -> dict[int, int]:
        """Return order id -> id of its payment that is live or captured."""
        ...

    def accounts(self, keys: Iterable[AccountKey]) -> dict[AccountKey, Account]:
        """Lock the accounts in key order; those that do not exist yet come new, with balance 0."""
        ...

    def payments(self, ids: Iterable[int]) -> dict[int, Payment]:
        """Lock payments in the order of their ids."""
        ...

    def held(self, scopes: Iterable[Scope]) -> dict[Scope, Answer | None]:
        """Lock keys and return their answers; None: not answered yet."""
        ...

    def attempts(self, payment_ids: Iterable[int]) -> dict[int, Attempt]:
        """Lock every attempt of the payments, in the order of their ids."""
        ...

    def due(self, now_ms: int, limit: int, payment_ids: Sequence[int]) -> list[Attempt]:
        """Lock attempts that are due, longest first: of ``payment_ids``, or at most ``limit`` of any when it is empty."""
        ...

    def refunds(self, ids: Iterable[int]) -> dict[int, Refund]:
        """Lock refunds in the order of their ids."""
        ...

    def known_callbacks(self, notices: Iterable[tuple[Method, str]]) -> set[tuple[Method, str]]:
        """Return those of the notices (provider, id) that have had their effect."""
        ...

    def reviews(self, payment_ids: Iterable[int]) -> list[Review]:
        """Lock every review of the payments and of their refunds."""
        ...

    def booked(self, reference_ids: Iterable[int]) -> dict[int, set[str]]:
        """Return what ledger transactions are about -> their kinds; nothing where nothing is booked."""
        ...

    def unseen(self, event_ids: Sequence[str]) -> set[str]:
        """Return those events that had no effect yet."""
        ...

    def know_orders(self, orders: Sequence[KnownOrder]) -> None:
        """Keep what is known of orders; an older version never replaces a newer one."""
        ...

    def cancel_orders(self, cancelled: Sequence[CancelledOrder]) -> None:
        """Keep that orders were cancelled, also of those that are not known yet."""
        ...

    def write(self, change: Change) -> None:
        """Write a change: rows, ledger, chain, history, events, answers, inbox."""
        ...

    def commit(self) -> None:
        """Make it durable."""
        ...


class Store(Protocol):
    """The payment room's database."""

    def transaction(self) -> AbstractContextManager[Transaction]:
        """Begin a transaction."""
        ...

    def look(self, keys: Sequence[IdempotencyKey | None], order_ids: Iterable[int]) -> Look:
        """Read what a batch of payments needs before it may ask others; locks nothing."""
        ...

    def payment(self, payment_id: int, user_id: int | None) -> Payment | None:
        """Read a payment; ``user_id`` narrows it to one user's."""
        ...

    def payments_of(self, *, user_id: int | None, order_id: int | None, page: Page) -> list[Payment]:
        """Read a page of payments, newest first, one more than it holds."""
        ...

    def refunds_of(self, payment_id: int, page: Page) -> list[Refund]:
        """Read a page of refunds, newest first, one more than it holds."""
        ...

    def refund(self, refund_id: int) -> Refund | None:
        """Read a refund."""
        ...

    def balance(self, key: AccountKey) -> tuple[int, int]:
        """Return an account's balance and when it last changed; (0, 0) where there is none."""
        ...

    def trial_balance(self) -> list[TrialBalanceLine]:
        """Add up the ledger by kind of account and currency, in this order."""
        ...

    def journal(self, begin_ms: int, end_ms: int) -> Iterator[JournalLine]:
        """Yield the ledger's entries from ``begin_ms`` until before ``end_ms`` in the order of the chain."""
        ...

    def payments_of_refunds(self, refund_ids: Iterable[int]) -> dict[int, int]:
        """Return refund id -> id of its payment, of those that exist; locks nothing."""
        ...

    def reviews_from(self, page: Page, *, decided: bool) -> list[Review]:
        """Read a page of reviews, oldest first, one more than it holds; with ``decided`` also those."""
        ...

    def payments_of_reviews(self, review_ids: Iterable[int]) -> dict[int, int]:
        """Return review id -> id of its payment, of those that exist; locks nothing."""
        ...

    def has_due(self, now_ms: int) -> bool:
        """Whether an attempt is due."""
        ...

    def adopt(self, owner: int, now_ms: int) -> int:
        """Make due what an instance was asking of providers when it died; return how much that was."""
        ...

    def forget(self, before: Mapping[str, int], limit: int) -> int:
        """Delete at most about ``limit`` rows each of idempotency_keys and callbacks older than ``before`` (name -> ms).

        Returns how many went.
        """
        ...


@dataclass(frozen=True, slots=True)
class Look:
    """What a batch of payments sees before its transaction."""

    stored: Mapping[Scope, Stored]
    orders: dict[int, KnownOrder]


class StatusCache(Protocol):
    """Payments at rest, for five minutes. It may forget anything at any time."""

    def get(self, payment_id: int) -> Payment | None:
        """Return a payment, if it is remembered."""
        ...

    def fill(self, payment: Payment) -> None:
        """Remember what was read, unless something newer is there."""
        ...

    def hold(self, payment_ids: Iterable[int]) -> None:
        """Forget payments that are about to change, and remember nothing of them until ``put``, or for a while."""
        ...

    def put(self, payments: Iterable[Payment]) -> None:
        """Remember what was just committed, unless something newer is there."""
        ...


class Alarm(Protocol):
    """Tells operators what they have to look at."""

    def security(self, event: str, **facts: str | int) -> None:
        """Someone tried what nobody may: one security event."""
        ...

    def alert(self, event: str, **facts: str | int) -> None:
        """Something needs a person."""
        ...


@dataclass(frozen=True, slots=True)
class Render:
    """Renders answers to the bytes that are stored under a key and sent."""

    created: Callable[[Payment], bytes]
    captured: Callable[[Payment], bytes]
    voided: Callable[[Payment], bytes]
    closed: Callable[[Payment], bytes]
    refunded: Callable[[Payment, Refund], bytes]
    topped_up: Callable[[AccountKey, int, int], bytes]
    withdrawn: Callable[[AccountKey, int, int], bytes]
    decided: Callable[[Review], bytes]


@dataclass(frozen=True, slots=True)
class Outside:
    """The providers, and what goes with them. ``jitter`` is around 1; times are milliseconds.

    ``pay_window_ms`` is how long a payer has, ``capture_window_ms`` how long an authorization is held.
    """

    providers: Mapping[Method, Provider]
    cards: SavedCards
    vault: Vault
    cvvs: CvvRelay
    files: Files
    jitter: Callable[[], float]
    instance: int
    pay_window_ms: int
    capture_window_ms: int


@dataclass(frozen=True, slots=True)
class Ports:
    """Everything that the use cases are given."""

    store: Store
    risk: Risk
    orders: Orders
    cache: StatusCache
    render: Render
    ids: Ids
    clock: Clock
    business: frozenset[str]
    merchant_id: int
    committed: Callable[[], None]
    outside: Outside
    bills: Bills
    alarm: Alarm
    reach: Callable[[str, str], None]
    """Names a kill point that is reached, and for what; does nothing unless a test armed it."""
