"""Composition root of the payment service: the only file that sees everyone."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from paymesh.payment.v1 import payment_service_pb2_grpc as rpc
from services.kernel.clock import SystemClock
from services.kernel.ids import IdMaker
from services.payment import jobs, mapping, usecases
from services.payment.adapters.alarm import LogAlarm
from services.payment.adapters.files import Bucket, files
from services.payment.adapters.providers import Merchant, providers
from services.payment.adapters.redis import RedisStatusCache
from services.payment.adapters.vault import CardVault, FileKeys, MemoryCvvRelay
from services.payment.clients import OrderClient, RiskClient
from services.payment.consumer import SUBSCRIPTIONS
from services.payment.domain import Method
from services.payment.ports import Outside, Ports, Render
from services.payment.servicer import Desk, PaymentServicer
from services.payment.store import SqlBills, SqlCards, SqlPaymentMethods, SqlStore
from services.payment.store.tables import outbox, relay_lease
from services.platform import cache, failpoint, telemetry
from services.platform.batcher import Batcher, Handler, Limits
from services.platform.client import MeshChannel
from services.platform.consumer import EventConsumer
from services.platform.database import Database
from services.platform.durability import check_durable
from services.platform.idempotency import business_reasons
from services.platform.pipeline import Pipeline
from services.platform.process import App, Closing, Opening
from services.platform.reads import ReadPool
from services.platform.relay import Relay
from services.platform.revocation import RevokedSessions

if TYPE_CHECKING:
    from services.payment.settings import Settings

NAME = "payment"
RENDER = Render(
    mapping.created,
    mapping.captured,
    mapping.voided,
    mapping.closed,
    mapping.refunded,
    mapping.topped_up,
    mapping.withdrawn,
    mapping.decided,
)
"""How answers are rendered, in the order of the port's fields."""


def build(settings: Settings) -> App:
    """Make the payment service; nothing runs and nothing is connected yet."""
    clock = SystemClock()
    ids = IdMaker(clock, settings.instance)
    database = Database(settings.database_url or f"sqlite:///{settings.data / 'payment.db'}")
    redis, mesh = cache.connect(settings.redis_url), MeshChannel(settings.mesh)
    relay = Relay(NAME, database, (outbox, relay_lease), settings.kafka, clock, unread_max=settings.relay_unread_max)
    store = SqlStore(database, ids)
    vault = CardVault(SqlCards(database), FileKeys(Path(settings.vault_keys or settings.data / "vault-keys")))
    outside = _outside(settings, database, clock, vault)
    ports = Ports(
        store=store,
        risk=RiskClient(mesh),
        orders=OrderClient(mesh),
        cache=RedisStatusCache(redis),
        render=RENDER,
        ids=ids,
        clock=clock,
        business=business_reasons(),
        merchant_id=settings.merchant_id,
        committed=relay.nudge,
        outside=outside,
        bills=SqlBills(database),
        alarm=LogAlarm(),
        reach=failpoint.reach,
    )
    batcher = Batcher(_handlers(ports), Limits(batch_max=settings.batch_max, linger_ms=settings.linger_ms))
    threads = settings.provider_threads
    pipeline = Pipeline(batcher, partial(usecases.ask, ports), settle="settle", answer="answer_open",
                        threads=threads, queue_max=threads * 4)  # fmt: skip
    reads, imports, revoked = ReadPool(), ReadPool(2, queue_max=8), RevokedSessions(settings.redis_url)
    servicer = PaymentServicer(Desk(ports, batcher, reads, pipeline, imports))
    return App(
        name=NAME,
        settings=settings,
        register=partial(rpc.add_PaymentServiceServicer_to_server, servicer),
        parts=(
            Opening(partial(check_durable, database)),
            Closing(database.stop),
            Closing(redis.close),
            Closing(mesh.stop),
            imports,  # before what it reads from: that is closed first, so that nothing is waited for long
            *(Closing(provider.stop) for provider in outside.providers.values()),
            Opening(lambda: ids.pass_over(store.last_id())),
            Opening(lambda: _adopt(ports)),
            revoked,
            reads,
            relay,
            batcher,
            pipeline,
            jobs.completer(ports, batcher, pipeline),
            jobs.sweeper(ports),
            jobs.resealer(vault),
            jobs.bill_importer(ports, batcher),
            EventConsumer(NAME, SUBSCRIPTIONS, batcher, settings.kafka),
        ),
        revoked=revoked,
    )


def _adopt(ports: Ports) -> None:
    """Take up at once what this instance was asking of providers when it last ended."""
    if left := ports.store.adopt(ports.outside.instance, ports.clock.now_ms()):
        telemetry.log.info("attempts.adopted", attempts=left)


def _handlers(ports: Ports) -> dict[str, Handler]:
    """The use cases that run in batches, by the kind that they are submitted as."""
    return {
        "create_payments": partial(usecases.create_payments, ports),
        "capture_payments": partial(usecases.capture_payments, ports),
        "void_payments": partial(usecases.void_payments, ports),
        "close_payments": partial(usecases.close_payments, ports),
        "refund_payments": partial(usecases.refund_payments, ports),
        "save_payment_methods": partial(usecases.save_payment_methods, ports),
        "set_default_payment_methods": partial(usecases.set_default_payment_methods, ports),
        "remove_payment_methods": partial(usecases.remove_payment_methods, ports),
        "propose_reviews": partial(usecases.propose_reviews, ports),
        "decide_reviews": partial(usecases.decide_reviews, ports),
        "settle": partial(usecases.settle, ports),
        "answer_open": partial(usecases.answer_open, ports),
        "take_up": partial(usecases.take_up, ports),
        "take_notices": partial(usecases.take_notices, ports),
        "top_up_balances": partial(usecases.top_up_balances, ports),
        "withdraw_balances": partial(usecases.withdraw_balances, ports),
        "book_bills": partial(usecases.book_bills, ports),
        "settle_late": partial(usecases.settle_late, ports),
        "know_orders": partial(usecases.know_orders, ports),
        "refund_rejected": partial(usecases.refund_rejected, ports),
    }


def _outside(settings: Settings, database: Database, clock: SystemClock, vault: CardVault) -> Outside:
    """The providers, and what goes with them."""
    cvvs = MemoryCvvRelay(clock)
    bucket = Bucket(settings.s3_endpoint, settings.s3_region, settings.s3_key_id, settings.s3_secret)
    urls = {
        Method.ALIPAY: settings.alipay_url,
        Method.WECHAT: settings.wechat_url,
        Method.BANK_CARD: settings.cards_url,
    }
    merchant = Merchant(Path(settings.providers), urls, settings.public_url, settings.merchant_id)
    return Outside(
        providers=providers(merchant, vault, cvvs, clock) if settings.providers else {},
        cards=SqlPaymentMethods(database, settings.merchant_id),
        vault=vault,
        cvvs=cvvs,
        files=files(settings.files, settings.data / "files", bucket),
        jitter=lambda: random.uniform(0.8, 1.2),  # noqa: S311 - spreads load, guards nothing
        instance=settings.instance,
        pay_window_ms=settings.pay_window_s * 1000,
        capture_window_ms=settings.capture_window_s * 1000,
    )
