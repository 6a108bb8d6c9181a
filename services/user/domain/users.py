"""Accounts: what they are, what they refuse, and the events that their changes make."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from services.kernel.errors import DomainError
from services.kernel.ids import SHARDS
from services.user import states
from services.user.domain.roles import scopes_of


@dataclass(frozen=True, slots=True)
class UserCreated:
    """An account was made."""

    user_id: int
    version: int
    at_ms: int
    username: str
    email: str = field(repr=False)
    phone: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class UserUpdated:
    """An account was changed."""

    user_id: int
    version: int
    at_ms: int
    email: str = field(repr=False)
    phone: str = field(repr=False)
    roles: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UserLogin:
    """Somebody logged in; the name is the topic's."""

    user_id: int
    version: int
    at_ms: int
    session_id: str
    client_ip: str = field(repr=False)


Event = UserCreated | UserUpdated | UserLogin


@dataclass(frozen=True, slots=True)
class LockPolicy:
    """After ``failures_max`` wrong passwords in a row an account is locked for ``lock_ms``."""

    failures_max: int
    lock_ms: int


@dataclass(frozen=True, slots=True)
class Profile:
    """What an account shows: no secret. ``version`` counts its events."""

    id: int
    username: str
    email: str = field(repr=False)
    phone: str = field(repr=False)
    status: str
    roles: tuple[str, ...]
    version: int
    create_ms: int
    update_ms: int

    @property
    def scopes(self) -> frozenset[str]:
        """What a token of this account permits."""
        return scopes_of(self.roles)


@dataclass(slots=True)
class User:
    """An account as a batch sees and changes it. ``version`` counts its events from 1."""

    id: int
    username: str
    email: str = field(repr=False)
    phone: str = field(repr=False)
    status: str
    roles: tuple[str, ...]
    password_hash: str = field(repr=False)
    failed_logins: int
    locked_until_ms: int
    version: int
    create_ms: int
    update_ms: int

    def profile(self) -> Profile:
        """Return what is shown of the account as it is now; later changes do not reach it."""
        return Profile(self.id, self.username, self.email, self.phone, self.status, self.roles,
                       self.version, self.create_ms, self.update_ms)  # fmt: skip

    def created(self) -> UserCreated:
        """Return the event of a new account, its first."""
        assert self.version == 1
        return UserCreated(self.id, 1, self.create_ms, self.username, self.email, self.phone)

    def check_unlocked(self, now_ms: int) -> None:
        """Refuse with ACCOUNT_LOCKED, whatever the password: a locked account answers no guess."""
        left_ms = self.locked_until_ms - now_ms
        if left_ms > 0:
            raise DomainError("ACCOUNT_LOCKED", retry_after_s=-(-left_ms // 1000))

    def check_active(self) -> None:
        """Refuse with ACCOUNT_NOT_ACTIVE."""
        if self.status != states.ACTIVE:
            raise DomainError("ACCOUNT_NOT_ACTIVE", status=self.status)

    def fail(self, policy: LockPolicy, now_ms: int) -> None:
        """Count a wrong password; the last one of a row locks the account and the count begins anew."""
        self.failed_logins += 1
        if self.failed_logins >= policy.failures_max:
            self.failed_logins, self.locked_until_ms = 0, now_ms + policy.lock_ms

    def log_in(self, session_id: str, client_ip: str, now_ms: int) -> UserLogin:
        """Begin a session; failures are forgotten."""
        self.failed_logins, self.locked_until_ms = 0, 0
        self.version += 1
        return UserLogin(self.id, self.version, now_ms, session_id, client_ip)

    def update(self, *, email: str | None = None, phone: str | None = None, password_hash: str | None = None,
               roles: tuple[str, ...] | None = None, now_ms: int) -> UserUpdated | None:  # fmt: skip
        """Change what is given (None: it stays); None: nothing was different, so nothing happened."""
        before = (self.email, self.phone, self.password_hash, self.roles)
        self.email = self.email if email is None else email
        self.phone = self.phone if phone is None else phone
        self.password_hash = password_hash or self.password_hash
        self.roles = self.roles if roles is None else roles
        if (self.email, self.phone, self.password_hash, self.roles) == before:
            return None
        self.version, self.update_ms = self.version + 1, now_ms
        return UserUpdated(self.id, self.version, now_ms, self.email, self.phone, self.roles)


def username_key(username: str) -> str:
    """Return the form in which a user name is unique: ASCII by the contract, so lower case is enough."""
    return username.lower()


def email_key(email: str) -> str:
    """Return the form in which an e-mail address is unique: nobody tells mailboxes apart by case."""
    return email.lower()


def is_email(name: str) -> bool:
    """Whether a log-in name is an e-mail address: a user name never holds an @."""
    return "@" in name


def shard_for(username: str) -> int:
    """Return the shard of a new account, spread evenly by its name, so that it is the same in every instance."""
    return int.from_bytes(hashlib.sha256(username_key(username).encode()).digest()[:4]) % SHARDS
