"""Rules of the user room: accounts, sessions, roles. Pure: no I/O, clock or randomness."""

from services.user.domain.keys import PublicKey, SigningKey
from services.user.domain.roles import ROLES, check_roles, scopes_of
from services.user.domain.sessions import RefreshToken, Session, SessionPolicy, refresh_hash
from services.user.domain.users import (
    Event,
    LockPolicy,
    Profile,
    User,
    UserCreated,
    UserLogin,
    UserUpdated,
    email_key,
    is_email,
    shard_for,
    username_key,
)

__all__ = [
    "ROLES",
    "Event",
    "LockPolicy",
    "Profile",
    "PublicKey",
    "RefreshToken",
    "Session",
    "SessionPolicy",
    "SigningKey",
    "User",
    "UserCreated",
    "UserLogin",
    "UserUpdated",
    "check_roles",
    "email_key",
    "is_email",
    "refresh_hash",
    "scopes_of",
    "shard_for",
    "username_key",
]
