"""Rules of payments and of the ledger: pure, no I/O, clock or randomness."""

from services.payment.domain.attempt import Attempt, Kind, Point, Scene
from services.payment.domain.ledger import (
    Account,
    AccountKey,
    Book,
    Entry,
    JournalLine,
    Posting,
    TrialBalanceLine,
    chain_hash,
)
from services.payment.domain.payment import (
    KnownOrder,
    Method,
    Payment,
    Refund,
    check_capturable,
    check_payable,
    check_refundable,
)
from services.payment.domain.purse import Purse, SavedPaymentMethod
from services.payment.domain.review import Decision, Place, Reason, Review, check_decision, place_of

__all__ = [
    "Account",
    "AccountKey",
    "Attempt",
    "Book",
    "Decision",
    "Entry",
    "JournalLine",
    "Kind",
    "KnownOrder",
    "Method",
    "Payment",
    "Place",
    "Point",
    "Posting",
    "Purse",
    "Reason",
    "Refund",
    "Review",
    "SavedPaymentMethod",
    "Scene",
    "TrialBalanceLine",
    "chain_hash",
    "check_capturable",
    "check_decision",
    "check_payable",
    "check_refundable",
    "place_of",
]
