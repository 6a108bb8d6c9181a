"""One function per RPC, event or phase, over a sequence of items; each fails item by item."""

from services.payment.usecases.ask import Said, ask
from services.payment.usecases.bills import (
    ImportBill,
    book_bills,
    due_bills,
    import_bill,
    import_due,
    list_bill_differences,
    list_bills,
    settle_late,
)
from services.payment.usecases.callbacks import Told, acknowledge, read_callback, take_notices
from services.payment.usecases.changes import (
    CapturePayment,
    ClosePayment,
    VoidPayment,
    capture_payments,
    close_payments,
    void_payments,
)
from services.payment.usecases.create import CreatePayment, How, create_payments
from services.payment.usecases.orders import OrderCancelled, OrderKnown, know_orders
from services.payment.usecases.reads import get_balance, get_payment, get_refund, list_payments, list_refunds
from services.payment.usecases.refund import RefundPayment, RefundRejected, refund_payments, refund_rejected
from services.payment.usecases.settle import answer_open, settle
from services.payment.usecases.take_up import TakeUp, take_up, worth_asking
from services.payment.usecases.top_up import TopUpBalance, WithdrawBalance, top_up_balances, withdraw_balances

__all__ = [
    "CapturePayment",
    "ClosePayment",
    "CreatePayment",
    "How",
    "ImportBill",
    "OrderCancelled",
    "OrderKnown",
    "RefundPayment",
    "RefundRejected",
    "Said",
    "TakeUp",
    "Told",
    "TopUpBalance",
    "VoidPayment",
    "WithdrawBalance",
    "acknowledge",
    "answer_open",
    "ask",
    "book_bills",
    "capture_payments",
    "close_payments",
    "create_payments",
    "due_bills",
    "get_balance",
    "get_payment",
    "get_refund",
    "import_bill",
    "import_due",
    "know_orders",
    "list_bill_differences",
    "list_bills",
    "list_payments",
    "list_refunds",
    "read_callback",
    "refund_payments",
    "refund_rejected",
    "settle",
    "settle_late",
    "take_notices",
    "take_up",
    "top_up_balances",
    "void_payments",
    "withdraw_balances",
    "worth_asking",
]
