"""Rules of orders and of the inventory: pure, no I/O, clock or randomness.

Orders and stock are changed in memory, in the sequence of the batch, and written once afterwards. Each change of an
order returns the event that tells of it; an order's ``version`` is the number of its last event.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from services.kernel.errors import DomainError
from services.kernel.money import Money
from services.order import states

BY_USER = "user"
BY_OPERATOR = "operator"
EXPIRED = "expired"
CANCEL_REASONS = (BY_USER, BY_OPERATOR, EXPIRED)

ORDER_CANCELLED = "order_cancelled"
ORDER_PAID = "order_paid"
AMOUNT_MISMATCH = "amount_mismatch"
REJECT_REASONS = (ORDER_CANCELLED, ORDER_PAID, AMOUNT_MISMATCH)

SKU = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""What the contract says of a SKU; page tokens of the inventory hold one."""


@dataclass(frozen=True, slots=True)
class Line:
    """What is ordered: ``quantity`` of ``sku``."""

    sku: str
    quantity: int


@dataclass(frozen=True, slots=True)
class Item:
    """A line of an order, priced when the order was made."""

    sku: str
    name: str
    quantity: int
    unit_price: Money


@dataclass(frozen=True, slots=True)
class Fact:
    """Which order an event is about, and when it happened; ``version`` counts the order's events from 1."""

    order_id: int
    version: int
    at_ms: int
    user_id: int
    order_no: str


@dataclass(frozen=True, slots=True)
class OrderCreated:
    """The order was made and its stock is held until ``expire_ms``."""

    fact: Fact
    amount: Money
    expire_ms: int


@dataclass(frozen=True, slots=True)
class OrderPaid:
    """A payment paid the whole."""

    fact: Fact
    amount: Money
    payment_id: int


@dataclass(frozen=True, slots=True)
class OrderCancelled:
    """The order ended unpaid; ``cancel_reason`` is one of CANCEL_REASONS."""

    fact: Fact
    cancel_reason: str


@dataclass(frozen=True, slots=True)
class OrderRefunded:
    """The whole payment was given back."""

    fact: Fact
    payment_id: int


@dataclass(frozen=True, slots=True)
class OrderPaymentRejected:
    """A payment cannot be taken, for one of REJECT_REASONS, and is to be given back."""

    fact: Fact
    payment_id: int
    reject_reason: str


OrderEvent = OrderCreated | OrderPaid | OrderCancelled | OrderRefunded | OrderPaymentRejected


@dataclass(slots=True)
class Order:
    """An order as a batch sees and changes it. Times are milliseconds; ``payment_id`` 0: not paid."""

    id: int
    user_id: int
    amount: Money
    items: tuple[Item, ...]
    status: str
    version: int
    create_ms: int
    update_ms: int
    expire_ms: int
    payment_id: int = 0
    cancel_reason: str = ""

    @property
    def order_no(self) -> str:
        """The public number."""
        return f"O{self.id}"

    def created(self) -> OrderCreated:
        """Tell that the order was made."""
        return OrderCreated(self._fact(), self.amount, self.expire_ms)

    def pay(self, payment_id: int, now_ms: int) -> OrderPaid:
        """Be paid by ``payment_id``; `rejection` was asked before."""
        self._enter(states.PAID, now_ms)
        self.payment_id = payment_id
        return OrderPaid(self._fact(), self.amount, payment_id)

    def cancel(self, cancel_reason: str, now_ms: int) -> OrderCancelled:
        """End unpaid; ORDER_STATUS_CONFLICT where it was paid."""
        self._enter(states.CANCELLED, now_ms)
        self.cancel_reason = cancel_reason
        return OrderCancelled(self._fact(), cancel_reason)

    def refund(self, now_ms: int) -> OrderRefunded:
        """Have the whole payment given back."""
        self._enter(states.REFUNDED, now_ms)
        return OrderRefunded(self._fact(), self.payment_id)

    def reject_payment(self, payment_id: int, reject_reason: str, now_ms: int) -> OrderPaymentRejected:
        """Refuse to take a payment; the order stays as it is."""
        self.version, self.update_ms = self.version + 1, now_ms
        return OrderPaymentRejected(self._fact(), payment_id, reject_reason)

    def rejection(self, payment_id: int, amount: Money) -> str:
        """Say why the order cannot take a payment of ``amount``; "" when it can, or has taken this very one."""
        if self.status == states.CANCELLED:
            return ORDER_CANCELLED
        if self.status != states.PENDING:
            return "" if self.payment_id == payment_id else ORDER_PAID
        return "" if self.amount == amount else AMOUNT_MISMATCH

    def _enter(self, status: str, now_ms: int) -> None:
        """Move along the published graph; ORDER_STATUS_CONFLICT where it has no such way."""
        if status not in states.NEXT[self.status]:
            raise DomainError("ORDER_STATUS_CONFLICT", order_id=self.id, status=self.status, wanted=status)
        self.status, self.version, self.update_ms = status, self.version + 1, now_ms

    def _fact(self) -> Fact:
        return Fact(self.id, self.version, self.update_ms, self.user_id, self.order_no)


