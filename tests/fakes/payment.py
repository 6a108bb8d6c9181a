"""The payment room's ports in memory; the store passes the suite of the real one (tests/integration/test_payment_store.py)."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

import sqlalchemy as sa

from services.kernel.caller import Caller
from services.kernel.clock import SystemClock
from services.kernel.errors import DomainError
from services.kernel.idempotency import Answer, IdempotencyKey, Scope, Stored
from services.kernel.money import Money
from services.kernel.pages import Page
from services.payment import states
from services.payment.adapters.vault import CardVault, MemoryCvvRelay
from services.payment.domain import (
    Account,
    AccountKey,
    Attempt,
    JournalLine,
    Kind,
    KnownOrder,
    Method,
    Payment,
    Point,
    Posting,
    Purse,
    Refund,
    Review,
    SavedPaymentMethod,
    TrialBalanceLine,
)
from services.payment.domain.bill import Late
from services.payment.domain.card import Card
from services.payment.domain.ledger import MAY_BE_NEGATIVE
from services.payment.domain.payment import Step
from services.payment.ports import CancelledOrder, Change, Deed, Look, Outside, Ports, Render, ToAssess
from services.payment.ports.provider import Provider
from services.platform.idempotency import business_reasons
from tests.fakes.bills import BillRows, FakeBills, FakeFiles
from tests.fakes.cards import FakeCards, FakeKeys

_NOTHING = Money("CNY", 0)


class FakeClock:
    """A clock that stands still until it is moved."""

    def __init__(self, now_ms: int = 1_800_000_000_000) -> None:
        """Start at ``now_ms``."""
        self.ms = now_ms

    def now_ms(self) -> int:
        """Milliseconds since 1970 UTC."""
        return self.ms


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

    payments: dict[int, Payment] = field(default_factory=dict)
    history: list[Step] = field(default_factory=list)
    refunds: dict[int, Refund] = field(default_factory=dict)
    accounts: dict[AccountKey, Account] = field(default_factory=dict)
    changed_ms: dict[AccountKey, int] = field(default_factory=dict)
    postings: dict[tuple[str, int], Posting] = field(default_factory=dict)
    posted_ms: dict[int, int] = field(default_factory=dict)
    orders: dict[int, KnownOrder] = field(default_factory=dict)
    answers: dict[Scope, Stored] = field(default_factory=dict)
    taken: dict[str, str] = field(default_factory=dict)
    events: list[tuple[str, int, int]] = field(default_factory=list)
    """Topic, payment id and version."""
    attempts: dict[int, Attempt] = field(default_factory=dict)
    callbacks: dict[tuple[Method, str], int] = field(default_factory=dict)
    reviews: dict[int, Review] = field(default_factory=dict)
    audit: list[Deed] = field(default_factory=list)
    bills: BillRows = field(default_factory=BillRows)
    held: dict[Scope, bytes] = field(default_factory=dict)
    """Keys whose answer comes later, with the fingerprint of their request."""


def _check(holds: object, constraint: str) -> None:
    if not holds:
        raise sa.exc.IntegrityError("write", {}, Exception(constraint))


class FakeTransaction:
    """Works on a copy of the rows, which ``commit`` makes the store's."""

    def __init__(self, store: FakeStore) -> None:
        """Begin."""
        self._store, self._rows = store, copy.deepcopy(store.rows)

    def stored(self, keys: Iterable[IdempotencyKey | None]) -> Mapping[Scope, Stored]:
        """Return the answers that ``keys`` got."""
        in_flight = DomainError("IDEMPOTENCY_KEY_IN_FLIGHT")
        held = {scope: Stored(fingerprint, in_flight) for scope, fingerprint in self._rows.held.items()}
        answers = held | self._rows.answers
        return {key.scope: answers[key.scope] for key in keys if key is not None and key.scope in answers}

    def held(self, scopes: Iterable[Scope]) -> dict[Scope, Answer | None]:
        """Return the answers of keys; None: not answered yet."""
        rows = self._rows
        known = {scope: rows.answers[scope].answer for scope in scopes if scope in rows.answers}
        return {scope: None for scope in scopes if scope in rows.held} | known

    def attempts(self, payment_ids: Iterable[int]) -> dict[int, Attempt]:
        """Return every attempt of the payments, in the order of their ids."""
        wanted = set(payment_ids)
        return {i: replace(a) for i, a in sorted(self._rows.attempts.items()) if a.payment_id in wanted}

    def due(self, now_ms: int, limit: int, payment_ids: Sequence[int]) -> list[Attempt]:
        """Return attempts that are due, longest first."""
        asked = {Point.WAITING, Point.UNKNOWN}
        found = [
            replace(a)
            for a in self._rows.attempts.values()
            if (a.payment_id in payment_ids and a.point in asked if payment_ids else _is_due(a, now_ms))
        ]
        return sorted(found, key=lambda a: a.next_ms)[:limit]

    def refunds(self, ids: Iterable[int]) -> dict[int, Refund]:
        """Return refunds in the order of their ids."""
        return {i: replace(self._rows.refunds[i]) for i in sorted(set(ids)) if i in self._rows.refunds}

    def known_callbacks(self, notices: Iterable[tuple[Method, str]]) -> set[tuple[Method, str]]:
        """Return those of the notices that have had their effect."""
        return set(notices) & self._rows.callbacks.keys()

    def reviews(self, payment_ids: Iterable[int]) -> list[Review]:
        """Return every review of the payments and of their refunds."""
        wanted = set(payment_ids)
        return [replace(r) for r in self._rows.reviews.values() if r.payment_id in wanted]

    def booked(self, reference_ids: Iterable[int]) -> dict[int, set[str]]:
        """Return what ledger transactions are about -> their kinds."""
        wanted, kinds = set(reference_ids), dict[int, set[str]]()
        for kind, reference_id in self._rows.postings:
            if reference_id in wanted:
                kinds.setdefault(reference_id, set()).add(kind)
        return kinds

    def bill_turn(self, method: Method) -> tuple[int, int]:
        """Return how many bills of a provider there are, and how many of their differences wait for the books."""
        return self._rows.bills.turn(method)

    def late(self, method: Method) -> list[Late]:
        """Return what earlier bills had and the books did not, and now do."""
        return self._rows.bills.late(self._rows, method)

    def live_payments(self, order_ids: Iterable[int]) -> dict[int, int]:
        """Return order id -> id of its payment that is live or captured."""
        wanted = set(order_ids)
        return {order: payment for order, payment in self._live().items() if order in wanted}

    def accounts(self, keys: Iterable[AccountKey]) -> dict[AccountKey, Account]:
        """Return accounts; those that do not exist yet come new, with balance 0."""
        return {key: replace(self._rows.accounts.get(key) or Account(key, 0, 0, -1)) for key in keys}

    def payments(self, ids: Iterable[int]) -> dict[int, Payment]:
        """Return payments in the order of their ids."""
        return {i: _charged(self._rows, i) for i in sorted(set(ids)) if i in self._rows.payments}

    def unseen(self, event_ids: Sequence[str]) -> set[str]:
        """Return those events that had no effect yet."""
        return set(event_ids) - self._rows.taken.keys()

    def know_orders(self, orders: Sequence[KnownOrder]) -> None:
        """Keep what is known of orders; an older version never replaces a newer one."""
        for order in orders:
            known = self._rows.orders.get(order.id)
            if known is None or known.version < order.version:
                self._rows.orders[order.id] = order

    def cancel_orders(self, cancelled: Sequence[CancelledOrder]) -> None:
        """Keep that orders were cancelled, also of those that are not known yet."""
        for c in cancelled:
            known = self._rows.orders.get(c.order_id) or KnownOrder(c.order_id, c.user_id, _NOTHING, "cancelled", 0, 0)
            if known.version < c.version:
                self._rows.orders[c.order_id] = replace(known, status="cancelled", version=c.version)

    def write(self, change: Change) -> None:
        """Write a change, or break as a database would."""
        rows = self._rows
        for payment in change.new_payments:
            _check(payment.id not in rows.payments, "payments.id")
            self._put(payment)
        for payment in change.changed_payments.values():
            self._put(payment)
        rows.history += [moved.step for moved in change.moved]
        for refund in change.refunds:
            _check(refund.id not in rows.refunds and refund.amount.minor_units > 0, "refunds")
            rows.refunds[refund.id] = refund
        rows.refunds |= change.changed_refunds
        rows.attempts |= {a.id: replace(a) for a in (*change.new_attempts, *change.changed_attempts.values())}
        rows.callbacks |= {(c.provider, c.notice_id): change.now_ms for c in change.callbacks}
        rows.reviews |= {r.id: replace(r) for r in (*change.new_reviews, *change.changed_reviews.values())}
        two = [r for r in rows.reviews.values() if r.status == states.REVIEW_DECIDED]
        _check(all(r.decider_id != r.proposer_id for r in two), "reviews_two_people")
        rows.audit += change.audit
        if change.bills is not None:
            rows.bills.write(change.bills)
        if change.book is not None:
            self._book(change)
        rows.events += [
            (topic, moved.payment.id, moved.step.event)
            for moved in change.moved
            if (topic := states.EVENTS.get(moved.step.status))
        ]
        for key, answer in change.answers:
            _check(key.scope not in rows.answers, "idempotency_keys")
            rows.answers[key.scope] = Stored(key.fingerprint, answer)
        for key in change.held:
            _check(key.scope not in rows.answers and key.scope not in rows.held, "idempotency_keys")
            rows.held[key.scope] = key.fingerprint
        for scope, answer in change.late.items():
            rows.answers[scope] = Stored(rows.held[scope], answer)
        for event_id, topic in dict.fromkeys(change.taken):
            _check(event_id not in rows.taken, "inbox")
            rows.taken[event_id] = topic

    def commit(self) -> None:
        """Make it the store's."""
        self._store.rows = copy.deepcopy(self._rows)

    def _live(self) -> dict[int, int]:
        return {p.order_id: p.id for p in self._rows.payments.values() if p.live}

    def _put(self, payment: Payment) -> None:
        other = self._live().get(payment.order_id)
        _check(not payment.live or other in {None, payment.id}, "payments.live_order_id")
        given = payment.refunded + payment.refunding
        _check(0 <= given <= payment.captured <= payment.amount.minor_units, "payments_refunded")
        _check(payment.refunded >= 0 and payment.refunding >= 0, "payments_refunded")
        self._rows.payments[payment.id] = replace(payment, charge=None)

    def _book(self, change: Change) -> None:
        assert change.book is not None
        for key, account in change.book.touched.items():
            _check(account.balance >= 0 or key.kind in MAY_BE_NEGATIVE, "accounts_balance")
            account.id = account.id or self._store.ids.next(0)
            self._rows.accounts[key] = replace(account, version=account.version + 1)
            self._rows.changed_ms[key] = change.now_ms
        for posting in change.book.postings:
            once = (posting.kind, posting.reference_id)
            _check(once not in self._rows.postings, "ledger_transactions_once")
            self._rows.postings[once] = posting
            self._rows.posted_ms[posting.id] = change.now_ms


