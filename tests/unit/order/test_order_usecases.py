"""Order of work: what a batch decides, writes and tells, over the fakes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.kernel.caller import Caller
from services.kernel.errors import DomainError
from services.kernel.idempotency import IdempotencyKey, Scope
from services.kernel.money import Money
from services.kernel.pages import page
from services.order import states, usecases
from services.order.domain import Line, Order, OrderPaymentRejected
from services.order.usecases import (
    CreateOrder,
    ExpireOrder,
    PaymentRefunded,
    PaymentSucceeded,
    SetOrderStatus,
    SetStock,
)
from tests.fakes.order import FakeOrders

USER = 7
PRICE = Money("CNY", 300)


@pytest.fixture
def room() -> FakeOrders:
    """An order room with five teas at 3.00 CNY."""
    return opened(5)


def opened(available: int) -> FakeOrders:
    room = FakeOrders()
    usecases.set_stocks(room.ports, [SetStock("tea", "Tea", PRICE, available)])
    return room


def caller(user: int = USER, *scopes: str) -> Caller:
    return Caller(user, frozenset(scopes), "s", 1e12)


def create(quantity: int = 1, sku: str = "tea", key: str = "", user: int = USER) -> CreateOrder:
    scope = Scope(user, "CreateOrder", key)
    found = IdempotencyKey(scope, f"{sku}{quantity}".encode()) if key else None
    return CreateOrder(caller(user), found, (Line(sku, quantity),))


def placed(room: FakeOrders, quantity: int = 1) -> Order:
    """Make one order, and read it."""
    usecases.create_orders(room.ports, [create(quantity)])
    return list(room.store.rows.orders.values())[-1]


def stock(room: FakeOrders) -> tuple[int, int]:
    item = room.store.rows.stock["tea"]
    return item.available, item.reserved


def status(room: FakeOrders, order: Order) -> str:
    return room.store.rows.orders[order.id].status


def told(room: FakeOrders, order: Order) -> list[tuple[str, int]]:
    return [(type(e).__name__, e.fact.version) for e in room.store.rows.events if e.fact.order_id == order.id]


def success(order: Order, payment_id: int = 9, event: str = "e1", amount: Money | None = None) -> PaymentSucceeded:
    return PaymentSucceeded(event, payment_id, order.id, amount or order.amount)


def refund(order: Order, payment_id: int = 9, event: str = "r1", refunded: int | None = None) -> PaymentRefunded:
    whole = refunded is None or refunded == order.amount.minor_units
    return PaymentRefunded(event, payment_id, order.id, order.amount, whole)


def cancel(order: Order, by: Caller | None = None) -> SetOrderStatus:
    return SetOrderStatus(by or caller(), order.id, states.CANCELLED)


def reasons(outcomes: Sequence[object]) -> list[str]:
    return [o.reason if isinstance(o, DomainError) else "" for o in outcomes]


def test_refund_beside_the_order_changes_nothing(room: FakeOrders) -> None:
    """A payment that gave its order up gives its money back beside it: the order still waits to be paid."""
    order = placed(room)
    beside = PaymentRefunded("r9", 9, order.id, order.amount, whole=True, beside_order=True)
    assert reasons(usecases.refund_orders(room.ports, [beside])) == [""]
    assert status(room, order) == states.PENDING


def test_batch_gives_the_stock_in_sequence_when_it_is_short(room: FakeOrders) -> None:
    """One batch, one hot item: the first get it, those that ask for more are refused, a smaller one still fits."""
    outcomes = usecases.create_orders(room.ports, [create(2), create(2), create(2), create(1)])
    assert reasons(outcomes) == ["", "", "STOCK_INSUFFICIENT", ""]
    assert stock(room) == (0, 5)
    assert room.store.rows.stock["tea"].version == 2


def test_bad_item_never_fails_its_neighbours(room: FakeOrders) -> None:
    """Each item is refused by itself, and nothing of it is written."""
    outcomes = usecases.create_orders(room.ports, [create(), create(sku="pot"), create()])
    assert reasons(outcomes) == ["", "STOCK_NOT_FOUND", ""]
    assert len(room.store.rows.orders) == 2
    assert room.nudges == 1


def test_repeat_gets_the_first_answer_and_holds_nothing_more(room: FakeOrders) -> None:
    """In the same batch and in a later one; another request under the key is refused."""
    first, again = usecases.create_orders(room.ports, [create(2, key="k1"), create(2, key="k1")])
    later, other = usecases.create_orders(room.ports, [create(2, key="k1"), create(3, key="k1")])
    assert first == again == later
    assert reasons([other]) == ["IDEMPOTENCY_KEY_REUSED"]
    assert stock(room) == (3, 2)


def test_refusal_is_repeated_though_there_is_stock_again(room: FakeOrders) -> None:
    """A business refusal is kept under its key; without a key each call counts."""
    assert reasons(usecases.create_orders(room.ports, [create(6, key="k1"), create(6)])) == ["STOCK_INSUFFICIENT"] * 2
    usecases.set_stocks(room.ports, [SetStock("tea", "Tea", PRICE, 100)])
    assert reasons(usecases.create_orders(room.ports, [create(6, key="k1"), create(6)])) == ["STOCK_INSUFFICIENT", ""]


def test_cancelling_frees_the_stock_once(room: FakeOrders) -> None:
    """A repeat, in the same batch or later, returns the order as it is and frees nothing more."""
    order = placed(room, 3)
    outcomes = usecases.set_order_statuses(room.ports, [cancel(order), cancel(order)])
    outcomes += usecases.set_order_statuses(room.ports, [cancel(order)])
    assert [o.cancel_reason for o in outcomes if isinstance(o, Order)] == ["user"] * 3
    assert stock(room) == (5, 0)
    assert told(room, order) == [("OrderCreated", 1), ("OrderCancelled", 2)]


def test_cancelling_is_refused_to_others_and_for_other_states(room: FakeOrders) -> None:
    """Another's order does not exist; paid cannot be set; what is paid cannot be cancelled; an operator may."""
    order, mine = placed(room), placed(room)
    paid = SetOrderStatus(caller(), order.id, states.PAID)
    missing = SetOrderStatus(caller(), 1, states.CANCELLED)
    outcomes = usecases.set_order_statuses(room.ports, [cancel(order, caller(8)), paid, missing])
    assert reasons(outcomes) == ["ORDER_NOT_FOUND", "ORDER_STATUS_NOT_SETTABLE", "ORDER_NOT_FOUND"]
    usecases.pay_orders(room.ports, [success(order)])
    assert reasons(usecases.set_order_statuses(room.ports, [cancel(order)])) == ["ORDER_STATUS_CONFLICT"]
    (by_operator,) = usecases.set_order_statuses(room.ports, [cancel(mine, caller(8, "orders:write"))])
    assert isinstance(by_operator, Order)
    assert by_operator.cancel_reason == "operator"


