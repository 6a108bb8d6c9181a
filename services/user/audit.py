"""What `paymesh verify` reads of the user room. Reads data alone; no running service is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from services.platform.audit import Finding, outbox_published, versions_without_gap
from services.user.store import tables as t

if TYPE_CHECKING:
    from collections.abc import Iterator

_TOPICS = ("user.created", "user.updated", "user.login")
_SHOWN = 20


def invariants(connection: sa.Connection, now_ms: int, *, settled: bool) -> Iterator[Finding]:
    """Check the user room's invariants one by one; rows are counted, breaches put in words."""
    yield outbox_published(connection, t.outbox, now_ms, settled=settled)
    yield versions_without_gap(connection, t.outbox, _TOPICS, "user")
    yield _versions_match(connection)
    yield _passwords(connection)
    yield _tokens(connection)
    yield _one_unused_token(connection, now_ms)


def _count(connection: sa.Connection, table: sa.Table) -> int:
    return connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()


def _versions_match(connection: sa.Connection) -> Finding:
    """I8: each account has exactly as many events as its version says."""
    o, u = t.outbox.c, t.users.c
    counted = (
        sa.select(o.event_key, sa.func.count().label("n")).where(o.topic.in_(_TOPICS)).group_by(o.event_key).subquery()
    )
    key = sa.cast(u.id, sa.String(64))
    events = sa.func.coalesce(counted.c.n, 0)
    joined = t.users.outerjoin(counted, counted.c.event_key == key)
    query = sa.select(u.id, u.version, events.label("events")).select_from(joined).where(events != u.version)
    breaches = [
        f"user {r.id} is at version {r.version} and has {r.events} events"
        for r in connection.execute(query.limit(_SHOWN))
    ]
    return Finding("I8", "accounts and their events", _count(connection, t.users), breaches)


def _passwords(connection: sa.Connection) -> Finding:
    """I11: every password is an argon2id hash."""
    u = t.users.c
    rows = connection.execute(sa.select(u.id).where(u.password_hash.not_like("$argon2id$%")).limit(_SHOWN))
    breaches = [f"the password of user {row.id} is not hashed with argon2id" for row in rows]
    return Finding("I11", "password hashes", _count(connection, t.users), breaches)


def _tokens(connection: sa.Connection) -> Finding:
    """I11: of every refresh token there is the SHA-256 in hexadecimal; a token itself is shorter."""
    r = t.refresh_tokens.c
    rows = connection.execute(sa.select(r.session_id).where(sa.func.length(r.token_hash) != 64).limit(_SHOWN))
    breaches = [f"session {row.session_id} has a refresh token that is not hashed" for row in rows]
    return Finding("I11", "refresh tokens", _count(connection, t.refresh_tokens), breaches)


def _one_unused_token(connection: sa.Connection, now_ms: int) -> Finding:
    """A live session can be refreshed in exactly one way; under I6, for a token counts once."""
    s, r = t.sessions.c, t.refresh_tokens.c
    live = sa.and_(s.ended_ms == 0, s.expire_ms > now_ms)
    unused = sa.func.count(r.token_hash)
    joined = t.sessions.outerjoin(t.refresh_tokens, sa.and_(r.session_id == s.id, r.used_ms == 0))
    query = sa.select(s.id, unused.label("n")).select_from(joined).where(live).group_by(s.id).having(unused != 1)
    breaches = [
        f"session {row.id} has {row.n} unused refresh tokens" for row in connection.execute(query.limit(_SHOWN))
    ]
    return Finding("I6", "sessions and their next token", _count(connection, t.sessions), breaches)
