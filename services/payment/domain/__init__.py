"""Rules of payments and of the ledger: pure, no I/O, clock or randomness."""

from services.payment.domain.attempt import Attempt, Kind, Point, Scene
from services.payment.domain.ledger import Account, AccountKey, Book, Entry, Posting, chain_hash
from services.payment.domain.payment import (
    KnownOrder,
    Method,
    Payment,
    Refund,
    check_capturable,
    check_payable,
    check_refundable,
)
from services.payment.domain.review import Decision, Reason, Review

__all__ = [
    "Account",
    "AccountKey",
    "Attempt",
    "Book",
    "Decision",
    "Entry",
    "Kind",
    "KnownOrder",
    "Method",
    "Payment",
    "Point",
    "Posting",
    "Reason",
    "Refund",
    "Review",
    "Scene",
    "chain_hash",
    "check_capturable",
    "check_payable",
    "check_refundable",
]
