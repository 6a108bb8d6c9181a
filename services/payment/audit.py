"""What `paymesh verify` reads of the payment room: money first. Reads data alone; no running service is asked."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import sqlalchemy as sa

from services.payment import states
from services.payment.domain import chain_hash
from services.payment.domain.ledger import MAY_BE_NEGATIVE, REFUND, REFUND_LATE, REFUND_UNDONE
from services.payment.store import tables as t
from services.platform.audit import PENDING_MS, Finding, outbox_published, versions_without_gap

if TYPE_CHECKING:
    from collections.abc import Iterator

AT_REST = frozenset({states.SUCCESS, states.FAILED, states.CLOSED, states.PARTIALLY_REFUNDED, states.REFUNDED})
_CAPTURED = (states.SUCCESS, states.PARTIALLY_REFUNDED, states.REFUNDED)
_TOPICS = tuple(dict.fromkeys(states.EVENTS.values()))
_SAYS = {"payment": ("payment", 1), REFUND: ("refund", 1), REFUND_LATE: ("refund", 1), REFUND_UNDONE: ("refund", -1)}
"""Kind of ledger transaction -> what it is about, and whether it books that or takes it back."""
_SHOWN = 20


def invariants(connection: sa.Connection, now_ms: int, *, settled: bool) -> Iterator[Finding]:
    """Check the payment room's invariants one by one; rows are counted, breaches put in words."""
    yield _transactions_balance(connection)
    yield _accounts_match(connection)
    yield _one_payment_per_order(connection)
    yield _ledger_matches_payments(connection)
    yield _at_rest(connection, now_ms, settled=settled)
    yield _refunds(connection)
    yield _answers(connection)
    yield outbox_published(connection, t.outbox, now_ms, settled=settled)
    yield versions_without_gap(connection, t.outbox, _TOPICS, "payment")
    yield _chain(connection)
    yield from _history(connection)


def payments_by_order(connection: sa.Connection) -> Iterator[tuple[int, int, str, int, int, int]]:
    """Yield (order id, payment id, status, captured, refunded, last change in ms) of payments that took money; for I9.

    Those beside their order are none of it: their money was given back whole, or is in review.
    """
    p = t.payments.c
    query = sa.select(p.order_id, p.id, p.status, p.captured_minor, p.refunded_minor, p.update_ms)
    yield from connection.execute(query.where(p.status.in_(_CAPTURED), p.live_order_id.is_not(None)))


def _count(connection: sa.Connection, table: sa.Table) -> int:
    return connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()


def _transactions_balance(connection: sa.Connection) -> Finding:
    """I1: in each transaction, and so in each currency, debits and credits sum to zero, over at least two entries."""
    e, a = t.ledger_entries.c, t.accounts.c
    total, lines = sa.func.sum(e.amount_minor), sa.func.count()
    currencies = sa.func.count(a.currency_code.distinct())
    unbalanced = (
        sa.select(e.transaction_id, total, lines, currencies)
        .select_from(t.ledger_entries.outerjoin(t.accounts, e.account_id == a.id))
        .group_by(e.transaction_id)
        .having(sa.or_(total != 0, lines < 2, currencies != 1))
    )
    rows = connection.execute(unbalanced.limit(_SHOWN)).all()
    breaches = [f"transaction {r[0]}: {r[2]} entries in {r[3]} currencies sum to {r[1]}" for r in rows]
    return Finding("I1", "ledger transactions", _count(connection, t.ledger_transactions), breaches)


def _accounts_match(connection: sa.Connection) -> Finding:
    """I2: every stored balance is the sum of its entries, and none is negative where that is forbidden."""
    e, a = t.ledger_entries.c, t.accounts.c
    summed = sa.select(e.account_id, sa.func.sum(e.amount_minor).label("total")).group_by(e.account_id).subquery()
    total = sa.func.coalesce(summed.c.total, 0)
    forbidden = sa.and_(a.balance_minor < 0, a.kind.not_in(MAY_BE_NEGATIVE))
    wrong = (
        sa.select(a.id, a.kind, a.owner_id, a.balance_minor, total.label("total"))
        .select_from(t.accounts.outerjoin(summed, summed.c.account_id == a.id))
        .where(sa.or_(a.balance_minor != total, forbidden))
    )
    rows = connection.execute(wrong.limit(_SHOWN)).all()
    breaches = [
        f"account {r.id} ({r.kind} of {r.owner_id}) holds {r.balance_minor}, its entries say {r.total}" for r in rows
    ]
    return Finding("I2", "account balances", _count(connection, t.accounts), breaches)