class FakeStore:
    """The payment room's database in memory, one transaction at a time."""

    def __init__(self, ids: FakeIds) -> None:
        """Begin empty."""
        self.rows, self.ids = Rows(), ids

    @contextlib.contextmanager
    def transaction(self) -> Iterator[FakeTransaction]:
        """Begin a transaction."""
        yield FakeTransaction(self)

    def look(self, keys: Sequence[IdempotencyKey | None], order_ids: Iterable[int]) -> Look:
        """Read what a batch of payments needs before it may ask others."""
        known = {i: self.rows.orders[i] for i in order_ids if i in self.rows.orders}
        return Look(FakeTransaction(self).stored(keys), known)

    def payment(self, payment_id: int, user_id: int | None) -> Payment | None:
        """Read a payment; ``user_id`` narrows it to one user's."""
        found = self.rows.payments.get(payment_id)
        return None if found is None or user_id not in {None, found.user_id} else _charged(self.rows, found.id)

    def payments_of(self, *, user_id: int | None, order_id: int | None, page: Page) -> list[Payment]:
        """Read a page of payments, newest first, one more than it holds."""
        found = [
            p
            for p in self.rows.payments.values()
            if user_id in {None, p.user_id} and order_id in {None, p.order_id} and _follows(p.id, page)
        ]
        return [_charged(self.rows, p.id) for p in sorted(found, key=lambda p: -p.id)[: page.limit]]

    def refunds_of(self, payment_id: int, page: Page) -> list[Refund]:
        """Read a page of refunds, newest first, one more than it holds."""
        found = [r for r in self.rows.refunds.values() if r.payment_id == payment_id and _follows(r.id, page)]
        return sorted(found, key=lambda r: -r.id)[: page.limit]

    def refund(self, refund_id: int) -> Refund | None:
        """Read a refund."""
        return self.rows.refunds.get(refund_id)

    def trial_balance(self) -> list[TrialBalanceLine]:
        """Add up the ledger by kind of account and currency, in this order."""
        entries = [entry for posting in self.rows.postings.values() for entry in posting.entries]
        lines = []
        for kind, currency in sorted({(e.account.kind, e.account.currency_code) for e in entries}):
            ours = [e for e in entries if (e.account.kind, e.account.currency_code) == (kind, currency)]
            debits, credits_ = -sum(min(e.amount, 0) for e in ours), sum(max(e.amount, 0) for e in ours)
            lines.append(TrialBalanceLine(kind, currency, len({e.account for e in ours}), debits, credits_))
        return lines

    def journal(self, begin_ms: int, end_ms: int) -> Iterator[JournalLine]:
        """Yield the ledger's entries from ``begin_ms`` until before ``end_ms``."""
        for posting in self.rows.postings.values():
            if begin_ms <= (at_ms := self.rows.posted_ms[posting.id]) < end_ms:
                for line, entry in enumerate(posting.entries):
                    yield JournalLine(0, posting.id, at_ms, posting.kind, posting.reference_id, line, entry.account.kind,
                                      entry.account.owner_id, entry.account.currency_code, entry.amount)  # fmt: skip

    def payments_of_refunds(self, refund_ids: Iterable[int]) -> dict[int, int]:
        """Return refund id -> id of its payment, of those that exist."""
        return {i: self.rows.refunds[i].payment_id for i in refund_ids if i in self.rows.refunds}

    def reviews_from(self, page: Page, *, decided: bool) -> list[Review]:
        """Read a page of reviews, oldest first, one more than it holds; with ``decided`` also those."""
        after = page.after_id() or 0
        found = [r for i, r in sorted(self.rows.reviews.items()) if i > after]
        return [r for r in found if decided or r.status != states.REVIEW_DECIDED][: page.limit]

    def payments_of_reviews(self, review_ids: Iterable[int]) -> dict[int, int]:
        """Return review id -> id of its payment, of those that exist."""
        return {i: self.rows.reviews[i].payment_id for i in review_ids if i in self.rows.reviews}

    def has_due(self, now_ms: int) -> bool:
        """Whether an attempt is due."""
        return any(_is_due(a, now_ms) for a in self.rows.attempts.values())

    def adopt(self, owner: int, now_ms: int) -> int:
        """Make due what an instance was asking of providers when it died."""
        left = [
            a
            for a in self.rows.attempts.values()
            if a.owner == owner and not a.settled and a.point is not Point.HELD and a.next_ms > now_ms
        ]
        for attempt in left:
            attempt.next_ms = now_ms
        return len(left)

    def forget(self, before: Mapping[str, int], limit: int) -> int:
        """Delete old callbacks; keys have no times here."""
        old = [name for name, ms in self.rows.callbacks.items() if ms < before.get("callbacks", 0)][:limit]
        for name in old:
            del self.rows.callbacks[name]
        return len(old)

    def balance(self, key: AccountKey) -> tuple[int, int]:
        """Return an account's balance and when it last changed; (0, 0) where there is none."""
        found = self.rows.accounts.get(key)
        return (0, 0) if found is None else (found.balance, self.rows.changed_ms[key])


