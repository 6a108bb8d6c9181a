"""gRPC in: parse, submit, render; no decision, no SQL."""

from services.payment.servicer.bills import Bills
from services.payment.servicer.ledger import Ledger
from services.payment.servicer.methods import Methods
from services.payment.servicer.payments import Desk, Payments
from services.payment.servicer.reviews import Reviews


class PaymentServicer(Payments, Methods, Reviews, Ledger, Bills):
    """The payment service of the contract."""


__all__ = ["Desk", "PaymentServicer"]
