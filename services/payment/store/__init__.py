"""The payment room's database behind its ports."""

from services.payment.store.cards import SqlCards
from services.payment.store.methods import SqlPaymentMethods
from services.payment.store.sql import SqlStore
from services.payment.store.tables import metadata

__all__ = ["SqlCards", "SqlPaymentMethods", "SqlStore", "metadata"]
