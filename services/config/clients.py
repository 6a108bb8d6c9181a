"""Other services' stubs behind our ports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paymesh.gateway.v1 import gateway_service_pb2 as gateway_pb
from paymesh.gateway.v1 import gateway_service_pb2_grpc as gateway_rpc
from paymesh.user.v1 import user_service_pb2 as pb
from paymesh.user.v1 import user_service_pb2_grpc as rpc
from services.config import mapping

if TYPE_CHECKING:
    from services.platform.client import MeshChannel

_ASK_MS = 2_000


class UserKeys:
    """The port TokenKeys, answered by user."""

    def __init__(self, channel: MeshChannel) -> None:
        """Ask over ``channel``."""
        self._channel, self._stub = channel, rpc.UserServiceStub(channel.channel)

    def jwks(self) -> str:
        """Return the keys as a JWKS in JSON."""
        return mapping.jwks(self._channel.call(self._stub.GetJwks, pb.GetJwksRequest(), _ASK_MS))


class GatewayKeys:
    """The port ApiKeyTrust, answered by the gateway."""

    def __init__(self, channel: MeshChannel) -> None:
        """Ask over ``channel``."""
        self._channel, self._stub = channel, gateway_rpc.GatewayServiceStub(channel.channel)

    def api_keys(self) -> tuple[str, frozenset[str]]:
        """Return what verifies API keys, as a JWKS in JSON, and the ids of those that are revoked."""
        request = gateway_pb.GetApiKeyTrustRequest()
        return mapping.api_keys(self._channel.call(self._stub.GetApiKeyTrust, request, _ASK_MS))