def _one_payment_per_order(connection: sa.Connection) -> Finding:
    """I3, first half: at most one payment of an order is live or captured, and the guard column says so.

    Money that came after a payment had ended is beside the order: in review, or given back.
    """
    p = t.payments.c
    ended = p.status.in_((states.FAILED, states.CLOSED))
    beside = sa.and_(p.live_order_id.is_(None), p.status.in_((states.REVIEW, states.REFUNDED)))
    live = sa.not_(sa.or_(ended, beside))
    many = sa.select(p.order_id, sa.func.count()).where(live).group_by(p.order_id).having(sa.func.count() > 1)
    breaches = [f"order {r[0]} has {r[1]} payments" for r in connection.execute(many.limit(_SHOWN))]
    unguarded = sa.select(p.id).where(sa.or_(
        sa.and_(live, sa.or_(p.live_order_id.is_(None), p.live_order_id != p.order_id)),
        sa.and_(ended, p.live_order_id.is_not(None)),
    ))  # fmt: skip
    breaches += [
        f"payment {r.id}: live_order_id does not fit its status" for r in connection.execute(unguarded.limit(_SHOWN))
    ]
    return Finding("I3", "one payment per order", _count(connection, t.payments), breaches)


def _ledger_matches_payments(connection: sa.Connection) -> Finding:
    """I3, second half: what a payment captured and gave back is booked, once, and nothing else is.

    A refund in doubt is booked or not, as it was before.
    """
    p, r, x, e = t.payments.c, t.refunds.c, t.ledger_transactions.c, t.ledger_entries.c
    booked = (
        sa.select(x.kind, x.reference_id, sa.func.sum(e.amount_minor))
        .join_from(t.ledger_transactions, t.ledger_entries, e.transaction_id == x.id)
        .where(e.amount_minor > 0, x.kind.in_(_SAYS))
        .group_by(x.kind, x.reference_id)
    )
    doubted = set(connection.execute(sa.select(r.id).where(r.status == states.REFUND_REVIEW)).scalars())
    due = {
        ("payment", i): n for i, n in connection.execute(sa.select(p.id, p.captured_minor).where(p.captured_minor > 0))
    }
    paid_back = sa.select(r.id, r.amount_minor).where(r.status == states.REFUND_SUCCESS)
    due |= {("refund", i): n for i, n in connection.execute(paid_back)}
    breaches, examined = [], len(due)
    totals: dict[tuple[str, int], int] = defaultdict(int)
    for kind, reference, amount in connection.execute(booked):
        about, sign = _SAYS[kind]
        totals[about, reference] += sign * amount
    for (kind, reference), total in totals.items():
        stated = due.pop((kind, reference), 0)
        if stated != total and not (kind == "refund" and reference in doubted):
            breaches.append(f"{kind} {reference}: {stated} minor units stated, {total} booked")
    breaches += [
        f"{kind} {reference}: {stated} minor units stated, nothing booked" for (kind, reference), stated in due.items()
    ]
    return Finding("I3", "payments and ledger agree", examined, breaches[:_SHOWN])


def _at_rest(connection: sa.Connection, now_ms: int, *, settled: bool) -> Finding:
    """I4: every payment that was accepted comes to rest; one in review waits for people, or gives its money back."""
    p, v = t.payments.c, t.reviews.c
    waits = sa.exists().where(v.payment_id == p.id, v.status != states.REVIEW_DECIDED)
    rests = sa.or_(p.status.in_(AT_REST), sa.and_(p.status == states.REVIEW, sa.or_(waits, p.refunding_minor > 0)))
    moving = connection.execute(sa.select(p.id, p.status, p.update_ms).where(sa.not_(rests))).all()
    late = [r for r in moving if settled or now_ms - r.update_ms > PENDING_MS]
    breaches = [f"payment {r.id} is {r.status} since {(now_ms - r.update_ms) // 1000} s" for r in late[:_SHOWN]]
    return Finding("I4", "payments at rest", _count(connection, t.payments), breaches, len(moving) - len(late))


