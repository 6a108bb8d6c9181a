"""A run: one clock, one line of events, and everything that stands in it. The same seed gives the same run to the byte."""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import TYPE_CHECKING, NamedTuple

import sqlalchemy as sa

from services.kernel.errors import DomainError
from services.kernel.idempotency import IdempotencyKey, Scope
from services.kernel.money import Money
from services.order import store as order_store
from services.order import usecases as order_usecases
from services.payment import usecases
from services.payment.domain import Method
from services.payment.domain.card import Brand, Card, Expiry
from services.payment.store import tables
from services.platform.idempotency import business_reasons
from tests.fakes.payment import FakeAlarm, FakeCache, FakeSavedCards
from tests.simulation.bugs import Bug
from tests.simulation.clients import Journey, Request, caller
from tests.simulation.network import Broker, Calls
from tests.simulation.plan import HORIZON_MS, Plan, Step, What
from tests.simulation.processes import POINTS, Doom, OrderProcess, PaymentProcess, Process, said

if TYPE_CHECKING:
    from tests.simulation.stage import Stage

BEGIN_MS = 1_800_000_000_000
USERS = (4097, 8194, 12291)
SKUS = {"cup": 250, "pot": 1_000, "leaf": 1}
TICK_MS = 5_000
TURNS_MAX = 60_000
_NEXT_ATTEMPT = sa.select(sa.func.min(tables.attempts.c.next_ms))
_NEXT_ORDER = sa.select(sa.func.min(order_store.orders.c.expire_ms)).where(order_store.orders.c.status == "pending")
_UNPUBLISHED = [
    sa.select(sa.func.count()).select_from(outbox).where(outbox.c.published_ms.is_(None))
    for outbox in (tables.outbox, order_store.outbox)
]


class Breach(NamedTuple):
    """What must not be: the invariant, or ``fault``, and how it was broken."""

    invariant: str
    what: str


@dataclass
class SimClock:
    """The one clock: ``ms`` never jumps, wall clocks are ``skew`` off."""

    ms: int = BEGIN_MS
    skew: int = 0

    def now_ms(self) -> int:
        """Milliseconds since 1970 UTC."""
        return self.ms + self.skew

    def monotonic(self) -> float:
        """Seconds."""
        return self.ms / 1000


@dataclass
class Answers:
    """What keys were answered: the first answer is the only one."""

    first: dict[Scope, object] = field(default_factory=dict)
    repeated: int = 0


