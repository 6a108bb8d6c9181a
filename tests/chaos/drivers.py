"""How a purchase is paid and given back by each method, over REST, by clients that repeat until they know."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import httpx

from tests.chaos.points import AUTHORIZE, CAPTURE, PAY, REFUND
from tests.e2e.clients import cny
from tests.e2e.mesh import until
from tests.e2e.payers import GOOD_CARD
from tests.e2e.recovery import every

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from tests.e2e.clients import Person, Shop
    from tests.e2e.history import Clients, Operation
    from tests.e2e.payers import Sandbox

SKU, PRICE = "seat", 700
TOP_UP = 1_000_000
READ_S = 0.1
CALLED_BACK_S = 60.0
"""Within which a callback that nobody took is repeated and taken: the first repeats come within seconds."""
_UNDER_WAY = frozenset({"STATUS_PENDING", "STATUS_PROCESSING", "STATUS_UNKNOWN"})


@dataclass
class Purchase:
    """What one client wants, and what he was told: an order, its payment (``twice``: tried twice at once), a refund.

    ``case`` is the kill that it is for.
    """

    who: Person
    number: int
    case: str
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

    @property
    def returned(self) -> int:
        """How much was given back."""
        return self.back if self.is_refunded else 0

    @property
    def done(self) -> int:
        """How many things were done with it."""
        return sum(each.outcome == "ok" for each in self.told)


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

    async def prepare(self, purchase: Purchase, operation: str) -> None:
        """Do what comes before an operation."""
        ...

    def told(self, purchases: Sequence[Purchase]) -> None:
        """Wait until whoever holds the money has nothing to tell any more that was not taken."""
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

    async def prepare(self, purchase: Purchase, operation: str) -> None:
        """Pay what is to be refunded."""
        if operation == REFUND:
            await self._pay(purchase)

    async def _pay(self, purchase: Purchase) -> None:
        await order(self._clients, purchase)
        await pay(self._clients, purchase, self.method)

    async def _refund(self, purchase: Purchase) -> None:
        await refund(self._clients, purchase)

    def told(self, purchases: Sequence[Purchase]) -> None:
        """Nobody tells of a balance but us."""

    def agrees(self, purchases: Sequence[Purchase]) -> None:
        """Each balance lacks what was paid and not given back, to the fen."""
        for who in {each.who.id: each.who for each in purchases}.values():
            kept = sum(PRICE - each.returned for each in purchases if each.who is who)
            assert self._shop.balance(who) == TOP_UP - kept


class Wallet:
    """Pays through a provider: the payer acts with what he was given, the provider calls back, reads tell the end."""

    def __init__(self, method: str, clients: Clients, shop: Shop, sandbox: Sandbox) -> None:
        """Pay as ``clients`` by ``method``, whose provider is in ``sandbox``."""
        self.method = method
        self._clients, self._shop, self._sandbox = clients, shop, sandbox
        self.operations = {PAY: self._pay, REFUND: self._refund}

    def fund(self, who: Sequence[Person]) -> None:
        """A wallet is full."""

    async def prepare(self, purchase: Purchase, operation: str) -> None:
        """Pay what is to be refunded."""
        if operation == REFUND:
            await self._pay(purchase)

    async def _pay(self, purchase: Purchase, **how: object) -> None:
        await order(self._clients, purchase)
        await pay(self._clients, purchase, self.method, **how)
        payment = purchase.payment
        while payment["status"] in _UNDER_WAY and not payment.get("next_action"):
            payment = await self._read(purchase)
        if payment["status"] in _UNDER_WAY:
            number, action = payment["payment_no"], payment["next_action"]
            paid = await asyncio.to_thread(self._sandbox.payer, self.method, number, "pay", action)
            assert paid.status_code == httpx.codes.OK, paid.text
        await self._rests(purchase, "STATUS_AUTHORIZED" if how.get("authorize_only") else "STATUS_SUCCESS")

    async def _refund(self, purchase: Purchase) -> None:
        made = (await refund(self._clients, purchase)).answer["refund"]
        while made["status"] in _UNDER_WAY:
            made = (await self._look("GetRefund", made["id"], purchase))["refund"]
        assert made["status"] == "STATUS_SUCCESS", made

    async def _rests(self, purchase: Purchase, status: str) -> None:
        while (payment := await self._read(purchase))["status"] in _UNDER_WAY:
            pass
        assert payment["status"] == status, payment

    async def _read(self, purchase: Purchase) -> dict[str, Any]:
        return dict((await self._look("GetPayment", purchase.payment["id"], purchase))["payment"])

    async def _look(self, method: str, number: str, purchase: Purchase) -> dict[str, Any]:
        await asyncio.sleep(READ_S)
        read = await self._clients.until_known(method, {"id": number}, purchase.who.token)
        assert read.outcome == "ok", str(read)
        return read.answer

    def told(self, purchases: Sequence[Purchase]) -> None:
        """Wait until each thing that the provider did was called back and taken."""

        def taken() -> bool:
            notices = defaultdict(set)
            for each in self._sandbox.deliveries(self.method):
                if each["taken"]:
                    notices[each["ids"][0]].add(each["notice_id"])
            return all(len(notices[each.payment["payment_no"]]) >= each.done for each in purchases)

        until(taken, CALLED_BACK_S, every=0.2)

    def agrees(self, purchases: Sequence[Purchase]) -> None:
        """In the provider's book stands one charge for each purchase, and what was given back of it, once."""
        book = {charge["request_id"]: charge for charge in self._sandbox.book(self.method)}
        assert book.keys() == {each.payment["payment_no"] for each in purchases}
        for each in purchases:
            charge = book[each.payment["payment_no"]]
            found = charge["times_charged"], charge["captured"], charge["refunded"], len(charge["refunds"])
            assert found == (1, PRICE, each.returned, int(each.is_refunded)), (each.case, charge)


