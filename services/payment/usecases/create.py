"""CreatePayment: look, ask risk once for the whole batch, decide item by item, write one transaction."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from services.kernel.errors import DomainError
from services.kernel.idempotency import IdempotencyKey, InFlight, Once, Outcome
from services.payment import states
from services.payment.domain import Attempt, Book, Kind, Method, Payment, Scene, check_payable
from services.payment.domain.attempt import LEASE_MS, scene_of
from services.payment.domain.ledger import transfer
from services.payment.ports import Change, Moved, ToAssess
from services.payment.usecases.reaching import reach, reach_moved

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from services.kernel.caller import Caller
    from services.kernel.money import Money
    from services.payment.domain import AccountKey, KnownOrder
    from services.payment.domain.card import Card
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
    how: How | None = None


@dataclass(frozen=True, slots=True)
class How:
    """How a provider is to be met. ``scene`` None: the method's own; ``payment_method_id`` None: the default card."""

    scene: Scene | None = None
    payer: Mapping[str, str] = field(default_factory=dict)
    payment_method_id: int | None = None
    capture: bool = True


_SIMPLY = How()


def create_payments(ports: Ports, items: Sequence[CreatePayment]) -> list[Outcome]:
    """Answer each item with its rendered payment, which is also what a repeat gets, or with its refusal.

    A payment through a provider is stored with what the provider is to be asked, and in flight until it was asked.
    """
    keys = [item.key for item in items]
    seen = ports.store.look(keys, {item.order_id for item in items})
    once = Once(keys, seen.stored)
    if not once.fresh:
        return once.outcomes()
    unanswered = _learn(ports, items, once, seen.orders)
    drafts = _draft(ports, items, once, seen.orders, unanswered)
    blocked = _assess(ports, items, drafts, once)
    with ports.store.transaction() as tx:
        change = _decide(ports, tx, items, drafts, blocked, once)
        tx.write(change)
        reach(ports, "P2", change.new_payments)
        tx.commit()
    ports.committed()
    reach(ports, "P3", change.new_payments)
    reach(ports, "P6", change.new_attempts)
    reach_moved(ports, change)
    return once.outcomes()


@dataclass(frozen=True, slots=True)
class _Draft:
    """A payment that may be made, and how its provider is met; None: from the balance."""

    payment: Payment
    how: How | None = None
    card: Card | None = None
    expire_ms: int = 0


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
) -> dict[int, _Draft]:
    """Make a pending payment for each item that may have one; refuse the others.

    ``unanswered``: the order service was asked for the orders that are not known, and did not answer.
    """
    now, drafts = ports.clock.now_ms(), {}
    cards = _cards(ports, [items[place] for place in once.fresh])
    for place in once.fresh:
        item = items[place]
        user = item.caller.subject
        try:
            if unanswered is not None and item.order_id not in orders:
                raise unanswered
            order = check_payable(orders.get(item.order_id), item.order_id, user, item.shown, now)
            payment = Payment(item.payment_id, order.id, user, order.amount, item.method,
                              states.PENDING, 1, 0, 0, "", now, now)  # fmt: skip
            balance = item.method is Method.BALANCE
            drafts[place] = _Draft(payment) if balance else _provided(ports, item, payment, order.expire_ms, cards)
        except DomainError as refusal:
            once.settle(place, refusal)
    return drafts


def _cards(ports: Ports, items: Sequence[CreatePayment]) -> Mapping[tuple[int, int | None], Card]:
    wanted = [
        (item.caller.subject, (item.how or _SIMPLY).payment_method_id)
        for item in items
        if item.method is Method.BANK_CARD
    ]
    return ports.outside.cards.find(wanted) if wanted else {}


def _provided(
    ports: Ports,
    item: CreatePayment,
    payment: Payment,
    order_expire_ms: int,
    cards: Mapping[tuple[int, int | None], Card],
) -> _Draft:
    """Check that the payment can be made through its provider."""
    how, method = item.how or _SIMPLY, item.method
    if method not in ports.outside.providers:
        raise DomainError("PAYMENT_METHOD_UNAVAILABLE", method=method)
    payer = {name: value for name, value in how.payer.items() if value}
    scene, card = scene_of(method, how.scene, payer), None
    if method is Method.BANK_CARD:
        card = cards.get((item.caller.subject, how.payment_method_id))
        if card is None:
            raise DomainError("PAYMENT_METHOD_NOT_FOUND", payment_method_id=how.payment_method_id or 0)
        payer = {"card_token": card.token}
    elif not how.capture:
        raise DomainError("SCENE_UNSUPPORTED", method=method, scene="authorize_only")
    expire_ms = min(order_expire_ms, payment.create_ms + ports.outside.pay_window_ms)
    return _Draft(payment, How(scene, payer, how.payment_method_id, how.capture), card, expire_ms)


