"""Composition root of the gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paymesh.gateway.v1 import gateway_service_pb2_grpc as rpc
from services.gateway import usecases
from services.gateway.adapters import documents, routes
from services.gateway.clients import ConfigMesh
from services.gateway.servicer import Gateway
from services.kernel.clock import SystemClock
from services.platform.client import MeshChannel
from services.platform.process import App, Closing
from services.platform.reads import ReadPool
from services.platform.revocation import RevokedSessions

if TYPE_CHECKING:
    from services.gateway.settings import GatewaySettings


def build(settings: GatewaySettings) -> App:
    """Make the service; nothing runs yet."""
    channel, reads, revoked = MeshChannel(settings.mesh), ReadPool(), RevokedSessions(settings.redis_url)
    health = usecases.Health(ConfigMesh(channel, settings.health_ask_ms), SystemClock(), settings.health_stale_s)
    servicer = Gateway(reads, health, routes.ContractRoutes(), documents.load())
    return App(
        name="gateway",
        settings=settings,
        register=lambda server: rpc.add_GatewayServiceServicer_to_server(servicer, server),
        parts=(revoked, Closing(channel.stop), reads),
        revoked=revoked,
    )
