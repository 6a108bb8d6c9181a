"""Kafka in: payments that were made, for the velocity series."""

from __future__ import annotations

from paymesh.payment.v1 import payment_event_pb2
from services.platform.consumer import Subscription
from services.risk import mapping

SUBSCRIPTIONS = (Subscription(payment_event_pb2.PaymentInitiated, mapping.payment_initiated, "note_payments"),)