def _assess(ports: Ports, items: Sequence[CreatePayment], drafts: dict[int, _Draft], once: Once) -> frozenset[int]:
    """Ask risk about every draft at once; returns the places that it blocks. Unanswered drafts are UNAVAILABLE."""
    if not drafts:
        return frozenset()
    payments = [draft.payment for draft in drafts.values()]
    asked = [ToAssess(p.id, p.user_id, p.order_id, p.amount, p.method) for p in payments]
    reach(ports, "P4", payments)
    try:
        verdicts = ports.risk.blocked(asked, _cause(items, drafts))
    except DomainError as failure:
        for place in list(drafts):
            once.settle(place, failure)
            del drafts[place]
        return frozenset()
    reach(ports, "P5", payments)
    return frozenset(place for place, blocked in zip(drafts, verdicts, strict=True) if blocked)


def _cause(items: Sequence[CreatePayment], places: Iterable[int]) -> Caller:
    """Return who waits longest: nobody's hurry is his neighbour's."""
    return max((items[place].caller for place in places), key=lambda caller: caller.deadline)


def _decide(
    ports: Ports,
    tx: Transaction,
    items: Sequence[CreatePayment],
    drafts: dict[int, _Draft],
    blocked: frozenset[int],
    once: Once,
) -> Change:
    """Decide every draft in sequence against locked rows; what another process answered meanwhile stays its answer."""
    once.recheck(tx.stored(items[i].key for i in once.fresh))
    ours = {place: drafts[place] for place in once.fresh if place in drafts}
    live = tx.live_payments({d.payment.order_id for d in ours.values()})
    change = Change(ports.clock.now_ms(), book=Book(tx.accounts(_accounts(ports, ours.values()))))
    for place, draft in ours.items():
        payment = draft.payment
        other = live.get(payment.order_id)
        if other is not None:
            once.settle(place, DomainError("ORDER_HAS_LIVE_PAYMENT", order_id=payment.order_id, payment_id=other))
            continue
        change.new_payments.append(payment)
        change.moved.append(Moved(payment.step(), payment))
        refusal = DomainError("PAYMENT_BLOCKED", order_id=payment.order_id) if place in blocked else None
        if refusal is None and draft.how is not None:
            once.settle(place, _begin(ports, change, draft, draft.how, items[place].key))
        else:
            refusal = _pay(ports, change, payment, refusal)
            once.settle(place, refusal or ports.render.created(payment))
        if refusal is None:
            live[payment.order_id] = payment.id
    change.answers, change.held = once.kept(business=ports.business), once.held()
    return change


def _accounts(ports: Ports, drafts: Iterable[_Draft]) -> set[AccountKey]:
    """The accounts that payments from balances touch; what a provider takes is booked when it has."""
    paid = [draft.payment for draft in drafts if draft.how is None]
    return {p.balance_account for p in paid} | {p.merchant_account(ports.merchant_id) for p in paid}


def _begin(ports: Ports, change: Change, draft: _Draft, how: How, key: IdempotencyKey) -> InFlight:
    """Store what the provider is to be asked, under our number for it; it is asked after the commit."""
    payment, now = draft.payment, change.now_ms
    change.moved.append(Moved(payment.enter(states.PROCESSING, now), payment))
    attempt = payment.charge = Attempt(
        id=payment.id, payment_id=payment.id, refund_id=0, kind=Kind.CHARGE, method=payment.method,
        request_id=payment.payment_no, amount=payment.amount, create_ms=now, update_ms=now, next_ms=now + LEASE_MS,
        owner=ports.outside.instance, scope=key.scope, scene=how.scene, payer=how.payer, card=draft.card,
        capture=how.capture, expire_ms=draft.expire_ms,
    )  # fmt: skip
    change.new_attempts.append(attempt)
    return InFlight(attempt.id, attempt)


def _pay(ports: Ports, change: Change, payment: Payment, refusal: DomainError | None) -> DomainError | None:
    """Take the money from the balance. What is refused stays behind as a failed payment, so that it can be looked up."""
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
