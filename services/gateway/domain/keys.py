"""API keys: what they are good for, until when, and what takes the place of one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from services.kernel.errors import DomainError

if TYPE_CHECKING:
    from collections.abc import Iterable

DAY_MS = 24 * 3600 * 1000


class Status(StrEnum):
    """What may be done with a key at a moment."""

    ACTIVE = "active"
    RETIRING = "retiring"
    REVOKED = "revoked"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is stored: all but what it is signed with. Times are milliseconds since 1970 UTC.

    ``revoke_ms`` 0: it was neither revoked nor rotated; later than now: it was rotated and is taken until then.
    ``replaced_by`` 0: it was not rotated.
    """

    id: int
    user_id: int
    name: str
    scopes: tuple[str, ...]
    create_ms: int
    expire_ms: int
    revoke_ms: int = 0
    replaced_by: int = 0

    def status(self, now_ms: int) -> Status:
        """What may be done with it now."""
        if now_ms >= self.expire_ms:
            return Status.EXPIRED
        if self.revoke_ms:
            return Status.RETIRING if now_ms < self.revoke_ms else Status.REVOKED
        return Status.ACTIVE

    def rotated(self, into: int, overlap_ms: int, now_ms: int) -> ApiKey:
        """Give way to another key, after a while. Raises API_KEY_STATUS_CONFLICT unless it is active."""
        status = self.status(now_ms)
        if status is not Status.ACTIVE:
            raise DomainError("API_KEY_STATUS_CONFLICT", key_id=self.id, status=status)
        return replace(self, revoke_ms=now_ms + overlap_ms, replaced_by=into)

    def revoked(self, now_ms: int) -> ApiKey:
        """End now, for good; one that is not taken any more stays as it is."""
        if self.status(now_ms) in {Status.REVOKED, Status.EXPIRED}:
            return self
        return replace(self, revoke_ms=now_ms)


def check_scopes(wanted: Iterable[str], own: frozenset[str]) -> None:
    """Nobody gives away what he does not have. Raises SCOPE_MISSING."""
    lacking = sorted(set(wanted) - own)
    if lacking:
        raise DomainError("SCOPE_MISSING", scope=" ".join(lacking))