class BankCard(Wallet):
    """Pays by a card that is saved; it is charged at once, or authorized and then captured by the shop."""

    def __init__(self, method: str, clients: Clients, shop: Shop, sandbox: Sandbox) -> None:
        """Pay as ``clients``."""
        super().__init__(method, clients, shop, sandbox)
        self.operations |= {AUTHORIZE: self._authorize, CAPTURE: self._capture}

    def fund(self, who: Sequence[Person]) -> None:
        """Save a card for each."""
        card = {"card_number": GOOD_CARD, "expire_month": 12, "expire_year": 2034, "make_default": True}
        for each in who:
            self._shop.plane.call("SavePaymentMethod", card, token=each.token)

    async def prepare(self, purchase: Purchase, operation: str) -> None:
        """Pay what is to be refunded, authorize what is to be captured."""
        if operation == CAPTURE:
            await self._pay(purchase, authorize_only=True)
        else:
            await super().prepare(purchase, operation)

    async def _authorize(self, purchase: Purchase) -> None:
        await self._pay(purchase, authorize_only=True)
        await self._capture(purchase)

    async def _capture(self, purchase: Purchase) -> None:
        number, token = purchase.payment["id"], self._shop.operator.token
        done = await self._clients.until_known("CapturePayment", {"id": number}, token, f"capture-{number}")
        purchase.told.append(done)
        assert done.outcome == "ok", str(done)
        await self._rests(purchase, "STATUS_SUCCESS")


async def order(clients: Clients, purchase: Purchase) -> None:
    """Place the order."""
    body = {"items": [{"sku": SKU, "quantity": 1}]}
    placed = await clients.until_known("CreateOrder", body, purchase.who.token, f"order-{purchase.number:06}")
    assert placed.outcome == "ok", str(placed)
    purchase.order = placed.answer["order"]


async def pay(clients: Clients, purchase: Purchase, method: str, **how: object) -> None:
    """Pay the order, perhaps twice at once, until it is known how that ended."""
    made = purchase.order
    body = {"order_id": made["id"], "method": f"METHOD_{method.upper()}", "amount": made["amount"], **how}
    keys = [f"pay-{made['id']}-{number}" for number in range(1 + purchase.twice)]
    token = purchase.who.token
    purchase.told += await asyncio.gather(*(clients.until_known("CreatePayment", body, token, key) for key in keys))
    assert sorted(each.outcome for each in purchase.told) == ["fail"] * (len(keys) - 1) + ["ok"], [
        *map(str, purchase.told)
    ]


async def refund(clients: Clients, purchase: Purchase) -> Operation:
    """Give it back, all or the half, until it is known how that ended."""
    payment = purchase.payment["id"]
    body = {"id": payment, "amount": cny(purchase.back)}
    done = await clients.until_known("RefundPayment", body, purchase.who.token, f"refund-{payment}")
    purchase.told.append(done)
    assert done.outcome == "ok", str(done)
    return done


def booked(shop: Shop, purchases: Sequence[Purchase]) -> None:
    """Compare what clients were told with payments and orders: one charge per order, and no other."""
    for each in purchases:
        assert {one.reason for one in each.told} <= {"", "ORDER_HAS_LIVE_PAYMENT"}, each.case
    for who in {each.who.id: each.who for each in purchases}.values():
        own = {each.order["id"]: each for each in purchases if each.who is who}
        payments = every(shop.plane, "ListPayments", "payments", who.token)
        assert {each["order_id"]: each["id"] for each in payments} == {i: each.payment["id"] for i, each in own.items()}
        assert len(payments) == len(own), "an order was paid twice"
        for one in payments:
            purchase = own[one["order_id"]]
            wanted = {0: "STATUS_SUCCESS", PRICE: "STATUS_REFUNDED"}
            status = wanted.get(purchase.returned, "STATUS_PARTIALLY_REFUNDED")
            found = one["status"], int(one["refunded"]["minor_units"])
            assert found == (status, purchase.returned), (purchase.case, one)
        for one in every(shop.plane, "ListUserOrders", "orders", who.token, user_id=who.id):
            purchase = own[one["id"]]
            status = "STATUS_REFUNDED" if purchase.returned == PRICE else "STATUS_PAID"
            assert (one["status"], one["payment_id"]) == (status, purchase.payment["id"]), purchase.case
