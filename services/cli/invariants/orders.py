"""I9: orders and their payments, side by side by the order's id."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain, groupby
from operator import attrgetter
from typing import TYPE_CHECKING

from services.order import audit as order_audit
from services.payment import audit as payment_audit
from services.platform.audit import PENDING_MS, SHOWN, Finding, differing

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from services.cli.invariants.found import Look
    from services.order.audit import OrderFact
    from services.payment.audit import OrderPayment
    from services.platform.audit import Connection, Range

TOOK, GAVE_BACK = "payments that took money", "payments that gave money back"
_EXPECTED = {"paid": ("success", "partially_refunded"), "refunded": ("refunded",)}


def orders_and_payments(order: Connection, payment: Connection, look: Look) -> list[Finding]:
    """I9: order paid <=> its one payment took money and kept some; refunded <=> given back; cancelled => nothing kept.

    A payment that does not hold its order (it had failed, and took money late) is given back beside it: it keeps
    nothing, or a refund or an open review of it says that this is not the last word.
    """
    ids, sides = _ids(order, payment, look), _Sides(order, payment, look)
    if ids is not None:
        sides.compare(ids)
        examined, took, gave_back = sides.orders, sides.took, sides.gave_back
    else:
        examined, (took, gave_back) = order_audit.orders_counted(order), payment_audit.payments_counted(payment)
        # Orders that are paid and stay so are compared by sums; row by row what then differs, and what is seldom.
        for ends in differing(order_audit.paid_orders(order), payment_audit.paying_payments(payment))[0]:
            if len(sides.breaches) < SHOWN:
                sides.compare(ends)
        for some in chain(payment_audit.orders_of_other_payments(payment), order_audit.refunded_orders(order)):
            sides.compare(some)
    return [
        Finding("I9", "orders and their payments", examined, [*sides.breaches][:SHOWN], len(sides.pending)),
        Finding("I9", TOOK, took, [*sides.lost][:SHOWN]),
        Finding("I9", GAVE_BACK, gave_back, [*sides.overdrawn][:SHOWN]),
    ]


def _ids(order: Connection, payment: Connection, look: Look) -> set[int] | None:
    """Return the orders that changed, or whose payments did, since the last run; None: all are looked at."""
    paid = payment_audit.changed_orders(payment, look.since("payment"))
    changed = order_audit.changed_orders(order, look.since("order"))
    return None if paid is None or changed is None else paid | changed


@dataclass(slots=True)
class _Sides:
    """Both rooms, and what came of comparing some of their rows; what is said twice is kept once."""

    order: Connection
    payment: Connection
    look: Look
    orders: int = 0
    took: int = 0
    gave_back: int = 0
    pending: set[int] = field(default_factory=set)
    breaches: dict[str, None] = field(default_factory=dict)
    lost: dict[str, None] = field(default_factory=dict)
    overdrawn: dict[str, None] = field(default_factory=dict)

    def compare(self, orders: Collection[int] | Range) -> None:
        """Compare some orders with their payments: by id, or all within a range of ids."""
        facts, of_orders = (
            order_audit.order_facts(self.order, orders),
            payment_audit.payments_by_order(self.payment, orders),
        )
        for fact, payments in _side_by_side(facts, of_orders):
            self.took += len(payments)
            self.gave_back += sum(p.refunded > 0 for p in payments)
            numbers = [p.payment_id for p in payments]
            for p in payments:
                if p.refunded > p.captured:
                    self.overdrawn[f"payment {p.payment_id} gave back more than it took"] = None
            if fact is None:
                self.lost[f"payments {numbers} took money for the unknown order {payments[0].order_id}"] = None
                continue
            self.orders += 1
            if (fault := _fault(fact, payments)) is None:
                continue
            latest = max([fact.update_ms, *(p.update_ms for p in payments)])
            young = not self.look.settled and self.look.now_ms - latest <= PENDING_MS
            if young or any(p.excused for p in payments):
                self.pending.add(fact.order_id)
            else:
                self.breaches[f"order {fact.order_id} is {fact.status}: {fault}"] = None


def _side_by_side(
    facts: Iterable[OrderFact], payments: Iterable[OrderPayment]
) -> Iterator[tuple[OrderFact | None, Sequence[OrderPayment]]]:
    """Yield each order with its payments, and payments of orders that do not exist with None; both come by order."""
    by_order = ((order_id, list(found)) for order_id, found in groupby(payments, key=attrgetter("order_id")))
    end = (1 << 64, list["OrderPayment"]())
    at = next(by_order, end)
    for fact in facts:
        while at[0] < fact.order_id:
            yield None, at[1]
            at = next(by_order, end)
        if at[0] == fact.order_id:
            yield fact, at[1]
            at = next(by_order, end)
        else:
            yield fact, ()
    while at is not end:
        yield None, at[1]
        at = next(by_order, end)


def _fault(fact: OrderFact, payments: Sequence[OrderPayment]) -> str | None:
    """Say what does not fit between an order and its payments."""
    kept = [p for p in payments if p.captured > p.refunded]
    if (expected := _EXPECTED.get(fact.status)) is not None:
        right = [p.payment_id for p in payments if p.live and p.status in expected]
        if right != [fact.payment_id]:
            said = [(p.payment_id, p.status, p.captured - p.refunded) for p in payments]
            return f"payment {fact.payment_id} is not the one that is {' or '.join(expected)}: {said}"
        kept = [p for p in kept if p.payment_id != fact.payment_id]
    return f"money of {[p.payment_id for p in kept]} is kept" if kept else None
