"""Two payment processes on one database: nothing is lost, nothing is doubled, the same key gets the same bytes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from services.kernel.caller import Caller
from services.kernel.clock import SystemClock
from services.kernel.errors import DomainError
from services.kernel.idempotency import Answer, IdempotencyKey, Scope
from services.kernel.ids import IdMaker
from services.kernel.money import Money
from services.kernel.pages import Page
from services.payment import audit, usecases
from services.payment.app import RENDER
from services.payment.domain import AccountKey, Attempt, Kind, KnownOrder, Method
from services.payment.domain.card import Brand, Card, Expiry
from services.payment.domain.ledger import MERCHANT_SETTLEMENT, USER_BALANCE
from services.payment.ports.provider import Charged, Notice, Phase, Verdict
from services.payment.store import SqlStore
from services.platform.audit import Finding
from services.platform.batcher import Batcher
from services.platform.database import Database
from tests.fakes.payment import FakeSavedCards, World
from tests.fakes.provider import FakeProvider
from tests.integration.engines import Engines
from tests.integration.processes import Processes, together

USER, ORDERS = 7, 1_000
CROWD = range(100, 150)
LATER_MS = int((time.time() + 3600) * 1000)


class Instance:
    """One payment process without its sockets: store, use cases and Batcher over the shared database.

    What is to be raced has a method here, which submits its commands; a test hands arguments of it to ``at_once``.
    """

    def __init__(self, url: str, number: int) -> None:
        """Be instance ``number``."""
        self.database = Database(url)
        clock = SystemClock()
        self.ids = IdMaker(clock, number)
        self.ports = replace(World().ports, store=SqlStore(self.database, self.ids), render=RENDER, ids=self.ids,
                             clock=clock)  # fmt: skip
        outside = self.ports.outside
        providers = {method: FakeProvider(method, clock) for method in (Method.ALIPAY, Method.BANK_CARD)}
        self.ports = replace(self.ports, outside=replace(outside, providers=providers, cards=Wallet()))
        names = ("create_payments", "refund_payments", "top_up_balances", "capture_payments", "void_payments", "settle",
                 "take_notices")  # fmt: skip
        self.batcher = Batcher({name: partial(getattr(usecases, name), self.ports) for name in names})
        self.batcher.start()

    def pay(
        self, order_ids: Sequence[int], prefix: str, size: int = 25, users: Sequence[int] = (USER,)
    ) -> list[Answer]:
        """Pay orders, each by its user, from several threads at once; the key of each is ``prefix`` and the order."""
        return self.submit("create_payments", [self._payment(n, prefix, user_of(n, users)) for n in order_ids], size)

    def pay_again(self, order_id: int, prefix: str, clients: int) -> list[Answer]:
        """Pay an order as often as there are clients, all at once and under one key."""
        return self.submit("create_payments", [self._payment(order_id, prefix) for _ in range(clients)], 1, clients)

    def _payment(self, order_id: int, prefix: str, user: int = USER) -> usecases.CreatePayment:
        named = key("CreatePayment", f"{prefix}-{order_id:08}", user)
        return usecases.CreatePayment(caller(user), named, order_id, Method.BALANCE, None, self.ids.next(0))

    def prepare(self, order_ids: Sequence[int], users: Sequence[int], funds: int) -> None:
        """Make orders over 100 known, each of its user, and fill the users' balances."""
        orders = [KnownOrder(n, user_of(n, users), Money("CNY", 100), "pending", LATER_MS, 1) for n in order_ids]
        with self.ports.store.transaction() as tx:
            tx.know_orders(orders)
            tx.commit()
        filled = [
            usecases.TopUpBalance(caller(), key("TopUpBalance", f"top-up-{user}"), user, Money("CNY", funds))
            for user in users
        ]
        assert all(isinstance(answer, bytes) for answer in self.submit("top_up_balances", filled, 50))

    def refund(self, payment_ids: Sequence[int], amount: int, prefix: str) -> list[Answer]:
        """Give back a part of payments."""
        commands = [
            usecases.RefundPayment(caller(), key("RefundPayment", f"{prefix}-{n}"), n, Money("CNY", amount), "")
            for n in payment_ids
        ]
        return self.submit("refund_payments", commands, 10)

    def begin(self, order_ids: Sequence[int], method: Method, said: Charged) -> list[Attempt]:
        """Pay orders through a provider, which says the same of each."""
        how = usecases.How(capture=False) if method is Method.BANK_CARD else usecases.How()
        commands = [replace(self._payment(n, "begun"), method=method, how=how) for n in order_ids]
        works: list[Any] = self.submit("create_payments", commands, 50)
        attempts = [work.work for work in works]
        self.submit("settle", [usecases.Said(attempt, charged=said) for attempt in attempts], 50)
        return attempts

    def capture(self, payment_ids: Sequence[int]) -> list[Answer]:
        """Begin to capture payments."""
        named = [(n, key("CapturePayment", f"capture-{n}")) for n in payment_ids]
        return self.submit("capture_payments", [usecases.CapturePayment(caller(), k, n, None) for n, k in named], 5)

    def void(self, payment_ids: Sequence[int]) -> list[Answer]:
        """Begin to void payments."""
        named = [(n, key("VoidPayment", f"void-{n}")) for n in payment_ids]
        return self.submit("void_payments", [usecases.VoidPayment(caller(), k, n) for n, k in named], 5)

    def either(self, work: str, payment_ids: Sequence[int]) -> list[Answer]:
        """Do one or the other."""
        done: list[Answer] = getattr(self, work)(payment_ids)
        return done

    def told(self, notice: Notice, times: int) -> list[Answer]:
        """Be called back about one thing as often as ``times``, all at once."""
        return self.submit("take_notices", [usecases.Told(Method.ALIPAY, notice)] * times, 1, times)

    def submit(self, kind: str, commands: Sequence[Any], size: int, threads: int = 4) -> list[Answer]:
        """Hand commands to the Batcher from several threads, ``size`` at a time."""
        groups = [commands[i : i + size] for i in range(0, len(commands), size)]
        with ThreadPoolExecutor(threads) as pool:
            return [o for some in pool.map(lambda group: self.batcher.submit_all(kind, group), groups) for o in some]

    def stop(self) -> None:
        """End it."""
        self.batcher.stop()
        self.database.stop()


