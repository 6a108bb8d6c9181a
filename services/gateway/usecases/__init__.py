"""What the gateway does: a function or a method per RPC."""

from services.gateway.usecases.keys import (
    LIFETIME_DAYS,
    OVERLAP_S,
    CreateApiKey,
    RevokeApiKey,
    RotateApiKey,
    create_api_keys,
    forget_api_keys,
    get_api_key_jwks,
    get_api_key_trust,
    list_api_keys,
    open_keys,
    remind_revocations,
    revoke_api_keys,
    rotate_api_keys,
    signed,
)
from services.gateway.usecases.limits import Limits
from services.gateway.usecases.mesh import Health, list_routes

__all__ = [
    "LIFETIME_DAYS",
    "OVERLAP_S",
    "CreateApiKey",
    "Health",
    "Limits",
    "RevokeApiKey",
    "RotateApiKey",
    "create_api_keys",
    "forget_api_keys",
    "get_api_key_jwks",
    "get_api_key_trust",
    "list_api_keys",
    "list_routes",
    "open_keys",
    "remind_revocations",
    "revoke_api_keys",
    "rotate_api_keys",
    "signed",
]
