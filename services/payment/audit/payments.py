"""I3, I5, I8 and I12 of payments and refunds, one by one: those that changed, or all."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from services.payment import states
from services.payment.audit.ledger import P, R, given, set_aside
from services.payment.audit.scope import TOPICS, changed_payments
from services.payment.domain import Kind, Method
from services.payment.store import tables as t
from services.platform.audit import SHOWN, Finding, count, events_told, over

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from services.platform.audit import Found, Query, Since

_H, _N, _O = t.payment_history.c, t.attempts.c, t.outbox.c
_UNPAID = (states.FAILED, states.CLOSED)
_REFUND_AT_REST = (states.REFUND_SUCCESS, states.REFUND_FAILED, states.REFUND_REVIEW)


def one_payment_per_order(connection: sa.Connection, since: Since) -> Finding:
    """I3: at most one payment holds an order: each from its beginning until it fails or is closed, or again by a review."""
    ids = changed_payments(connection, since)
    live = P.live_order_id
    many = sa.select(live, sa.func.count()).where(live.is_not(None)).group_by(live).having(sa.func.count() > 1)
    breaches = [f"order {r[0]} is held by {r[1]} payments" for r in connection.execute(many.limit(SHOWN))]
    ended = sa.exists().where(_H.payment_id == P.id, _H.status.in_(_UNPAID))
    taken_back = sa.exists().where(_H.payment_id == P.id, _H.status == states.SUCCESS)
    unguarded = sa.select(P.id, P.status, live).where(
        sa.case(
            (live.is_(None), sa.not_(ended)),
            else_=sa.or_(live != P.order_id, P.status.in_(_UNPAID), sa.and_(ended, sa.not_(taken_back))),
        )
    )
    breaches += _shown(
        connection,
        unguarded,
        ids,
        lambda r: f"payment {r.id}, {r.status}: live_order_id {r.live_order_id} does not fit",
    )
    return Finding("I3", "one payment per order", _examined(connection, t.payments, ids), breaches[:SHOWN])


def refunds(connection: sa.Connection, since: Since) -> Finding:
    """I5: no more is given back than was captured, what is under way included, and the sums are those of the refunds."""
    ids = changed_payments(connection, since)

    def sums(which: sa.ColumnElement[bool]) -> sa.ColumnElement[Any]:
        summed = sa.select(sa.func.sum(R.amount_minor)).where(R.payment_id == P.id, which).scalar_subquery()
        return sa.func.coalesce(summed, 0)

    done, under_way = sums(given()), sums(set_aside())
    wrong = sa.select(
        P.id, P.captured_minor, P.refunded_minor, P.refunding_minor, done.label("done"), under_way.label("under_way")
    ).where(sa.or_(
        P.refunded_minor + P.refunding_minor > P.captured_minor, P.refunded_minor != done,
        P.refunding_minor != under_way,
    ))  # fmt: skip
    breaches = _shown(
        connection, wrong, ids,
        lambda x: f"payment {x.id} captured {x.captured_minor}, says {x.refunded_minor} refunded and {x.refunding_minor} "
        f"under way, its refunds sum to {x.done} and {x.under_way}",
    )  # fmt: skip
    examined = count(connection, t.refunds, *(() if ids is None else (R.update_ms >= since.ms,)))
    return Finding("I5", "refunds", examined, breaches + _refund_sums(connection))


def _refund_sums(connection: sa.Connection) -> list[str]:
    """I5 over everything, in every run: what payments say was given back, in all, is what refunds say."""
    said = sa.select(
        sa.func.coalesce(sa.func.sum(P.refunded_minor), 0), sa.func.coalesce(sa.func.sum(P.refunding_minor), 0)
    )
    summed = [sa.func.coalesce(sa.func.sum(sa.case((which, R.amount_minor))), 0) for which in (given(), set_aside())]
    refunded, refunding = map(int, connection.execute(said).one())
    done, under_way = map(int, connection.execute(sa.select(*summed)).one())
    if (refunded, refunding) == (done, under_way):
        return []
    return [f"payments say {refunded} refunded and {refunding} under way in all, refunds sum to {done} and {under_way}"]


def events(connection: sa.Connection, since: Since) -> Finding:
    """I8: a payment's events are numbered from 1 to as many as it says it has told, over all of its topics."""
    ids = changed_payments(connection, since)
    n, low, high = (
        sa.func.count(_O.id).label("n"),
        sa.func.min(_O.version).label("low"),
        sa.func.max(_O.version).label("high"),
    )
    told = sa.and_(_O.event_key == sa.cast(P.id, sa.String(64)), _O.topic.in_(TOPICS))
    wrong = (
        sa.select(P.id, P.events, n, low, high)
        .select_from(t.payments.outerjoin(t.outbox, told))
        .group_by(P.id, P.events)
        .having(sa.or_(n != P.events, low != 1, high != P.events, sa.func.count(_O.version.distinct()) != n))
    )

    def word(r: Found) -> str:
        return f"payment {r.id} told {r.events} events, there are {r.n} with versions {r.low} to {r.high}"

    breaches = list[str]()
    if ids is not None:
        breaches += _shown(connection, wrong, ids, word)
        said = int(connection.execute(sa.select(sa.func.coalesce(sa.func.sum(P.events), 0))).scalar_one())
        there = count(connection, t.outbox, _O.topic.in_(TOPICS))
        if not breaches and said != there:
            breaches.append(f"payments told {said} events in all, there are {there}")
    else:
        for first, last in events_told(connection, t.outbox, TOPICS, (P.id, P.events))[:SHOWN]:
            found = _shown(connection, wrong.where(P.id.between(first, last)), None, word)
            breaches += found or [f"there are events of payments from {first} to {last} that none of them told"]
    return Finding("I8", "versions of each payment", _examined(connection, t.payments, ids), breaches[:SHOWN])