class Wallet(FakeSavedCards):
    """Everybody has a card."""

    def find(self, wanted: Iterable[tuple[int, int | None]]) -> dict[tuple[int, int | None], Card]:
        """Return the same card for all."""
        return dict.fromkeys(wanted, Card("card_x", 1, Brand.VISA, "424242", "4242", Expiry(2034, 12)))


def caller(user: int = USER) -> Caller:
    """A user with time enough."""
    return Caller(user, frozenset(), "s1", time.monotonic() + 60)


def key(method: str, text: str, user: int = USER) -> IdempotencyKey:
    """A key of a user's."""
    return IdempotencyKey(Scope(user, method, text), b"f" * 32)


def user_of(order_id: int, users: Sequence[int]) -> int:
    """Whose order it is."""
    return users[order_id % len(users)]


def run(url: str, number: int, work: str, *args: Any) -> list[Answer]:  # noqa: ANN401 - handed on
    """In a process of its own: make an instance, wait for the other, do the work."""
    instance = Instance(url, number)
    try:
        together()
        done: list[Answer] = getattr(instance, work)(*args)
        return done
    finally:
        instance.stop()


AtOnce = Callable[..., list[list[Answer]]]


@pytest.fixture
def database(engine: str, engines: Engines) -> Iterator[Database]:
    """A database with orders that are known and a balance that pays for them all; clean at the end."""
    made = Database(engines.migrated(engine, "payment"))
    first = Instance(url_of(made), 1)
    first.prepare(range(1, ORDERS + 1), [USER], 100 * ORDERS)
    first.stop()
    yield made
    found = audited(made)
    made.stop()
    assert [breach for finding in found for breach in finding.breaches] == []
    looked = {"ledger transactions", "account balances", "links of the ledger chain", "steps of payments"}
    assert {finding.what for finding in found if finding.examined} >= looked


@pytest.fixture
def at_once(database: Database, processes: Processes) -> AtOnce:
    """Has two processes do work of an Instance at once; returns the answers of each."""

    def both(work: str, *of_each: tuple[Any, ...]) -> list[list[Answer]]:
        return processes(run, *((url_of(database), number, work, *args) for number, args in enumerate(of_each, 2)))

    return both


