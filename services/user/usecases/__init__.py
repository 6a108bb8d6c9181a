"""One function per RPC, job or phase. What writes takes a sequence of items, and each succeeds or is refused by itself."""

from services.user.usecases.accounts import (
    CheckedPassword,
    NewPassword,
    RegisterUser,
    SetUserRoles,
    UpdateUser,
    check_new_password,
    hash_password,
    new_operator,
    register_users,
    set_user_roles,
    update_users,
)
from services.user.usecases.keys import get_jwks, open_keys
from services.user.usecases.login import Granted, LoginUser, Tokens, check_password, issue_tokens, login_users
from services.user.usecases.reads import READ_ANY, WRITE_ANY, admit, get_user, require
from services.user.usecases.sessions import (
    LogoutUser,
    RefreshSession,
    forget_sessions,
    logout_users,
    refresh_sessions,
    remind_revocations,
)

__all__ = [
    "READ_ANY",
    "WRITE_ANY",
    "CheckedPassword",
    "Granted",
    "LoginUser",
    "LogoutUser",
    "NewPassword",
    "RefreshSession",
    "RegisterUser",
    "SetUserRoles",
    "Tokens",
    "UpdateUser",
    "admit",
    "check_new_password",
    "check_password",
    "forget_sessions",
    "get_jwks",
    "get_user",
    "hash_password",
    "issue_tokens",
    "login_users",
    "logout_users",
    "new_operator",
    "open_keys",
    "refresh_sessions",
    "register_users",
    "remind_revocations",
    "require",
    "set_user_roles",
    "update_users",
]
