"""What `paymesh verify` reads of the user room. Reads data alone; no running service is asked."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import sqlalchemy as sa

from services.platform.audit import SHOWN, Finding, Since, count, new_keys, outbox_published, over, versions_without_gap
from services.user.store import tables as t

if TYPE_CHECKING:
    from collections.abc import Iterator

_TOPICS = ("user.created", "user.updated", "user.login")
_CHANGED_MAX = 200_000
"""Ids that are kept in memory; when more changed than that, all are looked at."""


def invariants(
    connection: sa.Connection, now_ms: int, *, settled: bool, since: Since | None = None
) -> Iterator[Finding]:
    """Check the user room's invariants one by one; rows are counted, breaches put in words."""
    since = since or Since()
    yield outbox_published(connection, t.outbox, now_ms, settled=settled, since=since)
    yield versions_without_gap(connection, t.outbox, _TOPICS, "user", since)
    yield _versions_match(connection, since)
    yield _passwords(connection, since)
    yield _tokens(connection, since)
    yield _one_unused_token(connection, now_ms, since)


def _changed(connection: sa.Connection, since: Since) -> set[int] | None:
    """Return the users that changed since the last run; None: all are looked at."""
    keys = None if since.full else new_keys(connection, t.outbox, _TOPICS, since)
    if keys is None or len(keys) > _CHANGED_MAX:
        return None
    changed = sa.select(t.users.c.id).where(t.users.c.update_ms >= since.ms)
    return {*map(int, keys), *connection.execute(changed).scalars()}


def _versions_match(connection: sa.Connection, since: Since) -> Finding:
    """I8: each account has exactly as many events as its version says."""
    o, u, ids = t.outbox.c, t.users.c, _changed(connection, since)
    ours = sa.and_(o.event_key == sa.cast(u.id, sa.String(64)), o.topic.in_(_TOPICS))
    events = sa.func.count(o.id).label("events")
    query = (
        sa.select(u.id, u.version, events)
        .select_from(t.users.outerjoin(t.outbox, ours))
        .group_by(u.id, u.version)
        .having(events != u.version)
    )
    breaches = [
        f"user {r.id} is at version {r.version} and has {r.events} events"
        for r in islice(over(connection, query, u.id, ids), SHOWN)
    ]
    examined = count(connection, t.users) if ids is None else len(ids)
    return Finding("I8", "accounts and their events", examined, breaches)


def _passwords(connection: sa.Connection, since: Since) -> Finding:
    """I11: every password is an argon2id hash."""
    u = t.users.c
    new = u.update_ms >= since.ms
    rows = connection.execute(sa.select(u.id).where(new, u.password_hash.not_like("$argon2id$%")).limit(SHOWN))
    breaches = [f"the password of user {row.id} is not hashed with argon2id" for row in rows]
    return Finding("I11", "password hashes", count(connection, t.users, new), breaches)


def _tokens(connection: sa.Connection, since: Since) -> Finding:
    """I11: of every refresh token there is the SHA-256 in hexadecimal; a token itself is shorter."""
    r = t.refresh_tokens.c
    new = r.create_ms >= since.ms
    rows = connection.execute(sa.select(r.session_id).where(new, sa.func.length(r.token_hash) != 64).limit(SHOWN))
    breaches = [f"session {row.session_id} has a refresh token that is not hashed" for row in rows]
    return Finding("I11", "refresh tokens", count(connection, t.refresh_tokens, new), breaches)


def _one_unused_token(connection: sa.Connection, now_ms: int, since: Since) -> Finding:
    """A live session can be refreshed in exactly one way; under I6, for a token counts once.

    A refresh moves the session's end, so that sessions that were refreshed since the last run have tokens made since.
    """
    s, r = t.sessions.c, t.refresh_tokens.c
    live = sa.and_(s.ended_ms == 0, s.expire_ms > now_ms)
    made = t.refresh_tokens.alias("made").c
    fresh = sa.exists().where(made.session_id == s.id, made.create_ms >= since.ms)
    new = sa.true() if since.full else sa.or_(s.create_ms >= since.ms, fresh)
    unused = sa.func.count(r.token_hash)
    joined = t.sessions.outerjoin(t.refresh_tokens, sa.and_(r.session_id == s.id, r.used_ms == 0))
    query = sa.select(s.id, unused.label("n")).select_from(joined).where(live, new).group_by(s.id).having(unused != 1)
    breaches = [f"session {row.id} has {row.n} unused refresh tokens" for row in connection.execute(query.limit(SHOWN))]
    return Finding("I6", "sessions and their next token", count(connection, t.sessions, new), breaches)
