"""Processes that can die: the real use cases of a room over the real store, and what a process holds in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from services.kernel.errors import DomainError
from services.kernel.idempotency import InFlight
from services.kernel.ids import IdMaker
from services.order import mapping as order_mapping
from services.order import ports as order_ports
from services.order import store as order_store
from services.order import usecases as order_usecases
from services.payment import mapping, usecases
from services.payment.adapters.vault import CardVault, MemoryCvvRelay
from services.payment.domain import Attempt, KnownOrder, Method, Payment
from services.payment.ports import Outside, Ports, Render, ToAssess
from services.payment.ports.provider import Callback
from services.payment.store import SqlBills, SqlStore, tables
from services.payment.store.sql import SqlTransaction
from services.platform.batcher import Batcher
from services.platform.idempotency import business_reasons
from tests.fakes.bills import FakeFiles
from tests.fakes.cards import FakeCards, FakeKeys
from tests.fakes.order import FakeCache as FakeOrderCache

if TYPE_CHECKING:
    from services.kernel.caller import Caller
    from services.platform.database import Database
    from tests.simulation.world import Sim

Reply = Callable[[Any], None]
Reach = Callable[[str, str], None]

RENDER = Render(
    mapping.created,
    mapping.captured,
    mapping.voided,
    mapping.closed,
    mapping.refunded,
    mapping.topped_up,
    mapping.withdrawn,
    mapping.decided,
)
WRITES = (
    usecases.create_payments,
    usecases.capture_payments,
    usecases.void_payments,
    usecases.close_payments,
    usecases.refund_payments,
    usecases.settle,
    usecases.answer_open,
    usecases.take_up,
    usecases.take_notices,
    usecases.top_up_balances,
    usecases.withdraw_balances,
    usecases.know_orders,
    usecases.refund_rejected,
)
ORDER_WRITES = (
    order_usecases.create_orders,
    order_usecases.set_order_statuses,
    order_usecases.expire_orders,
    order_usecases.pay_orders,
    order_usecases.refund_orders,
    order_usecases.set_stocks,
)
AT_ONCE_MAX = 50
POINTS = ("P2", "P3", "P4", "P5", "P6", "P7", "P9", "P10", "P12", "P15", "P16", "P17", "P18", "commit", "committed")
"""Where processes die: the kill points that are reached in one process, and right before and after every commit."""
_WAITING = {
    room: sa.select(outbox).where(outbox.c.published_ms.is_(None)).order_by(outbox.c.id)
    for room, outbox in {"payment": tables.outbox, "order": order_store.outbox}.items()
}


class Crash(BaseException):
    """The process is killed here: no handler of Exception sees it, transactions roll back."""


@dataclass(slots=True)
class Doom:
    """Where a process is to die: at the n-th passing of a point, "" for any; 0: nowhere."""

    passes: int = 0
    point: str = ""


@dataclass(slots=True)
class Job:
    """A command that waits for its batch."""

    kind: str
    command: object
    resolve: Reply
    deadline: float = float("inf")


class PaymentTransaction(SqlTransaction):
    """The real transaction; the process may die right before and right after its commit."""

    reach: Reach

    def commit(self) -> None:
        """Make it durable."""
        self.reach("commit", "payment")
        super().commit()
        self.reach("committed", "payment")


class OrderTransaction(order_store.SqlTransaction):
    """The same of the order room."""

    reach: Reach

    def commit(self) -> None:
        """Make it durable."""
        self.reach("commit", "order")
        super().commit()
        self.reach("committed", "order")


class PaymentStore(SqlStore):
    """The real store, over transactions of a kind that a planted bug may choose."""

    def __init__(self, database: Database, ids: IdMaker, kind: type[PaymentTransaction], reach: Reach) -> None:
        """Make transactions of ``kind``."""
        super().__init__(database, ids)
        self._kind, self._reach = kind, reach

    @contextmanager
    def transaction(self) -> Iterator[PaymentTransaction]:
        """Begin a transaction."""
        with self._database.write() as connection:
            tx = self._kind(connection, self._ids)
            tx.reach = self._reach
            yield tx


class OrderStore(order_store.SqlStore):
    """The same of the order room."""

    def __init__(self, database: Database, ids: IdMaker, kind: type[OrderTransaction], reach: Reach) -> None:
        """Make transactions of ``kind``."""
        super().__init__(database, ids)
        self._kind, self._reach = kind, reach

    @contextmanager
    def transaction(self) -> Iterator[OrderTransaction]:
        """Begin a transaction."""
        with self._database.write() as connection:
            tx = self._kind(connection, self._ids)
            tx.reach = self._reach
            yield tx


class Process:
    """One instance of a service. ``life`` counts its starts: what was for an earlier one finds nobody."""

    room = ""
    outbox: sa.Table

    def __init__(self, sim: Sim, instance: int) -> None:
        """Start."""
        self.sim, self.instance, self.name = sim, instance, f"{self.room}-{instance}"
        self.rng = sim.plan.noise(self.name)
        self.life, self.up = 0, False
        self.doomed = Doom()
        self.database = sim.stage.databases[self.room]
        self.restart()

    def restart(self) -> None:
        """Begin anew with nothing but the database."""
        self.life, self.up, self.doomed = self.life + 1, True, Doom()
        self.queue: list[Job] = []
        self._promises: dict[object, Callable[[], None]] = {}
        self._waits = self._nudged = False
        self.ids = IdMaker(self.sim.clock, self.instance)
        self.handlers = self.build()
        self.batcher = Batcher(self.handlers)
        self.nudge()

    def build(self) -> dict[str, Callable[[Sequence[Any]], Sequence[Any]]]:
        """Make the ports and return the use cases by the kind that they are submitted as."""
        raise AssertionError

    def guarded(self, act: Callable[[], str | None]) -> Callable[[], str | None]:
        """Make an act of this life: nobody does it after its end, and whoever dies in it is dead."""
        life = self.life

        def guarded() -> str | None:
            if not self.up or self.life != life:
                return "gone"
            try:
                return act()
            except Crash as crash:
                self.die()
                self.sim.met[f"died at {str(crash).partition('.')[0]}"] += 1
                return f"died at {crash}"

        return guarded

    def reach(self, point: str, label: str) -> None:
        """Die here if this is where it was to be."""
        if self.doomed.passes and self.doomed.point in {"", point}:
            self.doomed.passes -= 1
            if not self.doomed.passes:
                raise Crash(f"{point}.{label}")

    def die(self) -> None:
        """Lose everything in memory, and be started again by the supervisor."""
        self.up = False
        promises, self._promises = self._promises, {}
        for lost in promises.values():
            lost()
        self.sim.at(self.rng.choice((0, 10, 900)), f"{self.name} restarts", self._reborn)

    def _reborn(self) -> None:
        if not self.up:
            self.restart()

    def promised(self, reply: Reply, lost: Callable[[], None]) -> Reply:
        """Return ``reply`` as this life's: should the process die first, ``lost`` is told."""
        promise = object()
        self._promises[promise] = lost

        def once(outcome: object) -> None:
            self._promises.pop(promise, None)
            reply(outcome)

        return once

    def submit(self, kind: str, command: object, resolve: Reply) -> None:
        """Stand in line for the next batch."""
        if not self.up:
            resolve(DomainError("UNAVAILABLE"))
            return
        self.queue.append(Job(kind, command, resolve))
        if not self._waits:
            self._waits = True
            self.sim.at(self.rng.choice((0, 0, 1, 5)), f"{self.name} batch", self.guarded(self.batch))

    def batch(self) -> str:
        """Run everything that waits, as the Batcher does: batches of one kind, answers when all are done."""
        jobs, self.queue, self._waits = self.queue, [], False
        done: list[tuple[Job, Any]] = []
        for kind, some in groupby(jobs, key=lambda job: job.kind):
            run = list(some)
            done += zip(run, self.batcher._run_handler(kind, run), strict=True)  # type: ignore[arg-type] # what it reads of items
        for job, outcome in done:
            if isinstance(outcome, Exception) and not isinstance(outcome, DomainError):
                self.sim.breach("fault", f"{job.kind} broke: {outcome!r:.300}")
            job.resolve(outcome)
        return " ".join(f"{job.kind}={said(outcome)}" for job, outcome in done)

    def nudge(self) -> None:
        """Something may be there to publish."""
        if not self._nudged:
            self._nudged = True
            self.sim.at(self.rng.choice((1, 50, 300)), f"{self.name} relay", self.guarded(self.relay))

    def relay(self) -> str:
        """Publish what is not marked as published, then mark it."""
        self._nudged = False
        with self.database.read() as connection:
            found = connection.execute(_WAITING[self.room]).all()
        rows = sorted(found, key=lambda row: row.version)
        for step in (self._mark, self._publish) if self.sim.bug.marks_first else (self._publish, self._mark):
            if rows:
                step(rows)
                self.reach("P12", self.room)
        return f"{len(rows)} events"

    def _publish(self, rows: Sequence[sa.Row[Any]]) -> None:
        for row in rows:
            self.sim.broker.publish(row.topic, f"{self.room}-{row.id}", row.payload)

    def _mark(self, rows: Sequence[sa.Row[Any]]) -> None:
        o = self.outbox.c
        with self.database.write() as connection:
            marked = sa.update(self.outbox).where(o.id.in_([row.id for row in rows]))
            connection.execute(marked.values(published_ms=self.sim.clock.now_ms(), broker_id="sim"))
            connection.commit()


