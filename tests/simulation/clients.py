"""Clients: users who order and pay, payers who scan or do not, operators; each repeats with one key until it knows."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

from paymesh.order.v1 import order_service_pb2 as order_pb
from paymesh.payment.v1 import payment_service_pb2 as pb
from services.kernel.caller import Caller
from services.kernel.errors import DomainError
from services.kernel.idempotency import IdempotencyKey, Scope
from services.kernel.money import Money
from services.order import usecases as order_usecases
from services.order.domain import Line
from services.payment import states, usecases
from services.payment.domain import Method, Payment
from services.payment.domain.card import Cvv

if TYPE_CHECKING:
    from tests.simulation.plan import Step
    from tests.simulation.processes import Reply
    from tests.simulation.world import Sim

PATIENCE_MS = 4_700
"""A call's deadline, less what the pipeline keeps of it."""
_NOT_YET = frozenset({"UNAVAILABLE", "IDEMPOTENCY_KEY_IN_FLIGHT", "DEADLINE_EXCEEDED", "OVERLOADED"})
_FREE_AGAIN = frozenset({"PAYMENT_DECLINED", "BALANCE_INSUFFICIENT", "PAYMENT_BLOCKED"})
CVV = "815"


def caller(user: int, *scopes: str) -> Caller:
    """Somebody."""
    return Caller(user, frozenset(scopes), "s1", 0.0)


class Request:
    """One call under one key: sent again until its answer is one for good, and perhaps once more to hear it again."""

    def __init__(
        self,
        sim: Sim,
        rng: Random,
        key: IdempotencyKey | None,
        call: Callable[[Reply], None],
        done: Callable[[Any], None],
    ) -> None:
        """``call`` delivers it to a process, ``done`` is told the answer."""
        self._sim, self._rng, self._key, self._call, self._done = sim, rng, key, call, done
        self.name = key.scope.key if key else "keyless"
        self.over, self.tries = False, 0
        sim.requests.append(self)

    def send(self) -> None:
        """Send it, and look after it."""
        self.tries += 1
        if not self._sim.unlucky(self._rng, 0.08):
            self._sim.at(self._sim.delay(self._rng, slow=0.03), f"{self.name} arrives", self._arrive)
        self._sim.at(self._rng.choice((5_500, 7_000, 9_000)), f"{self.name} unanswered", self._again)

    def _arrive(self) -> None:
        self._call(self._reply)

    def _reply(self, answer: object) -> None:
        """What the service sends; it may be lost."""
        if self._key is not None:
            self._sim.answered(self._key, answer)
        if not self._sim.unlucky(self._rng, 0.08):
            self._sim.at(self._sim.delay(self._rng, slow=0.03), f"{self.name} answer", partial(self._hear, answer))

    def _hear(self, answer: object) -> str | None:
        if self.over:
            return "again"
        if isinstance(answer, DomainError) and answer.reason in _NOT_YET:
            return answer.reason
        self.over = True
        self._done(answer)
        if self._rng.random() < 0.4:
            self._sim.at(self._rng.randrange(60_000), f"{self.name} repeats", self._arrive)
        return None

    def _again(self) -> str:
        if not self.over:
            self.send()
        return f"{self.tries} tries"