def test_success_pays_the_order_once_when_it_is_delivered_again(room: FakeOrders) -> None:
    """The same event twice in a batch, later again, and again under another event id: one order.paid, stock consumed."""
    order = placed(room, 2)
    usecases.pay_orders(room.ports, [success(order), success(order)])
    usecases.pay_orders(room.ports, [success(order), success(order, event="e2")])
    assert status(room, order) == states.PAID
    assert told(room, order) == [("OrderCreated", 1), ("OrderPaid", 2)]
    assert stock(room) == (3, 0)


@pytest.mark.parametrize("case", ["cancelled", "expired", "paid", "refunded", "amount", "currency"])
def test_success_is_rejected_once_when_the_order_cannot_take_it(room: FakeOrders, case: str) -> None:
    """The order is told apart from its reason, never revived, and says so once however often the success comes."""
    order, amount, expected = placed(room), None, "order_paid"
    if case == "cancelled":
        usecases.set_order_statuses(room.ports, [cancel(order)])
        expected = "order_cancelled"
    elif case == "expired":
        room.clock.ms += room.ports.hold_ms
        usecases.expire_orders(room.ports, [ExpireOrder(order.id)])
        expected = "order_cancelled"
    elif case in {"paid", "refunded"}:
        usecases.pay_orders(room.ports, [success(order, payment_id=8, event="e8")])
        if case == "refunded":
            usecases.refund_orders(room.ports, [refund(order, payment_id=8)])
    else:
        amount, expected = Money("CNY", 1) if case == "amount" else Money("USD", 300), "amount_mismatch"
    before, held = status(room, order), stock(room)
    usecases.pay_orders(room.ports, [success(order, amount=amount), success(order, event="e2", amount=amount)])
    usecases.pay_orders(room.ports, [success(order, amount=amount), success(order, event="e3", amount=amount)])
    rejections = [e for e in room.store.rows.events if isinstance(e, OrderPaymentRejected)]
    assert [(e.payment_id, e.reject_reason) for e in rejections] == [(9, expected)]
    assert (status(room, order), stock(room)) == (before, held)
    assert [version for _, version in told(room, order)] == list(range(1, len(told(room, order)) + 1))


