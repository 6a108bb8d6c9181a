"""gRPC in: parse, submit, render; no decision, no SQL."""

from services.payment.servicer.ledger import Ledger
from services.payment.servicer.payments import Desk, Payments


class PaymentServicer(Payments, Ledger):
    """The payment service of the contract."""


__all__ = ["Desk", "PaymentServicer"]