def url_of(database: Database) -> str:
    """Where another process finds it."""
    return database.url.render_as_string(hide_password=False)


def audited(database: Database) -> list[Finding]:
    """What `paymesh verify` finds: sums, balances, the chain, histories."""
    with database.read() as connection:
        return list(audit.invariants(connection, int(time.time() * 1000), settled=False))


def balance(database: Database, user: int = USER, kind: str = USER_BALANCE) -> int:
    """What an account holds."""
    return SqlStore(database, IdMaker(SystemClock(), 1)).balance(AccountKey(kind, user, "CNY"))[0]


def test_payments_of_one_account_from_two_processes_are_all_booked(database: Database, at_once: AtOnce) -> None:
    """1,000 payments, 500 from each: every one has its bytes, and the balance ends at zero."""
    one, two = at_once("pay", (range(1, 501), "one"), (range(501, 1001), "two"))
    answers = one + two
    assert [a for a in answers if not isinstance(a, bytes)] == []
    assert len(set(answers)) == ORDERS
    assert balance(database) == 0


def test_hot_merchant_gets_exactly_what_a_crowd_pays(database: Database, at_once: AtOnce) -> None:
    """1,000 payments of 50 users to one merchant, 500 from each process, each user in both."""
    orders = range(10_001, 10_001 + ORDERS)
    first = Instance(url_of(database), 1)
    first.prepare(orders, CROWD, 100 * ORDERS // len(CROWD))
    first.stop()
    one, two = at_once("pay", (orders[::2], "one", 25, CROWD), (orders[1::2], "two", 25, CROWD))
    assert [a for a in one + two if not isinstance(a, bytes)] == []
    assert balance(database, 1, MERCHANT_SETTLEMENT) == 100 * ORDERS
    assert {balance(database, user) for user in CROWD} == {0}


def test_balance_pays_for_as_many_as_it_can_and_not_for_one_more(database: Database, at_once: AtOnce) -> None:
    """1,000 payments of a user who has enough for 700: the others are refused, and nothing is overdrawn."""
    orders, poor = range(20_001, 20_001 + ORDERS), [9]
    first = Instance(url_of(database), 1)
    first.prepare(orders, poor, 100 * 700 + 99)
    first.stop()
    one, two = at_once("pay", (orders[:500], "one", 25, poor), (orders[500:], "two", 25, poor))
    refused = [answer.reason for answer in one + two if not isinstance(answer, bytes)]
    assert refused == ["BALANCE_INSUFFICIENT"] * 300
    assert balance(database, poor[0]) == 99
    assert balance(database, 1, MERCHANT_SETTLEMENT) == 100 * 700


def test_audit_of_a_database_in_use_finds_nothing(database: Database, at_once: AtOnce) -> None:
    """What is read while two processes pay is one state, not a mixture of several."""
    with ThreadPoolExecutor(1) as pool:
        paying = pool.submit(at_once, "pay", (range(1, 501), "one", 1), (range(501, 1001), "two", 1))
        seen = []
        while not paying.done():
            seen.append(audited(database))
    assert {breach for found in seen for finding in found for breach in finding.breaches} == set()
    entries = [finding.examined for found in seen for finding in found if finding.invariant == "I1"]
    assert len(set(entries)) > 1, "nothing happened between the audits"
    assert len(paying.result()[0]) == 500


def test_twenty_clients_with_one_key_make_one_payment(database: Database, at_once: AtOnce) -> None:
    """Ten in each process, all at once, for five keys: one payment each, and the same bytes for everybody."""
    for order_id in range(1, 6):
        one, two = at_once("pay_again", (order_id, "again", 10), (order_id, "again", 10))
        assert len(one + two) == 20
        [answer] = set(one + two)
        assert isinstance(answer, bytes)
    assert balance(database) == 100 * (ORDERS - 5)


def test_same_keys_from_two_processes_get_the_same_bytes(database: Database, at_once: AtOnce) -> None:
    """40 keys, both processes, one payment each."""
    one, two = at_once("pay", (range(1, 41), "same", 1), (range(1, 41), "same", 1))
    assert one == two
    assert all(isinstance(answer, bytes) for answer in one)
    assert balance(database) == 100 * (ORDERS - 40)


def test_same_orders_from_two_processes_are_paid_once(database: Database, at_once: AtOnce) -> None:
    """40 orders under two keys each: one wins, the other is told which."""
    one, two = at_once("pay", (range(1, 41), "one", 1), (range(1, 41), "two", 1))
    for first, second in zip(one, two, strict=True):
        won, lost = sorted((first, second), key=lambda answer: not isinstance(answer, bytes))
        assert isinstance(won, bytes)
        assert not isinstance(lost, bytes)
        assert lost.reason == "ORDER_HAS_LIVE_PAYMENT"
    assert balance(database) == 100 * (ORDERS - 40)


def test_refunds_from_two_processes_never_exceed_what_was_captured(database: Database, at_once: AtOnce) -> None:
    """Two of 60 on 100 each: one of them is refused, whoever comes first."""
    instance = Instance(url_of(database), 1)
    instance.pay(range(1, 21), "paid")
    paid = [p.id for p in instance.ports.store.payments_of(user_id=USER, order_id=None, page=Page(100, ""))]
    instance.stop()
    one, two = at_once("refund", (paid, 60, "one"), (paid, 60, "two"))
    for first, second in zip(one, two, strict=True):
        assert sorted(isinstance(answer, bytes) for answer in (first, second)) == [False, True]
        [lost] = [answer for answer in (first, second) if not isinstance(answer, bytes)]
        assert lost.reason == "REFUND_EXCEEDS_CAPTURED"
    assert balance(database) == 100 * ORDERS - 20 * 40


def test_capture_and_void_at_once_have_one_winner(database: Database, at_once: AtOnce) -> None:
    """Of each authorized payment one process begins the capture or the other the void; the second is refused."""
    instance = Instance(url_of(database), 1)
    held = Charged(Verdict.DONE, Phase.AUTHORIZED, "p-1")
    ids = [attempt.payment_id for attempt in instance.begin(range(1, 31), Method.BANK_CARD, held)]
    one, two = at_once("either", ("capture", ids), ("void", ids))
    for first, second in zip(one, two, strict=True):
        [lost] = [answer for answer in (first, second) if isinstance(answer, DomainError)]
        assert lost.reason == "PAYMENT_STATUS_CONFLICT"
    with instance.ports.store.transaction() as tx:
        begun = [a for a in tx.attempts(ids).values() if a.kind in {Kind.CAPTURE, Kind.VOID}]
    assert sorted(a.payment_id for a in begun) == ids
    _see_through(instance, begun)
    instance.stop()
    assert balance(database, 1, MERCHANT_SETTLEMENT) == 100 * sum(a.kind is Kind.CAPTURE for a in begun)


def _see_through(instance: Instance, begun: Sequence[Attempt]) -> None:
    """Let the provider do what was begun, so that everything is at rest when it is audited."""
    phases = {Kind.CAPTURE: Phase.CAPTURED, Kind.VOID: Phase.CLOSED}
    said = [usecases.Said(a, charged=Charged(Verdict.DONE, phases[a.kind], "p-1", amount=a.amount)) for a in begun]
    instance.submit("settle", said, 50)


def test_fifty_callbacks_at_once_have_one_effect(database: Database, at_once: AtOnce) -> None:
    """Twenty-five in each process, of one notice: the money is booked once, and everybody is answered that it was taken."""
    instance = Instance(url_of(database), 1)
    waits = Charged(Verdict.PENDING, Phase.WAITING, action={"qr_code": "https://qr"})
    [attempt] = instance.begin([1], Method.ALIPAY, waits)
    paid = Charged(Verdict.DONE, Phase.CAPTURED, "a-1", amount=attempt.amount)
    notice = Notice("notice-1", attempt.request_id, charged=paid)
    one, two = at_once("told", (notice, 25), (notice, 25))
    assert one + two == [None] * 50
    payment = instance.ports.store.payment(attempt.payment_id, None)
    instance.stop()
    assert payment is not None
    assert (payment.status, payment.captured, payment.events) == ("success", 100, 2)
    assert balance(database, 1, MERCHANT_SETTLEMENT) == 100
