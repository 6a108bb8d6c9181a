"""One function per RPC, event or job, over a sequence of items; each item succeeds or is refused by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from services.kernel.errors import DomainError
from services.kernel.idempotency import Answer, IdempotencyKey, Once
from services.kernel.ids import shard_of
from services.order import domain, states
from services.order.domain import Inventory, Line, Order, OrderEvent, Stock, place_order
from services.order.ports import Change

if TYPE_CHECKING:
    from services.kernel.caller import Caller
    from services.kernel.money import Money
    from services.kernel.pages import Page
    from services.order.ports import Ports, Transaction

READ_ANY = "orders:read"
WRITE_ANY = "orders:write"


@dataclass(frozen=True, slots=True)
class CreateOrder:
    """Order ``lines``, each SKU once, for the caller."""

    caller: Caller
    key: IdempotencyKey | None
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class SetOrderStatus:
    """Bring an order to the state ``wanted``; cancelled is the only one that a caller can set."""

    caller: Caller
    order_id: int
    wanted: str


@dataclass(frozen=True, slots=True)
class ExpireOrder:
    """Cancel an order if it is still pending though its time is over."""

    order_id: int


@dataclass(frozen=True, slots=True)
class SetStock:
    """Set an item of the inventory, or make it."""

    sku: str
    name: str
    unit_price: Money
    available: int


@dataclass(frozen=True, slots=True)
class PaymentSucceeded:
    """The event: a payment of ``amount`` took the money for an order."""

    event_id: str
    payment_id: int
    order_id: int
    amount: Money


@dataclass(frozen=True, slots=True)
class PaymentRefunded:
    """The event: of a payment of ``amount``, some was given back; ``whole``: all that was taken.

    ``beside_order``: the payment is none of its order's any more, which can be paid by another.
    """

    event_id: str
    payment_id: int
    order_id: int
    amount: Money
    whole: bool
    beside_order: bool = False


def create_orders(ports: Ports, items: Sequence[CreateOrder]) -> list[Answer]:
    """Answer each item with its rendered order, which is also what a repeat gets, or with its refusal."""
    change, keys = Change(ports.clock.now_ms()), [item.key for item in items]
    with ports.store.transaction() as tx:
        once = Once(keys, tx.stored(keys))
        inventory = Inventory(tx.stock({line.sku for place in once.fresh for line in items[place].lines}))
        for place in once.fresh:
            user, lines = items[place].caller.subject, items[place].lines
            order_id = ports.ids.next(shard_of(user))
            try:
                order = place_order(order_id, user, lines, inventory, now_ms=change.now_ms, hold_ms=ports.hold_ms)
            except DomainError as refusal:
                once.settle(place, refusal)
                continue
            change.new_orders.append(order)
            change.events.append(order.created())
            once.settle(place, ports.render(order))
        change.answers = once.kept(business=ports.business)
        _commit(ports, tx, change, inventory)
    return once.done()


def set_order_statuses(ports: Ports, items: Sequence[SetOrderStatus]) -> list[Order | DomainError]:
    """Cancel the orders that may be; one that is cancelled already is returned as it is."""

    def decide(item: SetOrderStatus, batch: _Batch) -> Order:
        order = batch.orders.get(item.order_id)
        if item.wanted != states.CANCELLED:
            raise DomainError("ORDER_STATUS_NOT_SETTABLE", wanted=item.wanted)
        user = item.caller.owns_or(WRITE_ANY)
        if order is None or user not in {None, order.user_id}:
            raise DomainError("ORDER_NOT_FOUND", order_id=item.order_id)
        if order.status != states.CANCELLED:
            batch.cancel(order, domain.BY_USER if item.caller.subject == order.user_id else domain.BY_OPERATOR)
        return order

    return _each(ports, items, decide)


def expire_orders(ports: Ports, items: Sequence[ExpireOrder]) -> list[bool | DomainError]:
    """Cancel the orders that are still pending though their time is over; answers say which were."""

    def decide(item: ExpireOrder, batch: _Batch) -> bool:
        order = batch.orders[item.order_id]
        due = order.status == states.PENDING and order.expire_ms <= batch.change.now_ms
        if due:
            batch.cancel(order, domain.EXPIRED)
        return due

    return _each(ports, items, decide)


def pay_orders(ports: Ports, items: Sequence[PaymentSucceeded]) -> list[DomainError | None]:
    """Let payments pay their orders; one that its order cannot take is rejected, once, and the order stays as it is."""

    def decide(item: PaymentSucceeded, batch: _Batch) -> None:
        order = batch.take(item, "payment.success")
        if order is None or item.payment_id in batch.rejected:
            return
        if reason := order.rejection(item.payment_id, item.amount):
            batch.rejected.add(item.payment_id)
            batch.changed(order, order.reject_payment(item.payment_id, reason, batch.change.now_ms))
        elif order.status == states.PENDING:
            batch.pay(order, item.payment_id)

    return _each(ports, items, decide, events=items)


def refund_orders(ports: Ports, items: Sequence[PaymentRefunded]) -> list[DomainError | None]:
    """Let orders follow the refund of their whole payment; a part, or a rejected payment's refund, changes nothing.

    payment.success and payment.refunded are two topics, so the refund may come first. It says all that the success
    will: an order that is pending for exactly this amount was paid and is refunded. What comes late finds it done. An
    order that cannot take the payment waits for the success, which will be rejected as ever.
    """

    def decide(item: PaymentRefunded, batch: _Batch) -> None:
        order = batch.take(item, "payment.refunded")
        if order is None or not item.whole or item.beside_order or item.payment_id in batch.rejected:
            return
        if order.status == states.PENDING and not order.rejection(item.payment_id, item.amount):
            batch.pay(order, item.payment_id)
        if order.status == states.PAID and order.payment_id == item.payment_id:
            batch.changed(order, order.refund(batch.change.now_ms))

    return _each(ports, items, decide, events=items)


def set_stocks(ports: Ports, items: Sequence[SetStock]) -> list[Stock]:
    """Set items of the inventory, in sequence; returns each as the batch leaves it."""
    change = Change(ports.clock.now_ms())
    with ports.store.transaction() as tx:
        inventory = Inventory(tx.stock({item.sku for item in items}))
        found = [inventory.set(i.sku, i.name, i.unit_price, i.available, change.now_ms) for i in items]
        _commit(ports, tx, change, inventory)
    return found


def get_order(ports: Ports, order_id: int, user_id: int | None) -> Order:
    """Read an order; ``user_id`` narrows to one user's, another's is ORDER_NOT_FOUND."""
    order = ports.cache.order(order_id)
    if order is None:
        order = ports.store.order(order_id)
        if order is not None:
            ports.cache.put([order], [])
    if order is None or user_id not in {None, order.user_id}:
        raise DomainError("ORDER_NOT_FOUND", order_id=order_id)
    return order


def list_user_orders(ports: Ports, user_id: int, page: Page) -> tuple[Sequence[Order], str]:
    """Read a page of a user's orders, newest first, and the token of the next."""
    return page.cut(ports.store.orders_of(user_id, page), lambda order: order.id)


