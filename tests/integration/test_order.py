"""The order service as it runs: real gRPC, SQL, Valkey and broker; the payment service is what the test publishes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
import redis
import sqlalchemy as sa
from confluent_kafka import Consumer
from google.protobuf.message import Message

from paymesh.order.v1 import order_event_pb2, order_pb2
from paymesh.order.v1 import order_service_pb2 as pb
from paymesh.order.v1 import order_service_pb2_grpc as rpc
from paymesh.payment.v1 import payment_event_pb2
from paymesh.type.v1.money_pb2 import Money
from services.order import audit
from services.order.app import build
from services.order.settings import OrderSettings
from services.platform.broker import EventProducer, Record
from services.platform.database import Database
from services.platform.status import error_from
from tests.running import Served

USER = 7_000_001
PENDING, PAID, CANCELLED, REFUNDED = (
    order_pb2.Order.STATUS_PENDING,
    order_pb2.Order.STATUS_PAID,
    order_pb2.Order.STATUS_CANCELLED,
    order_pb2.Order.STATUS_REFUNDED,
)


class Orders:
    """The service under test with its stub, and the events of payments."""

    def __init__(self, served: Served, settings: OrderSettings) -> None:
        self.served, self.settings = served, settings
        self.stub = rpc.OrderServiceStub(served.channel)
        self.producer = EventProducer(settings.kafka)
        self.published = 0

    def set_stock(self, available: int, sku: str = "tea", price: int = 300, currency: str = "CNY") -> order_pb2.Stock:
        """Set an item of the inventory as an operator."""
        money = Money(currency_code=currency, minor_units=price)
        request = pb.SetStockRequest(sku=sku, name=sku.title(), unit_price=money, available=available)
        answer: pb.SetStockResponse = self.served.call(self.stub.SetStock, request, user=1, scope="inventory:write")
        return answer.stock

    def create(self, quantity: int = 1, *skus: str, user: int = USER, key: str = "") -> order_pb2.Order:
        """Order ``quantity`` of each item."""
        items = [pb.OrderLine(sku=sku, quantity=quantity) for sku in skus or ("tea",)]
        request = pb.CreateOrderRequest(items=items)
        answer: pb.CreateOrderResponse = self.served.call(self.stub.CreateOrder, request, user=user, key=key)
        return answer.order

    def get(self, order_id: int, user: int = USER, scope: str = "") -> order_pb2.Order:
        """Read an order."""
        request = pb.GetOrderRequest(id=order_id)
        answer: pb.GetOrderResponse = self.served.call(self.stub.GetOrder, request, user=user, scope=scope)
        return answer.order

    def set_status(
        self, order_id: int, status: order_pb2.Order.Status.ValueType = CANCELLED, user: int = USER, scope: str = ""
    ) -> order_pb2.Order:
        """Set the state of an order."""
        request = pb.UpdateOrderStatusRequest(id=order_id, status=status)
        answer: pb.UpdateOrderStatusResponse = self.served.call(
            self.stub.UpdateOrderStatus, request, user=user, scope=scope
        )
        return answer.order

    def stock(self, sku: str = "tea") -> tuple[int, int]:
        """Read what is available and what is reserved of an item."""
        found = self.served.call(self.stub.GetStock, pb.GetStockRequest(sku=sku)).stock
        return found.available, found.reserved

    def publish(self, topic: str, event: Message, event_id: str = "") -> None:
        """Publish as the payment service would."""
        self.published += 1
        headers = (("ce_id", (event_id or f"payment-{self.published}").encode()),)
        key = str(getattr(event, "payment_id", 0)).encode()
        assert all(self.producer.publish([Record(topic, key, event.SerializeToString(), headers)]))

    def succeed(self, order: order_pb2.Order, payment_id: int, minor_units: int = 0, event_id: str = "") -> None:
        """Tell that a payment took the money."""
        amount = Money(currency_code="CNY", minor_units=minor_units or order.amount.minor_units)
        event = payment_event_pb2.PaymentSuccess(payment_id=payment_id, version=2, order_id=order.id, amount=amount)
        self.publish("payment.success", event, event_id)

    def refund(self, order: order_pb2.Order, payment_id: int, minor_units: int = 0) -> None:
        """Tell what a payment gave back in all; 0: the whole."""
        given = Money(currency_code="CNY", minor_units=minor_units or order.amount.minor_units)
        event = payment_event_pb2.PaymentRefunded(
            payment_id=payment_id,
            version=3,
            order_id=order.id,
            amount=order.amount,
            refund_amount=given,
            refunded=given,
        )
        self.publish("payment.refunded", event)

    def until(self, order: order_pb2.Order, status: order_pb2.Order.Status.ValueType) -> order_pb2.Order:
        """Read an order until it has a status, at most for 15 s."""
        deadline = time.monotonic() + 15
        while (found := self.get(order.id)).status != status and time.monotonic() < deadline:
            time.sleep(0.05)
        assert found.status == status
        return found

    def database(self) -> Database:
        """Open the service's database."""
        return Database(f"sqlite:///{self.settings.data / 'order.db'}")

    def breaches(self, *, settled: bool = False) -> list[str]:
        """Return what the audit complains about."""
        database = self.database()
        with database.read() as connection:
            found = list(audit.invariants(connection, int(time.time() * 1000), settled=settled))
        database.stop()
        return [breach for finding in found for breach in finding.breaches]