def test_order_that_rejected_a_payment_can_be_paid_by_the_right_one(room: FakeOrders) -> None:
    """A wrong amount ends nothing: the order waits on, and the rejected payment's refund does not touch it."""
    order = placed(room)
    usecases.pay_orders(room.ports, [success(order, amount=Money("CNY", 1))])
    usecases.refund_orders(room.ports, [PaymentRefunded("r1", 9, order.id, Money("CNY", 1), whole=True)])
    assert status(room, order) == states.PENDING
    usecases.pay_orders(room.ports, [success(order, payment_id=10, event="e2")])
    assert status(room, order) == states.PAID
    assert told(room, order) == [("OrderCreated", 1), ("OrderPaymentRejected", 2), ("OrderPaid", 3)]


def test_refund_is_followed_when_it_is_whole(room: FakeOrders) -> None:
    """A part changes nothing; the whole makes the order refunded, and restocks nothing."""
    order = placed(room, 2)
    usecases.pay_orders(room.ports, [success(order)])
    usecases.refund_orders(room.ports, [refund(order, refunded=1)])
    assert status(room, order) == states.PAID
    usecases.refund_orders(room.ports, [refund(order, event="r2"), refund(order, event="r2")])
    usecases.refund_orders(room.ports, [refund(order, event="r3")])
    assert told(room, order) == [("OrderCreated", 1), ("OrderPaid", 2), ("OrderRefunded", 3)]
    assert stock(room) == (3, 0)


def test_refund_that_comes_before_its_success_settles_the_order(room: FakeOrders) -> None:
    """Two topics keep no order between them: paid and refunded at once, and the late success finds it done."""
    order = placed(room, 2)
    usecases.refund_orders(room.ports, [refund(order)])
    assert status(room, order) == states.REFUNDED
    usecases.pay_orders(room.ports, [success(order)])
    assert status(room, order) == states.REFUNDED
    assert told(room, order) == [("OrderCreated", 1), ("OrderPaid", 2), ("OrderRefunded", 3)]
    assert stock(room) == (3, 0)


def test_part_of_a_refund_before_its_success_waits_for_it(room: FakeOrders) -> None:
    """A part says too little: the order stays pending until the success pays it."""
    order = placed(room)
    usecases.refund_orders(room.ports, [refund(order, refunded=1)])
    assert status(room, order) == states.PENDING
    usecases.pay_orders(room.ports, [success(order)])
    assert status(room, order) == states.PAID


def test_refund_of_another_payment_leaves_the_order_as_it_is(room: FakeOrders) -> None:
    """A rejected payment's refund, before or after its success, touches neither a paid nor a cancelled order."""
    paid, cancelled = placed(room), placed(room)
    usecases.pay_orders(room.ports, [success(paid, payment_id=8, event="e8"), success(paid, payment_id=9, event="e9")])
    usecases.set_order_statuses(room.ports, [cancel(cancelled)])
    early = refund(cancelled, payment_id=10, event="r10")
    usecases.refund_orders(room.ports, [refund(paid, payment_id=9, event="r9"), early])
    usecases.pay_orders(room.ports, [success(cancelled, payment_id=10, event="e10")])
    assert (status(room, paid), status(room, cancelled)) == (states.PAID, states.CANCELLED)
    assert told(room, cancelled)[-1] == ("OrderPaymentRejected", 3)


def test_event_of_an_unknown_order_fails_alone_and_comes_again(room: FakeOrders) -> None:
    """It is refused and not put down as handled; its neighbours have their effect."""
    order = placed(room)
    unknown = PaymentSucceeded("e0", 5, 404, PRICE)
    assert reasons(usecases.pay_orders(room.ports, [unknown, success(order)])) == ["ORDER_NOT_FOUND", ""]
    assert room.store.rows.taken == [("e1", "payment.success")]
    assert status(room, order) == states.PAID


def test_expiry_cancels_what_is_due_and_nothing_else(room: FakeOrders) -> None:
    """Before its time no; at its time yes; what was paid meanwhile, not; a second run does nothing."""
    due, paid = placed(room), placed(room)
    early = usecases.expire_orders(room.ports, [ExpireOrder(due.id)])
    usecases.pay_orders(room.ports, [success(paid)])
    room.clock.ms += room.ports.hold_ms
    both = [ExpireOrder(due.id), ExpireOrder(paid.id)]
    assert early == [False]
    assert usecases.expire_orders(room.ports, both) == [True, False]
    assert usecases.expire_orders(room.ports, both) == [False, False]
    assert room.store.rows.orders[due.id].cancel_reason == "expired"
    assert stock(room) == (4, 0)


def test_pending_order_takes_its_payment_though_its_time_is_over(room: FakeOrders) -> None:
    """Until the expiry comes the stock is held and the money is there: it is paid."""
    order = placed(room)
    room.clock.ms += room.ports.hold_ms + 1
    usecases.pay_orders(room.ports, [success(order)])
    assert status(room, order) == states.PAID


