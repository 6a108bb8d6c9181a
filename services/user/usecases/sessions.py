"""RefreshSession, LogoutUser, and the timed work around sessions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from services.kernel.errors import DomainError
from services.user.domain.sessions import LOGOUT, NOT_ACTIVE, TOKEN_REUSED
from services.user.ports import Change
from services.user.usecases.announce import announce
from services.user.usecases.login import Granted, grant

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from services.kernel.caller import Caller
    from services.user.domain import RefreshToken, Session, User
    from services.user.ports import Ports

KEEP_MS = 7 * 24 * 3600 * 1000
"""How long a session that expired is still there to be looked up."""
FORGET_MAX = 500
"""Sessions in one transaction of the retention job."""


@dataclass(frozen=True, slots=True)
class RefreshSession:
    """Exchange a refresh token, given by its hash."""

    token_hash: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class LogoutUser:
    """End the caller's session."""

    caller: Caller


def refresh_sessions(ports: Ports, items: Sequence[RefreshSession]) -> list[Granted | DomainError]:
    """Answer each item with its session's next refresh token. A token that was used before ends the session."""
    hashes = {item.token_hash for item in items}
    with ports.store.transaction() as tx:
        change = Change(ports.clock.now_ms())
        users = tx.users(tx.owners(hashes))
        tokens = tx.tokens(hashes)  # read under the lock of their users: another process may have used them just now
        sessions = tx.sessions({token.session_id for token in tokens.values()})
        outcomes: list[Granted | DomainError] = []
        for item in items:
            try:
                outcomes.append(_refresh(ports, change, tokens.get(item.token_hash), sessions, users))
            except DomainError as refusal:
                outcomes.append(refusal)
        tx.write(change)
        tx.commit()
    announce(ports, change)
    return outcomes


def _refresh(
    ports: Ports, change: Change, token: RefreshToken | None, sessions: Mapping[str, Session], users: Mapping[int, User]
) -> Granted:
    session = sessions.get(token.session_id) if token else None
    if token is None or session is None or not session.is_live(change.now_ms):
        raise DomainError("REFRESH_TOKEN_INVALID")
    change.changed_sessions[session.id] = session
    if token.used_ms:
        session.end(TOKEN_REUSED, change.now_ms)
        raise DomainError("REFRESH_TOKEN_INVALID")
    user = users[token.user_id]
    try:
        user.check_active()
    except DomainError:
        session.end(NOT_ACTIVE, change.now_ms)
        raise
    token.used_ms = change.now_ms
    change.used_tokens.append(token)
    session.slide(ports.sessions, change.now_ms)
    return grant(ports, change, user, session)


def logout_users(ports: Ports, items: Sequence[LogoutUser]) -> list[DomainError | None]:
    """End each caller's session; one that ended before is refused with SESSION_REVOKED."""
    with ports.store.transaction() as tx:
        change = Change(ports.clock.now_ms())
        tx.users({item.caller.subject for item in items})
        sessions = tx.sessions({item.caller.session_id for item in items})
        outcomes: list[DomainError | None] = []
        for item in items:
            session = sessions.get(item.caller.session_id)
            ours = session is not None and session.user_id == item.caller.subject
            if session is not None and ours and session.end(LOGOUT, change.now_ms):
                change.changed_sessions[session.id] = session
                outcomes.append(None)
            else:
                outcomes.append(DomainError("SESSION_REVOKED"))
        tx.write(change)
        tx.commit()
    announce(ports, change)
    return outcomes


def remind_revocations(ports: Ports) -> int:
    """Tell again of sessions that ended while Redis was away or before it was lost; returns how many."""
    access_ms = ports.sessions.access_ms
    ended = ports.store.ended_since(ports.clock.now_ms() - access_ms)
    lost = ports.revocations.missing(list(ended)) if ended else []
    if lost:
        ports.revocations.push(lost, max(ended[session_id] for session_id in lost) + access_ms)
    return len(lost)


def forget_sessions(ports: Ports) -> int:
    """Delete what nobody can use or ask about any more; returns how many sessions."""
    before, total = ports.clock.now_ms() - KEEP_MS, 0
    while gone := ports.store.forget_sessions(before, FORGET_MAX):
        total += gone
    return total