@dataclass(slots=True)
class Stock:
    """An item of the inventory. ``version`` counts the batches that changed it; 0: not stored yet."""

    sku: str
    name: str
    unit_price: Money
    available: int
    reserved: int
    version: int
    update_ms: int


@dataclass(slots=True)
class Inventory:
    """The stock of a batch, by SKU, in memory: ``changed`` is what is to be written, each item once."""

    stock: dict[str, Stock]
    changed: dict[str, Stock] = field(default_factory=dict)

    def price(self, lines: Sequence[Line]) -> tuple[tuple[Item, ...], Money]:
        """Price lines and sum them up.

        Refuses with STOCK_NOT_FOUND, CURRENCY_MIXED, or INVALID_ARGUMENT when the sum is beyond what money can be.
        """
        for line in lines:
            if line.sku not in self.stock:
                raise DomainError("STOCK_NOT_FOUND", sku=line.sku)
        items = tuple(
            Item(line.sku, stock.name, line.quantity, stock.unit_price)
            for line in lines
            for stock in (self.stock[line.sku],)
        )
        if len({item.unit_price.currency_code for item in items}) > 1:
            raise DomainError("CURRENCY_MIXED")
        total = Money(items[0].unit_price.currency_code, 0)
        for item in items:
            total = total.plus(item.unit_price.times(item.quantity))
        return items, total

    def reserve(self, items: Sequence[Item], now_ms: int) -> None:
        """Hold the stock of an order, all of it or, with STOCK_INSUFFICIENT, none."""
        for item in items:
            if (available := self.stock[item.sku].available) < item.quantity:
                raise DomainError("STOCK_INSUFFICIENT", sku=item.sku, available=available)
        for item in items:
            self._move(item.sku, -item.quantity, item.quantity, now_ms)

    def release(self, items: Sequence[Item], now_ms: int) -> None:
        """Free the stock of an order that ended unpaid."""
        for item in items:
            self._move(item.sku, item.quantity, -item.quantity, now_ms)

    def consume(self, items: Sequence[Item], now_ms: int) -> None:
        """Let the held stock go with an order that was paid."""
        for item in items:
            self._move(item.sku, 0, -item.quantity, now_ms)

    def set(self, sku: str, name: str, unit_price: Money, available: int, now_ms: int) -> Stock:
        """Set an item to what an operator says, or make it; what is reserved stays reserved."""
        stock = self.stock.setdefault(sku, Stock(sku, name, unit_price, 0, 0, 0, now_ms))
        stock.name, stock.unit_price, stock.available = name, unit_price, available
        self._touch(stock, now_ms)
        return stock

    def _move(self, sku: str, available: int, reserved: int, now_ms: int) -> None:
        stock = self.stock[sku]
        stock.available, stock.reserved = stock.available + available, stock.reserved + reserved
        assert stock.reserved >= 0, f"more of {sku} was let go than is reserved"
        self._touch(stock, now_ms)

    def _touch(self, stock: Stock, now_ms: int) -> None:
        """Put an item down to be written, once however often it changes in the batch."""
        if stock.sku not in self.changed:
            self.changed[stock.sku] = stock
            stock.version += 1
        stock.update_ms = now_ms


def place_order(
    order_id: int, user_id: int, lines: Sequence[Line], inventory: Inventory, *, now_ms: int, hold_ms: int
) -> Order:
    """Make a pending order priced from the inventory, whose stock is held for ``hold_ms``."""
    items, amount = inventory.price(lines)
    inventory.reserve(items, now_ms)
    return Order(order_id, user_id, amount, items, states.PENDING, 1, now_ms, now_ms, now_ms + hold_ms)
