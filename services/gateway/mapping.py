"""Protobuf <-> domain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.api import httpbody_pb2

from paymesh.gateway.v1 import gateway_pb2
from paymesh.gateway.v1 import gateway_service_pb2 as pb
from services.gateway.domain import MeshHealth, ServiceHealth
from services.kernel import pages

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paymesh.config.v1 import config_service_pb2 as config_pb
    from services.gateway.domain import Documents, Route


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


def page(request: pb.ListRoutesRequest) -> pages.Page:
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
