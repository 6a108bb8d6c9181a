"""Protobuf <-> domain of the user room, both ways; the only enum table besides the states."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paymesh.user.v1 import user_event_pb2, user_pb2
from paymesh.user.v1 import user_service_pb2 as pb
from services.platform import wire
from services.user import states, usecases
from services.user.domain import UserCreated, UserLogin, UserUpdated, refresh_hash

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.message import Message

    from services.platform.interceptor import Call
    from services.user.domain import Event, Profile, PublicKey

_STATUS = {word: user_pb2.User.Status.Value(f"STATUS_{word.upper()}") for word in states.ALL}


def register_user(
    call: Call, request: pb.RegisterUserRequest, password_hash: str, seal: Callable[[bytes], bytes]
) -> usecases.RegisterUser:
    """Read a registration whose password was hashed.

    The fingerprint of a request is stored and this request holds a password, so it is sealed with a key that is not in
    the database: without that, guessing passwords against it would be as fast as SHA-256, whatever argon2 costs. The
    password takes part, so that a repeat with another one is refused.
    """
    key = wire.idempotency_key(call, request, seal)
    return usecases.RegisterUser(key, request.username, request.email, request.phone, password_hash)


def new_password(request: pb.UpdateUserRequest) -> usecases.NewPassword | None:
    """Read the wish for a new password, if there is one."""
    if not request.HasField("password"):
        return None
    return usecases.NewPassword(request.id, request.current_password, request.password)


def update_user(
    call: Call, request: pb.UpdateUserRequest, password: usecases.CheckedPassword | None
) -> usecases.UpdateUser:
    """Read a change whose password was checked."""
    email = request.email if request.HasField("email") else None
    phone = request.phone if request.HasField("phone") else None
    return usecases.UpdateUser(call.caller, request.id, email, phone, password)


def set_user_roles(request: pb.SetUserRolesRequest) -> usecases.SetUserRoles:
    """Read a change of roles."""
    return usecases.SetUserRoles(request.id, tuple(request.roles))


def refresh_session(request: pb.RefreshSessionRequest) -> usecases.RefreshSession:
    """Read a refresh; the token goes no further than here."""
    return usecases.RefreshSession(refresh_hash(request.refresh_token))


def user(p: Profile) -> user_pb2.User:
    """Render an account."""
    return user_pb2.User(
        id=p.id,
        username=p.username,
        email=p.email,
        phone=p.phone,
        status=_STATUS[p.status],
        roles=p.roles,
        create_time=wire.timestamp(p.create_ms),
        update_time=wire.timestamp(p.update_ms),
    )


def session(tokens: usecases.Tokens) -> user_pb2.Session:
    """Render what a log-in or a refresh gives."""
    return user_pb2.Session(
        access_token=tokens.access_token,
        refresh_token=tokens.refresh_token,
        token_type="Bearer",  # noqa: S106 - the type of the token, RFC 6750
        expires_in=tokens.expires_in_s,
        scope=tokens.scope,
    )


def jwk(key: PublicKey) -> user_pb2.Jwk:
    """Render a public key."""
    return user_pb2.Jwk(kty="EC", crv="P-256", x=key.x, y=key.y, kid=key.kid, use="sig", alg="ES256")


def registered(p: Profile) -> bytes:
    """Render the answer of RegisterUser, which is also what a repeat gets."""
    return pb.RegisterUserResponse(user=user(p)).SerializeToString(deterministic=True)


def event(happened: Event) -> Message:
    """Render an event for the outbox."""
    time = wire.timestamp(happened.at_ms)
    match happened:
        case UserCreated(user_id, version, _, username, email, phone):
            return user_event_pb2.UserCreated(
                user_id=user_id, version=version, event_time=time, username=username, email=email, phone=phone
            )
        case UserUpdated(user_id, version, _, email, phone, roles):
            return user_event_pb2.UserUpdated(
                user_id=user_id, version=version, event_time=time, email=email, phone=phone, roles=roles
            )
        case UserLogin(user_id, version, _, session_id, client_ip):
            return user_event_pb2.UserLogin(
                user_id=user_id, version=version, event_time=time, session_id=session_id, client_ip=client_ip
            )
