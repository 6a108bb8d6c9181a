"""Config's stub behind our port."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paymesh.config.v1 import config_service_pb2 as pb
from paymesh.config.v1 import config_service_pb2_grpc as rpc
from services.gateway import mapping

if TYPE_CHECKING:
    from services.gateway.domain import MeshHealth
    from services.kernel.caller import Caller
    from services.platform.client import MeshChannel


class ConfigMesh:
    """The port Mesh, answered by config."""

    def __init__(self, channel: MeshChannel, ask_ms: int) -> None:
        """Ask over ``channel``, for at most ``ask_ms``."""
        self._channel, self._ask_ms = channel, ask_ms
        self._stub = rpc.ConfigServiceStub(channel.channel)

    def health(self, caller: Caller) -> MeshHealth:
        """How config, which checks every instance, finds the mesh."""
        response = self._channel.call(self._stub.GetMeshHealth, pb.GetMeshHealthRequest(), self._ask_ms, caller)
        return mapping.mesh_health(response)
