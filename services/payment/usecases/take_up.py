"""Taking up attempts whose outcome is not known: what a crash left, what a provider has to be asked again, what expired."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.payment import states
from services.payment.domain import Kind, Point
from services.payment.domain.attempt import LEASE_MS
from services.payment.ports import Change, Moved
from services.payment.usecases.settling import follow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.payment.domain import Attempt, Payment
    from services.payment.ports import Ports, Transaction

FRESH_MS = 1_000
"""A provider that was asked as lately as this need not be asked again because someone reads."""
ALERT_MS = 600_000
"""An outcome that is unknown for longer needs a person."""


def worth_asking(payment: Payment, now_ms: int) -> bool:
    """Whether a reader of the payment is better told what its provider says now."""
    charge = payment.charge
    waits = payment.status in {states.PROCESSING, states.UNKNOWN} and charge is not None
    return waits and charge is not None and charge.point is not Point.READY and now_ms - charge.update_ms > FRESH_MS


@dataclass(frozen=True, slots=True)
class TakeUp:
    """Take up at most ``limit`` attempts that are due; with ``payment_id`` those of one payment, because it was read."""

    limit: int
    payment_id: int = 0


def take_up(ports: Ports, items: Sequence[TakeUp]) -> list[list[Attempt]]:
    """Lease attempts to this instance and return them per item: what they say is to be asked of providers now.

    The lease ends by itself: who dies with it leaves the attempt to the next one.
    """
    taken: list[list[Attempt]] = []
    with ports.store.transaction() as tx:
        change = Change(ports.clock.now_ms())
        for item in items:
            known = change.changed_attempts
            due = tx.due(change.now_ms, item.limit, [item.payment_id] if item.payment_id else [])
            if item.payment_id:
                due = [attempt for attempt in due if change.now_ms - attempt.update_ms > FRESH_MS]
            taken.append(_lease(ports, tx, change, [attempt for attempt in due if attempt.id not in known]))
        tx.write(change)
        tx.commit()
    return taken


def _lease(ports: Ports, tx: Transaction, change: Change, due: list[Attempt]) -> list[Attempt]:
    held = {attempt.payment_id for attempt in due if attempt.point is Point.HELD}
    payments = tx.payments(held) if held else {}
    leased = []
    for attempt in due:
        attempt.owner, attempt.update_ms = ports.outside.instance, change.now_ms
        attempt.next_ms = change.now_ms + LEASE_MS
        change.changed_attempts[attempt.id] = attempt
        if attempt.point is not Point.HELD:
            leased.append(attempt)
        elif (void := _let_go(ports, change, payments[attempt.payment_id], attempt)) is not None:
            leased.append(void)
        if attempt.point is Point.UNKNOWN and change.now_ms - attempt.create_ms > ALERT_MS:
            ports.alarm.alert("payment.unknown_long", payment_id=attempt.payment_id, kind=str(attempt.kind))
    return leased


def _let_go(ports: Ports, change: Change, payment: Payment, charge: Attempt) -> Attempt | None:
    """Begin to void an authorization that nobody captured in time; one that is being captured now is left alone."""
    if payment.status != states.AUTHORIZED:
        return None
    change.moved.append(Moved(payment.enter(states.PROCESSING, change.now_ms), payment))
    change.changed_payments[payment.id] = payment
    due_ms = change.now_ms + LEASE_MS
    void = follow(ports, charge, Kind.VOID, None, now_ms=change.now_ms, due_ms=due_ms, why="expired")
    change.new_attempts.append(void)
    return void
