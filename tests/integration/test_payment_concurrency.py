"""Two payment processes on one SQLite file: nothing is lost, nothing is doubled, the same key gets the same bytes."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from services.kernel.caller import Caller
from services.kernel.clock import SystemClock
from services.kernel.idempotency import Answer, IdempotencyKey, Scope
from services.kernel.ids import IdMaker
from services.kernel.money import Money
from services.kernel.pages import Page
from services.payment import audit, usecases
from services.payment.app import RENDER
from services.payment.domain import AccountKey, KnownOrder, Method
from services.payment.domain.ledger import USER_BALANCE
from services.payment.store import SqlStore
from services.platform import migrations
from services.platform.batcher import Batcher
from services.platform.database import Database
from tests.fakes.payment import World

USER, ORDERS = 7, 1_000
PROCESSES = 2


class Instance:
    """One payment process without its sockets: store, use cases and Batcher over the shared file."""

    def __init__(self, url: str, number: int) -> None:
        """Be instance ``number``."""
        self.database = Database(url)
        clock = SystemClock()
        self.ids = IdMaker(clock, number)
        self.ports = replace(World().ports, store=SqlStore(self.database, self.ids), render=RENDER, ids=self.ids,
                             clock=clock)  # fmt: skip
        names = ("create_payments", "refund_payments", "top_up_balances")
        self.batcher = Batcher({name: partial(getattr(usecases, name), self.ports) for name in names})
        self.batcher.start()

    def pay(self, order_ids: Sequence[int], prefix: str, size: int = 25) -> list[Answer]:
        """Pay orders from several threads at once; the key of each is ``prefix`` and the order."""
        commands = [
            usecases.CreatePayment(
                caller(), key("CreatePayment", f"{prefix}-{n:08}"), n, Method.BALANCE, None, self.ids.next(0)
            )
            for n in order_ids
        ]
        return self.submit("create_payments", commands, size)

    def refund(self, payment_ids: Sequence[int], amount: int, prefix: str) -> list[Answer]:
        """Give back a part of payments."""
        commands = [
            usecases.RefundPayment(caller(), key("RefundPayment", f"{prefix}-{n}"), n, Money("CNY", amount), "")
            for n in payment_ids
        ]
        return self.submit("refund_payments", commands, 10)

    def submit(self, kind: str, commands: Sequence[Any], size: int) -> list[Answer]:
        """Hand commands to the Batcher from four threads, ``size`` at a time."""
        groups = [commands[i : i + size] for i in range(0, len(commands), size)]
        with ThreadPoolExecutor(4) as pool:
            return [o for some in pool.map(lambda group: self.batcher.submit_all(kind, group), groups) for o in some]

    def stop(self) -> None:
        """End it."""
        self.batcher.stop()
        self.database.stop()


def caller() -> Caller:
    """The one user of these tests, with time enough."""
    return Caller(USER, frozenset(), "s1", time.monotonic() + 60)


def key(method: str, text: str) -> IdempotencyKey:
    """A key of the user's."""
    return IdempotencyKey(Scope(USER, method, text), b"f" * 32)


def run(url: str, number: int, begin_at: float, work: str, *args: Any) -> list[Answer]:  # noqa: ANN401 - handed on
    """In a process of its own: make an instance, wait for the others, do the work."""
    instance = Instance(url, number)
    time.sleep(max(0.0, begin_at - time.time()))
    try:
        done: list[Answer] = getattr(instance, work)(*args)
        return done
    finally:
        instance.stop()


AtOnce = Callable[..., list[list[Answer]]]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """A migrated file with orders that are known and a balance that pays for them all; clean at the end."""
    url = f"sqlite:///{tmp_path / 'payment.db'}"
    migrations.upgrade("payment", url)
    first = Instance(url, 1)
    later = int((time.time() + 3600) * 1000)
    orders = [KnownOrder(n, USER, Money("CNY", 100), "pending", later, 1) for n in range(1, ORDERS + 1)]
    with first.ports.store.transaction() as tx:
        tx.know_orders(orders)
        tx.commit()
    amount = Money("CNY", 100 * ORDERS)
    top_up = usecases.TopUpBalance(caller(), key("TopUpBalance", "top-up-1"), USER, amount)
    assert isinstance(first.submit("top_up_balances", [top_up], 1)[0], bytes)
    first.stop()
    made = Database(url)
    yield made
    with made.read() as connection:
        findings = list(audit.invariants(connection, int(time.time() * 1000), settled=False))
    made.stop()
    assert [breach for finding in findings for breach in finding.breaches] == []
    assert {f.invariant: f.examined for f in findings if f.invariant in {"I1", "I10", "I12"}}["I1"] > 1


@pytest.fixture
def at_once(database: Database) -> Iterator[AtOnce]:
    """Runs work in two processes at once; returns the answers of each."""
    url = database.url.render_as_string(hide_password=False)
    with ProcessPoolExecutor(PROCESSES, mp_context=multiprocessing.get_context("spawn")) as pool:

        def both(work: str, *of_each: tuple[Any, ...]) -> list[list[Answer]]:
            begin_at = time.time() + 4
            running = [pool.submit(run, url, n, begin_at, work, *args) for n, args in enumerate(of_each, 2)]
            return [future.result(120) for future in running]

        yield both


def balance(database: Database) -> int:
    """What the user has left."""
    return SqlStore(database, IdMaker(SystemClock(), 1)).balance(AccountKey(USER_BALANCE, USER, "CNY"))[0]


def test_payments_of_one_account_from_two_processes_are_all_booked(database: Database, at_once: AtOnce) -> None:
    """1,000 payments, 500 from each: every one has its bytes, and the balance ends at zero."""
    one, two = at_once("pay", (range(1, 501), "one"), (range(501, 1001), "two"))
    answers = one + two
    assert [a for a in answers if not isinstance(a, bytes)] == []
    assert len(set(answers)) == ORDERS
    assert balance(database) == 0


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
    instance = Instance(database.url.render_as_string(hide_password=False), 1)
    instance.pay(range(1, 21), "paid")
    paid = [p.id for p in instance.ports.store.payments_of(user_id=USER, order_id=None, page=Page(100, ""))]
    instance.stop()
    one, two = at_once("refund", (paid, 60, "one"), (paid, 60, "two"))
    for first, second in zip(one, two, strict=True):
        assert sorted(isinstance(answer, bytes) for answer in (first, second)) == [False, True]
        [lost] = [answer for answer in (first, second) if not isinstance(answer, bytes)]
        assert lost.reason == "REFUND_EXCEEDS_CAPTURED"
    assert balance(database) == 100 * ORDERS - 20 * 40
