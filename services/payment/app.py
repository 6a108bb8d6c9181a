"""Composition root of the payment service: the only file that sees everyone."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from paymesh.payment.v1 import payment_service_pb2_grpc as rpc
from services.kernel.clock import SystemClock
from services.kernel.ids import IdMaker
from services.payment import mapping, usecases
from services.payment.adapters.redis import RedisStatusCache
from services.payment.clients import OrderClient, RiskClient
from services.payment.consumer import SUBSCRIPTIONS
from services.payment.ports import Ports, Render
from services.payment.servicer import PaymentServicer
from services.payment.store import SqlStore
from services.payment.store.tables import outbox, relay_lease
from services.platform import cache
from services.platform.batcher import Batcher, Handler, Limits
from services.platform.client import MeshChannel
from services.platform.consumer import EventConsumer
from services.platform.database import Database
from services.platform.durability import check_durable
from services.platform.idempotency import business_reasons
from services.platform.process import App, Closing, Opening
from services.platform.reads import ReadPool
from services.platform.relay import Relay
from services.platform.revocation import RevokedSessions

if TYPE_CHECKING:
    from services.payment.settings import Settings

NAME = "payment"


def build(settings: Settings) -> App:
    """Make the payment service; nothing runs and nothing is connected yet."""
    clock = SystemClock()
    ids = IdMaker(clock, settings.instance)
    database = Database(settings.database_url or f"sqlite:///{settings.data / 'payment.db'}")
    redis, mesh = cache.connect(settings.redis_url), MeshChannel(settings.mesh)
    relay = Relay(NAME, database, (outbox, relay_lease), settings.kafka, clock, unread_max=settings.relay_unread_max)
    store = SqlStore(database, ids)
    ports = Ports(
        store=store,
        risk=RiskClient(mesh),
        orders=OrderClient(mesh),
        cache=RedisStatusCache(redis),
        render=Render(mapping.created, mapping.refunded, mapping.topped_up),
        ids=ids,
        clock=clock,
        business=business_reasons(),
        merchant_id=settings.merchant_id,
        committed=relay.nudge,
    )
    handlers: dict[str, Handler] = {
        "create_payments": partial(usecases.create_payments, ports),
        "refund_payments": partial(usecases.refund_payments, ports),
        "top_up_balances": partial(usecases.top_up_balances, ports),
        "know_orders": partial(usecases.know_orders, ports),
        "refund_rejected": partial(usecases.refund_rejected, ports),
    }
    batcher = Batcher(handlers, Limits(batch_max=settings.batch_max, linger_ms=settings.linger_ms))
    reads, revoked = ReadPool(), RevokedSessions(settings.redis_url)
    servicer = PaymentServicer(ports, batcher, reads)
    return App(
        name=NAME,
        settings=settings,
        register=partial(rpc.add_PaymentServiceServicer_to_server, servicer),
        parts=(
            Opening(partial(check_durable, database)),
            Closing(database.stop),
            Closing(redis.close),
            Closing(mesh.stop),
            Opening(lambda: ids.pass_over(store.last_id())),
            revoked,
            reads,
            relay,
            batcher,
            EventConsumer(NAME, SUBSCRIPTIONS, batcher, settings.kafka),
        ),
        revoked=revoked,
    )
