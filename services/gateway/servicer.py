"""gRPC in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paymesh.gateway.v1 import gateway_service_pb2 as pb
from paymesh.gateway.v1 import gateway_service_pb2_grpc as rpc
from services.gateway import mapping, usecases
from services.platform.interceptor import current

if TYPE_CHECKING:
    from typing import Any

    from grpc.aio import ServicerContext

    from services.gateway import ports
    from services.gateway.domain import Documents
    from services.platform.reads import ReadPool

    Context = ServicerContext[Any, Any]


class Gateway(rpc.GatewayServiceServicer):
    """The service. Documents are rendered here once; each call sends the same bytes."""

    def __init__(self, reads: ReadPool, health: usecases.Health, routes: ports.Routes, documents: Documents) -> None:
        """Serve what the use cases find."""
        self._reads, self._health, self._routes = reads, health, routes
        self._openapi, self._page = mapping.openapi(documents), mapping.api_page(documents)

    async def GetHealth(self, request: pb.GetHealthRequest, context: Context) -> pb.GetHealthResponse:
        """Ask in a thread of the pool, for the stub waits."""
        return mapping.health(await self._reads.run(self._health.get_health, current().caller))

    async def ListRoutes(self, request: pb.ListRoutesRequest, context: Context) -> pb.ListRoutesResponse:
        """List from memory: no thread is needed."""
        return mapping.routes(*usecases.list_routes(self._routes, mapping.page(request)))

    async def GetOpenApi(self, request: pb.GetOpenApiRequest, context: Context) -> pb.GetOpenApiResponse:
        """Send the document."""
        return self._openapi

    async def GetApiPage(self, request: pb.GetApiPageRequest, context: Context) -> pb.GetApiPageResponse:
        """Send the page."""
        return self._page
