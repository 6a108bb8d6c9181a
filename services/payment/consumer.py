"""Kafka in: what payment handles, and the use case that does."""

from paymesh.order.v1 import order_event_pb2
from services.payment import mapping
from services.platform.consumer import Subscription

SUBSCRIPTIONS = (
    Subscription(order_event_pb2.OrderCreated, mapping.order_created, "know_orders"),
    Subscription(order_event_pb2.OrderCancelled, mapping.order_cancelled, "know_orders"),
    Subscription(order_event_pb2.OrderPaymentRejected, mapping.payment_rejected, "refund_rejected"),
)
