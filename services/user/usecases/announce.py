"""What a commit tells: caches, every service's set of revoked sessions, the relay."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.user.ports import Change, Ports


def announce(ports: Ports, change: Change) -> None:
    """Tell what was committed. None of it can fail the change: what Redis misses is told again or read from SQL."""
    users = [*change.new_users, *change.changed_users.values()]
    sessions = [*change.new_sessions, *change.changed_sessions.values()]
    if users:
        ports.cache.put_users([user.profile() for user in users])
    if sessions:
        ports.cache.put_sessions(sessions, change.now_ms)
    ended = [session.id for session in sessions if session.ended_ms]
    if ended:
        ports.revocations.push(ended, change.now_ms + ports.sessions.access_ms)
    if change.events:
        ports.committed()
