"""I1, I2 and I3 of the ledger: it balances, accounts hold what their entries say, and payments and entries agree."""

from __future__ import annotations

from collections import defaultdict
from itertools import groupby, islice
from operator import attrgetter
from typing import TYPE_CHECKING

import sqlalchemy as sa

from services.payment import states
from services.payment.audit.scope import UNDER_WAY, changed_payments, seen_link
from services.payment.domain import Method
from services.payment.domain.ledger import (
    CLEARING,
    MAY_BE_NEGATIVE,
    MERCHANT_SETTLEMENT,
    REFUND,
    REFUNDS_PAYABLE,
    USER_BALANCE,
)
from services.payment.domain.ledger import REFUND_LATE as LATE
from services.payment.domain.ledger import REFUND_PAYABLE as PAYABLE
from services.payment.domain.ledger import REFUND_REVERSAL as REVERSAL
from services.payment.domain.ledger import REFUND_UNDONE as UNDONE
from services.payment.store import tables as t
from services.platform.audit import SHOWN, Finding, count, over, streamed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.platform.audit import Found, Since

X, E, A, P, R = t.ledger_transactions.c, t.ledger_entries.c, t.accounts.c, t.payments.c, t.refunds.c
PAID = "payment"
_OF_REFUNDS = (PAYABLE, REFUND, REVERSAL, LATE, UNDONE)
_OF_PAYMENTS = (PAID, *_OF_REFUNDS)
"""Kinds of postings whose amounts payments and refunds state. Others (top-ups, settlements, …) move money besides."""


def booked(kind: str) -> sa.Exists:
    """Whether a refund has a posting of ``kind``."""
    return sa.exists().where(X.reference_id == R.id, X.kind == kind)


def transactions_balance(connection: sa.Connection, since: Since) -> Finding:
    """I1: in each transaction, and so in each currency, debits and credits sum to zero, over at least two entries."""
    total, lines, known = sa.func.sum(E.amount_minor), sa.func.count(E.line), sa.func.count(A.id)
    low, high = sa.func.min(A.currency_code), sa.func.max(A.currency_code)
    new = X.chain_seq > seen_link(since).seq
    unbalanced = (
        sa.select(X.id, total, lines, low, high)
        .select_from(t.ledger_transactions.outerjoin(t.ledger_entries, E.transaction_id == X.id))
        .outerjoin(t.accounts, E.account_id == A.id)
        .where(new)
        .group_by(X.id)
        .having(sa.or_(total != 0, lines < 2, known != lines, low != high))
    )
    rows = connection.execute(unbalanced.limit(SHOWN)).all()
    breaches = [f"transaction {r[0]}: {r[2]} entries, in {r[3]} to {r[4]}, sum to {r[1]}" for r in rows]
    return Finding("I1", "ledger transactions", count(connection, t.ledger_transactions, new), breaches)


def accounts_match(connection: sa.Connection, since: Since) -> Finding:
    """I2: every stored balance is the sum of its entries, and none is negative where that is forbidden.

    All accounts are looked at in every run; of their entries, those since the balance that was noted last.
    """
    noted = since.notes.figures("balances", 1)
    summed = sa.select(E.account_id, sa.func.sum(E.amount_minor))
    query = sa.select(A.id, A.kind, A.owner_id, A.balance_minor).order_by(A.id)
    examined, breaches = 0, list[str]()
    if since.full:
        noted.clear()
        noted.put((i, int(total)) for i, total in streamed(connection, summed.group_by(E.account_id)))
        moved: dict[int, int] = {}
    else:
        new = X.chain_seq > seen_link(since).seq
        joined = summed.join_from(t.ledger_transactions, t.ledger_entries, E.transaction_id == X.id)
        moved = {i: int(total) for i, total in connection.execute(joined.where(new).group_by(E.account_id))}
    before = iter(noted)
    at = next(before, None)
    touched: list[tuple[int, int]] = []
    for account_id, kind, owner_id, balance in streamed(connection, query):
        examined += 1
        while at is not None and at[0] < account_id:
            breaches.append(f"account {at[0]}, which entries name, is gone")
            at = next(before, None)
        total = moved.get(account_id, 0)
        if at is not None and at[0] == account_id:
            total, at = total + at[1], next(before, None)
        if balance != total or (balance < 0 and kind not in MAY_BE_NEGATIVE):
            breaches.append(f"account {account_id} ({kind} of {owner_id}) holds {balance}, its entries say {total}")
        if account_id in moved:
            touched.append((account_id, total))
    noted.put(touched)
    return Finding("I2", "account balances", examined, breaches[:SHOWN])


