"""One function per RPC or event, over a sequence of items; each fails item by item."""

from services.payment.usecases.create import CreatePayment, create_payments
from services.payment.usecases.orders import OrderCancelled, OrderKnown, know_orders
from services.payment.usecases.reads import get_balance, get_payment, list_payments, list_refunds
from services.payment.usecases.refund import RefundPayment, RefundRejected, refund_payments, refund_rejected
from services.payment.usecases.top_up import TopUpBalance, top_up_balances

__all__ = [
    "CreatePayment",
    "OrderCancelled",
    "OrderKnown",
    "RefundPayment",
    "RefundRejected",
    "TopUpBalance",
    "create_payments",
    "get_balance",
    "get_payment",
    "know_orders",
    "list_payments",
    "list_refunds",
    "refund_payments",
    "refund_rejected",
    "top_up_balances",
]