@dataclass(slots=True)
class Running:
    """Work that the pipeline of a process sees through, and who waits for it."""

    attempt: Attempt
    waiters: list[Waiter] = field(default_factory=list)


@dataclass(slots=True)
class Waiter:
    """Somebody who waits, until he is answered."""

    reply: Reply
    done: bool = False

    def answer(self, answer: object) -> None:
        """Answer him, once."""
        if not self.done:
            self.done = True
            self.reply(answer)


class PaymentProcess(Process):
    """An instance of the payment service."""

    room = "payment"
    outbox = tables.outbox

    def build(self) -> dict[str, Callable[[Sequence[Any]], Sequence[Any]]]:
        """Make the ports anew; what was asked of providers by the life before is taken up."""
        sim = self.sim
        store = PaymentStore(self.database, self.ids, sim.bug.transaction, self.reach)
        self.ids.pass_over(store.last_id())
        self.running: dict[int, Running] = {}
        self.cvvs = MemoryCvvRelay(sim.clock)
        outside = Outside(
            providers=dict(sim.providers),
            cards=sim.cards,
            vault=CardVault(FakeCards(), FakeKeys()),
            cvvs=self.cvvs,
            files=FakeFiles(),
            jitter=lambda: self.rng.uniform(0.8, 1.2),
            instance=self.instance,
            pay_window_ms=120_000,
            capture_window_ms=3_600_000,
        )
        self.ports = Ports(
            store=store,
            risk=self,
            orders=self,
            cache=sim.cache,
            render=RENDER,
            ids=self.ids,
            clock=sim.clock,
            business=business_reasons(),
            merchant_id=1,
            committed=self.nudge,
            outside=outside,
            bills=SqlBills(self.database),
            alarm=sim.alarm,
            reach=self.reach,
        )
        store.adopt(self.instance, sim.clock.now_ms())
        return {write.__name__: partial(write, self.ports) for write in WRITES}

    # -- risk and order, as this process asks them

    def blocked(self, payments: Sequence[ToAssess], cause: Caller) -> list[bool]:
        """Let pass, mostly. Meanwhile another instance may be faster."""
        del cause
        self.sim.interleave(self)
        if self.sim.unlucky(self.rng, 0.05):
            raise DomainError("UNAVAILABLE")
        return [self.sim.plan.noise("risk", p.payment_id).random() < 0.03 for p in payments]

    def find(self, order_ids: Sequence[int], cause: Caller) -> list[KnownOrder]:
        """Ask the order service, through what it says on the wire."""
        del cause
        orders = self.sim.order
        if not orders.up or self.sim.unlucky(self.rng, 0.05):
            raise DomainError("UNAVAILABLE")
        answer = order_mapping.batch_of_orders(order_usecases.batch_get_orders(orders.ports, order_ids))
        return [mapping.known_order(each) for each in answer.orders]

    # -- calls

    def call(self, kind: str, command: object, patience_ms: int, reply: Reply) -> None:
        """Take a caller's command through its phases; he is answered at the latest when his patience ends."""

        def resolve(outcome: object) -> None:
            if isinstance(outcome, InFlight):
                self.begin(outcome.work, Waiter(reply), patience_ms)
            else:
                reply(outcome)

        self.submit(kind, command, resolve)

    def begin(self, work: object, waiter: Waiter | None = None, patience_ms: int = 0) -> None:
        """See work through; one that is under way already is joined."""
        assert isinstance(work, Attempt)
        running = self.running.get(work.id)
        if running is None:
            running = self.running[work.id] = Running(work)
            self.sim.at(
                self.rng.choice((0, 1, 30)), f"{self.name} ask {work.kind}", self.guarded(partial(self._ask, running))
            )
        if waiter is not None:
            running.waiters.append(waiter)
            self.sim.at(patience_ms, f"{self.name} patience", self.guarded(partial(self._lose_patience, work, waiter)))

    def _ask(self, running: Running) -> str:
        said = usecases.ask(self.ports, running.attempt)
        delay = self.sim.delay(self.rng, slow=0.04)
        self.sim.at(delay, f"{self.name} said", self.guarded(partial(self._settle, running, said)))
        word = said.charged or said.refunded
        assert word is not None
        return f"{running.attempt.request_id} {word.verdict}"

    def _settle(self, running: Running, said: usecases.Said) -> None:
        def resolve(answer: object) -> None:
            self.running.pop(running.attempt.id, None)
            for waiter in running.waiters:
                waiter.answer(answer)

        self.submit("settle", said, resolve)

    def _lose_patience(self, attempt: Attempt, waiter: Waiter) -> str | None:
        if waiter.done or attempt.scope is None:
            return "done"
        self.submit("answer_open", attempt, waiter.answer)
        return None

    def complete(self) -> str:
        """Take up what is due."""
        if not self.ports.store.has_due(self.sim.clock.now_ms()):
            return "nothing due"
        self.submit("take_up", usecases.TakeUp(AT_ONCE_MAX), self._resume)
        return "due"

    def _resume(self, taken: object) -> None:
        for attempt in taken if isinstance(taken, list) else ():
            if attempt.id not in self.running:
                self.begin(attempt)

    def read(self, payment_id: int, owner: int, reply: Callable[[Payment], None]) -> None:
        """Read a payment, and ask its provider where that is worth it."""
        found = usecases.get_payment(self.ports, payment_id, owner)
        if not usecases.worth_asking(found, self.sim.clock.now_ms()):
            reply(found)
            return
        self.submit("take_up", usecases.TakeUp(4, payment_id), self._resume)
        again = partial(usecases.get_payment, self.ports, payment_id, owner)
        self.sim.at(1_000, f"{self.name} reads again", self.guarded(lambda: reply(again())))

    def hear(self, method: Method, call: Callback, reply: Reply) -> None:
        """Take a callback."""
        try:
            told = usecases.read_callback(self.ports, method, call)
        except DomainError as refusal:
            reply(refusal)
        else:
            self.submit("take_notices", told, reply)


