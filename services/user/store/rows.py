"""Rows <-> domain objects of the user room."""

from __future__ import annotations

from typing import Any

from services.user.domain import (
    Profile,
    RefreshToken,
    Session,
    User,
    email_key,
    username_key,
)

Row = dict[str, Any]


def user_row(user: User) -> Row:
    """All columns of an account."""
    return {
        "id": user.id,
        "username": user.username,
        "username_key": username_key(user.username),
        "create_ms": user.create_ms,
        **user_state(user),
    }


def user_state(user: User) -> Row:
    """The columns of an account that change."""
    return {
        "email": user.email,
        "email_key": email_key(user.email),
        "phone": user.phone,
        "status": user.status,
        "password_hash": user.password_hash,
        "failed_logins": user.failed_logins,
        "locked_until_ms": user.locked_until_ms,
        "version": user.version,
        "update_ms": user.update_ms,
    }


def user_of(row: Any, roles: tuple[str, ...]) -> User:  # noqa: ANN401 - a SQLAlchemy Row
    """Read an account."""
    return User(row.id, row.username, row.email, row.phone, row.status, roles, row.password_hash, row.failed_logins,
                row.locked_until_ms, row.version, row.create_ms, row.update_ms)  # fmt: skip


def profile_of(row: Any, roles: tuple[str, ...]) -> Profile:  # noqa: ANN401
    """Read what an account shows."""
    return Profile(
        row.id, row.username, row.email, row.phone, row.status, roles, row.version, row.create_ms, row.update_ms
    )


def session_row(session: Session) -> Row:
    """All columns of a session."""
    return {"id": session.id, "user_id": session.user_id, "create_ms": session.create_ms, **session_state(session)}


def session_state(session: Session) -> Row:
    """The columns of a session that change."""
    return {"expire_ms": session.expire_ms, "ended_ms": session.ended_ms, "end_reason": session.end_reason}


def session_of(row: Any) -> Session:  # noqa: ANN401
    """Read a session."""
    return Session(row.id, row.user_id, row.create_ms, row.expire_ms, row.ended_ms, row.end_reason)


def token_row(token: RefreshToken) -> Row:
    """All columns of a refresh token."""
    return {
        "token_hash": token.token_hash,
        "session_id": token.session_id,
        "user_id": token.user_id,
        "create_ms": token.create_ms,
        "used_ms": token.used_ms,
    }


def token_of(row: Any) -> RefreshToken:  # noqa: ANN401
    """Read a refresh token."""
    return RefreshToken(row.token_hash, row.session_id, row.user_id, row.create_ms, row.used_ms)
