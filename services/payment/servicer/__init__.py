"""gRPC in: parse, submit, render; no decision, no SQL."""

from services.payment.servicer.payments import Desk, Payments


class PaymentServicer(Payments):
    """The payment service of the contract."""


__all__ = ["Desk", "PaymentServicer"]
