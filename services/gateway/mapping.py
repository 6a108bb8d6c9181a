"""Protobuf <-> domain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.api import httpbody_pb2

from paymesh.gateway.v1 import gateway_pb2
from paymesh.gateway.v1 import gateway_service_pb2 as pb
from services.gateway import usecases
from services.gateway.domain import ApiKey, MeshHealth, ServiceHealth, Status
from services.kernel import pages
from services.platform import wire

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paymesh.config.v1 import config_service_pb2 as config_pb
    from services.gateway.domain import Documents, Route
    from services.kernel.signing import PublicKey
    from services.platform.interceptor import Call

_STATUS = {status: gateway_pb2.ApiKey.Status.Value(f"STATUS_{status.upper()}") for status in Status}


def mesh_health(response: config_pb.GetMeshHealthResponse) -> MeshHealth:
    """Read config's answer."""
    return MeshHealth(tuple(ServiceHealth(s.service, s.healthy, s.registered) for s in response.services))


def health(found: MeshHealth) -> pb.GetHealthResponse:
    """Render the mesh's health."""
    status = gateway_pb2.Health.STATUS_SERVING if found.serving else gateway_pb2.Health.STATUS_DEGRADED
    services = [
        gateway_pb2.ServiceStatus(service=s.service, healthy=s.healthy, registered=s.registered) for s in found.services
    ]
    return pb.GetHealthResponse(health=gateway_pb2.Health(status=status, services=services))


def page(request: pb.ListRoutesRequest | pb.ListApiKeysRequest) -> pages.Page:
    """Read which page is wanted."""
    return pages.page(request.page_size, request.page_token)


def routes(found: Sequence[Route], next_page_token: str) -> pb.ListRoutesResponse:
    """Render a page of routes."""
    return pb.ListRoutesResponse(routes=[_route(route) for route in found], next_page_token=next_page_token)


def openapi(documents: Documents) -> pb.GetOpenApiResponse:
    """Render the OpenAPI document."""
    return pb.GetOpenApiResponse(body=httpbody_pb2.HttpBody(content_type="application/json", data=documents.openapi))


def api_page(documents: Documents) -> pb.GetApiPageResponse:
    """Render the page for people."""
    return pb.GetApiPageResponse(
        body=httpbody_pb2.HttpBody(content_type="text/html; charset=utf-8", data=documents.page)
    )


def _route(route: Route) -> gateway_pb2.Route:
    return gateway_pb2.Route(
        method=route.method,
        http=route.http,
        auth=route.auth,
        scopes=route.scopes,
        timeout_ms=route.timeout_ms,
        retries=route.retries,
        idempotency=route.idempotency,
        rate_limit=route.rate_limit,
        callers=route.callers,
    )


def create_api_key(request: pb.CreateApiKeyRequest, call: Call) -> usecases.CreateApiKey:
    """Read a command."""
    key = wire.idempotency_key(call, request)
    assert key is not None
    return usecases.CreateApiKey(call.caller, request.name, tuple(sorted(request.scopes)), _lifetime(request), key)


def rotate_api_key(request: pb.RotateApiKeyRequest, call: Call) -> usecases.RotateApiKey:
    """Read a command."""
    key = wire.idempotency_key(call, request)
    assert key is not None
    overlap_s = request.overlap_seconds if request.HasField("overlap_seconds") else usecases.OVERLAP_S
    return usecases.RotateApiKey(call.caller, request.id, overlap_s, _lifetime(request), key)


def _lifetime(request: pb.CreateApiKeyRequest | pb.RotateApiKeyRequest) -> int:
    return request.lifetime_days or usecases.LIFETIME_DAYS


def api_key(key: ApiKey, now_ms: int) -> gateway_pb2.ApiKey:
    """Render a key as it is at a moment."""
    made = gateway_pb2.ApiKey(
        id=key.id,
        user_id=key.user_id,
        name=key.name,
        scopes=key.scopes,
        status=_STATUS[key.status(now_ms)],
        create_time=wire.timestamp(key.create_ms),
        expire_time=wire.timestamp(key.expire_ms),
        replaced_by=key.replaced_by,
    )
    if key.revoke_ms:
        made.revoke_time.CopyFrom(wire.timestamp(key.revoke_ms))
    return made


def created(key: ApiKey, now_ms: int) -> bytes:
    """Render the answer of CreateApiKey without what is signed."""
    return pb.CreateApiKeyResponse(key=api_key(key, now_ms)).SerializeToString(deterministic=True)


def rotated(key: ApiKey, now_ms: int) -> bytes:
    """Render the answer of RotateApiKey without what is signed."""
    return pb.RotateApiKeyResponse(key=api_key(key, now_ms)).SerializeToString(deterministic=True)


def api_key_from(rendered: gateway_pb2.ApiKey) -> ApiKey:
    """Read back from an answer what is signed of a key."""
    create_ms, expire_ms = rendered.create_time.ToMilliseconds(), rendered.expire_time.ToMilliseconds()
    return ApiKey(rendered.id, rendered.user_id, rendered.name, tuple(rendered.scopes), create_ms, expire_ms)


def api_keys(found: Sequence[ApiKey], next_page_token: str, now_ms: int) -> pb.ListApiKeysResponse:
    """Render a page of keys."""
    return pb.ListApiKeysResponse(keys=[api_key(key, now_ms) for key in found], next_page_token=next_page_token)


def jwks(keys: Sequence[PublicKey]) -> list[gateway_pb2.ApiKeyJwk]:
    """Render public keys."""
    return [
        gateway_pb2.ApiKeyJwk(kty="EC", crv="P-256", x=key.x, y=key.y, kid=key.kid, use="sig", alg="ES256")
        for key in keys
    ]
