"""I4: what was accepted comes to rest. What is on its way is looked at in every run, however old it is."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import sqlalchemy as sa

from services.payment import states
from services.payment.audit.scope import UNDER_WAY, changed_payments
from services.payment.domain import Kind, Point
from services.payment.domain.attempt import CLOSE_GRACE_MS, POLL_MS_MAX
from services.payment.domain.payment import AT_REST
from services.payment.store import tables as t
from services.platform.audit import PENDING_MS, SHOWN, Finding, chunks, count, pages

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from services.platform.audit import Found, Since

P, R, V, N = t.payments.c, t.refunds.c, t.reviews.c, t.attempts.c
_AHEAD_MS = 2 * POLL_MS_MAX
"""Nobody waits longer than this before he looks again, whatever the jitter."""
_HELD_MS = 31 * 86_400_000
"""Longer than any capture window can be set."""


def payments_at_rest(connection: sa.Connection, since: Since, now_ms: int, *, settled: bool) -> Finding:
    """I4: a payment is at rest, in review with an open entry, or on its way: someone asks its provider in time."""
    examined, pending, breaches = 0, 0, list[str]()
    moving = sa.select(P.id, P.status, P.update_ms, P.refunding_minor).where(P.status.not_in(AT_REST))
    for rows in pages(connection, moving, P.id):
        examined += len(rows)
        reviewed = _reviewed(connection, [row.id for row in rows])
        asked = _attempts(connection, [row.id for row in rows])
        for row in rows:
            if row.status == states.REVIEW:
                waits = row.refunding_minor or (row.id, 0) in reviewed  # for its money to be back, or for people
                fault = None if waits else "and no review of it is open"
            elif settled:
                fault = "and nothing may be on its way"
            else:
                fault = _way_fault(asked[row.id], now_ms, now_ms - row.update_ms)
                pending += fault is None
            if fault is not None:
                breaches.append(f"payment {row.id} is {row.status} since {(now_ms - row.update_ms) // 1000} s, {fault}")
        del breaches[SHOWN:]
    ids = changed_payments(connection, since)
    total = count(connection, t.payments) if ids is None else max(examined, len(ids))
    return Finding("I4", "payments at rest", total, breaches, pending)


def _way_fault(attempts: Sequence[Found], now_ms: int, age_ms: int) -> str | None:
    """Say why a payment or refund with these unsettled attempts does not come to rest; None: it will."""
    if not attempts:
        return "and nothing is under way for it" if age_ms > PENDING_MS else None
    return next((fault for attempt in attempts if (fault := due_fault(attempt, now_ms))), None)


def due_fault(attempt: Found, now_ms: int) -> str | None:
    """Say why an unsettled attempt is stuck; None: it is taken up in time."""
    late_ms, what = now_ms - attempt.next_ms, f"its {attempt.kind} ({attempt.point})"
    if late_ms > PENDING_MS:
        return f"{what} was due {late_ms // 1000} s ago"
    if -late_ms > (_HELD_MS if attempt.point == Point.HELD else _AHEAD_MS):
        return f"{what} is not due for {-late_ms // 1000} s"
    over_ms = now_ms - attempt.expire_ms - CLOSE_GRACE_MS
    if attempt.kind == Kind.CHARGE and attempt.point == Point.WAITING and over_ms > _AHEAD_MS:
        return f"{what} waits for a payer whose time was over {over_ms // 1000} s ago"
    return None


def refunds_at_rest(connection: sa.Connection, since: Since, now_ms: int, *, settled: bool) -> Finding:
    """I4: a refund is done, failed, in review with an open entry, or on its way: someone asks its provider in time."""
    examined, pending, breaches = 0, 0, list[str]()
    moving = sa.select(R.id, R.payment_id, R.status, R.update_ms).where(
        R.status.in_((*UNDER_WAY, states.REFUND_REVIEW))
    )
    for rows in pages(connection, moving, R.id):
        examined += len(rows)
        reviewed = _reviewed(connection, [row.payment_id for row in rows])
        asked = {a.refund_id: a for of_payment in _attempts(connection, [r.payment_id for r in rows], of_refunds=True).values() for a in of_payment}  # fmt: skip  # noqa: E501
        for row in rows:
            attempt = asked.get(row.id)
            if row.status == states.REFUND_REVIEW:
                fault = None if (row.payment_id, row.id) in reviewed else "and no review of it is open"
            elif settled:
                fault = "and nothing may be on its way"
            else:
                fault = _way_fault([attempt] if attempt else [], now_ms, now_ms - row.update_ms)
                pending += fault is None
            if fault is not None:
                breaches.append(f"refund {row.id} is {row.status} since {(now_ms - row.update_ms) // 1000} s, {fault}")
        del breaches[SHOWN:]
    since_ms = () if since.full else (R.update_ms >= since.ms,)
    return Finding("I4", "refunds at rest", max(examined, count(connection, t.refunds, *since_ms)), breaches, pending)


def attempts_of_the_living(connection: sa.Connection, now_ms: int) -> Finding:
    """I4: of a payment at rest nothing is asked any more but refunds, and to let go of what its issuer held too late."""
    late_void = sa.and_(P.status.in_((states.FAILED, states.CLOSED)), N.kind == str(Kind.VOID))
    idle = sa.case((P.id.is_(None), sa.true()), (P.status.in_(AT_REST), sa.not_(late_void)), else_=sa.false())
    query = (
        sa.select(N.id, N.payment_id, N.kind, N.point, N.next_ms, N.expire_ms, P.status, idle.label("idle"))
        .select_from(t.attempts.outerjoin(t.payments, P.id == N.payment_id))
        .where(N.next_ms.is_not(None), N.kind != str(Kind.REFUND))
    )
    examined, breaches = 0, list[str]()
    for rows in pages(connection, query, N.id):
        for row in rows:
            examined += 1
            fault = f"a {row.kind} of it goes on" if row.idle else None
            if fault is None and row.status in AT_REST:
                fault = due_fault(row, now_ms)
            if fault is not None and len(breaches) < SHOWN:
                breaches.append(f"payment {row.payment_id} is {row.status}, yet {fault}")
    return Finding("I4", "what providers are asked", examined, breaches)


def _attempts(
    connection: sa.Connection, payment_ids: Collection[int], *, of_refunds: bool = False
) -> defaultdict[int, list[Found]]:
    """Return the unsettled attempts of payments: of their charges, or of their refunds."""
    of = N.kind == str(Kind.REFUND) if of_refunds else N.kind != str(Kind.REFUND)
    query = sa.select(N.payment_id, N.refund_id, N.kind, N.point, N.next_ms, N.expire_ms).where(
        of, N.next_ms.is_not(None)
    )
    found: defaultdict[int, list[Found]] = defaultdict(list)
    for some in chunks(set(payment_ids)):
        for row in connection.execute(query.where(N.payment_id.in_(some))):
            found[row.payment_id].append(row)
    return found


def _reviewed(connection: sa.Connection, payment_ids: Collection[int]) -> set[tuple[int, int]]:
    """Return (payment, refund or 0) of the reviews that are not decided."""
    found: set[tuple[int, int]] = set()
    query = sa.select(V.payment_id, V.refund_id).where(V.status != states.REVIEW_DECIDED)
    for some in chunks(set(payment_ids)):
        found |= {(row.payment_id, row.refund_id) for row in connection.execute(query.where(V.payment_id.in_(some)))}
    return found
