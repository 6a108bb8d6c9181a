"""The payment room's database behind its ports."""

from services.payment.store.bills import SqlBills
from services.payment.store.cards import SqlCards
from services.payment.store.methods import SqlPaymentMethods
from services.payment.store.sql import SqlStore
from services.payment.store.tables import metadata

__all__ = ["SqlBills", "SqlCards", "SqlPaymentMethods", "SqlStore", "metadata"]
