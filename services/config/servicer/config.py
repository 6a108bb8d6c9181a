"""The configuration service."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from paymesh.config.v1 import config_service_pb2 as pb
from paymesh.config.v1 import config_service_pb2_grpc as rpc
from services.config import mapping
from services.config.servicer.watch import HOLD_S
from services.kernel import pages
from services.platform.interceptor import current

if TYPE_CHECKING:
    from typing import Any

    from grpc.aio import ServicerContext

    from services.config.servicer.watch import Turns
    from services.config.usecases import Configuration, Discovery, Trust
    from services.kernel.clock import Clock
    from services.platform.batcher import Batcher
    from services.platform.reads import ReadPool

    Context = ServicerContext[Any, Any]


class Config(rpc.ConfigServiceServicer):
    """Parses, submits and renders."""

    def __init__(
        self,
        batcher: Batcher,
        reads: ReadPool,
        configuration: Configuration,
        discovery: Discovery,
        trust: Trust,
        turns: Turns,
        clock: Clock,
    ) -> None:
        """Write through ``batcher`` (kinds set, register, deregister, rotate), read through ``reads``.

        ``turns`` says when an entry may have changed.
        """
        self._batcher, self._reads, self._clock = batcher, reads, clock
        self._configuration, self._discovery, self._trust = configuration, discovery, trust
        self._turns = turns

    async def GetConfig(self, request: pb.GetConfigRequest, context: Context) -> pb.GetConfigResponse:
        """Read an entry."""
        return pb.GetConfigResponse(
            entry=mapping.entry(await self._reads.run(self._configuration.get_config, request.key))
        )

    async def SetConfig(self, request: pb.SetConfigRequest, context: Context) -> pb.SetConfigResponse:
        """Set an entry."""
        call = current()
        entry = await self._batcher.submit("set", mapping.set_config(request, call), call.deadline)
        return pb.SetConfigResponse(entry=mapping.entry(entry))

    async def WatchConfig(self, request: pb.WatchConfigRequest, context: Context) -> pb.WatchConfigResponse:
        """Look, and look again at each change, until there is something newer or the time is over."""
        known = mapping.known(request)
        until = time.monotonic() + HOLD_S
        while True:
            count = self._turns.count
            found = await self._reads.run(self._configuration.newer, known)
            if found or not await self._turns.after(count, until - time.monotonic()):
                return mapping.watched(found)

    async def ListConfig(self, request: pb.ListConfigRequest, context: Context) -> pb.ListConfigResponse:
        """List entries."""
        page = pages.page(request.page_size, request.page_token)
        return mapping.entries(*await self._reads.run(self._configuration.list_configs, request.prefix, page))

    async def RegisterInstance(
        self, request: pb.RegisterInstanceRequest, context: Context
    ) -> pb.RegisterInstanceResponse:
        """Register or renew."""
        call = current()
        lease = await self._batcher.submit("register", mapping.register(request, call), call.deadline)
        return pb.RegisterInstanceResponse(instance=mapping.instance(lease, self._clock))

    async def DeregisterInstance(
        self, request: pb.DeregisterInstanceRequest, context: Context
    ) -> pb.DeregisterInstanceResponse:
        """Take out."""
        call = current()
        await self._batcher.submit("deregister", mapping.deregister(request, call), call.deadline)
        return pb.DeregisterInstanceResponse()

    async def ListInstances(self, request: pb.ListInstancesRequest, context: Context) -> pb.ListInstancesResponse:
        """List from memory: no thread is needed."""
        page = pages.page(request.page_size, request.page_token)
        return mapping.instances(*self._discovery.list_instances(request.service, page), self._clock)

    async def ListNodes(self, request: pb.ListNodesRequest, context: Context) -> pb.ListNodesResponse:
        """List from memory."""
        page = pages.page(request.page_size, request.page_token)
        return mapping.nodes(*self._trust.list_nodes(page))

    async def GetAuthority(self, request: pb.GetAuthorityRequest, context: Context) -> pb.GetAuthorityResponse:
        """Read the CA's state from memory."""
        return pb.GetAuthorityResponse(authority=mapping.authority(self._trust.get_authority()))

    async def RotateAuthority(self, request: pb.RotateAuthorityRequest, context: Context) -> pb.RotateAuthorityResponse:
        """Take a step."""
        done = await self._batcher.submit("rotate", mapping.rotate_authority(request), current().deadline)
        return pb.RotateAuthorityResponse(authority=mapping.authority(done))

    async def GetMeshHealth(self, request: pb.GetMeshHealthRequest, context: Context) -> pb.GetMeshHealthResponse:
        """Count from memory."""
        return mapping.mesh_health(self._discovery.get_mesh_health())
