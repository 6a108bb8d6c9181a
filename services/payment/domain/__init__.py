"""Rules of payments and of the ledger: pure, no I/O, clock or randomness."""

from services.payment.domain.ledger import Account, AccountKey, Book, Entry, Posting, chain_hash
from services.payment.domain.payment import KnownOrder, Method, Payment, Refund, check_payable, check_refundable

__all__ = [
    "Account",
    "AccountKey",
    "Book",
    "Entry",
    "KnownOrder",
    "Method",
    "Payment",
    "Posting",
    "Refund",
    "chain_hash",
    "check_payable",
    "check_refundable",
]