def accounts_follow_payments(connection: sa.Connection) -> Finding:
    """I2: what all accounts of a kind hold is what payments and refunds say, and what was moved besides.

    So a provider's clearing account is what was captured by its method, less what was given back and what was settled;
    what is owed to payers is the refunds under way. Sums over everything, in every run.
    """
    due: defaultdict[tuple[str, str], int] = defaultdict(int)
    sums = (sa.func.sum(P.captured_minor), sa.func.sum(P.refunded_minor))
    for method, currency, captured, refunded in connection.execute(
        sa.select(P.payment_method, P.currency_code, *sums).group_by(P.payment_method, P.currency_code)
    ):
        kept = int(captured - refunded)
        due[CLEARING.get(method, USER_BALANCE), currency] -= kept
        due[MERCHANT_SETTLEMENT, currency] += kept
    for currency, amount in connection.execute(
        sa.select(R.currency_code, sa.func.sum(R.amount_minor)).where(set_aside()).group_by(R.currency_code)
    ):
        due[REFUNDS_PAYABLE, currency] += int(amount)
        due[MERCHANT_SETTLEMENT, currency] -= int(amount)
    besides = (
        sa.select(A.kind, A.currency_code, sa.func.sum(E.amount_minor))
        .join_from(t.ledger_transactions, t.ledger_entries, E.transaction_id == X.id)
        .join(t.accounts, E.account_id == A.id)
        .where(X.kind.not_in(_OF_PAYMENTS))
        .group_by(A.kind, A.currency_code)
    )
    for kind, currency, amount in connection.execute(besides):
        due[kind, currency] += int(amount)
    held = sa.select(A.kind, A.currency_code, sa.func.sum(A.balance_minor)).group_by(A.kind, A.currency_code)
    holds = {(kind, currency): int(amount) for kind, currency, amount in connection.execute(held)}
    breaches = [
        f"accounts {kind} hold {holds.get((kind, currency), 0)} {currency}, payments say {due[kind, currency]}"
        for kind, currency in sorted(due.keys() | holds.keys())
        if holds.get((kind, currency), 0) != due[kind, currency]
    ]
    return Finding("I2", "accounts by kind and currency", len(holds), breaches[:SHOWN])


def set_aside() -> sa.ColumnElement[bool]:
    """Whether the amount of a refund is set aside: it is under way, or was when it came into review."""
    undone = sa.not_(sa.or_(booked(REFUND), booked(REVERSAL)))
    # Asked last, and so of few rows: refunds in review.
    return sa.case((R.status.in_(UNDER_WAY), sa.true()), (R.status == states.REFUND_REVIEW, undone), else_=sa.false())


def given() -> sa.ColumnElement[bool]:
    """Whether a refund was given back: it is done, or was when it came into review."""
    return sa.case(
        (R.status == states.REFUND_SUCCESS, sa.true()),
        (R.status == states.REFUND_REVIEW, sa.and_(sa.or_(booked(REFUND), booked(LATE)), sa.not_(booked(UNDONE)))),
        else_=sa.false(),
    )  # fmt: skip


def captures_booked(connection: sa.Connection, since: Since) -> Finding:
    """I3: what a payment captured is booked, once, from its payer or provider to the merchant, and nothing else is."""
    ids, new = changed_payments(connection, since), X.chain_seq > seen_link(since).seq
    payer = sa.or_(
        sa.and_(P.payment_method == str(Method.BALANCE), A.kind == USER_BALANCE, A.owner_id == P.user_id),
        *(sa.and_(P.payment_method == method, A.kind == kind) for method, kind in CLEARING.items()),
    )
    right = A.currency_code == P.currency_code
    taken = sa.func.coalesce(sa.func.sum(sa.case((sa.and_(E.amount_minor < 0, payer, right), -E.amount_minor))), 0)
    merchants = sa.and_(E.amount_minor > 0, A.kind == MERCHANT_SETTLEMENT, right)
    got = sa.func.coalesce(sa.func.sum(sa.case((merchants, E.amount_minor))), 0)
    wrong = (
        sa.select(P.id, P.captured_minor, taken.label("taken"), got.label("got"))
        .select_from(t.payments.outerjoin(t.ledger_transactions, sa.and_(X.reference_id == P.id, X.kind == PAID)))
        .outerjoin(t.ledger_entries, E.transaction_id == X.id)
        .outerjoin(t.accounts, E.account_id == A.id)
        .group_by(P.id, P.captured_minor)
        .having(sa.or_(taken != P.captured_minor, got != P.captured_minor))
    )
    breaches = [
        f"payment {r.id} captured {r.captured_minor}; from its payer {r.taken} are booked, to the merchant {r.got}"
        for r in islice(over(connection, wrong, P.id, ids), SHOWN)
    ]
    nobodys = sa.select(X.reference_id).where(X.kind == PAID, new, ~sa.exists().where(P.id == X.reference_id))
    breaches += [f"the unknown payment {i} is booked" for i in connection.execute(nobodys.limit(SHOWN)).scalars()]
    due = count(connection, t.payments, P.captured_minor > 0) if ids is None else len(ids)
    return Finding("I3", "payments and ledger agree", due, breaches[:SHOWN])


