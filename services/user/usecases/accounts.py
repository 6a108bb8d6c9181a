"""RegisterUser, UpdateUser, SetUserRoles. Passwords are hashed before an item reaches its batch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from services.kernel.errors import DomainError
from services.kernel.idempotency import Once
from services.user import states
from services.user.domain import User, check_roles, email_key, shard_for, username_key
from services.user.domain.roles import CUSTOMER, OPERATOR
from services.user.domain.sessions import NEW_PASSWORD
from services.user.ports import Change
from services.user.usecases.announce import announce

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.kernel.caller import Caller
    from services.kernel.idempotency import Answer, IdempotencyKey
    from services.user.domain import Profile, Session
    from services.user.ports import Ports


@dataclass(frozen=True, slots=True)
class RegisterUser:
    """Make an account. ``key`` None: the caller gave none, and a repeat finds the name taken."""

    key: IdempotencyKey | None
    username: str
    email: str = field(repr=False)
    phone: str = field(repr=False)
    password_hash: str = field(repr=False)
    roles: tuple[str, ...] = (CUSTOMER,)


@dataclass(frozen=True, slots=True)
class NewPassword:
    """A wish for another password, in clear: it never enters a batch."""

    user_id: int
    current: str = field(repr=False)
    wanted: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class CheckedPassword:
    """That wish, hashed. ``matched`` is the stored hash that the current password fits; "": it is wrong."""

    matched: str = field(repr=False)
    wanted_hash: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class UpdateUser:
    """Change what is given; None: it stays."""

    caller: Caller
    user_id: int
    email: str | None = field(repr=False)
    phone: str | None = field(repr=False)
    password: CheckedPassword | None


@dataclass(frozen=True, slots=True)
class SetUserRoles:
    """Give a user these roles and no others."""

    user_id: int
    roles: tuple[str, ...]


def hash_password(ports: Ports, password: str, deadline: float) -> str:
    """Hash a new password; not any more when the caller's ``deadline`` is over (monotonic seconds)."""
    _in_time(ports, deadline)
    return ports.passwords.hash(password)


def check_new_password(ports: Ports, wish: NewPassword | None, deadline: float) -> CheckedPassword | None:
    """Hash a new password and see whether the current one is right; None: there is no wish."""
    if wish is None:
        return None
    _in_time(ports, deadline)
    known = ports.store.credentials_of(wish.user_id)
    stored = known.password_hash if known else None
    matched = stored if ports.passwords.verify(wish.current, stored) else ""
    return CheckedPassword(matched or "", ports.passwords.hash(wish.wanted) if matched else "")


def new_operator(ports: Ports, username: str, password: str) -> RegisterUser | None:
    """Return the command that makes the first operator; None: the name has an account, which stays as it is."""
    if ports.store.credentials(username) is not None:
        return None
    email = f"{username_key(username)}@operators.paymesh.internal"
    return RegisterUser(None, username, email, "", ports.passwords.hash(password), (OPERATOR,))


def register_users(ports: Ports, items: Sequence[RegisterUser]) -> list[Answer]:
    """Answer each item with its rendered account, which is also what a repeat gets, or with its refusal."""
    keys = [item.key for item in items]
    with ports.store.transaction() as tx:
        once = Once(keys, tx.stored(keys))
        fresh = [items[place] for place in once.fresh]
        names = tx.usernames({username_key(item.username) for item in fresh})
        emails = tx.emails({email_key(item.email) for item in fresh})
        change = Change(ports.clock.now_ms())
        for place, item in zip(once.fresh, fresh, strict=True):
            try:
                once.settle(place, ports.render_registered(_register(ports, change, item, names, emails)))
            except DomainError as refusal:
                once.settle(place, refusal)
        change.answers = once.kept(business=ports.business)
        tx.write(change)
        tx.commit()
    announce(ports, change)
    return once.done()