def batch_get_orders(ports: Ports, ids: Sequence[int]) -> list[Order]:
    """Read those of the orders that exist, without their items; from the database, since money follows from it."""
    return ports.store.bare_orders(ids)


def get_stock(ports: Ports, sku: str) -> Stock:
    """Read an item of the inventory; STOCK_NOT_FOUND."""
    stock = ports.cache.item(sku)
    if stock is None:
        stock = ports.store.item(sku)
        if stock is not None:
            ports.cache.put([], [stock])
    if stock is None:
        raise DomainError("STOCK_NOT_FOUND", sku=sku)
    return stock


def list_stock(ports: Ports, page: Page) -> tuple[Sequence[Stock], str]:
    """Read a page of the inventory by SKU, and the token of the next; PAGE_TOKEN_INVALID."""
    if page.after and not domain.SKU.fullmatch(page.after):
        raise DomainError("PAGE_TOKEN_INVALID")
    return page.cut(ports.store.items(page), lambda stock: stock.sku)


class _OnOrder(Protocol):
    """A command about one order."""

    @property
    def order_id(self) -> int: ...


class _OfPayment(_OnOrder, Protocol):
    """An event of a payment."""

    @property
    def event_id(self) -> str: ...
    @property
    def payment_id(self) -> int: ...


@dataclass(slots=True)
class _Batch:
    """Orders that a batch locked, the stock of their items, and what became of them."""

    orders: dict[int, Order]
    inventory: Inventory
    unseen: set[str]
    rejected: set[int]
    change: Change

    def take(self, item: _OfPayment, topic: str) -> Order | None:
        """Return the order that an event is about, and put the event down as handled; None: it was handled before."""
        if item.event_id not in self.unseen:
            return None
        if item.order_id not in self.orders:
            raise DomainError("ORDER_NOT_FOUND", order_id=item.order_id)
        self.unseen.remove(item.event_id)
        self.change.taken.append((item.event_id, topic))
        return self.orders[item.order_id]

    def pay(self, order: Order, payment_id: int) -> None:
        """Pay an order and let go of its stock."""
        self.changed(order, order.pay(payment_id, self.change.now_ms))
        self.inventory.consume(order.items, self.change.now_ms)

    def cancel(self, order: Order, cancel_reason: str) -> None:
        """Cancel an order and free its stock."""
        self.changed(order, order.cancel(cancel_reason, self.change.now_ms))
        self.inventory.release(order.items, self.change.now_ms)

    def changed(self, order: Order, event: OrderEvent) -> None:
        """Put down a change of an order."""
        self.change.changed_orders[order.id] = order
        self.change.events.append(event)


C = TypeVar("C", bound=_OnOrder)
R = TypeVar("R")


def _each(
    ports: Ports, items: Sequence[C], decide: Callable[[C, _Batch], R], events: Sequence[_OfPayment] = ()
) -> list[R | DomainError]:
    """Lock the orders of a batch and their stock, decide item by item, write once. ``events``: the items that are some."""
    change = Change(ports.clock.now_ms())
    outcomes: list[R | DomainError] = []
    with ports.store.transaction() as tx:
        orders = tx.orders({item.order_id for item in items})
        moving = {item.sku for order in orders.values() if order.status == states.PENDING for item in order.items}
        unseen, rejected = tx.unseen([e.event_id for e in events]), tx.rejected({e.payment_id for e in events})
        batch = _Batch(orders, Inventory(tx.stock(moving)), unseen, rejected, change)
        for item in items:
            try:
                outcomes.append(decide(item, batch))
            except DomainError as refusal:
                outcomes.append(refusal)
        _commit(ports, tx, change, batch.inventory)
    return outcomes


def _commit(ports: Ports, tx: Transaction, change: Change, inventory: Inventory) -> None:
    """Write the change and make it durable; then the cache and the relay hear of it."""
    change.stock = list(inventory.changed.values())
    ports.cache.forget(change.changed_orders)
    tx.write(change)
    tx.commit()
    ports.cache.put(change.orders(), change.stock)
    if change.events:
        ports.published()
