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
from services.payment.usecases.exports import LedgerExport, export_ledger
from services.payment.usecases.methods import (
    RemovePaymentMethod,
    SavePaymentMethod,
    SetDefaultPaymentMethod,
    list_payment_methods,
    remove_payment_methods,
    save_payment_methods,
    set_default_payment_methods,
    tokenize,
)
from services.payment.usecases.orders import OrderCancelled, OrderKnown, know_orders
from services.payment.usecases.reads import (
    get_balance,
    get_payment,
    get_refund,
    get_trial_balance,
    list_payments,
    list_refunds,
)
from services.payment.usecases.refund import RefundPayment, RefundRejected, refund_payments, refund_rejected
from services.payment.usecases.reviews import (
    DecideReview,
    ProposeReview,
    decide_reviews,
    list_reviews,
    propose_reviews,
)
from services.payment.usecases.settle import answer_open, settle
from services.payment.usecases.take_up import TakeUp, take_up, worth_asking
from services.payment.usecases.top_up import TopUpBalance, WithdrawBalance, top_up_balances, withdraw_balances

__all__ = [
    "CapturePayment",
    "ClosePayment",
    "CreatePayment",
    "DecideReview",
    "How",
    "ImportBill",
    "LedgerExport",
    "OrderCancelled",
    "OrderKnown",
    "ProposeReview",
    "RefundPayment",
    "RefundRejected",
    "RemovePaymentMethod",
    "Said",
    "SavePaymentMethod",
    "SetDefaultPaymentMethod",
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
    "decide_reviews",
    "due_bills",
    "export_ledger",
    "get_balance",
    "get_payment",
    "get_refund",
    "get_trial_balance",
    "import_bill",
    "import_due",
    "know_orders",
    "list_bill_differences",
    "list_bills",
    "list_payment_methods",
    "list_payments",
    "list_refunds",
    "list_reviews",
    "propose_reviews",
    "read_callback",
    "refund_payments",
    "refund_rejected",
    "remove_payment_methods",
    "save_payment_methods",
    "set_default_payment_methods",
    "settle",
    "settle_late",
    "take_notices",
    "take_up",
    "tokenize",
    "top_up_balances",
    "void_payments",
    "withdraw_balances",
    "worth_asking",
]
