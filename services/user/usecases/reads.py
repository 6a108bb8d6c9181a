"""GetUser, and who may go on: sessions and permissions as they are now, not as a token of some minutes ago says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.kernel.errors import DomainError

if TYPE_CHECKING:
    from services.kernel.caller import Caller
    from services.user.domain import Profile
    from services.user.ports import Ports

READ_ANY = "users:read"
WRITE_ANY = "users:write"


def get_user(ports: Ports, caller: Caller, user_id: int) -> Profile:
    """Return an account: one's own, or any with the scope users:read. Refuses with USER_NOT_FOUND."""
    admit(ports, caller, READ_ANY, user_id)
    found = _profile(ports, user_id)
    if found is None:
        raise DomainError("USER_NOT_FOUND", user_id=user_id)
    return found


def admit(ports: Ports, caller: Caller, scope: str, user_id: int) -> None:
    """Refuse whose session ended, and another's account when the permission for it was withdrawn since the token."""
    _check_session(ports, caller)
    if user_id != caller.subject and scope not in _permissions(ports, caller.subject):
        raise DomainError("NOT_OWNER", field="id")


def require(ports: Ports, caller: Caller, scope: str) -> None:
    """Refuse whose session ended, and whose permission was withdrawn since the token."""
    _check_session(ports, caller)
    if scope not in _permissions(ports, caller.subject):
        raise DomainError("SCOPE_MISSING", scope=scope)


def _check_session(ports: Ports, caller: Caller) -> None:
    """Refuse with SESSION_REVOKED. A caller without a session is a service of the mesh on a user's behalf."""
    if not caller.session_id:
        return
    live = ports.cache.session(caller.session_id)
    if live is None:
        now, session = ports.clock.now_ms(), ports.store.session(caller.session_id)
        live = session is not None and session.is_live(now)
        if session is not None:
            ports.cache.fill_session(session, now)
    if not live:
        raise DomainError("SESSION_REVOKED")


def _permissions(ports: Ports, user_id: int) -> frozenset[str]:
    known = ports.cache.permissions(user_id)
    if known is None:
        found = _read(ports, user_id)
        known = found.scopes if found else frozenset()
    return known


def _profile(ports: Ports, user_id: int) -> Profile | None:
    return ports.cache.user(user_id) or _read(ports, user_id)


def _read(ports: Ports, user_id: int) -> Profile | None:
    found = ports.store.user(user_id)
    if found is not None:
        ports.cache.put_users([found])
    return found
