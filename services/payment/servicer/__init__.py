"""gRPC in: parse, submit, render; no decision, no SQL."""

from services.payment.servicer.bills import Bills
from services.payment.servicer.payments import Desk, Payments


class PaymentServicer(Payments, Bills):
    """The payment service of the contract."""


__all__ = ["Desk", "PaymentServicer"]
