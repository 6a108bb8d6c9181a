"""LoginUser in three steps: check the password (slow, outside of the batch), begin the session, sign the token."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from services.kernel.errors import DomainError
from services.user.domain import RefreshToken, Session, refresh_hash
from services.user.ports import Change
from services.user.usecases.announce import announce

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.kernel.caller import Caller
    from services.user.domain import Profile, User
    from services.user.ports import Ports

ISSUER = "paymesh"
AUDIENCE = "paymesh-api"


@dataclass(frozen=True, slots=True)
class LoginUser:
    """A log-in whose password was checked.

    ``user_id`` 0: there is no such account. ``matched`` is the stored hash that the password fits, "": it is wrong.
    ``stronger_hash`` replaces a hash that was made with weaker parameters than today's, "": it stays.
    """

    caller: Caller
    user_id: int
    matched: str = field(repr=False)
    stronger_hash: str = field(repr=False, default="")


@dataclass(frozen=True, slots=True)
class Granted:
    """A session that began or goes on, with its next refresh token."""

    profile: Profile
    session_id: str
    refresh_token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Tokens:
    """What the client gets."""

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires_in_s: int
    scope: str


def check_password(ports: Ports, caller: Caller, name: str, password: str) -> LoginUser:
    """Check a password against the account of a user name or e-mail address.

    An unknown name takes as long as a wrong password. A locked account is not checked at all: the answer is the same.
    """
    if ports.clock.monotonic() > caller.deadline:
        raise DomainError("DEADLINE_EXCEEDED")
    known = ports.store.credentials(name)
    if known is not None and known.locked_until_ms > ports.clock.now_ms():
        return LoginUser(caller, known.user_id, "")
    if not ports.passwords.verify(password, known.password_hash if known else None) or known is None:
        return LoginUser(caller, known.user_id if known else 0, "")
    stronger = ports.passwords.hash(password) if ports.passwords.is_outdated(known.password_hash) else ""
    return LoginUser(caller, known.user_id, known.password_hash, stronger)


def login_users(ports: Ports, items: Sequence[LoginUser]) -> list[Granted | DomainError]:
    """Begin a session for each item, or refuse it.

    Guesses that were checked side by side are counted here one after the other, so more of them than the lock allows
    never tell anything.
    """
    with ports.store.transaction() as tx:
        change = Change(ports.clock.now_ms())
        users = tx.users({item.user_id for item in items if item.user_id})
        outcomes: list[Granted | DomainError] = []
        for item in items:
            try:
                outcomes.append(_log_in(ports, change, item, users.get(item.user_id)))
            except DomainError as refusal:
                outcomes.append(refusal)
        tx.write(change)
        tx.commit()
    announce(ports, change)
    return outcomes


def _log_in(ports: Ports, change: Change, item: LoginUser, user: User | None) -> Granted:
    if user is None:
        raise DomainError("CREDENTIALS_INVALID")
    user.check_unlocked(change.now_ms)
    if not item.matched:
        user.fail(ports.lock, change.now_ms)
        change.changed_users[user.id] = user
    if item.matched != user.password_hash:  # wrong, or changed since it was checked
        raise DomainError("CREDENTIALS_INVALID")
    user.check_active()
    user.password_hash = item.stronger_hash or user.password_hash
    session = Session(ports.secrets.session_id(), user.id, change.now_ms, 0)
    session.slide(ports.sessions, change.now_ms)
    change.new_sessions.append(session)
    change.changed_users[user.id] = user
    change.events.append(user.log_in(session.id, item.caller.client_ip, change.now_ms))
    return grant(ports, change, user, session)


def grant(ports: Ports, change: Change, user: User, session: Session) -> Granted:
    """Make a session's next refresh token."""
    token = ports.secrets.token()
    change.new_tokens.append(RefreshToken(refresh_hash(token), session.id, user.id, change.now_ms))
    return Granted(user.profile(), session.id, token)


def issue_tokens(ports: Ports, granted: Granted) -> Tokens:
    """Sign the access token of a session that is in the database; runs outside of the batch."""
    now_s, scope = ports.clock.now_ms() // 1000, " ".join(sorted(granted.profile.scopes))
    life_s = ports.sessions.access_ms // 1000
    claims: dict[str, str | int] = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": str(granted.profile.id),
        "scope": scope,
        "sid": granted.session_id,
        "jti": ports.secrets.session_id(),
        "iat": now_s,
        "exp": now_s + life_s,
    }
    return Tokens(ports.signer.sign(claims), granted.refresh_token, life_s, scope)