def serving(
    run_dir: Path, data: Path, redis_url: str, kafka: str, hold_s: int = 1800, expire_every_s: float = 5.0
) -> Iterator[Orders]:
    settings = OrderSettings(
        data=data,
        listen=f"unix:{run_dir}/o.sock",
        redis_url=redis_url,
        kafka=kafka,
        hold_s=hold_s,
        expire_every_s=expire_every_s,
    )
    with Served(build(settings)) as served:
        orders = Orders(served, settings)
        orders.set_stock(10)
        yield orders


@pytest.fixture
def orders(run_dir: Path, tmp_path: Path, redis_url: str, kafka: str) -> Iterator[Orders]:
    """An order service over an empty database, with ten teas at 3.00 CNY."""
    yield from serving(run_dir, tmp_path, redis_url, kafka)


@pytest.fixture
def brief_orders(run_dir: Path, tmp_path: Path, redis_url: str, kafka: str) -> Iterator[Orders]:
    """The same, with orders that live for two seconds."""
    yield from serving(run_dir, tmp_path, redis_url, kafka, hold_s=2, expire_every_s=0.1)


def refused(call: Callable[[], object]) -> str:
    """The reason of the contract that a call is refused with."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return error_from(caught.value).reason


def read_events(kafka: str, topics: list[str], count: int) -> list[tuple[str, bytes]]:
    """Read ``count`` events from the broker."""
    consumer = Consumer(
        {"bootstrap.servers": kafka, "group.id": "test", "auto.offset.reset": "earliest", "fetch.wait.max.ms": 10}
    )
    consumer.subscribe(topics)
    found, until = list[tuple[str, bytes]](), time.monotonic() + 15
    while len(found) < count and time.monotonic() < until:
        found += [(str(m.topic()), m.value() or b"") for m in consumer.consume(50, timeout=0.2) if m.error() is None]
    consumer.close()
    return found


def test_order_lives_from_its_making_to_its_refund(orders: Orders) -> None:
    """Made, read, paid, refunded; stock held, then consumed; five events number from 1; the books agree."""
    order = orders.create(2)
    assert (order.status, order.amount.minor_units, order.items[0].name) == (PENDING, 600, "Tea")
    assert order.expire_time.seconds - order.create_time.seconds == 1800
    assert orders.stock() == (8, 2)
    orders.succeed(order, 42)
    assert orders.until(order, PAID).payment_id == 42
    assert orders.stock() == (8, 0)
    orders.refund(order, 42, 100)
    orders.refund(order, 42)
    orders.until(order, REFUNDED)
    assert orders.stock() == (8, 0)
    told = dict(read_events(orders.settings.kafka, ["order.created", "order.paid", "order.refunded"], 3))
    created = order_event_pb2.OrderCreated.FromString(told["order.created"])
    paid = order_event_pb2.OrderPaid.FromString(told["order.paid"])
    refunded = order_event_pb2.OrderRefunded.FromString(told["order.refunded"])
    assert [created.version, paid.version, refunded.version] == [1, 2, 3]
    assert (created.user_id, created.amount.minor_units, created.order_no) == (USER, 600, order.order_no)
    assert (paid.payment_id, refunded.payment_id) == (42, 42)
    assert orders.breaches(settled=True) == []


def test_payment_that_meets_a_cancelled_order_is_rejected_once(orders: Orders) -> None:
    """Delivered three times, twice as the same event: the order stays cancelled, one order.payment_rejected is told."""
    order = orders.create(3)
    assert orders.set_status(order.id).cancel_reason == "user"
    assert orders.stock() == (10, 0)
    for event_id in ("success-1", "success-1", "success-2"):
        orders.succeed(order, 42, event_id=event_id)
    orders.refund(order, 42)
    other = orders.create()
    orders.succeed(other, 43)
    orders.until(other, PAID)
    assert orders.get(order.id).status == CANCELLED
    rejected = read_events(orders.settings.kafka, ["order.payment_rejected"], 1)
    event = order_event_pb2.OrderPaymentRejected.FromString(rejected[0][1])
    assert (event.order_id, event.payment_id, event.reject_reason) == (order.id, 42, "order_cancelled")
    assert event.version == 3
    assert orders.breaches(settled=True) == []


def test_event_that_nobody_can_handle_is_set_aside(orders: Orders) -> None:
    """Bytes that are no event, a currency that is none, an order that is unknown: dead letters; the next one works."""
    order = orders.create()
    no_currency = payment_event_pb2.PaymentSuccess(payment_id=1, order_id=order.id, amount=Money(currency_code="XAU"))
    unknown = payment_event_pb2.PaymentSuccess(payment_id=2, order_id=404, amount=Money(currency_code="CNY"))
    orders.publish("payment.success", no_currency)
    orders.publish("payment.success", unknown)
    orders.succeed(order, 42)
    orders.until(order, PAID)
    dead = read_events(orders.settings.kafka, ["payment.success.dead_letter"], 2)
    assert {value for _, value in dead} == {no_currency.SerializeToString(), unknown.SerializeToString()}


def test_order_expires_and_frees_its_stock(brief_orders: Orders) -> None:
    """Pending past its time is cancelled with the reason expired; what was paid is not; a late payment is rejected."""
    first = brief_orders.create()
    brief_orders.until(first, CANCELLED)
    brief_orders.succeed(first, 40)
    # From here on the consumer is known to listen, so that an order's short life is enough to pay it.
    told = read_events(brief_orders.settings.kafka, ["order.payment_rejected"], 1)
    paid, late = brief_orders.create(), brief_orders.create(4)
    brief_orders.succeed(paid, 41)
    brief_orders.until(paid, PAID)
    assert brief_orders.until(late, CANCELLED).cancel_reason == "expired"
    assert brief_orders.stock() == (9, 0)
    assert brief_orders.get(paid.id).status == PAID
    assert [order_event_pb2.OrderPaymentRejected.FromString(e).reject_reason for _, e in told] == ["order_cancelled"]
    assert brief_orders.breaches() == []


def test_no_more_is_sold_than_there_is_when_many_ask_at_once(orders: Orders) -> None:
    """Forty callers at once, ten teas: ten orders, thirty refusals that say what is left."""

    def attempt(n: int) -> str:
        try:
            return str(orders.create(user=USER + n).status)
        except grpc.RpcError as error:
            return error_from(error).reason

    with ThreadPoolExecutor(40) as pool:
        outcomes = list(pool.map(attempt, range(40)))
    assert (outcomes.count("1"), outcomes.count("STOCK_INSUFFICIENT")) == (10, 30)
    assert orders.stock() == (0, 10)
    assert orders.breaches() == []


def test_repeat_gets_the_same_bytes(orders: Orders) -> None:
    """One key, one order, though the price changed; another request under the key is refused; header and field are one."""
    first = orders.create(2, key="order-key-1")
    orders.set_stock(5, price=999)
    assert orders.create(2, key="order-key-1").SerializeToString() == first.SerializeToString()
    by_field = pb.CreateOrderRequest(items=[pb.OrderLine(sku="tea", quantity=2)], request_id="order-key-1")
    assert orders.served.call(orders.stub.CreateOrder, by_field, user=USER).order == first
    assert refused(lambda: orders.create(3, key="order-key-1")) == "IDEMPOTENCY_KEY_REUSED"
    assert orders.create(2, key="order-key-1", user=USER + 1).id != first.id
    assert orders.stock() == (3, 4)


def test_calls_are_refused_with_their_reason(orders: Orders) -> None:
    """Each refusal has its own reason, and nothing of it is left behind."""
    orders.set_stock(5, sku="yen", currency="JPY")
    order = orders.create()
    paid = orders.create()
    orders.succeed(paid, 42)
    orders.until(paid, PAID)
    line = pb.OrderLine(sku="tea", quantity=1)

    def create(*lines: pb.OrderLine) -> Callable[[], object]:
        request = pb.CreateOrderRequest(items=lines)
        return lambda: orders.served.call(orders.stub.CreateOrder, request, user=USER)

    assert refused(lambda: orders.create(11)) == "STOCK_INSUFFICIENT"
    assert refused(lambda: orders.create(1, "pot")) == "STOCK_NOT_FOUND"
    assert refused(lambda: orders.create(1, "tea", "yen")) == "CURRENCY_MIXED"
    for lines in ((), (line, line), (pb.OrderLine(sku="tea"),), (pb.OrderLine(sku="-", quantity=1),)):
        assert refused(create(*lines)) == "INVALID_ARGUMENT"
    assert refused(lambda: orders.get(order.id, user=USER + 1)) == "ORDER_NOT_FOUND"
    assert refused(lambda: orders.get(404)) == "ORDER_NOT_FOUND"
    assert refused(lambda: orders.set_status(order.id, user=USER + 1)) == "ORDER_NOT_FOUND"
    assert refused(lambda: orders.set_status(order.id, user=USER + 1, scope="orders:read")) == "ORDER_NOT_FOUND"
    assert refused(lambda: orders.set_status(order.id, PAID)) == "ORDER_STATUS_NOT_SETTABLE"
    assert refused(lambda: orders.set_status(order.id, 9)) == "INVALID_ARGUMENT"  # type: ignore[arg-type]  # none of the contract
    assert refused(lambda: orders.set_status(paid.id)) == "ORDER_STATUS_CONFLICT"
    assert refused(lambda: orders.set_stock(1, currency="XAU")) == "CURRENCY_UNSUPPORTED"
    assert refused(lambda: orders.stock("pot")) == "STOCK_NOT_FOUND"
    listing = pb.ListUserOrdersRequest(user_id=USER)
    assert refused(lambda: orders.served.call(orders.stub.ListUserOrders, listing, user=USER + 1)) == "NOT_OWNER"
    no_scope = pb.SetStockRequest(sku="x", name="x", unit_price=Money(currency_code="CNY"), available=1)
    assert refused(lambda: orders.served.call(orders.stub.SetStock, no_scope, user=USER)) == "SCOPE_MISSING"
    ids = pb.BatchGetOrdersRequest(ids=[order.id])
    assert refused(lambda: orders.served.call(orders.stub.BatchGetOrders, ids)) == "CALLER_NOT_ALLOWED"
    assert orders.breaches() == []


def test_operator_sees_and_cancels_any_order(orders: Orders) -> None:
    """Scopes lift the owner; the reason says who it was; a repeat returns the order as it is."""
    order = orders.create()
    assert orders.get(order.id, user=1, scope="orders:read").id == order.id
    cancelled = orders.set_status(order.id, user=1, scope="orders:write")
    assert (cancelled.status, cancelled.cancel_reason) == (CANCELLED, "operator")
    assert orders.set_status(order.id) == cancelled
    assert orders.get(order.id) == cancelled


def test_lists_come_in_pages(orders: Orders) -> None:
    """Orders newest first with their items, stock by SKU, each once, the last page without a token."""
    made = [orders.create().id for _ in range(5)]
    seen, token = list[int](), ""
    while True:
        request = pb.ListUserOrdersRequest(user_id=USER, page_size=2, page_token=token)
        answer = orders.served.call(orders.stub.ListUserOrders, request, user=USER)
        seen += [order.id for order in answer.orders if order.items]
        if not (token := answer.next_page_token):
            break
    assert seen == made[::-1]
    for sku in ("b", "A"):
        orders.set_stock(1, sku=sku)
    first = orders.served.call(orders.stub.ListStock, pb.ListStockRequest(page_size=2))
    second = orders.served.call(
        orders.stub.ListStock, pb.ListStockRequest(page_size=2, page_token=first.next_page_token)
    )
    assert [stock.sku for stock in (*first.stocks, *second.stocks)] == ["A", "b", "tea"]
    wrong = pb.ListUserOrdersRequest(user_id=USER, page_token="%%%")
    assert refused(lambda: orders.served.call(orders.stub.ListUserOrders, wrong, user=USER)) == "PAGE_TOKEN_INVALID"


def test_payment_service_reads_many_orders_at_once(orders: Orders) -> None:
    """Those that exist, without their items, as they are in the database."""
    made = [orders.create() for _ in range(3)]
    request = pb.BatchGetOrdersRequest(ids=[404, *(order.id for order in made)])
    answer = orders.served.call(orders.stub.BatchGetOrders, request, peer="payment")
    for order in made:
        order.ClearField("items")
    assert list(answer.orders) == made


def test_nothing_breaks_without_redis(run_dir: Path, tmp_path: Path, kafka: str) -> None:
    """A cache that is not there makes nothing fail, and nothing slow."""
    for orders in serving(run_dir, tmp_path, "redis://127.0.0.1:1/0", kafka):
        began = time.monotonic()
        order = orders.create(2)
        assert orders.get(order.id) == order
        assert orders.set_status(order.id).status == CANCELLED
        assert orders.stock() == (10, 0)
        assert time.monotonic() - began < 2
        assert orders.breaches() == []


def test_lost_cache_is_made_again_from_the_database(orders: Orders) -> None:
    """After a flush the next read puts the hash back."""
    order = orders.create()
    with redis.Redis.from_url(orders.settings.redis_url) as client:
        client.flushall()
        assert orders.get(order.id) == order
        assert orders.stock() == (9, 1)
        assert client.hget(f"order:{order.id}", "status") == b"pending"
        assert client.hget("stock:tea", "reserved") == b"1"


def test_planted_bugs_are_found_by_the_audit(orders: Orders) -> None:
    """Each kind of damage to the stored data makes its invariant speak."""
    orders.create(2)
    paid = orders.create()
    orders.succeed(paid, 42)
    orders.until(paid, PAID)
    damages = {
        "I7": "UPDATE outbox SET published_ms = NULL, event_ms = 1",
        "I8": "DELETE FROM outbox WHERE version = 1",
        "I12": "UPDATE order_history SET status = 'refunded' WHERE version = 2",
        "stock": "UPDATE stock SET reserved = reserved + 1",
        "order": "UPDATE order_items SET quantity = quantity + 1",
    }
    damages_too = {
        "I8": "DELETE FROM outbox WHERE topic = 'order.paid'",
        "I12": "DELETE FROM order_history",
        "stock": "DELETE FROM stock",
        "order": "UPDATE orders SET expire_ms = 1",
    }
    database = orders.database()
    with database.read() as connection:
        assert [f[1:4] for f in audit.order_facts(connection)] == [("pending", 0, 600), ("paid", 42, 300)]
        assert list(audit.rejected_payments(connection)) == []
    for invariant, damage in (*damages.items(), *damages_too.items()):
        with database.write() as connection:
            connection.execute(sa.text(damage))
            found = list(audit.invariants(connection, int(time.time() * 1000), settled=False))
            assert invariant in {f.invariant for f in found if f.breaches}, f"{damage} was not found"
    database.stop()
    assert orders.breaches() == []