def test_items_are_set_in_sequence(room: FakeOrders) -> None:
    """The last one of a batch wins, and is the answer that all see of it."""
    placed(room, 2)
    found = usecases.set_stocks(room.ports, [SetStock("tea", "A", PRICE, 1), SetStock("tea", "B", PRICE, 9)])
    assert [(s.name, s.available, s.reserved) for s in found] == [("B", 9, 2)] * 2
    assert stock(room) == (9, 2)


def test_reads_are_narrowed_to_the_owner_and_served_by_the_cache(room: FakeOrders) -> None:
    """Another's order is not found, cached or not; a lost entry is made again from the database."""
    order = placed(room)
    assert usecases.get_order(room.ports, order.id, USER).id == order.id
    assert usecases.get_order(room.ports, order.id, None).id == order.id
    with pytest.raises(DomainError) as caught:
        usecases.get_order(room.ports, order.id, 8)
    assert caught.value.reason == "ORDER_NOT_FOUND"
    room.cache.orders.clear()
    room.cache.stock.clear()
    assert usecases.get_order(room.ports, order.id, USER) == order
    assert usecases.get_stock(room.ports, "tea").available == 4
    assert (order.id in room.cache.orders, "tea" in room.cache.stock) == (True, True)
    with pytest.raises(DomainError) as missing:
        usecases.get_stock(room.ports, "pot")
    assert missing.value.reason == "STOCK_NOT_FOUND"


def test_own_write_is_seen_at_once_by_a_read(room: FakeOrders) -> None:
    """What was cached before the change is never shown after it."""
    order = placed(room)
    usecases.get_order(room.ports, order.id, USER)
    usecases.set_order_statuses(room.ports, [cancel(order)])
    assert usecases.get_order(room.ports, order.id, USER).status == states.CANCELLED
    assert usecases.get_stock(room.ports, "tea").available == 5


def test_lists_come_in_pages(room: FakeOrders) -> None:
    """Orders newest first, items by SKU, each once; a token of no list is refused."""
    made = [placed(room).id for _ in range(5)]
    seen, token = [], ""
    while found := usecases.list_user_orders(room.ports, USER, page(2, token)):
        seen += [order.id for order in found[0]]
        token = found[1]
        if not token:
            break
    assert seen == made[::-1]
    usecases.set_stocks(room.ports, [SetStock(sku, sku, PRICE, 1) for sku in ("b", "a", "C")])
    first, token = usecases.list_stock(room.ports, page(2, ""))
    second, end = usecases.list_stock(room.ports, page(2, token))
    assert [s.sku for s in (*first, *second)] == ["C", "a", "b", "tea"]
    assert end == ""
    for wrong in ("%%%", "IA"):
        with pytest.raises(DomainError) as caught:
            usecases.list_stock(room.ports, page(2, wrong))
        assert caught.value.reason == "PAGE_TOKEN_INVALID"


STEP = st.tuples(
    st.sampled_from(["create", "cancel", "pay", "wrong", "refund", "expire"]), st.integers(0, 5), st.integers(1, 4)
)


@settings(max_examples=150, deadline=None)
@given(st.lists(STEP, max_size=40))
def test_stock_and_orders_agree_after_any_sequence(steps: list[tuple[str, int, int]]) -> None:
    """Whatever happens: reserved is what pending orders hold, nothing is lost, events number from 1 without a gap."""
    room, placed_ids = opened(12), list[int]()
    for number, (what, which, quantity) in enumerate(steps):
        if what == "create":
            usecases.create_orders(room.ports, [create(quantity)])
            placed_ids = sorted(room.store.rows.orders)
            continue
        if not placed_ids:
            continue
        order, event = room.store.rows.orders[placed_ids[which % len(placed_ids)]], f"e{number}"
        if what == "cancel":
            usecases.set_order_statuses(room.ports, [cancel(order)])
        elif what == "pay":
            usecases.pay_orders(room.ports, [success(order, payment_id=order.id * 10, event=event)])
        elif what == "wrong":
            wrong = success(order, payment_id=order.id * 10 + quantity, event=event, amount=Money("CNY", quantity))
            usecases.pay_orders(room.ports, [wrong])
        elif what == "refund":
            usecases.refund_orders(room.ports, [refund(order, payment_id=order.id * 10, event=event)])
        else:
            room.clock.ms += 600_000
            usecases.expire_orders(room.ports, [ExpireOrder(order.id)])
    orders = room.store.rows.orders.values()
    held = sum(i.quantity for o in orders if o.status == states.PENDING for i in o.items)
    sold = sum(i.quantity for o in orders if o.payment_id for i in o.items)
    assert stock(room) == (12 - held - sold, held)
    for order in orders:
        assert [version for _, version in told(room, order)] == list(range(1, order.version + 1))