def _refunds(connection: sa.Connection) -> Finding:
    """I5: no more is given back than was captured, and a payment's sum is that of its refunds.

    A refund in doubt counts where it is booked.
    """
    p, r, x = t.payments.c, t.refunds.c, t.ledger_transactions.c
    booked, undone = (sa.select(x.reference_id).where(x.kind.in_(k)) for k in ((REFUND, REFUND_LATE), (REFUND_UNDONE,)))
    counted = sa.and_(r.status == states.REFUND_REVIEW, r.id.in_(booked), r.id.not_in(undone))
    given = sa.select(r.payment_id, sa.func.sum(r.amount_minor).label("total"))
    given = given.where(sa.or_(r.status == states.REFUND_SUCCESS, counted))
    summed = given.group_by(r.payment_id).subquery()
    total = sa.func.coalesce(summed.c.total, 0)
    wrong = (
        sa.select(p.id, p.captured_minor, p.refunded_minor, total.label("total"))
        .select_from(t.payments.outerjoin(summed, summed.c.payment_id == p.id))
        .where(sa.or_(p.refunded_minor > p.captured_minor, p.refunded_minor != total))
    )
    rows = connection.execute(wrong.limit(_SHOWN)).all()
    breaches = [
        f"payment {x.id} captured {x.captured_minor}, says {x.refunded_minor} refunded, refunds sum to {x.total}"
        for x in rows
    ]
    return Finding("I5", "refunds", _count(connection, t.refunds), breaches)


def _answers(connection: sa.Connection) -> Finding:
    """I6: each key holds one answer, and no payment or refund was made by two keys."""
    k = t.idempotency_keys.c
    empty = sa.select(k.subject, k.method, k.idempotency_key).where(k.response.is_(None) == k.refusal.is_(None))
    breaches = [
        f"key {r.idempotency_key} of {r.subject} holds no single answer"
        for r in connection.execute(empty.limit(_SHOWN))
    ]
    twice = (
        sa.select(k.method, k.response, sa.func.count())
        .where(k.method != "TopUpBalance", k.response.is_not(None))
        .group_by(k.method, k.response)
        .having(sa.func.count() > 1)
    )
    breaches += [f"{r[2]} keys of {r[0]} share one answer" for r in connection.execute(twice.limit(_SHOWN))]
    return Finding("I6", "idempotency keys", _count(connection, t.idempotency_keys), breaches)


def _chain(connection: sa.Connection) -> Finding:
    """I10: the hash chain over the ledger entries verifies from the first link to the tail."""
    x, e, c = t.ledger_transactions.c, t.ledger_entries.c, t.ledger_chain.c
    entries = (
        sa.select(x.chain_seq, e.transaction_id, e.line, e.account_id, e.amount_minor, x.kind, x.reference_id, x.at_ms)
        .join_from(t.ledger_entries, t.ledger_transactions, e.transaction_id == x.id)
        .order_by(x.chain_seq, e.transaction_id, e.line)
    )
    lines: dict[int, list[tuple[object, ...]]] = defaultdict(list)
    for seq, *line in connection.execute(entries):
        lines[seq].append(tuple(line))
    previous, expected, breaches = bytes(32), 0, []
    for seq, link in connection.execute(sa.select(c.seq, c.hash).order_by(c.seq)):
        expected += 1
        if seq != expected or chain_hash(previous, lines.pop(seq, [])) != link:
            breaches.append(f"link {seq} does not follow from its entries and the link before")
            break
        previous = link
    tail = connection.execute(sa.select(t.ledger_tail.c.seq, t.ledger_tail.c.hash)).one()
    if not breaches and (tail.seq != expected or tail.hash != previous or lines):
        breaches.append(f"the chain ends at link {expected}, its tail says {tail.seq}")
    orphans = sa.select(e.transaction_id).where(e.transaction_id.not_in(sa.select(x.id)))
    breaches += [f"entries of the unknown transaction {r[0]}" for r in connection.execute(orphans.limit(_SHOWN))]
    return Finding("I10", "links of the ledger chain", expected, breaches)


def _history(connection: sa.Connection) -> Iterator[Finding]:
    """I12: each payment's history is a path in the published graph and ends in its status."""
    h, p = t.payment_history.c, t.payments.c
    steps = sa.select(h.payment_id, h.version, h.status).order_by(h.payment_id, h.version)
    last: dict[int, tuple[int, str]] = {}
    breaches, examined = [], 0
    for payment_id, version, status in connection.execute(steps):
        examined += 1
        known = last.get(payment_id)
        allowed = states.INITIAL if known is None else states.NEXT[known[1]]
        if version != (known[0] if known else 0) + 1 or status not in allowed:
            breaches.append(f"payment {payment_id}: step {version} to {status} after {known}")
        last[payment_id] = (version, status)
    for payment_id, version, status in connection.execute(sa.select(p.id, p.version, p.status)):
        if last.pop(payment_id, None) != (version, status):
            breaches.append(f"payment {payment_id} is {status} (version {version}), its history ends elsewhere")
    yield Finding("I12", "steps of payments", examined, breaches[:_SHOWN])
