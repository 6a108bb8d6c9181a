"""The ledger against a naive model, refunds, the states, and what may be paid."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from services.kernel.errors import DomainError
from services.kernel.money import MINOR_UNITS_MAX, Money
from services.payment import states
from services.payment.domain import (
    Account,
    AccountKey,
    Book,
    Entry,
    KnownOrder,
    Method,
    Payment,
    Posting,
    chain_hash,
    check_payable,
    check_refundable,
)
from services.payment.domain.ledger import FUNDING_CLEARING, KINDS, MAY_BE_NEGATIVE, MERCHANT_SETTLEMENT, USER_BALANCE

NOW, USER = 1_800_000_000_000, 7
KEYS = [AccountKey(kind, owner, currency) for kind in KINDS for owner in (1, 2) for currency in ("CNY", "JPY")]


def open_book(balances: dict[AccountKey, int] | None = None) -> Book:
    """A book over every account of these tests."""
    start = balances or {}
    return Book({key: Account(key, n, start.get(key, 0), 0) for n, key in enumerate(KEYS, 1)})


@st.composite
def postings(draw: st.DrawFn) -> Posting:
    """A balanced transaction of two to five entries in one currency, also several on one account."""
    currency = draw(st.sampled_from(("CNY", "JPY")))
    accounts = [key for key in KEYS if key.currency_code == currency]
    amounts = draw(st.lists(st.integers(-500, 500), min_size=1, max_size=4))
    chosen = draw(st.lists(st.sampled_from(accounts), min_size=len(amounts) + 1, max_size=len(amounts) + 1))
    entries = tuple(map(Entry, chosen, (*amounts, -sum(amounts))))
    return Posting(draw(st.integers(1, 2**60)), "payment", 1, entries)


@given(st.lists(postings(), max_size=30))
def test_book_is_a_naive_ledger_that_refuses_what_would_be_overdrawn(made: list[Posting]) -> None:
    """It sums to zero, is never negative where that is forbidden, and changes nothing when it refuses."""
    book = open_book()
    naive = dict.fromkeys(KEYS, 0)
    accepted = []
    for posting in made:
        after = dict(naive)
        for account, amount in posting.entries:
            after[account] += amount
        overdrawn = [key for key in after if after[key] < 0 and key.kind not in MAY_BE_NEGATIVE]
        if overdrawn:
            with pytest.raises(DomainError, match="BALANCE_INSUFFICIENT"):
                book.post(posting)
        else:
            book.post(posting)
            naive = after
            accepted.append(posting)
        assert {key: book.balance(key) for key in KEYS} == naive
    assert book.postings == accepted
    assert {key: account.balance for key, account in book.touched.items() if account.balance} == {
        key: balance for key, balance in naive.items() if balance
    }
    assert book.touched.keys() == {entry.account for posting in accepted for entry in posting.entries}
    for currency in ("CNY", "JPY"):
        assert sum(balance for key, balance in naive.items() if key.currency_code == currency) == 0


def test_book_refuses_what_is_no_transaction() -> None:
    """Unequal sides and two currencies are faults of ours, not refusals."""
    one, two, yen = KEYS[0], KEYS[2], KEYS[1]
    with pytest.raises(AssertionError, match="sum to zero"):
        open_book().post(Posting(1, "payment", 1, (Entry(one, -1), Entry(two, 2))))
    with pytest.raises(AssertionError, match="one currency"):
        open_book().post(Posting(1, "payment", 1, (Entry(one, -1), Entry(yen, 1))))


def test_balance_has_an_upper_limit() -> None:
    """Beyond what any JSON reader keeps exact nothing is booked; up to it everything is."""
    balance, clearing = AccountKey(USER_BALANCE, 1, "CNY"), AccountKey(FUNDING_CLEARING, 1, "CNY")
    book = open_book({balance: MINOR_UNITS_MAX - 5})
    with pytest.raises(DomainError) as caught:
        book.post(Posting(1, "top_up", 1, (Entry(clearing, -6), Entry(balance, 6))))
    assert caught.value.reason == "BALANCE_LIMIT_EXCEEDED"
    book.post(Posting(2, "top_up", 2, (Entry(clearing, -5), Entry(balance, 5))))
    assert book.balance(balance) == MINOR_UNITS_MAX


def test_refusal_for_lack_of_money_says_how_much_was_to_be_paid() -> None:
    """In major units, for people."""
    balance, merchant = AccountKey(USER_BALANCE, 1, "CNY"), AccountKey(MERCHANT_SETTLEMENT, 1, "CNY")
    with pytest.raises(DomainError) as caught:
        open_book({balance: 100}).post(Posting(1, "payment", 1, (Entry(balance, -1234), Entry(merchant, 1234))))
    assert caught.value.metadata == {"amount": "12.34 CNY"}


@given(st.lists(st.tuples(*[st.integers(-(2**62), 2**62)] * 4), max_size=20), st.integers(0, 19), st.integers(0, 3))
def test_chain_hash_changes_with_every_field(lines: list[tuple[int, ...]], line: int, place: int) -> None:
    """Another previous link or any other number is another hash; the text that is hashed is stated."""
    link = chain_hash(bytes(32), lines)
    text = ";".join(",".join(map(str, each)) for each in lines)
    assert link == hashlib.sha256(bytes(32) + text.encode()).digest()
    assert link != chain_hash(b"x" * 32, lines)
    if lines:
        changed = [list(each) for each in lines]
        changed[line % len(lines)][place] += 1
        assert link != chain_hash(bytes(32), changed)


def new_payment(amount: int = 100, status: str = states.PENDING) -> Payment:
    """A payment of ``amount`` fen."""
    return Payment(1, 11, USER, Money("CNY", amount), Method.BALANCE, status, 1, 0, 0, "", NOW, NOW)


@given(st.integers(1, 1000), st.lists(st.one_of(st.none(), st.integers(0, 1200)), max_size=12))
def test_refunds_never_exceed_what_was_captured(amount: int, asked: list[int | None]) -> None:
    """Whatever is asked for, in whole or in parts: given back is at most captured, and whole means refunded."""
    payment = new_payment(amount)
    payment.succeed(NOW)
    given_back = 0
    for minor in asked:
        wanted, left = None if minor is None else Money("CNY", minor), amount - given_back
        if not left or (minor is not None and not 0 < minor <= left):
            with pytest.raises(DomainError, match="REFUND_EXCEEDS_CAPTURED" if left else "PAYMENT_STATUS_CONFLICT"):
                check_refundable(payment, wanted)
            continue
        back = check_refundable(payment, wanted)
        payment.refund(back, NOW)
        given_back += back
        assert back == (left if minor is None else minor)
    assert payment.refunded == given_back <= payment.captured == amount
    assert (payment.status == states.REFUNDED) == (given_back == amount)


def test_refund_of_another_currency_is_refused() -> None:
    """The amount is in the payment's currency."""
    payment = new_payment()
    payment.succeed(NOW)
    with pytest.raises(DomainError) as caught:
        check_refundable(payment, Money("USD", 1))
    assert caught.value.reason == "CURRENCY_UNSUPPORTED"


