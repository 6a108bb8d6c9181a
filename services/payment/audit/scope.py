"""Which payments and which links of the ledger a run looks at."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import sqlalchemy as sa

from services.payment import states
from services.payment.store import tables as t
from services.platform.audit import new_keys

if TYPE_CHECKING:
    from services.platform.audit import Since

TOPICS = tuple(dict.fromkeys(states.EVENTS.values()))
"""What payments publish."""
UNDER_WAY = (states.REFUND_PENDING, states.REFUND_UNKNOWN)
"""States of refunds that a provider was asked for."""
_CHANGED_MAX = 200_000
"""Ids that are kept in memory; when more changed than that, all are looked at."""


class Link(NamedTuple):
    """A link of the ledger's chain, up to which earlier runs have seen it; 0: none of it."""

    seq: int = 0
    hash: bytes = bytes(32)


def seen_link(since: Since) -> Link:
    """Return the last link that was seen before this run."""
    known = since.get("chain")
    return Link(known["seq"], bytes.fromhex(known["hash"])) if known else Link()


def changed_payments(connection: sa.Connection, since: Since) -> frozenset[int] | None:
    """Return the payments that changed since the last run, or that have something under way; None: all are looked at."""
    return None if since.full else since.once("payments", lambda: _changed(connection, since))


def _changed(connection: sa.Connection, since: Since) -> frozenset[int] | None:
    p, r, v, x = t.payments.c, t.refunds.c, t.reviews.c, t.ledger_transactions.c
    booked = x.chain_seq > seen_link(since).seq
    keys = new_keys(connection, t.outbox, TOPICS, since)
    if keys is None:
        return None
    found = {int(key) for key in keys if key.isdecimal()}
    for query in (
        sa.select(p.id).where(p.update_ms >= since.ms),
        sa.select(r.payment_id).where(sa.or_(r.update_ms >= since.ms, r.status.in_(UNDER_WAY))),
        sa.select(v.payment_id).where(sa.or_(v.update_ms >= since.ms, v.status != states.REVIEW_DECIDED)),
        sa.select(x.reference_id).where(x.kind == "payment", booked),
        sa.select(r.payment_id).join_from(t.ledger_transactions, t.refunds, r.id == x.reference_id).where(booked),
    ):
        found.update(connection.execute(query.limit(_CHANGED_MAX + 1)).scalars())
    return frozenset(found) if len(found) <= _CHANGED_MAX else None
