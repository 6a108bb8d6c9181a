"""Composition root of the gateway."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from paymesh.gateway.v1 import gateway_service_pb2_grpc as rpc
from services.gateway import mapping, usecases
from services.gateway.adapters import documents, routes
from services.gateway.adapters.limits import limits
from services.gateway.adapters.redis import RedisQuanta, RedisRevocations
from services.gateway.clients import ConfigMesh
from services.gateway.ports import KeyPorts
from services.gateway.servicer import Gateway, RateLimits
from services.gateway.store import SqlStore
from services.kernel.clock import SystemClock
from services.kernel.ids import IdMaker
from services.platform import cache, migrations
from services.platform.batcher import Batcher
from services.platform.client import MeshChannel
from services.platform.database import Database
from services.platform.durability import check_durable
from services.platform.idempotency import business_reasons
from services.platform.jobs import Every
from services.platform.masterkey import MasterKey
from services.platform.process import App, Closing, Opening
from services.platform.reads import ReadPool
from services.platform.revocation import RevokedSessions
from services.platform.signing import Es256Signer

if TYPE_CHECKING:
    from grpc import aio

    from services.gateway.settings import GatewaySettings

NAME = "gateway"
REMIND_S = 5.0
"""How often it is looked whether every service can know which keys are refused, those among them whose overlap ended."""
FORGET_S = 3600.0


def build(settings: GatewaySettings) -> App:
    """Make the service; nothing runs yet."""
    clock = SystemClock()
    url = settings.database_url or f"sqlite:///{settings.data / 'gateway.db'}"
    database, redis = Database(url), cache.connect(settings.redis_url)
    keys = KeyPorts(
        store=SqlStore(database),
        signer=Es256Signer(MasterKey(settings.data / "keys", NAME)),
        revocations=RedisRevocations(redis),
        ids=IdMaker(clock, settings.instance),
        clock=clock,
        render_created=mapping.created,
        render_rotated=mapping.rotated,
        business=business_reasons(),
    )
    batcher = Batcher(
        {
            "create": partial(usecases.create_api_keys, keys),
            "rotate": partial(usecases.rotate_api_keys, keys),
            "revoke": partial(usecases.revoke_api_keys, keys),
        }
    )
    common = usecases.Limits(RedisQuanta(redis, clock), clock)
    # Of its own: whoever waits to be counted does not wait for the database.
    counting = Batcher({"decide": common.decide})
    channel, reads, revoked = MeshChannel(settings.mesh), ReadPool(), RevokedSessions(settings.redis_url)
    health = usecases.Health(ConfigMesh(channel, settings.health_ask_ms), clock, settings.health_stale_s)
    servicer = Gateway(reads, health, routes.ContractRoutes(), documents.load(), keys, batcher)
    asked = RateLimits(common, limits(), counting)

    def register(server: aio.Server) -> None:
        rpc.add_GatewayServiceServicer_to_server(servicer, server)
        server.add_generic_rpc_handlers((asked.handler(),))

    return App(
        name=NAME,
        settings=settings,
        register=register,
        parts=(
            Opening(partial(check_durable, database)),
            Opening(partial(migrations.upgrade, NAME, url)),
            Closing(database.stop),
            Closing(redis.close),
            Closing(channel.stop),
            revoked,
            reads,
            counting,
            batcher,
            Opening(partial(usecases.open_keys, keys)),
            Every(REMIND_S, partial(usecases.remind_revocations, keys), "remind-revocations"),
            Every(FORGET_S, partial(usecases.forget_api_keys, keys), "forget-api-keys"),
        ),
        revoked=revoked,
    )
