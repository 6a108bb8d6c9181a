"""Planted bugs: each a transaction, a provider or a word of the database other than the real one, and who must find it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import sqlalchemy as sa

from paymesh.payment.v1 import payment_service_pb2 as pb
from services.kernel.idempotency import IdempotencyKey, Scope, Stored
from services.order import states as order_states
from services.order.domain import Order
from services.payment import mapping, states
from services.payment.domain import Method, Payment
from services.payment.domain.ledger import MERCHANT_SETTLEMENT
from services.payment.ports import Change, Moved
from services.payment.ports.provider import Charge, Charged, Phase, Verdict
from services.payment.store import tables as t
from tests.simulation.processes import OrderTransaction, PaymentTransaction
from tests.simulation.providers import PAN, SimProvider

if TYPE_CHECKING:
    from tests.simulation.world import Sim


@dataclass(frozen=True, slots=True)
class Bug:
    """What is other than it should be, and the invariant that must find it."""

    name: str = ""
    invariant: str = ""
    transaction: type[PaymentTransaction] = PaymentTransaction
    order_transaction: type[OrderTransaction] = OrderTransaction
    provider: Callable[[Sim, Method], SimProvider] = SimProvider
    marks_first: bool = False
    pragmas: tuple[str, ...] = ()


NONE = Bug()


class DropsEntry(PaymentTransaction):
    """Books one side of a transaction."""

    def write(self, change: Change) -> None:
        """Write a change."""
        if change.book is not None and change.book.postings:
            last = change.book.postings.pop()
            change.book.postings.append(replace(last, entries=last.entries[:1]))
        super().write(change)


class MovesBalance(PaymentTransaction):
    """Changes a balance without an entry."""

    def write(self, change: Change) -> None:
        """Write a change."""
        for key, account in change.book.touched.items() if change.book else ():
            account.balance += key.kind == MERCHANT_SETTLEMENT
        super().write(change)


class AllowsSecond(PaymentTransaction):
    """Does not look for a payment that the order has already, and leaves the column that guards it empty."""

    def live_payments(self, order_ids: Iterable[int]) -> dict[int, int]:
        """Return none."""
        self._live = super().live_payments(order_ids)
        return {}

    def write(self, change: Change) -> None:
        """Write a change."""
        for payment in change.new_payments:
            payment.live = payment.live and payment.order_id not in self._live
        super().write(change)


class RetriesAnew(SimProvider):
    """Is asked under a new number when a charge is sent again."""

    def charge(self, charge: Charge) -> Charged:
        """Ask for money."""
        if ("charge", charge.request_id) in self.asked:
            charge = replace(charge, request_id=f"P{int(charge.request_id[1:]) + 1}")
        return super().charge(charge)


class FailsUnknown(SimProvider):
    """Takes a lost answer for a refusal."""

    def charge(self, charge: Charge) -> Charged:
        """Ask for money."""
        said = super().charge(charge)
        return Charged(Verdict.REFUSED, Phase.FAILED, code=said.code) if said.verdict is Verdict.UNKNOWN else said


class Uncapped(Payment):
    """Forgets what was given back and set aside."""

    __slots__ = ()

    @property
    def refundable(self) -> int:
        """All of it, always."""
        return self.captured

    def set_aside(self, amount: int) -> None:
        """Reserve nothing."""

    def let_go(self, amount: int) -> None:
        """Nothing was reserved."""


class RefundsBeyond(PaymentTransaction):
    """Gives out payments without a cap."""

    def payments(self, ids: Iterable[int]) -> dict[int, Payment]:
        """Lock payments."""
        found = super().payments(ids)
        for payment in found.values():
            payment.__class__ = Uncapped
        return found


class KeepsNoAnswer(PaymentTransaction):
    """Does not keep what a key was answered."""

    def write(self, change: Change) -> None:
        """Write a change."""
        change.answers = []
        super().write(change)


class RendersAnew(PaymentTransaction):
    """Answers a repeated refund with how it stands now."""

    def stored(self, keys: Iterable[IdempotencyKey | None]) -> Mapping[Scope, Stored]:
        """Return answers, made new."""
        return {scope: self._anew(scope, stored) for scope, stored in super().stored(keys).items()}

    def _anew(self, scope: Scope, stored: Stored) -> Stored:
        if scope.method != "RefundPayment" or not isinstance(stored.answer, bytes):
            return stored
        was = pb.RefundPaymentResponse.FromString(stored.answer)
        payment, refund = self.payments([was.payment.id])[was.payment.id], self.refunds([was.refund.id])[was.refund.id]
        return replace(stored, answer=mapping.refunded(payment, refund))


class SkipsVersion(PaymentTransaction):
    """Counts an event twice."""

    def write(self, change: Change) -> None:
        """Write a change."""
        change.moved = [
            replace(moved, step=replace(moved.step, event=moved.step.event + (moved.step.status == states.SUCCESS)))
            for moved in change.moved
        ]
        super().write(change)


class Forgiving(Order):
    """Sees nothing wrong in money for an order that was cancelled."""

    __slots__ = ()

    def rejection(self, payment_id: int, amount: object) -> str:
        """Say why the order cannot take a payment."""
        return "" if self.status == order_states.CANCELLED else super().rejection(payment_id, amount)  # type: ignore[arg-type] # as it came


class KeepsMoney(OrderTransaction):
    """Gives out orders that reject nothing."""

    def orders(self, ids: Iterable[int]) -> dict[int, Order]:
        """Lock orders."""
        found = super().orders(ids)
        for order in found.values():
            order.__class__ = Forgiving
        return found


class EditsLedger(PaymentTransaction):
    """Changes when something was booked."""

    def commit(self) -> None:
        """Make it durable, and more."""
        first = sa.select(sa.func.min(t.ledger_transactions.c.id)).scalar_subquery()
        moved = sa.update(t.ledger_transactions).where(t.ledger_transactions.c.id == first)
        self._connection.execute(moved.values(at_ms=t.ledger_transactions.c.at_ms + 1))
        super().commit()


class WritesPan(PaymentTransaction):
    """Stores the card number beside its token."""

    def write(self, change: Change) -> None:
        """Write a change."""
        for attempt in change.new_attempts:
            if attempt.card is not None:
                attempt.payer = {**attempt.payer, "card_number": PAN}
        super().write(change)


class FlipsSilently(PaymentTransaction):
    """Makes a success of what ended, where a review is due."""

    def write(self, change: Change) -> None:
        """Write a change."""
        for n, moved in enumerate(change.moved):
            if moved.step.status == states.REVIEW:
                payment = moved.payment
                payment.status, payment.events = states.SUCCESS, payment.events + 1
                payment.captured = payment.amount.minor_units
                change.moved[n] = Moved(replace(moved.step, status=states.SUCCESS, event=payment.events), payment)
                change.new_reviews = [r for r in change.new_reviews if r.payment_id != payment.id]
        super().write(change)


PLANTED = (
    Bug("one entry of a transaction is lost", "I1", DropsEntry),
    Bug("a balance changes without an entry", "I2", MovesBalance),
    Bug("an order has a second live payment", "I3", AllowsSecond),
    Bug("a charge is sent again under a new number", "I3", provider=RetriesAnew),
    Bug("what is unknown is shown as failed", "I4", provider=FailsUnknown),
    Bug("more is given back than was taken", "I5", RefundsBeyond, pragmas=("ignore_check_constraints=ON",)),
    Bug("an answer is not kept", "I6", KeepsNoAnswer),
    Bug("an answer is rendered anew", "I6", RendersAnew),
    Bug("an event is marked before it is published", "I7", marks_first=True),
    Bug("the version of an event is skipped", "I8", SkipsVersion),
    Bug("a cancelled order keeps the money", "I9", order_transaction=KeepsMoney),
    Bug("a booking is edited", "I10", EditsLedger),
    Bug("a card number is stored", "I11", WritesPan),
    Bug("a closed payment becomes a success", "I12", FlipsSilently),
)
