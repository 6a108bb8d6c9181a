"""The service of the contract."""

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
    from services.platform.batcher import Batcher
    from services.platform.reads import ReadPool

    Context = ServicerContext[Any, Any]


class Gateway(rpc.GatewayServiceServicer):
    """The service. Documents are rendered here once; each call sends the same bytes."""

    def __init__(
        self,
        reads: ReadPool,
        health: usecases.Health,
        routes: ports.Routes,
        documents: Documents,
        keys: ports.KeyPorts,
        batcher: Batcher,
    ) -> None:
        """Serve what the use cases find; write through ``batcher`` (kinds create, rotate, revoke)."""
        self._reads, self._health, self._routes = reads, health, routes
        self._keys, self._batcher = keys, batcher
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

    async def CreateApiKey(self, request: pb.CreateApiKeyRequest, context: Context) -> pb.CreateApiKeyResponse:
        """Make a key and sign it."""
        call = current()
        answer = await self._batcher.submit("create", mapping.create_api_key(request, call), call.deadline)
        response = pb.CreateApiKeyResponse.FromString(answer)
        response.secret = usecases.signed(self._keys, mapping.api_key_from(response.key))
        return response

    async def RotateApiKey(self, request: pb.RotateApiKeyRequest, context: Context) -> pb.RotateApiKeyResponse:
        """Make a key in the place of another and sign it."""
        call = current()
        answer = await self._batcher.submit("rotate", mapping.rotate_api_key(request, call), call.deadline)
        response = pb.RotateApiKeyResponse.FromString(answer)
        response.secret = usecases.signed(self._keys, mapping.api_key_from(response.key))
        return response

    async def RevokeApiKey(self, request: pb.RevokeApiKeyRequest, context: Context) -> pb.RevokeApiKeyResponse:
        """End a key."""
        call = current()
        command = usecases.RevokeApiKey(call.caller, request.id)
        key = await self._batcher.submit("revoke", command, call.deadline)
        return pb.RevokeApiKeyResponse(key=mapping.api_key(key, self._keys.clock.now_ms()))

    async def ListApiKeys(self, request: pb.ListApiKeysRequest, context: Context) -> pb.ListApiKeysResponse:
        """List a user's keys; whose they are was checked by the contract's owner rule."""
        page = mapping.page(request)
        found, following = await self._reads.run(usecases.list_api_keys, self._keys, request.user_id, page)
        return mapping.api_keys(found, following, self._keys.clock.now_ms())

    async def GetApiKeyJwks(self, request: pb.GetApiKeyJwksRequest, context: Context) -> pb.GetApiKeyJwksResponse:
        """List what verifies keys, from memory."""
        return pb.GetApiKeyJwksResponse(keys=mapping.jwks(usecases.get_api_key_jwks(self._keys)))

    async def GetApiKeyTrust(self, request: pb.GetApiKeyTrustRequest, context: Context) -> pb.GetApiKeyTrustResponse:
        """Tell what verifies keys and which are refused."""
        public, revoked = await self._reads.run(usecases.get_api_key_trust, self._keys)
        return pb.GetApiKeyTrustResponse(jwks=mapping.jwks(public), revoked_ids=revoked)