def _charged(rows: Rows, payment_id: int) -> Payment:
    """A copy of a payment with what was asked of its provider."""
    charge = rows.attempts.get(payment_id)
    is_charge = charge is not None and charge.kind is Kind.CHARGE
    return replace(rows.payments[payment_id], charge=replace(charge) if charge is not None and is_charge else None)


def _is_due(attempt: Attempt, now_ms: int) -> bool:
    return not attempt.settled and attempt.next_ms <= now_ms


def _follows(number: int, page: Page) -> bool:
    after = page.after_id()
    return after is None or number < after


class FakeRisk:
    """Blocks the users in ``blocks``; fails with ``failure``; remembers what it was asked."""

    def __init__(self) -> None:
        """Let everything pass."""
        self.blocks: set[int] = set()
        self.failure: DomainError | None = None
        self.asked: list[list[ToAssess]] = []

    def blocked(self, payments: Sequence[ToAssess], cause: Caller) -> list[bool]:
        """Return for each payment whether it is to be refused."""
        del cause
        self.asked.append(list(payments))
        if self.failure is not None:
            raise self.failure
        return [p.user_id in self.blocks for p in payments]


class FakeOrders:
    """Knows ``orders``; fails with ``failure``; remembers what it was asked."""

    def __init__(self) -> None:
        """Know none."""
        self.orders: dict[int, KnownOrder] = {}
        self.failure: DomainError | None = None
        self.asked: list[list[int]] = []

    def find(self, order_ids: Sequence[int], cause: Caller) -> list[KnownOrder]:
        """Return those of the orders that exist."""
        del cause
        self.asked.append(list(order_ids))
        if self.failure is not None:
            raise self.failure
        return [self.orders[i] for i in order_ids if i in self.orders]


