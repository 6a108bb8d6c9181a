"""Refunds: asked for by a user or an operator, or owed because the order could not take the payment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.kernel.errors import DomainError
from services.kernel.idempotency import Answer, IdempotencyKey, Once
from services.kernel.ids import shard_of
from services.kernel.money import Money
from services.payment import states
from services.payment.domain import Book, Payment, Refund, check_refundable
from services.payment.domain.ledger import transfer
from services.payment.ports import Change, Moved

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from services.kernel.caller import Caller
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


def refund_payments(ports: Ports, items: Sequence[RefundPayment]) -> list[Answer]:
    """Answer each item with its rendered payment and refund, or with its refusal."""
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
                refund = _give_back(ports, change, payment, check_refundable(payment, item.amount), item.note)
                once.settle(place, ports.render.refunded(payment, refund))
            except DomainError as refusal:
                once.settle(place, refusal)
        change.answers = once.kept(business=ports.business)
        tx.write(change)
        tx.commit()
    _tell(ports, change)
    return once.done()


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
            if payment.status in {states.SUCCESS, states.PARTIALLY_REFUNDED} and payment.refundable:
                try:
                    _give_back(ports, change, payment, payment.refundable, owed[payment.id].reject_reason)
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
    accounts = {p.balance_account for p in payments.values()} | {
        p.merchant_account(ports.merchant_id) for p in payments.values()
    }
    return Change(ports.clock.now_ms(), book=Book(tx.accounts(accounts))), payments


def _give_back(ports: Ports, change: Change, payment: Payment, amount: int, note: str) -> Refund:
    refund = Refund(ports.ids.next(shard_of(payment.user_id)), payment.id,
                    Money(payment.amount.currency_code, amount), note, states.REFUND_SUCCESS,
                    change.now_ms, change.now_ms)  # fmt: skip
    assert change.book is not None
    change.book.post(
        transfer(
            ports.ids.next(0),
            "refund",
            refund.id,
            payment.merchant_account(ports.merchant_id),
            payment.balance_account,
            amount,
        )
    )
    step = payment.refund(amount, change.now_ms)
    change.moved.append(Moved(step, payment, refund))
    change.refunds.append(refund)
    change.changed_payments[payment.id] = payment
    return refund
