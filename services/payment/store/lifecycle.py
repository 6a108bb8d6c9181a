"""Rows of a payment's way through providers: attempts, refunds under way, callbacks, reviews, the audit log."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import sqlalchemy as sa

from services.payment.domain import Attempt, Kind, Method, Payment, Point
from services.payment.store import rows
from services.payment.store import tables as t
from services.platform import idempotency
from services.platform.database import for_update, insert_rows, select_rows, update_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from services.kernel.idempotency import Answer, Scope
    from services.payment.domain import Refund, Review
    from services.payment.ports import Change, Deed

_IN_FLIGHT = "IDEMPOTENCY_KEY_IN_FLIGHT"


class Lifecycle:
    """The part of a transaction that providers have to do with."""

    def __init__(self, connection: sa.Connection) -> None:
        """Work on ``connection``."""
        self._connection = connection
        self._dialect = connection.dialect.name

    def held(self, scopes: Iterable[Scope]) -> dict[Scope, Answer | None]:
        """Lock keys and return their answers; None: not answered yet."""
        found = idempotency.find_scopes(self._connection, t.idempotency_keys, set(scopes), lock=True)
        return {scope: None if _is_in_flight(stored.answer) else stored.answer for scope, stored in found.items()}

    def attempts(self, payment_ids: Iterable[int]) -> dict[int, Attempt]:
        """Lock every attempt of the payments, in the order of their ids."""
        return {attempt.id: attempt for attempt in _attempts(self._connection, "payment_id", payment_ids, lock=True)}

    def due(self, now_ms: int, limit: int, payment_ids: Sequence[int]) -> list[Attempt]:
        """Lock attempts that are due, longest first: of ``payment_ids``, or at most ``limit`` of any when it is empty."""
        a = t.attempts.c
        found = sa.select(t.attempts).order_by(a.next_ms).limit(limit)
        if payment_ids:
            found = found.where(a.payment_id.in_(payment_ids), a.point.in_((Point.WAITING, Point.UNKNOWN)))
        else:
            found = found.where(a.next_ms <= now_ms)
        return [rows.attempt_of(row) for row in self._connection.execute(for_update(found, self._dialect))]

    def refunds(self, ids: Iterable[int]) -> dict[int, Refund]:
        """Lock refunds in the order of their ids."""
        keys = [(refund_id,) for refund_id in ids]
        read = select_rows(self._connection, t.refunds, tuple(t.refunds.c.keys()), ("id",), keys, lock=True)
        return {row.id: rows.refund_of(row) for row in read}

    def known_callbacks(self, notices: Iterable[tuple[Method, str]]) -> set[tuple[Method, str]]:
        """Return those of the notices (provider, id) that have had their effect."""
        keys = [(str(provider), notice_id) for provider, notice_id in notices]
        by = ("provider", "notice_id")
        return {(Method(provider), each) for provider, each in select_rows(self._connection, t.callbacks, by, by, keys)}

    def reviews(self, payment_ids: Iterable[int]) -> list[Review]:
        """Lock every review of the payments and of their refunds."""
        keys = [(payment_id,) for payment_id in payment_ids]
        read = select_rows(self._connection, t.reviews, tuple(t.reviews.c.keys()), ("payment_id",), keys, lock=True)
        return [rows.review_of(row) for row in read]

    def booked(self, reference_ids: Iterable[int]) -> dict[int, set[str]]:
        """Return what ledger transactions are about -> their kinds; nothing where nothing is booked."""
        keys, columns = [(reference_id,) for reference_id in reference_ids], ("reference_id", "kind")
        kinds: dict[int, set[str]] = {}
        for reference_id, kind in select_rows(self._connection, t.ledger_transactions, columns, columns[:1], keys):
            kinds.setdefault(reference_id, set()).add(kind)
        return kinds

    def _write_lifecycle(self, change: Change) -> None:
        c = self._connection
        refunds = [{"id": r.id, **rows.refund_state(r)} for r in change.changed_refunds.values()]
        update_rows(c, t.refunds, ("id",), refunds)
        new = {a.id for a in change.new_attempts}
        insert_rows(c, t.attempts, [rows.attempt_row(a) for a in change.new_attempts])
        attempts = [{"id": a.id, **rows.attempt_state(a)} for a in change.changed_attempts.values() if a.id not in new]
        update_rows(c, t.attempts, ("id",), attempts)
        taken = [
            {
                "provider": str(each.provider),
                "notice_id": each.notice_id,
                "request_id": each.request_id,
                "taken_ms": change.now_ms,
            }
            for each in change.callbacks
        ]
        insert_rows(c, t.callbacks, taken)
        insert_rows(c, t.reviews, [rows.review_row(r) for r in change.new_reviews])
        update_rows(
            c, t.reviews, ("id",), [{"id": r.id, **rows.review_state(r)} for r in change.changed_reviews.values()]
        )
        if change.audit:
            self._write_audit(change.audit, change.now_ms)

    def _write_audit(self, deeds: Sequence[Deed], now_ms: int) -> None:
        """Append to the audit log; each row's hash is over the one before, so that none can be changed or taken out."""
        log = t.audit_log
        query = sa.select(log.c.seq, log.c.hash).order_by(log.c.seq.desc()).limit(1)
        last = self._connection.execute(for_update(query, self._dialect)).one_or_none()
        seq, link = (0, bytes(32)) if last is None else (last.seq, bytes(last.hash))
        written = []
        for deed in deeds:
            seq, link = seq + 1, audit_hash(link, seq + 1, now_ms, deed)
            written.append({
                "seq": seq, "at_ms": now_ms, "actor_id": deed.actor_id, "action": deed.action,
                "about_id": deed.about_id, "detail": deed.detail, "hash": link,
            })  # fmt: skip
        insert_rows(self._connection, log, written)


def audit_hash(previous: bytes, seq: int, at_ms: int, deed: Deed) -> bytes:
    """Return the SHA-256 link of an audit row: over the link before and its own fields."""
    text = "\x1f".join(map(str, (seq, at_ms, deed.actor_id, deed.action, deed.about_id, deed.detail)))
    return hashlib.sha256(previous + text.encode()).digest()


def charges(connection: sa.Connection, payments: Iterable[Payment], *, lock: bool = False) -> None:
    """Give payments through providers what was asked of the provider."""
    wanted = {payment.id: payment for payment in payments if payment.method is not Method.BALANCE}
    for attempt in _attempts(connection, "id", wanted, lock=lock):
        if attempt.kind is Kind.CHARGE:
            wanted[attempt.id].charge = attempt


def _attempts(connection: sa.Connection, by: str, ids: Iterable[int], *, lock: bool) -> list[Attempt]:
    keys = [(each,) for each in ids]
    read = select_rows(connection, t.attempts, tuple(t.attempts.c.keys()), (by,), keys, lock=lock)
    return [rows.attempt_of(row) for row in read]


def _is_in_flight(answer: Answer) -> bool:
    return not isinstance(answer, bytes) and answer.reason == _IN_FLIGHT