class FakeCache:
    """Remembers payments until it is told to forget them."""

    def __init__(self) -> None:
        """Remember nothing."""
        self.payments: dict[int, Payment | None] = {}

    def get(self, payment_id: int) -> Payment | None:
        """Return a payment, if it is remembered."""
        found = self.payments.get(payment_id)
        return None if found is None else replace(found)

    def fill(self, payment: Payment) -> None:
        """Remember what was read, unless something is there."""
        self.payments.setdefault(payment.id, replace(payment))

    def hold(self, payment_ids: Iterable[int]) -> None:
        """Hold the places of payments that are about to change."""
        self.payments |= dict.fromkeys(payment_ids)

    def put(self, payments: Iterable[Payment]) -> None:
        """Remember what was just committed, unless something newer is there."""
        for payment in payments:
            there = self.payments.get(payment.id)
            if there is None or there.version < payment.version:
                self.payments[payment.id] = replace(payment)


class FakeSavedCards:
    """The cards that users keep, beside the rows of a vault."""

    def __init__(self, vault: FakeCards | None = None) -> None:
        """Keep none."""
        self.vault = vault or FakeCards()
        self.methods: dict[int, SavedPaymentMethod] = {}
        self.saved: dict[tuple[int, int | None], Card] = {}
        """Cards that a test puts here by their name, (user, payment method or None), and that nothing else knows of."""

    def find(self, wanted: Iterable[tuple[int, int | None]]) -> dict[tuple[int, int | None], Card]:
        """Return those of the cards that are kept."""
        named = self.saved | {(m.user_id, m.id): m.card for m in self.methods.values()}
        named |= {(m.user_id, None): m.card for m in self.methods.values() if m.is_default}
        return {name: named[name] for name in wanted if name in named}

    def methods_of(self, user_id: int, page: Page) -> list[SavedPaymentMethod]:
        """Read a page of a user's cards, newest first, one more than it holds."""
        found = [m for m in self.methods.values() if m.user_id == user_id and _follows(m.id, page)]
        return sorted(found, key=lambda m: -m.id)[: page.limit]

    @contextlib.contextmanager
    def transaction(self) -> Iterator[FakeSavedCardsTransaction]:
        """Begin a transaction."""
        yield FakeSavedCardsTransaction(self)

    def sweep(self, after: str, before_ms: int, limit: int) -> str:
        """Look at the ``limit`` cards of the vault behind the token ``after``; forget the old ones that nobody keeps."""
        seen = sorted(token for token in self.vault.rows if token > after)[:limit]
        kept = {m.card.token for m in self.methods.values()}
        for token in set(seen) - kept:
            if self.vault.rows[token].create_ms < before_ms:
                del self.vault.rows[token]
        return seen[-1] if len(seen) == limit else ""


