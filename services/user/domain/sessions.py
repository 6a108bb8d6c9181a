"""Sessions and their refresh tokens. A session is live while it is used; each refresh token works once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

LOGOUT = "logout"
NEW_PASSWORD = "new_password"  # noqa: S105 - why a session ended
TOKEN_REUSED = "token_reused"  # noqa: S105
NOT_ACTIVE = "not_active"


@dataclass(frozen=True, slots=True)
class SessionPolicy:
    """How long things of a session last, in milliseconds.

    A session ends ``idle_ms`` after its last refresh and ``life_ms`` after its log-in at the latest; an access token
    ends by itself after ``access_ms``.
    """

    access_ms: int
    idle_ms: int
    life_ms: int


@dataclass(slots=True)
class Session:
    """A session as a batch sees and changes it. ``ended_ms`` 0: nobody ended it, though it may have expired."""

    id: str
    user_id: int
    create_ms: int
    expire_ms: int
    ended_ms: int = 0
    end_reason: str = ""

    def is_live(self, now_ms: int) -> bool:
        """Whether the session may be used."""
        return not self.ended_ms and now_ms < self.expire_ms

    def slide(self, policy: SessionPolicy, now_ms: int) -> None:
        """Last longer, because it is used."""
        self.expire_ms = min(now_ms + policy.idle_ms, self.create_ms + policy.life_ms)

    def end(self, reason: str, now_ms: int) -> bool:
        """End for good; False: it had ended before."""
        if self.ended_ms:
            return False
        self.ended_ms, self.end_reason = now_ms, reason
        return True


@dataclass(slots=True)
class RefreshToken:
    """A refresh token as it is stored: by its hash. ``used_ms`` 0: not yet."""

    token_hash: str
    session_id: str
    user_id: int
    create_ms: int
    used_ms: int = 0


def refresh_hash(token: str) -> str:
    """Return what is stored of a refresh token. It has 256 random bits, so a fast hash is as good as a slow one."""
    return hashlib.sha256(token.encode()).hexdigest()
