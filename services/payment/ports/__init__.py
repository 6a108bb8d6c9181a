"""What the use cases need of the world."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from services.kernel.caller import Caller
from services.kernel.idempotency import Answer, IdempotencyKey, Scope, Stored
from services.kernel.money import Money
from services.kernel.pages import Page
from services.payment.domain import Account, AccountKey, Book, KnownOrder, Method, Payment, Refund
from services.payment.domain.payment import Step


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


@dataclass(slots=True)
class Change:
    """All that one transaction writes."""

    now_ms: int
    new_payments: list[Payment] = field(default_factory=list)
    changed_payments: dict[int, Payment] = field(default_factory=dict)
    moved: list[Moved] = field(default_factory=list)
    refunds: list[Refund] = field(default_factory=list)
    book: Book | None = None
    answers: list[tuple[IdempotencyKey, Answer]] = field(default_factory=list)
    taken: list[tuple[str, str]] = field(default_factory=list)


class Transaction(Protocol):
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

    def balance(self, key: AccountKey) -> tuple[int, int]:
        """Return an account's balance and when it last changed; (0, 0) where there is none."""
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


@dataclass(frozen=True, slots=True)
class Render:
    """Renders answers to the bytes that are stored under a key and sent."""

    created: Callable[[Payment], bytes]
    refunded: Callable[[Payment, Refund], bytes]
    topped_up: Callable[[AccountKey, int, int], bytes]


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