class Journey:
    """A user's way with one order, and what payers and operators do on it."""

    def __init__(self, sim: Sim, step: Step, rng: Random) -> None:
        """Walk it with ``rng``."""
        self._sim, self._rng, self.name = sim, rng, f"j{step.id}"
        self.user = rng.choice((4097, 8194, 12291))
        self.order_id, self.tries = 0, 0

    def start(self) -> None:
        """Order something, or as rarely move money to or from the balance."""
        if self._rng.random() < 0.08:
            self._move_balance()
            return
        lines = (Line(self._rng.choice(("cup", "pot", "leaf")), self._rng.randint(1, 4)),)
        key = self._key("CreateOrder", lines)
        command = order_usecases.CreateOrder(caller(self.user), key, lines)
        self._send(key, lambda reply: self._sim.order.submit("create_orders", command, reply), self._ordered)

    def _move_balance(self) -> None:
        kinds = (("top_up_balances", usecases.TopUpBalance), ("withdraw_balances", usecases.WithdrawBalance))
        kind, command_of = self._rng.choice(kinds)
        amount = Money("CNY", self._rng.choice((1, 700, 5_000)))
        key = self._key(command_of.__name__, amount)
        command = command_of(caller(1), key, self.user, amount)
        self._send(key, self._to_payment(kind, command), lambda _: None)

    def _ordered(self, answer: object) -> None:
        if not isinstance(answer, bytes):
            return
        self.order_id = order_pb.CreateOrderResponse.FromString(answer).order.id
        self._later(30_000, "pays", partial(self._pay, self._rng.choice(list(Method))))
        if self._rng.random() < 0.15:  # a second tab, or finger
            self._later(30_000, "pays beside", partial(self._pay, self._rng.choice(list(Method))))
        if self._rng.random() < 0.2:
            self._later(100_000, "cancels", self._cancel)

    def _cancel(self) -> None:
        command = order_usecases.SetOrderStatus(caller(self.user), self.order_id, "cancelled")
        self._send(None, lambda reply: self._sim.order.submit("set_order_statuses", command, reply), lambda _: None)

    # -- paying

    def _pay(self, method: Method) -> None:
        self.tries += 1
        how = usecases.How(capture=method is not Method.BANK_CARD or self._rng.random() < 0.5)
        key = self._key("CreatePayment", (self.order_id, method, how.capture))
        cvv = method is Method.BANK_CARD and self._rng.random() < 0.5

        def call(reply: Reply) -> None:
            process = self._rng.choice(self._sim.payments)
            payment_id = process.ids.next(self.user >> 12)
            if cvv:
                process.cvvs.put(f"P{payment_id}", Cvv(CVV))
            made = usecases.CreatePayment(
                caller(self.user),
                key,
                self.order_id,
                method,
                None,
                payment_id,
                None if method is Method.BALANCE else how,
            )
            process.call("create_payments", made, PATIENCE_MS, reply)

        self._send(key, call, partial(self._paid, method))

    def _paid(self, method: Method, answer: object) -> None:
        if isinstance(answer, DomainError):
            if answer.reason in _FREE_AGAIN and self.tries < 3 and self._rng.random() < 0.6:
                self._later(20_000, "pays otherwise", partial(self._pay, self._rng.choice(list(Method))))
            return
        assert isinstance(answer, bytes)
        payment_id = pb.CreatePaymentResponse.FromString(answer).payment.id
        if method is not Method.BALANCE:
            self._later(100_000, "payer", partial(self._meet_provider, payment_id, method))
        for _ in range(self._rng.randint(0, 3)):
            self._later(100_000, "reads", partial(self._read, payment_id))
        if method is Method.BANK_CARD:
            for _ in range(self._rng.choice((0, 1, 1, 2))):
                self._later(60_000, "changes", partial(self._change, payment_id))
        if self._rng.random() < 0.15:
            self._later(60_000, "closes", partial(self._write, "close", payment_id, None))
        at = self._rng.randrange(90_000)
        for n in range(self._rng.choice((0, 0, 1, 2, 3))):
            amount = self._rng.choice((None, None, 1, 100, 250, 400, 9_999))
            together = self._rng.random() < 0.6
            self._sim.at(at if together else self._rng.randrange(120_000), f"{self.name} refunds {n}",
                         partial(self._write, "refund", payment_id, amount))  # fmt: skip

    def _meet_provider(self, payment_id: int, method: Method) -> str:
        provider, number = self._sim.providers[method], f"P{payment_id}"
        mood = self._rng.random()
        if number not in provider.trades or mood < 0.15:
            return "does nothing"
        return f"refuses {provider.refuse(number)}" if mood < 0.25 else f"pays {provider.pay(number)}"

    def _read(self, payment_id: int) -> str:
        process = self._rng.choice(self._sim.payments)

        def shown(payment: Payment) -> None:
            self._sim.seen.setdefault(payment_id, []).append(payment.status)
            free = payment.status in {states.FAILED, states.CLOSED}
            if free and self.tries < 3 and self._rng.random() < 0.4:
                self._later(20_000, "pays anew", partial(self._pay, self._rng.choice(list(Method))))

        return process.guarded(lambda: process.read(payment_id, self.user, shown))() or "read"

    # -- operators and refunds

    def _change(self, payment_id: int) -> None:
        if self._rng.random() < 0.3:
            self._write("void", payment_id, None)
        else:
            self._write("capture", payment_id, self._rng.choice((None, 1, 200, 250, 9_999)))

    def _write(self, what: str, payment_id: int, minor_units: int | None) -> None:
        key = self._key(f"{what.capitalize()}Payment", (payment_id, minor_units))
        who, amount = caller(self.user, "payments:capture"), None if minor_units is None else Money("CNY", minor_units)
        command: object
        match what:
            case "capture":
                command = usecases.CapturePayment(who, key, payment_id, amount)
            case "void":
                command = usecases.VoidPayment(who, key, payment_id)
            case "close":
                command = usecases.ClosePayment(who, key, payment_id)
            case _:
                command = usecases.RefundPayment(who, key, payment_id, amount, "not nice")
        self._send(key, self._to_payment(f"{what}_payments", command), lambda _: None)

    # -- how calls are made

    def _to_payment(self, kind: str, command: object) -> Callable[[Reply], None]:
        return lambda reply: self._rng.choice(self._sim.payments).call(kind, command, PATIENCE_MS, reply)

    def _send(self, key: IdempotencyKey | None, call: Callable[[Reply], None], done: Callable[[Any], None]) -> None:
        Request(self._sim, self._rng, key, call, done).send()

    def _later(self, within_ms: int, label: str, act: Callable[[], Any]) -> None:
        self._sim.at(
            self._rng.randrange(within_ms), f"{self.name} {label}", lambda: act() if not self._sim.calm else None
        )

    def _key(self, method: str, facts: object) -> IdempotencyKey:
        self._sim.keys += 1
        fingerprint = hashlib.sha256(repr((method, facts)).encode()).digest()
        return IdempotencyKey(Scope(self.user, method, f"{self.name}-{method}-{self._sim.keys}"), fingerprint)
