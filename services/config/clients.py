"""User's stub behind our port."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
