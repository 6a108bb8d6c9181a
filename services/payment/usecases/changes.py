"""CapturePayment, VoidPayment, ClosePayment: the first phase. What is asked of the provider is stored before it is sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.kernel.errors import DomainError
from services.kernel.idempotency import IdempotencyKey, InFlight, Once, Outcome
from services.payment import states
from services.payment.domain import Kind, Point, check_capturable
from services.payment.domain.attempt import LEASE_MS
from services.payment.ports import Change, Moved
from services.payment.usecases.reaching import reach
from services.payment.usecases.settling import follow

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from services.kernel.caller import Caller
    from services.kernel.money import Money
    from services.payment.domain import Attempt, Payment
    from services.payment.ports import Ports

WRITE_ANY = "payments:capture"
_CLOSABLE = frozenset({states.PROCESSING, states.UNKNOWN})


@dataclass(frozen=True, slots=True)
class CapturePayment:
    """Take ``amount`` of what the issuer holds; None: all of it."""

    caller: Caller
    key: IdempotencyKey
    payment_id: int
    amount: Money | None


@dataclass(frozen=True, slots=True)
class VoidPayment:
    """Let go of what the issuer holds."""

    caller: Caller
    key: IdempotencyKey
    payment_id: int


@dataclass(frozen=True, slots=True)
class ClosePayment:
    """End a payment that waits for its payer: one of the caller's own, or any with the scope payments:capture."""

    caller: Caller
    key: IdempotencyKey
    payment_id: int


_Item = CapturePayment | VoidPayment | ClosePayment


def capture_payments(ports: Ports, items: Sequence[CapturePayment]) -> list[Outcome]:
    """Begin captures; each is answered by what the provider says."""
    return _begin(ports, items, _capture)


def void_payments(ports: Ports, items: Sequence[VoidPayment]) -> list[Outcome]:
    """Begin voids; each is answered by what the provider says."""
    return _begin(ports, items, _void)


def close_payments(ports: Ports, items: Sequence[ClosePayment]) -> list[Outcome]:
    """Begin to close payments; each is answered by what the provider says."""
    return _begin(ports, items, _close)


def _begin(
    ports: Ports, items: Sequence[_Item], decide: Callable[[Ports, Change, Payment, _Item], Attempt]
) -> list[Outcome]:
    keys = [item.key for item in items]
    ports.cache.hold({item.payment_id for item in items})
    with ports.store.transaction() as tx:
        once = Once(keys, tx.stored(keys))
        asked = [items[place] for place in once.fresh]
        payments = tx.payments({item.payment_id for item in asked})
        change = Change(ports.clock.now_ms())
        for place, item in zip(once.fresh, asked, strict=True):
            try:
                payment, owner = payments.get(item.payment_id), item.caller.owns_or(WRITE_ANY)
                if payment is None or (owner is not None and payment.user_id != owner):
                    raise DomainError("PAYMENT_NOT_FOUND", payment_id=item.payment_id)
                attempt = decide(ports, change, payment, item)
            except DomainError as refusal:
                once.settle(place, refusal)
                continue
            change.new_attempts.append(attempt)
            once.settle(place, InFlight(attempt.id, attempt))
        change.answers, change.held = once.kept(business=ports.business), once.held()
        tx.write(change)
        reach(ports, "P2", change.new_attempts)
        tx.commit()
    reach(ports, "P6", change.new_attempts)
    ports.committed()
    return once.outcomes()


def _capture(ports: Ports, change: Change, payment: Payment, item: _Item) -> Attempt:
    assert isinstance(item, CapturePayment)
    amount = check_capturable(payment, item.amount)
    return _under_way(ports, change, payment, Kind.CAPTURE, item, amount)


def _void(ports: Ports, change: Change, payment: Payment, item: _Item) -> Attempt:
    if payment.status != states.AUTHORIZED:
        raise _conflict(payment)
    return _under_way(ports, change, payment, Kind.VOID, item)


def _close(ports: Ports, change: Change, payment: Payment, item: _Item) -> Attempt:
    """The payment stays as it is until the provider has ended it: the payer may be faster."""
    if payment.status not in _CLOSABLE or payment.charge is None or payment.charge.point is Point.HELD:
        raise _conflict(payment)  # what is held is captured or voided, also while that is under way
    now = change.now_ms
    return follow(ports, payment.charge, Kind.CLOSE, item.key.scope, now_ms=now, due_ms=now + LEASE_MS)


def _under_way(
    ports: Ports, change: Change, payment: Payment, kind: Kind, item: _Item, amount: Money | None = None
) -> Attempt:
    """While a capture or a void is under way the payment is processing: of two at once the second finds it so."""
    assert payment.charge is not None, "only a card is authorized"
    now = change.now_ms
    change.moved.append(Moved(payment.enter(states.PROCESSING, now), payment))
    change.changed_payments[payment.id] = payment
    return follow(ports, payment.charge, kind, item.key.scope, now_ms=now, due_ms=now + LEASE_MS, amount=amount)


def _conflict(payment: Payment) -> DomainError:
    return DomainError("PAYMENT_STATUS_CONFLICT", payment_id=payment.id, status=payment.status)
