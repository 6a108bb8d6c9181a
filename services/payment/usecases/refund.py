"""Refunds: asked for by a user or an operator, or owed because the order could not take the payment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.kernel.errors import DomainError
from services.kernel.idempotency import IdempotencyKey, InFlight, Once, Outcome
from services.kernel.ids import shard_of
from services.kernel.money import Money
from services.payment import states
from services.payment.domain import Attempt, Book, Kind, Method, Payment, Refund, check_refundable
from services.payment.domain.attempt import LEASE_MS
from services.payment.domain.ledger import REFUND, REFUND_PAYABLE, transfer
from services.payment.ports import Change, Moved
from services.payment.usecases.reaching import reach, reach_moved
from services.payment.usecases.settling import accounts_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from services.kernel.caller import Caller
    from services.kernel.idempotency import Scope
    from services.payment.ports import Ports, Transaction


@dataclass(frozen=True, slots=True)
class RefundPayment:
    """Give back ``amount`` of a payment; None: all that is left. Another's payment needs the scope payments:refund."""

    caller: Caller
    key: IdempotencyKey
    payment_id: int
    amount: Money | None
    note: str


@dataclass(frozen=True, slots=True)
class RefundRejected:
    """Give back the whole payment that its order could not take (event order.payment_rejected)."""

    event_id: str
    topic: str
    payment_id: int
    reject_reason: str


def refund_payments(ports: Ports, items: Sequence[RefundPayment]) -> list[Outcome]:
    """Answer each item with its rendered payment and refund, or with its refusal.

    A refund through a provider is set aside, and in flight until the provider was asked.
    """
    keys = [item.key for item in items]
    ports.cache.hold({item.payment_id for item in items})  # from here on nobody remembers them as they were
    with ports.store.transaction() as tx:
        once = Once(keys, tx.stored(keys))
        asked = [items[place] for place in once.fresh]
        change, payments = _open(ports, tx, (item.payment_id for item in asked))
        for place, item in zip(once.fresh, asked, strict=True):
            payment = payments.get(item.payment_id)
            try:
                owner = item.caller.owns_or("payments:refund")
                if payment is None or (owner is not None and payment.user_id != owner):
                    raise DomainError("PAYMENT_NOT_FOUND", payment_id=item.payment_id)
                amount = check_refundable(payment, item.amount)
                refund, attempt = give_back(ports, change, payment, amount, item.note, item.key.scope)
                done = ports.render.refunded(payment, refund) if attempt is None else InFlight(attempt.id, attempt)
                once.settle(place, done)
            except DomainError as refusal:
                once.settle(place, refusal)
        change.answers, change.held = once.kept(business=ports.business), once.held()
        tx.write(change)
        reach(ports, "P2", change.changed_payments.values())
        tx.commit()
    reach(ports, "P6", change.new_attempts)
    reach_moved(ports, change)
    _tell(ports, change)
    return once.outcomes()


def refund_rejected(ports: Ports, items: Sequence[RefundRejected]) -> list[DomainError | None]:
    """Refund the whole of each payment, once per event; one that has nothing left is done already.

    A refund that cannot be booked now (the balance would grow beyond its limit), or of a payment that is not known, is
    that event's failure alone: it is tried again, and ends in the dead-letter topic, where an operator finds it.
    """
    failed: dict[int, DomainError] = {}
    ports.cache.hold({item.payment_id for item in items})
    with ports.store.transaction() as tx:
        unseen = tx.unseen([item.event_id for item in items])
        owed = {item.payment_id: item for item in items if item.event_id in unseen}
        change, payments = _open(ports, tx, owed)
        failed |= {i: DomainError("PAYMENT_NOT_FOUND", payment_id=i) for i in owed.keys() - payments.keys()}
        for payment in payments.values():
            payment.owed = True  # a refund that is under way and comes to nothing is not forgotten
            change.changed_payments[payment.id] = payment
            if payment.status in {states.SUCCESS, states.PARTIALLY_REFUNDED} and payment.refundable:
                try:
                    note = owed[payment.id].reject_reason
                    give_back(ports, change, payment, payment.refundable, note, None)
                except DomainError as refusal:
                    failed[payment.id] = refusal
        done = [item for item in items if item.event_id in unseen and item.payment_id not in failed]
        change.taken = [(item.event_id, item.topic) for item in done]
        tx.write(change)
        tx.commit()
    _tell(ports, change)
    return [failed.get(item.payment_id) if item.event_id in unseen else None for item in items]


def _tell(ports: Ports, change: Change) -> None:
    """Tell the cache and the relay of what was committed."""
    ports.cache.put(change.changed_payments.values())
    ports.committed()


def _open(ports: Ports, tx: Transaction, payment_ids: Iterable[int]) -> tuple[Change, dict[int, Payment]]:
    """Lock the payments, then the accounts that their refunds touch."""
    payments = tx.payments(set(payment_ids))
    accounts = {key for payment in payments.values() for key in accounts_of(payment, ports.merchant_id)}
    return Change(ports.clock.now_ms(), book=Book(tx.accounts(accounts))), payments


def give_back(
    ports: Ports, change: Change, payment: Payment, amount: int, note: str, scope: Scope | None
) -> tuple[Refund, Attempt | None]:
    """Refund ``amount`` minor units: a balance at once; through a provider by an attempt, which ``scope`` waits for.

    `check_refundable` was asked before. Without a ``scope`` nobody waits: the completer takes the attempt up.
    """
    now, money = change.now_ms, Money(payment.amount.currency_code, amount)
    balance = payment.method is Method.BALANCE
    status = states.REFUND_SUCCESS if balance else states.REFUND_PENDING
    refund = Refund(ports.ids.next(shard_of(payment.user_id)), payment.id, money, note, status, now, now)
    kind, credit = (REFUND, payment.balance_account) if balance else (REFUND_PAYABLE, None)
    merchant = payment.merchant_account(ports.merchant_id)
    credit = credit or payment.payable_account(ports.merchant_id)
    assert change.book is not None
    change.book.post(transfer(ports.ids.next(0), kind, refund.id, merchant, credit, amount))
    change.refunds.append(refund)
    change.changed_payments[payment.id] = payment
    if balance:
        change.moved.append(Moved(payment.refund(amount, now), payment, refund))
        return refund, None
    payment.set_aside(amount)
    attempt = _attempt(ports, payment, refund, scope, now)
    change.new_attempts.append(attempt)
    return refund, attempt


def _attempt(ports: Ports, payment: Payment, refund: Refund, scope: Scope | None, now_ms: int) -> Attempt:
    """What the provider is to be asked, under our number for the refund."""
    charge = payment.charge
    assert charge is not None, "a payment through a provider has a charge"
    payer = {"charge_request_id": charge.request_id, "charged": str(payment.captured), "reason": refund.note}
    return Attempt(
        id=refund.id, payment_id=payment.id, refund_id=refund.id, kind=Kind.REFUND, method=payment.method,
        request_id=refund.refund_no, amount=refund.amount, create_ms=now_ms, update_ms=now_ms,
        next_ms=now_ms + LEASE_MS if scope else now_ms, owner=ports.outside.instance, scope=scope, payer=payer,
        provider_id=charge.provider_id,
    )  # fmt: skip
