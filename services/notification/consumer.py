"""Kafka in: what each event becomes."""

from __future__ import annotations

from paymesh.order.v1 import order_event_pb2 as order_pb
from paymesh.payment.v1 import payment_event_pb2 as payment_pb
from paymesh.risk.v1 import risk_event_pb2 as risk_pb
from paymesh.user.v1 import user_event_pb2 as user_pb
from services.notification import mapping
from services.platform.consumer import Subscription

SUBSCRIPTIONS = (
    Subscription(user_pb.UserCreated, mapping.user_created, "know_contacts"),
    Subscription(user_pb.UserUpdated, mapping.user_updated, "know_contacts"),
    Subscription(order_pb.OrderPaid, mapping.order_paid, "tell"),
    Subscription(payment_pb.PaymentFailed, mapping.payment_failed, "tell"),
    Subscription(payment_pb.PaymentRefunded, mapping.payment_refunded, "tell"),
    Subscription(order_pb.OrderCreated, mapping.happened, "tell"),
    Subscription(order_pb.OrderCancelled, mapping.happened, "tell"),
    Subscription(order_pb.OrderRefunded, mapping.happened, "tell"),
    Subscription(order_pb.OrderPaymentRejected, mapping.happened, "tell"),
    Subscription(payment_pb.PaymentInitiated, mapping.happened, "tell"),
    Subscription(payment_pb.PaymentSuccess, mapping.happened, "tell"),
    Subscription(risk_pb.RiskAlert, mapping.risk_alert, "tell"),
    Subscription(risk_pb.RiskBlock, mapping.risk_block, "tell"),
)
