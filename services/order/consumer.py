"""Kafka in: what became of payments."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paymesh.payment.v1 import payment_event_pb2
from services.order import mapping
from services.platform.consumer import EventConsumer, Subscription

if TYPE_CHECKING:
    from services.platform.batcher import Batcher


def consumer(batcher: Batcher, servers: str) -> EventConsumer:
    """Make the consumer; the effects run in ``batcher`` with the commands of callers."""
    subscriptions = (
        Subscription(payment_event_pb2.PaymentSuccess, mapping.payment_succeeded, "pay_orders"),
        Subscription(payment_event_pb2.PaymentRefunded, mapping.payment_refunded, "refund_orders"),
    )
    return EventConsumer("order", subscriptions, batcher, servers)