class PaymentHistory(RuleBasedStateMachine):
    """A payment walks only along the published graph, one version a step."""

    def __init__(self) -> None:
        """Begin pending."""
        super().__init__()
        self.payment = new_payment()
        self.steps = [self.payment.step()]

    @rule(status=st.sampled_from(states.ALL))
    def enter(self, status: str) -> None:
        """Try any state."""
        before = self.payment.step()
        if status in states.NEXT[before.status]:
            self.steps.append(self.payment.enter(status, NOW + len(self.steps)))
            return
        with pytest.raises(DomainError) as caught:
            self.payment.enter(status, NOW)
        assert caught.value.reason == "PAYMENT_STATUS_CONFLICT"
        assert self.payment.step() == before

    @precondition(lambda self: states.SUCCESS in states.NEXT[self.payment.status] and not self.payment.captured)
    @rule()
    def succeed(self) -> None:
        """Take the money."""
        self.steps.append(self.payment.succeed(NOW + len(self.steps)))

    @precondition(lambda self: self.payment.status in {states.SUCCESS, states.PARTIALLY_REFUNDED})
    @rule(amount=st.integers(1, 100))
    def refund(self, amount: int) -> None:
        """Give back what is left of it, at most."""
        if 0 < amount <= self.payment.refundable:
            self.steps.append(self.payment.refund(amount, NOW + len(self.steps)))

    @invariant()
    def history_is_a_path(self) -> None:
        """Versions ascend by one, each step is allowed, the last is where the payment is."""
        assert self.steps[0].status in states.INITIAL
        assert [step.version for step in self.steps] == list(range(1, len(self.steps) + 1))
        assert all(b.status in states.NEXT[a.status] for a, b in zip(self.steps, self.steps[1:], strict=False))
        assert self.steps[-1] == self.payment.step()
        assert 0 <= self.payment.refunded <= self.payment.captured <= self.payment.amount.minor_units


TestPaymentHistory = PaymentHistory.TestCase


@pytest.mark.parametrize(("change", "shown", "reason"), [
    ({}, None, ""),
    ({}, Money("CNY", 100), ""),
    ({"user_id": 8}, None, "ORDER_NOT_FOUND"),
    ({"status": "cancelled"}, None, "ORDER_NOT_PAYABLE"),
    ({"status": "paid"}, None, "ORDER_NOT_PAYABLE"),
    ({"expire_ms": NOW}, None, "ORDER_NOT_PAYABLE"),
    ({}, Money("CNY", 99), "AMOUNT_MISMATCH"),
    ({}, Money("USD", 100), "AMOUNT_MISMATCH"),
    (None, None, "ORDER_NOT_FOUND"),
])  # fmt: skip
def test_order_is_payable_or_not(change: dict[str, object] | None, shown: Money | None, reason: str) -> None:
    """Of the payer, pending, in time, of the amount that was seen."""
    facts: dict[str, object] = {"id": 11, "user_id": USER, "amount": Money("CNY", 100), "status": "pending",
                                "expire_ms": NOW + 1, "version": 1}  # fmt: skip
    order = None if change is None else KnownOrder(**facts | change)  # type: ignore[arg-type] # fields by name
    try:
        assert check_payable(order, 11, USER, shown, NOW) is order
        said = ""
    except DomainError as refusal:
        said = refusal.reason
    assert said == reason