class OrderProcess(Process):
    """The order service."""

    room = "order"
    outbox = order_store.outbox

    def build(self) -> dict[str, Callable[[Sequence[Any]], Sequence[Any]]]:
        """Make the ports anew."""
        sim = self.sim
        store = OrderStore(self.database, self.ids, sim.bug.order_transaction, self.reach)
        self.ports = order_ports.Ports(
            store=store,
            cache=FakeOrderCache(),
            ids=self.ids,
            clock=sim.clock,
            render=order_mapping.created,
            published=self.nudge,
            business=business_reasons(),
            hold_ms=150_000,
        )
        return {write.__name__: partial(write, self.ports) for write in ORDER_WRITES}

    def expire(self) -> str:
        """Cancel what nobody paid in time."""
        due = self.ports.store.expired(self.sim.clock.now_ms(), 200)
        for order_id in due:
            self.submit("expire_orders", order_usecases.ExpireOrder(order_id), lambda _: None)
        return f"{len(due)} orders"


def said(outcome: object) -> str:
    """A word for the trace."""
    match outcome:
        case bytes():
            return f"{len(outcome)}B"
        case DomainError():
            return outcome.reason
        case list():
            return str(len(outcome))
        case InFlight():
            return "in flight"
        case _:
            return "" if outcome is None else type(outcome).__name__
