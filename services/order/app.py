"""Composition root of the order service."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from paymesh.order.v1 import order_service_pb2_grpc as rpc
from services.kernel.clock import SystemClock
from services.kernel.ids import IdMaker
from services.order import mapping, store, usecases
from services.order.adapters import RedisCache
from services.order.consumer import consumer
from services.order.jobs import Expiry
from services.order.ports import Ports
from services.order.servicer import Orders
from services.platform import cache, migrations
from services.platform.batcher import Batcher, Limits
from services.platform.database import Database
from services.platform.durability import check_durable
from services.platform.idempotency import business_reasons
from services.platform.jobs import Every
from services.platform.process import App, Closing, Opening
from services.platform.reads import ReadPool
from services.platform.relay import Relay
from services.platform.revocation import RevokedSessions

if TYPE_CHECKING:
    from services.order.settings import OrderSettings


def batcher(ports: Ports, limits: Limits) -> Batcher:
    """Make the Batcher that runs every use case which writes."""
    writing = (
        usecases.create_orders,
        usecases.set_order_statuses,
        usecases.expire_orders,
        usecases.pay_orders,
        usecases.refund_orders,
        usecases.set_stocks,
    )
    return Batcher({write.__name__: partial(write, ports) for write in writing}, limits)


def build(settings: OrderSettings) -> App:
    """Make the service; nothing runs and nothing is connected yet."""
    url = settings.database_url or f"sqlite:///{settings.data / 'order.db'}"
    clock = SystemClock()
    ids = IdMaker(clock, settings.instance)
    database, redis = Database(url), cache.connect(settings.redis_url)
    relay = Relay(
        "order",
        database,
        (store.outbox, store.relay_lease),
        settings.kafka,
        clock,
        unread_max=settings.relay_unread_max,
    )
    ports = Ports(
        store=store.SqlStore(database, ids),
        cache=RedisCache(redis),
        ids=ids,
        clock=clock,
        render=mapping.created,
        published=relay.nudge,
        business=business_reasons(),
        hold_ms=settings.hold_s * 1000,
    )
    writes, reads = batcher(ports, Limits(batch_max=settings.batch_max, linger_ms=settings.linger_ms)), ReadPool()
    revoked, servicer = RevokedSessions(settings.redis_url), Orders(ports, writes, reads)
    expiry = Expiry(ports.store, writes, clock)
    return App(
        name="order",
        settings=settings,
        register=lambda server: rpc.add_OrderServiceServicer_to_server(servicer, server),
        parts=(
            Opening(partial(check_durable, database)),
            Opening(partial(migrations.upgrade, "order", url)),
            Closing(database.stop),
            Closing(redis.close),
            revoked,
            reads,
            relay,
            writes,
            consumer(writes, settings.kafka),
            Every(settings.expire_every_s, expiry.run, "expire-orders"),
        ),
        revoked=revoked,
    )
