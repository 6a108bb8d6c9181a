"""The third phase: what providers said, by an answer, a query or a callback, goes into the books in one transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.kernel.errors import DomainError
from services.payment.usecases.reaching import reach_moved
from services.payment.usecases.settling import Settling

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.kernel.idempotency import Answer
    from services.payment.domain import Attempt
    from services.payment.ports import Ports
    from services.payment.usecases.ask import Said


def settle(ports: Ports, items: Sequence[Said]) -> list[Answer | None]:
    """Settle what came of attempts; returns what whoever waits for each is answered, None: nobody does."""
    ports.cache.hold({item.attempt.payment_id for item in items})
    with ports.store.transaction() as tx:
        scopes = {item.attempt.scope for item in items if item.attempt.scope}
        settling = Settling(ports, tx, {item.attempt.payment_id for item in items}, scopes)
        answers = [_settle(settling, item) for item in items]
        tx.write(settling.change)
        tx.commit()
    reach_moved(ports, settling.change)
    settling.tell()
    return answers


def _settle(settling: Settling, item: Said) -> Answer | None:
    attempt = settling.attempts.get(item.attempt.id)
    if attempt is None:  # it was stored before anything was asked: only a restored backup lacks it
        raise DomainError("PAYMENT_NOT_FOUND", payment_id=item.attempt.payment_id)
    if item.refunded is not None:
        settling.refunded(attempt, item.refunded)
    else:
        assert item.charged is not None
        settling.charged(attempt, item.charged)
    scope = item.attempt.scope  # as whoever waits knows it: a callback may have answered meanwhile
    return settling.answer(attempt, scope) if scope is not None else None


def answer_open(ports: Ports, items: Sequence[Attempt]) -> list[Answer]:
    """Answer whoever waits for attempts that are still under way: with how the payment stands, and for good.

    What was answered meanwhile stays the answer.
    """
    with ports.store.transaction() as tx:
        settling = Settling(ports, tx, {item.payment_id for item in items}, {i.scope for i in items if i.scope})
        answers = []
        for item in items:
            assert item.scope is not None
            attempt = settling.attempts[item.id]
            answers.append(settling.answer(attempt, item.scope))
        tx.write(settling.change)
        tx.commit()
    return answers
