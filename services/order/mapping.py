"""Protobuf <-> domain."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from paymesh.order.v1 import order_event_pb2, order_pb2
from paymesh.order.v1 import order_service_pb2 as pb
from services.kernel import pages
from services.order import domain, states, usecases
from services.platform import wire

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from paymesh.payment.v1 import payment_event_pb2
    from services.platform.interceptor import Call

_STATUS: Mapping[str, Any] = {word: order_pb2.Order.Status.Value(f"STATUS_{word.upper()}") for word in states.ALL}
_WORD: Mapping[int, str] = {number: word for word, number in _STATUS.items()}


def create_order(call: Call, request: pb.CreateOrderRequest) -> usecases.CreateOrder:
    """Read CreateOrder."""
    lines = tuple(domain.Line(line.sku, line.quantity) for line in request.items)
    return usecases.CreateOrder(call.caller, wire.idempotency_key(call, request), lines)


def set_order_status(call: Call, request: pb.UpdateOrderStatusRequest) -> usecases.SetOrderStatus:
    """Read UpdateOrderStatus."""
    return usecases.SetOrderStatus(call.caller, request.id, _WORD[request.status])


def set_stock(request: pb.SetStockRequest) -> usecases.SetStock:
    """Read SetStock. Raises CURRENCY_UNSUPPORTED."""
    return usecases.SetStock(request.sku, request.name, wire.money_from(request.unit_price), request.available)


def page(request: pb.ListUserOrdersRequest | pb.ListStockRequest) -> pages.Page:
    """Read which page is wanted. Raises PAGE_TOKEN_INVALID."""
    return pages.page(request.page_size, request.page_token)


def payment_succeeded(event: payment_event_pb2.PaymentSuccess, event_id: str) -> usecases.PaymentSucceeded:
    """Read payment.success."""
    return usecases.PaymentSucceeded(event_id, event.payment_id, event.order_id, wire.money_from(event.amount))


def payment_refunded(event: payment_event_pb2.PaymentRefunded, event_id: str) -> usecases.PaymentRefunded:
    """Read payment.refunded."""
    taken = event.captured if event.HasField("captured") else event.amount
    amount, whole = wire.money_from(event.amount), event.refunded == taken
    return usecases.PaymentRefunded(event_id, event.payment_id, event.order_id, amount, whole, event.beside_order)


def order(found: domain.Order) -> order_pb2.Order:
    """Render an order."""
    return order_pb2.Order(
        id=found.id,
        order_no=found.order_no,
        user_id=found.user_id,
        status=_STATUS[found.status],
        amount=wire.money(found.amount),
        items=[_item(item) for item in found.items],
        create_time=wire.timestamp(found.create_ms),
        update_time=wire.timestamp(found.update_ms),
        expire_time=wire.timestamp(found.expire_ms),
        payment_id=found.payment_id,
        cancel_reason=found.cancel_reason,
    )


def created(found: domain.Order) -> bytes:
    """Render CreateOrder's response to the bytes that are kept under its key and sent."""
    return pb.CreateOrderResponse(order=order(found)).SerializeToString()


def user_orders(found: Sequence[domain.Order], next_page_token: str) -> pb.ListUserOrdersResponse:
    """Render a page of orders."""
    return pb.ListUserOrdersResponse(orders=[order(each) for each in found], next_page_token=next_page_token)


def batch_of_orders(found: Sequence[domain.Order]) -> pb.BatchGetOrdersResponse:
    """Render orders for the payment service."""
    return pb.BatchGetOrdersResponse(orders=[order(each) for each in found])


def stock(found: domain.Stock) -> order_pb2.Stock:
    """Render an item of the inventory."""
    return order_pb2.Stock(
        sku=found.sku,
        name=found.name,
        unit_price=wire.money(found.unit_price),
        available=found.available,
        reserved=found.reserved,
        update_time=wire.timestamp(found.update_ms),
    )


def stocks(found: Sequence[domain.Stock], next_page_token: str) -> pb.ListStockResponse:
    """Render a page of the inventory."""
    return pb.ListStockResponse(stocks=[stock(each) for each in found], next_page_token=next_page_token)


def event(happened: domain.OrderEvent) -> Message:
    """Render an event of an order."""
    fact = happened.fact
    about = {
        "order_id": fact.order_id,
        "version": fact.version,
        "event_time": wire.timestamp(fact.at_ms),
        "user_id": fact.user_id,
        "order_no": fact.order_no,
    }
    return _EVENTS[type(happened)](about, happened)


def _item(item: domain.Item) -> order_pb2.OrderItem:
    return order_pb2.OrderItem(
        sku=item.sku, name=item.name, quantity=item.quantity, unit_price=wire.money(item.unit_price)
    )


def _order_created(about: Mapping[str, Any], e: domain.OrderCreated) -> Message:
    return order_event_pb2.OrderCreated(**about, amount=wire.money(e.amount), expire_time=wire.timestamp(e.expire_ms))


def _order_paid(about: Mapping[str, Any], e: domain.OrderPaid) -> Message:
    return order_event_pb2.OrderPaid(**about, amount=wire.money(e.amount), payment_id=e.payment_id)


def _order_cancelled(about: Mapping[str, Any], e: domain.OrderCancelled) -> Message:
    return order_event_pb2.OrderCancelled(**about, cancel_reason=e.cancel_reason)


def _order_refunded(about: Mapping[str, Any], e: domain.OrderRefunded) -> Message:
    return order_event_pb2.OrderRefunded(**about, payment_id=e.payment_id)


def _order_payment_rejected(about: Mapping[str, Any], e: domain.OrderPaymentRejected) -> Message:
    return order_event_pb2.OrderPaymentRejected(**about, payment_id=e.payment_id, reject_reason=e.reject_reason)


_EVENTS: Mapping[type, Callable[[Mapping[str, Any], Any], Message]] = {
    domain.OrderCreated: _order_created,
    domain.OrderPaid: _order_paid,
    domain.OrderCancelled: _order_cancelled,
    domain.OrderRefunded: _order_refunded,
    domain.OrderPaymentRejected: _order_payment_rejected,
}