class FakeSavedCardsTransaction:
    """Writes when it is told to; ``commit`` makes it the store's."""

    def __init__(self, store: FakeSavedCards) -> None:
        """Begin."""
        self._store, self._methods, self._forgotten = store, dict(store.methods), set[str]()

    def purses(self, user_ids: Iterable[int]) -> dict[int, Purse]:
        """Return the cards of users; who has none has an empty purse."""
        return {user: Purse(user, [m for m in self._methods.values() if m.user_id == user]) for user in user_ids}

    def in_vault(self, tokens: AbstractSet[str]) -> set[str]:
        """Return those of the cards that the vault has."""
        return set(tokens) & self._store.vault.rows.keys()

    def held_beside(self, tokens: AbstractSet[str], user_ids: AbstractSet[int]) -> set[str]:
        """Return those of the tokens that users other than ``user_ids`` keep."""
        return set(tokens) & {m.card.token for m in self._methods.values() if m.user_id not in user_ids}

    def write(self, purses: Iterable[Purse], forgotten: AbstractSet[str]) -> None:
        """Write what changed, or break as a database would."""
        for purse in purses:
            for gone in purse.removed:
                del self._methods[gone.id]
            self._methods |= {m.id: m for m in (*purse.changed, *purse.added)}
        kept = list(self._methods.values())
        _check(len({(m.user_id, m.card.token) for m in kept}) == len(kept), "payment_methods_once")
        defaults = [m.user_id for m in kept if m.is_default]
        _check(len(set(defaults)) == len(defaults), "payment_methods.default_user_id")
        self._forgotten |= forgotten

    def commit(self) -> None:
        """Make it the store's."""
        self._store.methods = self._methods
        for token in self._forgotten:
            self._store.vault.rows.pop(token, None)


