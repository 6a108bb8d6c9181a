"""CreatePayment: look, ask risk once for the whole batch, decide item by item, write one transaction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.kernel.errors import DomainError
from services.kernel.idempotency import Answer, IdempotencyKey, Once
from services.payment import states
from services.payment.domain import Book, Method, Payment, check_payable
from services.payment.domain.ledger import transfer
from services.payment.domain.payment import OFFERED
from services.payment.ports import Change, Moved, ToAssess

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from services.kernel.caller import Caller
    from services.kernel.money import Money
    from services.payment.domain import KnownOrder
    from services.payment.ports import Ports, Transaction


@dataclass(frozen=True, slots=True)
class CreatePayment:
    """Pay an order of the caller's. ``shown`` is the amount that the payer saw, None: not stated.

    ``payment_id`` is what the payment will be called, made before: a batch that is done again asks risk about the same
    payment, which then counts it once.
    """

    caller: Caller
    key: IdempotencyKey
    order_id: int
    method: Method
    shown: Money | None
    payment_id: int


def create_payments(ports: Ports, items: Sequence[CreatePayment]) -> list[Answer]:
    """Answer each item with its rendered payment, which is also what a repeat gets, or with its refusal."""
    keys = [item.key for item in items]
    seen = ports.store.look(keys, {item.order_id for item in items})
    once = Once(keys, seen.stored)
    if not once.fresh:
        return once.done()
    unanswered = _learn(ports, items, once, seen.orders)
    drafts = _draft(ports, items, once, seen.orders, unanswered)
    blocked = _assess(ports, items, drafts, once)
    with ports.store.transaction() as tx:
        change = _decide(ports, tx, items, drafts, blocked, once)
        tx.write(change)
        tx.commit()
    ports.committed()
    return once.done()


def _learn(
    ports: Ports, items: Sequence[CreatePayment], once: Once, orders: dict[int, KnownOrder]
) -> DomainError | None:
    """Look up the orders whose event has not come yet, all in one call, and keep them; returns why that failed."""
    missing = sorted({items[i].order_id for i in once.fresh} - orders.keys())
    if not missing:
        return None
    try:
        found = ports.orders.find(missing, _cause(items, once.fresh))
    except DomainError as failure:
        return failure
    orders.update({order.id: order for order in found})
    if found:
        with ports.store.transaction() as tx:
            tx.know_orders(found)
            tx.commit()
    return None


def _draft(
    ports: Ports,
    items: Sequence[CreatePayment],
    once: Once,
    orders: dict[int, KnownOrder],
    unanswered: DomainError | None,
) -> dict[int, Payment]:
    """Make a pending payment for each item that may have one; refuse the others.

    ``unanswered``: the order service was asked for the orders that are not known, and did not answer.
    """
    now, drafts = ports.clock.now_ms(), {}
    for place in once.fresh:
        item = items[place]
        user = item.caller.subject
        try:
            if unanswered is not None and item.order_id not in orders:
                raise unanswered
            order = check_payable(orders.get(item.order_id), item.order_id, user, item.shown, now)
            if item.method not in OFFERED:
                raise DomainError("PAYMENT_METHOD_UNAVAILABLE", method=item.method)
        except DomainError as refusal:
            once.settle(place, refusal)
            continue
        drafts[place] = Payment(item.payment_id, order.id, user, order.amount, item.method,
                                states.PENDING, 1, 0, 0, "", now, now)  # fmt: skip
    return drafts


def _assess(ports: Ports, items: Sequence[CreatePayment], drafts: dict[int, Payment], once: Once) -> frozenset[int]:
    """Ask risk about every draft at once; returns the places that it blocks. Unanswered drafts are UNAVAILABLE."""
    if not drafts:
        return frozenset()
    asked = [ToAssess(p.id, p.user_id, p.order_id, p.amount, p.method) for p in drafts.values()]
    try:
        verdicts = ports.risk.blocked(asked, _cause(items, drafts))
    except DomainError as failure:
        for place in list(drafts):
            once.settle(place, failure)
            del drafts[place]
        return frozenset()
    return frozenset(place for place, blocked in zip(drafts, verdicts, strict=True) if blocked)


def _cause(items: Sequence[CreatePayment], places: Iterable[int]) -> Caller:
    """Return who waits longest: nobody's hurry is his neighbour's."""
    return max((items[place].caller for place in places), key=lambda caller: caller.deadline)


def _decide(
    ports: Ports,
    tx: Transaction,
    items: Sequence[CreatePayment],
    drafts: dict[int, Payment],
    blocked: frozenset[int],
    once: Once,
) -> Change:
    """Decide every draft in sequence against locked rows; what another process answered meanwhile stays its answer."""
    once.recheck(tx.stored(items[i].key for i in once.fresh))
    ours = {place: drafts[place] for place in once.fresh if place in drafts}
    live = tx.live_payments({p.order_id for p in ours.values()})
    merchants = {p.merchant_account(ports.merchant_id) for p in ours.values()}
    change = Change(
        ports.clock.now_ms(), book=Book(tx.accounts({p.balance_account for p in ours.values()} | merchants))
    )
    for place, payment in ours.items():
        other = live.get(payment.order_id)
        if other is not None:
            once.settle(place, DomainError("ORDER_HAS_LIVE_PAYMENT", order_id=payment.order_id, payment_id=other))
            continue
        refusal = _pay(ports, change, payment, blocked=place in blocked)
        if refusal is None:
            live[payment.order_id] = payment.id
        once.settle(place, refusal or ports.render.created(payment))
    change.answers = once.kept(business=ports.business)
    return change


def _pay(ports: Ports, change: Change, payment: Payment, *, blocked: bool) -> DomainError | None:
    """Take the money from the balance. What is refused stays behind as a failed payment, so that it can be looked up."""
    change.new_payments.append(payment)
    change.moved.append(Moved(payment.step(), payment))
    refusal = DomainError("PAYMENT_BLOCKED", order_id=payment.order_id) if blocked else None
    if refusal is None:
        amount = payment.amount.minor_units
        try:
            assert change.book is not None
            debit, credit = payment.balance_account, payment.merchant_account(ports.merchant_id)
            change.book.post(transfer(ports.ids.next(0), "payment", payment.id, debit, credit, amount))
        except DomainError as error:
            refusal = error
    step = payment.succeed(change.now_ms) if refusal is None else payment.fail(refusal.reason, change.now_ms)
    change.moved.append(Moved(step, payment))
    return refusal
