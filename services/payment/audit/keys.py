"""I6: each idempotency key holds one answer, and nothing was made by two keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from services.payment.store import tables as t
from services.platform.audit import PENDING_MS, SHOWN, Finding, count

if TYPE_CHECKING:
    from services.platform.audit import Since

_PAYING, _MAKING = "CreatePayment", ("RefundPayment", "CapturePayment", "VoidPayment")
"""Methods whose every answer tells of something that its key alone has brought about. Others may say one thing to two
keys: two that close a payment, two balances that are the same."""
_KEPT_MS = 6 * 86_400_000
"""A day less than keys are kept."""
_TELLING = 64
"""First bytes of an answer of CreatePayment, with the payment's id: two that share them tell of one payment."""


def answers(connection: sa.Connection, since: Since, now_ms: int, *, settled: bool) -> Finding:
    """I6: a key is answered with a response or a refusal; one that is held waits, not for long, for its attempt."""
    k, a = t.idempotency_keys.c, t.attempts.c
    new = k.create_ms >= since.ms
    both = sa.select(k.subject, k.idempotency_key).where(new, k.response.is_not(None), k.refusal.is_not(None))
    breaches = [
        f"key {r.idempotency_key} of {r.subject} holds no single answer" for r in connection.execute(both.limit(SHOWN))
    ]
    waits = sa.and_(
        a.subject == k.subject, a.method == k.method, a.idempotency_key == k.idempotency_key, a.next_ms.is_not(None)
    )
    held = (
        sa.select(k.subject, k.idempotency_key, k.create_ms, sa.exists().where(waits).label("waits"))
        .where(new, k.response.is_(None), k.refusal.is_(None))
        .order_by(k.create_ms)
    )
    pending = 0
    for row in connection.execute(held):
        if row.waits and not settled and now_ms - row.create_ms <= PENDING_MS:
            pending += 1
        elif len(breaches) < SHOWN:
            why = "its attempt goes on" if row.waits else "nothing goes on for it"
            age_s = (now_ms - row.create_ms) // 1000
            breaches.append(f"key {row.idempotency_key} of {row.subject} has no answer for {age_s} s, {why}")
    breaches += _shared(connection, new)
    examined, p = count(connection, t.idempotency_keys, new), t.payments.c
    old = count(connection, t.payments) if since.full and not examined else 0
    quiet = old and not count(connection, t.payments, p.create_ms > now_ms - _KEPT_MS)
    absent = "nothing was paid lately, and old keys are forgotten" if quiet else ""
    return Finding("I6", "idempotency keys", examined, breaches[:SHOWN], pending, absent)


def _shared(connection: sa.Connection, new: sa.ColumnElement[bool]) -> list[str]:
    """Say which answers two keys share."""
    k = t.idempotency_keys.c
    told = sa.case((k.method == _PAYING, sa.func.substr(k.response, 1, _TELLING)), else_=k.response)
    alike = (
        sa.select(k.method, sa.func.count().label("n"))
        .where(new, k.method.in_((_PAYING, *_MAKING)), k.response.is_not(None))
        .group_by(k.method, told)
        .having(sa.func.count() > 1)
    )
    return [f"{r.n} keys of {r.method} share one answer" for r in connection.execute(alike.limit(SHOWN))]