def history(connection: sa.Connection, since: Since) -> Finding:
    """I12: each payment's history is a path in the published graph and ends in its status."""
    ids, before = changed_payments(connection, since), t.payment_history.alias("before")
    steps = [f"{status}>{after}" for status, nexts in states.NEXT.items() for after in nexts]
    begins = sa.and_(_H.version == 1, _H.status.in_(states.INITIAL))
    goes_on = sa.and_(before.c.status.is_not(None), (before.c.status + ">" + _H.status).in_(steps))
    strays = (
        sa.select(_H.payment_id, _H.version, _H.status, before.c.status.label("before"))
        .select_from(t.payment_history.outerjoin(
            before, sa.and_(before.c.payment_id == _H.payment_id, before.c.version == _H.version - 1)
        ))
        .where(sa.not_(sa.or_(begins, goes_on)))
    )  # fmt: skip
    breaches = _shown(
        connection, strays, ids, lambda r: f"payment {r.payment_id}: step {r.version} to {r.status} after {r.before}",
        by=_H.payment_id,
    )  # fmt: skip
    ends = (
        sa.select(P.id, P.status, P.version, _H.status.label("last"))
        .select_from(t.payments.outerjoin(t.payment_history, sa.and_(_H.payment_id == P.id, _H.version == P.version)))
        .where(sa.or_(_H.status.is_(None), _H.status != P.status))
    )
    breaches += _shown(
        connection,
        ends,
        ids,
        lambda r: f"payment {r.id} is {r.status} (version {r.version}), its history ends elsewhere",
    )
    steps_said = int(connection.execute(sa.select(sa.func.coalesce(sa.func.sum(P.version), 0))).scalar_one())
    there = count(connection, t.payment_history)
    if not breaches and steps_said != there:
        breaches.append(f"payments went {steps_said} steps in all, their histories have {there}")
    return Finding("I12", "steps of payments", there if ids is None else len(ids), breaches[:SHOWN])


def charges(connection: sa.Connection, since: Since) -> Finding:
    """I12: what a provider was asked for is the payment's whole amount, under its number; only a refusal needed no asking."""
    ids, by_provider = changed_payments(connection, since), P.payment_method != str(Method.BALANCE)
    right = sa.and_(
        _N.kind == str(Kind.CHARGE), _N.payment_id == P.id, _N.request_id == P.payment_no,
        _N.amount_minor == P.amount_minor, _N.currency_code == P.currency_code, _N.payment_method == P.payment_method,
    )  # fmt: skip
    wrong = (
        sa.select(P.id, P.status, _N.request_id, _N.amount_minor)
        .select_from(t.payments.outerjoin(t.attempts, _N.id == P.id))
        .where(by_provider, sa.case((_N.id.is_(None), P.status != states.FAILED), else_=sa.not_(right)))
    )
    breaches = _shown(
        connection, wrong, ids,
        lambda r: f"payment {r.id} is {r.status}; its provider was asked for {r.amount_minor} under {r.request_id}",
    )  # fmt: skip
    examined = count(connection, t.payments, by_provider) if ids is None else _among(connection, P.id, ids, by_provider)
    return Finding("I12", "charges of payments", examined, breaches)


def refund_states(connection: sa.Connection, since: Since) -> Finding:
    """I12: a refund through a provider is asked for under its number, and settled if and only if it is at rest."""
    ids, by_provider = changed_payments(connection, since), P.payment_method != str(Method.BALANCE)
    right = sa.and_(
        _N.kind == str(Kind.REFUND), _N.refund_id == R.id, _N.payment_id == R.payment_id, _N.request_id == R.refund_no,
        _N.amount_minor == R.amount_minor, _N.currency_code == R.currency_code,
        sa.case((R.status.in_(_REFUND_AT_REST), _N.next_ms.is_(None)), else_=_N.next_ms.is_not(None)),
    )  # fmt: skip
    joined = t.refunds.join(t.payments, P.id == R.payment_id)
    wrong = (
        sa.select(R.id, R.status, _N.point, _N.amount_minor)
        .select_from(joined.outerjoin(t.attempts, _N.id == R.id))
        .where(by_provider, sa.case((_N.id.is_(None), sa.true()), else_=sa.not_(right)))
    )
    breaches = _shown(
        connection, wrong, ids, lambda r: f"refund {r.id} is {r.status}, what was asked for it {r.point}: {r.amount_minor}",
        by=R.payment_id,
    )  # fmt: skip
    whole = sa.select(sa.func.count()).select_from(joined).where(by_provider)
    examined = int(connection.execute(whole).scalar_one()) if ids is None else _among(connection, R.payment_id, ids)
    return Finding("I12", "states of refunds", examined, breaches)


def _examined(connection: sa.Connection, table: sa.Table, ids: Collection[int] | None) -> int:
    return count(connection, table) if ids is None else len(ids)


def _among(
    connection: sa.Connection, column: sa.ColumnElement[int], ids: Collection[int], *where: sa.ColumnElement[bool]
) -> int:
    return sum(row[0] for row in over(connection, sa.select(sa.func.count(column)).where(*where), column, ids))


def _shown(
    connection: sa.Connection, query: Query, ids: Collection[int] | None, word: Callable[[Found], str],
    by: sa.ColumnElement[int] = P.id
) -> list[str]:  # fmt: skip
    """Put the first rows of ``query``, whose ``by`` is one of ``ids``, in words."""
    return [word(row) for row in islice(over(connection, query, by, ids), SHOWN)]