def _register(
    ports: Ports, change: Change, item: RegisterUser, names: dict[str, int], emails: dict[str, int]
) -> Profile:
    """Make the account; its name and address are taken for the rest of the batch."""
    name, email = username_key(item.username), email_key(item.email)
    if name in names:
        raise DomainError("USERNAME_TAKEN")
    if email in emails:
        raise DomainError("EMAIL_TAKEN")
    now = change.now_ms
    user = User(ports.ids.next(shard_for(item.username)), item.username, item.email, item.phone, states.ACTIVE,
                check_roles(item.roles), item.password_hash, 0, 0, 1, now, now)  # fmt: skip
    names[name] = emails[email] = user.id
    change.new_users.append(user)
    change.new_roles[user.id] = user.roles
    change.events.append(user.created())
    return user.profile()


def update_users(ports: Ports, items: Sequence[UpdateUser]) -> list[Profile | DomainError]:
    """Answer each item with the account as it is then, or with its refusal. A wrong password counts towards the lock."""
    with ports.store.transaction() as tx:
        change = Change(ports.clock.now_ms())
        users = tx.users({item.user_id for item in items})
        emails = tx.emails({email_key(item.email) for item in items if item.email is not None})
        sessions = tx.live_sessions({item.user_id for item in items if item.password}, change.now_ms)
        outcomes: list[Profile | DomainError] = []
        for item in items:
            try:
                outcomes.append(_update(ports, change, item, users.get(item.user_id), emails, sessions))
            except DomainError as refusal:
                outcomes.append(refusal)
        tx.write(change)
        tx.commit()
    announce(ports, change)
    return outcomes


def _update(
    ports: Ports,
    change: Change,
    item: UpdateUser,
    user: User | None,
    emails: dict[str, int],
    sessions: Sequence[Session],
) -> Profile:
    if user is None:
        raise DomainError("USER_NOT_FOUND", user_id=item.user_id)
    if item.password is not None:
        _check_current(ports, change, user, item.password)
    if item.email is not None and emails.setdefault(email_key(item.email), user.id) != user.id:
        raise DomainError("EMAIL_TAKEN")
    password_hash = item.password.wanted_hash if item.password else None
    event = user.update(email=item.email, phone=item.phone, password_hash=password_hash, now_ms=change.now_ms)
    if event is not None:
        change.changed_users[user.id] = user
        change.events.append(event)
    if password_hash:
        _end_others(change, item.caller, user, sessions)
    return user.profile()


def _check_current(ports: Ports, change: Change, user: User, password: CheckedPassword) -> None:
    """Refuse a wrong current password: who holds a stolen token may not guess it for longer than at a log-in."""
    user.check_unlocked(change.now_ms)
    if not password.matched:
        user.fail(ports.lock, change.now_ms)
        change.changed_users[user.id] = user
    if password.matched != user.password_hash:
        raise DomainError("CREDENTIALS_INVALID")


def _end_others(change: Change, caller: Caller, user: User, sessions: Sequence[Session]) -> None:
    """End every session of the user but the one in which the password was changed."""
    kept = caller.session_id if caller.subject == user.id else ""
    for session in sessions:
        if session.user_id == user.id and session.id != kept and session.end(NEW_PASSWORD, change.now_ms):
            change.changed_sessions[session.id] = session


def set_user_roles(ports: Ports, items: Sequence[SetUserRoles]) -> list[Profile | DomainError]:
    """Answer each item with the account as it is then, or with its refusal."""
    with ports.store.transaction() as tx:
        change = Change(ports.clock.now_ms())
        users = tx.users({item.user_id for item in items})
        outcomes: list[Profile | DomainError] = []
        for item in items:
            try:
                outcomes.append(_set_roles(change, item, users.get(item.user_id)))
            except DomainError as refusal:
                outcomes.append(refusal)
        tx.write(change)
        tx.commit()
    announce(ports, change)
    return outcomes


def _set_roles(change: Change, item: SetUserRoles, user: User | None) -> Profile:
    if user is None:
        raise DomainError("USER_NOT_FOUND", user_id=item.user_id)
    event = user.update(roles=check_roles(item.roles), now_ms=change.now_ms)
    if event is not None:
        change.changed_users[user.id] = user
        change.new_roles[user.id] = user.roles
        change.events.append(event)
    return user.profile()


def _in_time(ports: Ports, deadline: float) -> None:
    """Hash for nobody who has gone: under a flood this is what keeps the queue short."""
    if ports.clock.monotonic() > deadline:
        raise DomainError("DEADLINE_EXCEEDED")