def refunds_booked(connection: sa.Connection, since: Since) -> Finding:
    """I3: what was set aside, given back or released for a refund is booked as its state says, and nothing else is."""
    ids, new = changed_payments(connection, since), X.chain_seq > seen_link(since).seq
    query = (
        sa.select(
            R.id, R.status, R.amount_minor, R.currency_code, P.payment_method, P.user_id, X.kind.label("posting"),
            E.amount_minor.label("moved"), A.kind.label("account"), A.owner_id, A.currency_code.label("currency"),
        )
        .select_from(t.refunds.outerjoin(t.payments, P.id == R.payment_id))
        .outerjoin(t.ledger_transactions, sa.and_(X.reference_id == R.id, X.kind.in_(_OF_REFUNDS)))
        .outerjoin(t.ledger_entries, E.transaction_id == X.id)
        .outerjoin(t.accounts, E.account_id == A.id)
        .order_by(R.id)
    )  # fmt: skip
    examined, breaches = 0, list[str]()
    for refund_id, lines in groupby(over(connection, query, R.payment_id, ids), key=attrgetter("id")):
        examined += 1
        if (fault := _refund_fault(list(lines))) and len(breaches) < SHOWN:
            breaches.append(f"refund {refund_id} {fault}")
    nobodys = sa.select(X.reference_id, X.kind).where(
        X.kind.in_(_OF_REFUNDS), new, ~sa.exists().where(R.id == X.reference_id)
    )
    breaches += [
        f"the unknown refund {r.reference_id} is booked ({r.kind})" for r in connection.execute(nobodys.limit(SHOWN))
    ]
    return Finding("I3", "refunds and ledger agree", examined, breaches[:SHOWN])


_DONE = ({PAYABLE, REFUND}, {PAYABLE, REVERSAL, LATE})
_FAILED = ({PAYABLE, REVERSAL}, {PAYABLE, REFUND, UNDONE}, {PAYABLE, REVERSAL, LATE, UNDONE})
_BOOKED: dict[str, tuple[set[str], ...]] = {
    states.REFUND_PENDING: ({PAYABLE},),
    states.REFUND_UNKNOWN: ({PAYABLE},),
    states.REFUND_SUCCESS: _DONE,
    states.REFUND_FAILED: _FAILED,
    states.REFUND_REVIEW: ({PAYABLE}, *_DONE, *_FAILED),
}
"""State of a refund through a provider -> the postings that it can have; a review may have turned them round."""


def _refund_fault(lines: Sequence[Found]) -> str:
    """Say what is wrong with the postings of a refund, given with each line of them; "" when nothing is."""
    refund = lines[0]
    if refund.payment_method is None:
        return "is of no payment"
    balance = refund.payment_method == Method.BALANCE
    postings = {line.posting for line in lines if line.posting}
    allowed = ({REFUND},) if balance and refund.status == states.REFUND_SUCCESS else _BOOKED[refund.status]
    if postings not in allowed:
        return f"is {refund.status}, booked are {sorted(postings)}"
    merchant, payable = (MERCHANT_SETTLEMENT, None), (REFUNDS_PAYABLE, None)
    outside = (USER_BALANCE, refund.user_id) if balance else (CLEARING[refund.payment_method], None)
    ways = {PAYABLE: (merchant, payable), REVERSAL: (payable, merchant)}
    ways |= {LATE: (merchant, outside), UNDONE: (outside, merchant)}
    ways[REFUND] = (merchant if balance else payable, outside)
    wanted = {(kind, place, side * refund.amount_minor) for kind in postings for side, place in zip((-1, 1), ways[kind], strict=True)}  # fmt: skip  # noqa: E501
    found = {
        (line.posting, (line.account, line.owner_id if line.account == USER_BALANCE else None), line.moved)
        for line in lines
        if line.posting and line.currency == refund.currency_code
    }
    if found != wanted or len(lines) != max(1, len(wanted)):
        return f"of {refund.amount_minor} {refund.currency_code} is booked otherwise: {sorted(map(str, found))}"
    return ""
