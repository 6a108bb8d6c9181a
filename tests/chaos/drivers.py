"""How a purchase is paid and given back by each method, over REST, by clients that repeat until they know."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from tests.chaos.points import PAY, REFUND
from tests.e2e.clients import cny
from tests.e2e.recovery import every

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from tests.e2e.clients import Person, Shop
    from tests.e2e.history import Clients, Operation

SKU, PRICE = "seat", 700
TOP_UP = 1_000_000


@dataclass
class Purchase:
    """What one client wants, and what he was told: an order, its payment (``twice``: tried twice at once), a refund."""

    who: Person
    number: int
    order: dict[str, Any] = field(default_factory=dict)
    told: list[Operation] = field(default_factory=list)

    @property
    def twice(self) -> bool:
        """Whether it is paid twice at once: one of the two must be refused."""
        return self.number % 4 == 0

    @property
    def back(self) -> int:
        """How much of it is given back when it is: all or the half."""
        return PRICE if self.number % 2 else PRICE // 2

    @property
    def payment(self) -> dict[str, Any]:
        """The payment that was accepted, as it was told."""
        (paid,) = [each.answer["payment"] for each in self.told if each.method == "CreatePayment" and each.answer]
        return dict(paid)

    @property
    def is_refunded(self) -> bool:
        """Whether money was given back."""
        return any(each.method == "RefundPayment" and each.answer for each in self.told)


class Driver(Protocol):
    """A method of payment. Each operation returns once its client knows how it ended, in a state of rest."""

    method: str

    @property
    def operations(self) -> Mapping[str, Callable[[Purchase], Awaitable[None]]]:
        """What can be done with a purchase, by the names of points.py; PAY also places the order."""
        ...

    def fund(self, who: Sequence[Person]) -> None:
        """Make people able to pay by this method."""
        ...

    def agrees(self, purchases: Sequence[Purchase]) -> None:
        """Assert that whoever holds the money says what the clients were told: one charge per order, no other."""
        ...


class Balance:
    """Pays from a balance: the answer is the end of it."""

    method = "balance"

    def __init__(self, clients: Clients, shop: Shop) -> None:
        """Pay as ``clients``."""
        self._clients, self._shop = clients, shop
        self.operations = {PAY: self._pay, REFUND: self._refund}

    def fund(self, who: Sequence[Person]) -> None:
        """Top up."""
        for each in who:
            self._shop.top_up(each, TOP_UP)

    async def _pay(self, purchase: Purchase) -> None:
        await order(self._clients, purchase)
        await pay(self._clients, purchase, "METHOD_BALANCE")

    async def _refund(self, purchase: Purchase) -> None:
        await refund(self._clients, purchase)

    def agrees(self, purchases: Sequence[Purchase]) -> None:
        """Each balance lacks what was paid and not given back, to the fen."""
        for who in {each.who.id: each.who for each in purchases}.values():
            own = [each for each in purchases if each.who is who]
            kept = sum(PRICE - (each.back if each.is_refunded else 0) for each in own)
            assert self._shop.balance(who) == TOP_UP - kept


async def order(clients: Clients, purchase: Purchase) -> None:
    """Place the order."""
    body = {"items": [{"sku": SKU, "quantity": 1}]}
    placed = await clients.until_known("CreateOrder", body, purchase.who.token, f"order-{purchase.number:06}")
    assert placed.outcome == "ok", placed
    purchase.order = placed.answer["order"]


async def pay(clients: Clients, purchase: Purchase, method: str, **more: object) -> None:
    """Pay the order, perhaps twice at once, until it is known how that ended."""
    made = purchase.order
    body = {"order_id": made["id"], "method": method, "amount": made["amount"], **more}
    keys = [f"pay-{made['id']}-{number}" for number in range(1 + purchase.twice)]
    token = purchase.who.token
    purchase.told += await asyncio.gather(*(clients.until_known("CreatePayment", body, token, key) for key in keys))


async def refund(clients: Clients, purchase: Purchase) -> None:
    """Give it back, all or the half, until it is known how that ended."""
    payment = purchase.payment["id"]
    body = {"id": payment, "amount": cny(purchase.back)}
    purchase.told.append(await clients.until_known("RefundPayment", body, purchase.who.token, f"refund-{payment}"))


def booked(shop: Shop, purchases: Sequence[Purchase]) -> None:
    """Compare what clients were told with payments and orders: one charge per order, and no other."""
    for each in purchases:
        told = [one for one in each.told if one.method == "CreatePayment"]
        assert sorted(one.outcome for one in told) == ["fail"] * (len(told) - 1) + ["ok"], told
        assert {one.reason for one in told} <= {"", "ORDER_HAS_LIVE_PAYMENT"}
        assert [one.outcome for one in each.told if one.method != "CreatePayment"] in ([], ["ok"])
    for who in {each.who.id: each.who for each in purchases}.values():
        own = {each.order["id"]: each for each in purchases if each.who is who}
        payments = every(shop.plane, "ListPayments", "payments", who.token)
        assert {each["order_id"]: each["id"] for each in payments} == {i: each.payment["id"] for i, each in own.items()}
        assert len(payments) == len(own), "an order was paid twice"
        for one in payments:
            purchase = own[one["order_id"]]
            back = purchase.back if purchase.is_refunded else 0
            assert one["status"] == {0: "STATUS_SUCCESS", PRICE: "STATUS_REFUNDED"}.get(
                back, "STATUS_PARTIALLY_REFUNDED"
            )
            assert int(one["refunded"]["minor_units"]) == back
        for one in every(shop.plane, "ListUserOrders", "orders", who.token, user_id=who.id):
            whole = own[one["id"]].is_refunded and own[one["id"]].back == PRICE
            assert (one["status"], one["payment_id"]) == (
                "STATUS_REFUNDED" if whole else "STATUS_PAID",
                own[one["id"]].payment["id"],
            )
