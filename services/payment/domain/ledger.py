"""Double entry: transactions whose entries sum to zero, over accounts that are changed in memory and written once.

Credits are positive, debits negative. The chart of accounts:

user_balance         what paymesh owes a user; never negative
merchant_settlement  what paymesh owes the merchant
refunds_payable      what is owed to payers whose refunds are under way; never negative
funding_clearing     what operators received for users, less what they paid out: falls by debits
clearing_*           what a provider owes, per method; zero once its bills are settled
bank                 what providers paid out; fees: what they kept; suspense: what a bill says otherwise than the books
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from services.kernel.errors import DomainError
from services.kernel.money import MINOR_UNITS_MAX, Money

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

USER_BALANCE = "user_balance"
MERCHANT_SETTLEMENT = "merchant_settlement"
FUNDING_CLEARING = "funding_clearing"
REFUNDS_PAYABLE = "refunds_payable"
BANK = "bank"
FEES = "fees"
SUSPENSE = "suspense"
CLEARING = {method: f"clearing_{method}" for method in ("alipay", "wechat", "bank_card")}
"""Method of payment -> the kind of its provider's clearing account."""

REFUND_PAYABLE, REFUND, REFUND_REVERSAL = "refund_payable", "refund", "refund_reversal"
"""Kinds of ledger transactions of a refund through a provider: set aside, given back, let go of."""
REFUND_LATE, REFUND_UNDONE = "refund_late", "refund_undone"
"""By a review: given back though it had been let go of; not given back though it was booked."""

KINDS = (
    USER_BALANCE, MERCHANT_SETTLEMENT, FUNDING_CLEARING, REFUNDS_PAYABLE, BANK, FEES, SUSPENSE, *CLEARING.values(),
)  # fmt: skip
MAY_BE_NEGATIVE = frozenset(KINDS) - {USER_BALANCE, REFUNDS_PAYABLE}


class AccountKey(NamedTuple):
    """What an account is found by: its kind, whose it is, its currency. A tuple, for it is a key of many dictionaries."""

    kind: str
    owner_id: int
    currency_code: str


@dataclass(slots=True)
class Account:
    """An account as a batch sees and changes it. ``id`` is 0 and ``version`` -1 until it is first written."""

    key: AccountKey
    id: int
    balance: int
    version: int

    @property
    def is_new(self) -> bool:
        """Whether the account is not stored yet."""
        return self.version < 0


class Entry(NamedTuple):
    """One line of a transaction: minor units, credit positive, debit negative."""

    account: AccountKey
    amount: int


@dataclass(frozen=True, slots=True)
class Posting:
    """A ledger transaction. ``kind`` and ``reference_id`` are unique together: nothing is booked twice."""

    id: int
    kind: str
    reference_id: int
    entries: tuple[Entry, ...]


class TrialBalanceLine(NamedTuple):
    """All accounts of a kind in one currency, and what was ever booked to them, in minor units."""

    kind: str
    currency_code: str
    accounts: int
    debits: int
    credits: int


class JournalLine(NamedTuple):
    """An entry as the books of a company want it: a debit is negative, amounts are minor units."""

    chain_seq: int
    transaction_id: int
    at_ms: int
    kind: str
    reference_id: int
    line: int
    account: str
    owner_id: int
    currency_code: str
    amount_minor: int


class Book:
    """The accounts of a batch, in memory. Postings are made in sequence; the store writes each account once."""

    def __init__(self, accounts: Mapping[AccountKey, Account]) -> None:
        """Work on ``accounts``, which hold every account that the batch may touch."""
        self._accounts = accounts
        self.postings: list[Posting] = []
        self.touched: dict[AccountKey, Account] = {}

    def balance(self, key: AccountKey) -> int:
        """Return a balance as it is after the postings so far."""
        return self._accounts[key].balance

    def post(self, posting: Posting) -> None:
        """Book a transaction, or refuse the whole of it and change nothing.

        Refuses with BALANCE_INSUFFICIENT (a balance that may not be negative would be) and BALANCE_LIMIT_EXCEEDED.
        """
        total, currency = 0, posting.entries[0].account.currency_code
        after: dict[AccountKey, int] = {}
        for key, amount in posting.entries:
            assert key.currency_code == currency, "a ledger transaction has one currency"
            total += amount
            after[key] = after[key] + amount if key in after else self._accounts[key].balance + amount
        assert total == 0, "a ledger transaction must sum to zero"
        for key, balance in after.items():
            if balance < 0 and key.kind not in MAY_BE_NEGATIVE:
                missing = self._accounts[key].balance - balance
                raise DomainError("BALANCE_INSUFFICIENT", amount=str(Money(currency, missing)))
            if abs(balance) > MINOR_UNITS_MAX:
                raise DomainError("BALANCE_LIMIT_EXCEEDED", limit=MINOR_UNITS_MAX)
        for key, balance in after.items():
            account = self.touched[key] = self._accounts[key]
            account.balance = balance
        self.postings.append(posting)


def transfer(
    posting_id: int, kind: str, reference_id: int, debit: AccountKey, credit: AccountKey, amount: int
) -> Posting:
    """Make a transaction of two entries: ``amount`` minor units from ``debit`` to ``credit``."""
    return Posting(posting_id, kind, reference_id, (Entry(debit, -amount), Entry(credit, amount)))


def chain_hash(previous: bytes, lines: Iterable[Sequence[object]]) -> bytes:
    """Return the SHA-256 link of a batch: over the previous link and each entry's fields, joined as text.

    A line is (transaction id, line number, account id, amount, kind, reference id, time in ms): an entry and what its
    transaction says of it.
    """
    text = ";".join(",".join(map(str, line)) for line in lines)
    return hashlib.sha256(previous + text.encode()).digest()
