"""What orders and the inventory do and refuse."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kernel.errors import DomainError
from services.kernel.money import MINOR_UNITS_MAX, Money
from services.order import states
from services.order.domain import (
    AMOUNT_MISMATCH,
    BY_USER,
    ORDER_CANCELLED,
    ORDER_PAID,
    Inventory,
    Line,
    Order,
    OrderEvent,
    Stock,
    place_order,
)

NOW = 1_800_000_000_000


def shelf(**available: int) -> Inventory:
    """An inventory in CNY; an item's price is 100 times the length of its SKU."""
    return Inventory({sku: Stock(sku, sku.title(), cny(100 * len(sku)), n, 0, 1, 0) for sku, n in available.items()})


def cny(minor_units: int) -> Money:
    return Money("CNY", minor_units)


def pending(inventory: Inventory, *lines: Line) -> Order:
    return place_order(1, 7, lines, inventory, now_ms=NOW, hold_ms=1000)


def reason(caught: pytest.ExceptionInfo[DomainError]) -> str:
    return caught.value.reason


def test_order_is_priced_from_the_inventory_and_holds_its_stock() -> None:
    """The price is the inventory's at that moment; available falls, reserved rises by as much."""
    inventory = shelf(tea=5, cup=2)
    order = pending(inventory, Line("tea", 3), Line("cup", 1))
    assert order.amount == cny(1200)
    assert [(i.name, i.quantity, i.unit_price) for i in order.items] == [("Tea", 3, cny(300)), ("Cup", 1, cny(300))]
    assert (inventory.stock["tea"].available, inventory.stock["tea"].reserved) == (2, 3)
    assert order.expire_ms == NOW + 1000
    assert order.created().fact.version == 1


def test_stock_is_untouched_when_one_line_is_short() -> None:
    """All lines are held, or none; the refusal names the item and what there is of it."""
    inventory = shelf(tea=5, cup=2)
    with pytest.raises(DomainError) as caught:
        pending(inventory, Line("tea", 3), Line("cup", 3))
    assert reason(caught) == "STOCK_INSUFFICIENT"
    assert caught.value.metadata == {"sku": "cup", "available": "2"}
    assert inventory.stock["tea"].available == 5
    assert inventory.changed == {}


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ((Line("tea", 1), Line("pot", 1)), "STOCK_NOT_FOUND"),
        ((Line("tea", 1), Line("yen", 1)), "CURRENCY_MIXED"),
        ((Line("gold", 2),), "INVALID_ARGUMENT"),
    ],
)
def test_order_is_refused_with_its_reason(lines: tuple[Line, ...], expected: str) -> None:
    """An unknown item, two currencies, a sum beyond what money can be."""
    inventory = shelf(tea=5)
    inventory.stock["yen"] = Stock("yen", "Yen", Money("JPY", 5), 5, 0, 1, 0)
    inventory.stock["gold"] = Stock("gold", "Gold", cny(MINOR_UNITS_MAX), 5, 0, 1, 0)
    with pytest.raises(DomainError) as caught:
        pending(inventory, *lines)
    assert reason(caught) == expected
    assert inventory.changed == {}


def test_states_move_along_the_published_graph_alone() -> None:
    """Every pair of states is tried; those that the contract does not join are refused and change nothing."""
    moves: dict[str, Callable[[Order], OrderEvent]] = {
        states.PAID: lambda order: order.pay(9, NOW + 1),
        states.CANCELLED: lambda order: order.cancel(BY_USER, NOW + 1),
        states.REFUNDED: lambda order: order.refund(NOW + 1),
    }
    for before in states.ALL:
        for after, move in moves.items():
            order = pending(shelf(tea=5), Line("tea", 1))
            order.status = before
            if after in states.NEXT[before]:
                assert move(order).fact.version == 2
                assert order.status == after
            else:
                with pytest.raises(DomainError) as caught:
                    move(order)
                assert caught.value.metadata == {"order_id": "1", "status": before, "wanted": after}
                assert (order.status, order.version) == (before, 1)


@pytest.mark.parametrize(
    ("status", "payment_id", "amount", "expected"),
    [
        (states.PENDING, 9, cny(300), ""),
        (states.PENDING, 9, cny(299), AMOUNT_MISMATCH),
        (states.PENDING, 9, Money("USD", 300), AMOUNT_MISMATCH),
        (states.CANCELLED, 9, cny(300), ORDER_CANCELLED),
        (states.PAID, 8, cny(300), ORDER_PAID),
        (states.PAID, 9, cny(300), ""),
        (states.REFUNDED, 8, cny(300), ORDER_PAID),
        (states.REFUNDED, 9, cny(300), ""),
    ],
)
def test_payment_is_rejected_when_the_order_cannot_take_it(
    status: str, payment_id: int, amount: Money, expected: str
) -> None:
    """Cancelled, paid by another, differently priced; the payment that paid it is known again. 9 paid it, or will."""
    order = pending(shelf(tea=5), Line("tea", 1))
    order.status, order.payment_id = status, 9 if status in {states.PAID, states.REFUNDED} else 0
    assert order.rejection(payment_id, amount) == expected


def test_item_is_written_once_however_often_it_changes() -> None:
    """A batch counts one version of an item for all its changes."""
    inventory = shelf(tea=5)
    first = pending(inventory, Line("tea", 2))
    pending(inventory, Line("tea", 1))
    inventory.release(first.items, NOW)
    assert [s.version for s in inventory.changed.values()] == [2]
    assert (inventory.stock["tea"].available, inventory.stock["tea"].reserved) == (4, 1)


@given(st.lists(st.integers(min_value=1, max_value=9), max_size=30))
def test_stock_is_never_oversold(quantities: list[int]) -> None:
    """Whatever is asked for in whatever sequence: what is held and what is left is what there was."""
    inventory = shelf(tea=20)
    held = 0
    for quantity in quantities:
        try:
            pending(inventory, Line("tea", quantity))
        except DomainError:
            assert quantity > 20 - held
        else:
            held += quantity
    tea = inventory.stock["tea"]
    assert (tea.available, tea.reserved) == (20 - held, held)
    assert tea.available >= 0


def test_set_item_keeps_what_is_reserved() -> None:
    """Name, price and available are set; what pending orders hold stays held."""
    inventory = shelf(tea=5)
    pending(inventory, Line("tea", 2))
    found = inventory.set("tea", "Green tea", cny(999), 50, NOW + 5)
    assert (found.name, found.available, found.reserved, found.version) == ("Green tea", 50, 2, 2)
    assert inventory.set("pot", "Pot", cny(1), 1, NOW).version == 1