class FakeAlarm:
    """Remembers what operators were told."""

    def __init__(self) -> None:
        """Remember nothing."""
        self.told: list[tuple[str, str]] = []

    def security(self, event: str, **facts: str | int) -> None:
        """Someone tried what nobody may."""
        del facts
        self.told.append(("security", event))

    def alert(self, event: str, **facts: str | int) -> None:
        """Something needs a person."""
        del facts
        self.told.append(("alert", event))


def _payment_text(payment: Payment) -> bytes:
    return f"{payment.payment_no} {payment.status} {payment.captured} {payment.refunded}".encode()


def _balance_text(key: AccountKey, balance: int, update_ms: int) -> bytes:
    return f"{key.owner_id} {balance} {key.currency_code} {update_ms}".encode()


@dataclass
class World:
    """Ports over fakes, each within reach of the test."""

    ids: FakeIds = field(default_factory=FakeIds)
    clock: FakeClock = field(default_factory=FakeClock)
    risk: FakeRisk = field(default_factory=FakeRisk)
    orders: FakeOrders = field(default_factory=FakeOrders)
    cache: FakeCache = field(default_factory=FakeCache)
    commits: list[None] = field(default_factory=list)
    cards: FakeSavedCards = field(default_factory=FakeSavedCards)
    alarm: FakeAlarm = field(default_factory=FakeAlarm)
    providers: dict[Method, Provider] = field(default_factory=dict)
    reached: list[tuple[str, str]] = field(default_factory=list)
    files: FakeFiles = field(default_factory=FakeFiles)

    def __post_init__(self) -> None:
        """Put them together."""
        self.store = FakeStore(self.ids)
        self.ports = Ports(
            store=self.store,
            risk=self.risk,
            orders=self.orders,
            cache=self.cache,
            render=RENDER,
            ids=self.ids,
            clock=self.clock,
            business=business_reasons(),
            merchant_id=1,
            committed=lambda: self.commits.append(None),
            outside=Outside(
                providers=self.providers,
                cards=self.cards,
                vault=CardVault(self.cards.vault, FakeKeys()),
                cvvs=MemoryCvvRelay(SystemClock()),
                files=self.files,
                jitter=lambda: 1.0,
                instance=1,
                pay_window_ms=900_000,
                capture_window_ms=604_800_000,
            ),
            bills=FakeBills(self.store),
            alarm=self.alarm,
            reach=lambda point, label: self.reached.append((point, label)),
        )


RENDER = Render(
    _payment_text,
    _payment_text,
    _payment_text,
    _payment_text,
    lambda payment, refund: _payment_text(payment) + f" {refund.refund_no}".encode(),
    _balance_text,
    _balance_text,
    lambda review: f"{review.id} {review.status} {review.decision}".encode(),
)
"""Answers that a test can read."""