class Sim:
    """One run of a plan, with or without a planted bug."""

    def __init__(self, stage: Stage, plan: Plan, bug: Bug) -> None:
        """Set the stage."""
        stage.reset(bug.pragmas)
        self.stage, self.plan, self.bug = stage, plan, bug
        self.clock, self.calm = SimClock(), False
        self._line: list[tuple[int, int, str, Callable[[], str | None]]] = []
        self._made, self.turns = 0, 0
        self._digest = hashlib.sha256()
        self.lines: list[str] = []
        self.breaches: list[Breach] = []
        self.answers = Answers()
        self.journeys: list[Journey] = []
        self.requests: list[Request] = []
        self.keys = 0
        self.seen: dict[int, list[str]] = {}
        """Payment -> what readers were shown, in sequence."""
        self.met: Counter[str] = Counter()
        """What came up: points where a process died, states, moods of providers, reviews."""
        self._business = business_reasons()
        self._interleaving = False
        self.rng = plan.noise("world")
        self.cache, self.alarm, self.cards = FakeCache(), FakeAlarm(), FakeSavedCards()
        kept = Card("tok_sim", 1, Brand.VISA, "424242", "4242", Expiry(2040, 12))
        self.cards.saved = {(user, None): kept for user in USERS}
        methods = (Method.ALIPAY, Method.WECHAT, Method.BANK_CARD)
        self.providers = {method: bug.provider(self, method) for method in methods}
        self.broker, self.calls = Broker(self), Calls(self)
        self.order = OrderProcess(self, 1)
        self.payments = [PaymentProcess(self, 1), PaymentProcess(self, 2)]

    # -- time and chance

    def at(self, delay_ms: int, label: str, act: Callable[[], str | None]) -> None:
        """Let something happen later; what happens at one time happens in the sequence in which it was said."""
        self._made += 1
        heapq.heappush(self._line, (self.clock.ms + delay_ms, self._made, label, act))

    def unlucky(self, rng: Random, probability: float) -> bool:
        """Whether something goes wrong now; nothing does when everything settles."""
        return rng.random() < probability and not self.calm

    def delay(self, rng: Random, *, slow: float) -> int:
        """How long a message takes: mostly milliseconds, with a probability of ``slow`` many seconds."""
        if self.calm:
            return 1
        if rng.random() < slow:
            return rng.randrange(2_000, 30_000)
        return rng.choice((0, 1, 5, 40, 400, 1_200))

    def processes(self, room: str) -> list[Process]:
        """The instances of a room."""
        return [*self.payments] if room == "payment" else [self.order]

    def interleave(self, process: Process) -> None:
        """While one process waits for another service, a second instance may be at the same order or key."""
        others = [each for each in self.payments if each is not process and each.up and each.queue]
        if others and not self._interleaving and self.unlucky(self.rng, 0.7):
            self._interleaving = True
            outcome = others[0].guarded(others[0].batch)()
            self._interleaving = False
            self.note(f"{others[0].name} meanwhile: {outcome}")

    def breach(self, invariant: str, what: str) -> None:
        """Put down what must not be."""
        self.breaches.append(Breach(invariant, what))
        self.note(f"BREACH {invariant} {what}")

    def note(self, line: str) -> None:
        """Write to the trace."""
        text = f"{self.clock.ms - BEGIN_MS} {line}"
        self.lines.append(text)
        self._digest.update(text.encode())

    @property
    def hash(self) -> str:
        """The SHA-256 of the trace."""
        return self._digest.hexdigest()

    def answered(self, key: IdempotencyKey, answer: object) -> None:
        """I6: whatever a key is answered for good, it is answered each time."""
        if isinstance(answer, DomainError):
            if answer.reason not in self._business:
                return
            answer = str(answer)
        first = self.answers.first.setdefault(key.scope, answer)
        self.answers.repeated += first is not answer
        if first != answer:
            self.breach("I6", f"{key.scope} was answered {first!r:.200}, then {answer!r:.200}")

    # -- the run

    def run(self) -> None:
        """Do all of the plan, then let everything settle."""
        self._open()
        for step in self.plan.steps:
            self.at(step.at_ms, f"step {step.id} {step.what}", partial(self._step, step))
        for delay in range(TICK_MS, HORIZON_MS, TICK_MS):
            self.at(delay, "tick", self._tick)
        while self._line and self._line[0][0] < BEGIN_MS + HORIZON_MS:
            self._turn()
        self._settle()

    def _open(self) -> None:
        """Fill the shelves and the balances."""
        goods = [order_usecases.SetStock(sku, sku, Money("CNY", price), 500) for sku, price in SKUS.items()]
        order_usecases.set_stocks(self.order.ports, goods)
        filled = [
            usecases.TopUpBalance(caller(1), IdempotencyKey(Scope(1, "TopUpBalance", f"open-{user}"), b"f" * 32), user,
                                  Money("CNY", 2_000))
            for user in USERS
        ]  # fmt: skip
        usecases.top_up_balances(self.payments[0].ports, filled)

    def _turn(self) -> None:
        due, _, label, act = heapq.heappop(self._line)
        self.clock.ms = max(self.clock.ms, due)
        self.turns += 1
        outcome = act()
        self.note(label if outcome is None else f"{label}: {outcome}")
        self.calls.send()

    def _tick(self) -> str:
        """What timed jobs do, in a process that has its turn; each does all of it once everything settles."""
        mine = self.payments if self.calm else [self.rng.choice(self.payments)]
        done = [each.guarded(each.complete)() for each in mine]
        for process in (self.order, *mine) if self.calm or self.rng.random() < 0.2 else ():
            process.nudge()
        if self.calm or self.rng.random() < 0.3:
            done.append(self.order.guarded(self.order.expire)())
        return str(done)

    def _step(self, step: Step) -> str | None:
        rng = self.plan.noise(step.id)
        match step.what:
            case What.JOURNEY:
                self.journeys.append(Journey(self, step, rng))
                self.journeys[-1].start()
            case What.CRASH:
                process = rng.choice((self.order, *self.payments, *self.payments))
                anywhere = rng.random() < 0.5
                process.doomed = Doom(
                    rng.choice((1, 1, 2, 3, 5, 8)) if anywhere else 1, "" if anywhere else rng.choice(POINTS)
                )
                if process.up and rng.random() < 0.3:
                    process.die()
                return process.name
            case What.FORGE:
                return self.calls.forge(rng)
            case What.FLUSH:
                self.cache.payments.clear()
            case What.SKEW:
                self.clock.skew = rng.choice((-600_000, 600_000))
        return None

    # -- the end

    def _settle(self) -> None:
        """Nothing goes wrong any more; time goes on until nothing is left to do."""
        self.calm = True
        self.note("calm")
        for process in (self.order, *self.payments):
            process.doomed = Doom()
        for provider in self.providers.values():
            provider.come_to_rest()
        self.calls.send()
        self.calls.send_unheard()
        ticked = 0
        while self.turns < TURNS_MAX:
            if self._line and self.clock.ms - ticked < TICK_MS:
                self._turn()
                continue
            if self._line:
                ticked = self.clock.ms
                self.at(0, "tick", self._tick)
                continue
            due = self._next_due()
            if due is None:
                return
            self.clock.ms = max(self.clock.ms, due - self.clock.skew)
            self.at(0, "tick", self._tick)
        self.breach("I4", f"no rest after {self.turns} turns")

    def _next_due(self) -> int | None:
        with self.stage.databases["payment"].read() as connection:
            attempts = connection.execute(_NEXT_ATTEMPT).scalar()
            waiting = connection.execute(_UNPUBLISHED[0]).scalar_one()
        with self.stage.databases["order"].read() as connection:
            orders = connection.execute(_NEXT_ORDER).scalar()
            waiting += connection.execute(_UNPUBLISHED[1]).scalar_one()
        found = [each for each in (attempts, orders, self.clock.now_ms() if waiting else None) if each is not None]
        return min(found, default=None)

    def __repr__(self) -> str:
        """For messages of a failed test."""
        return f"seed {self.plan.seed}: {self.turns} turns, {said(self.breaches)} breaches, {self.hash[:12]}"
