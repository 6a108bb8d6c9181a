"""Composition root of the risk service: the only file that sees everyone."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from paymesh.risk.v1 import risk_service_pb2_grpc as rpc
from services.kernel.clock import SystemClock
from services.kernel.ids import IdMaker
from services.platform import cache, migrations
from services.platform.batcher import Batcher
from services.platform.consumer import EventConsumer
from services.platform.database import Database
from services.platform.idempotency import business_reasons
from services.platform.process import App, Closing, Opening
from services.platform.reads import ReadPool
from services.platform.relay import Relay
from services.platform.revocation import RevokedSessions
from services.risk import mapping, usecases
from services.risk.adapters.redis import RedisRuleCache, RedisVelocity
from services.risk.consumer import SUBSCRIPTIONS
from services.risk.jobs import Rules
from services.risk.ports import Ports
from services.risk.servicer import RiskServicer
from services.risk.store import SqlStore, outbox, relay_lease

if TYPE_CHECKING:
    from services.risk.settings import Settings

NAME = "risk"


def build(settings: Settings) -> App:
    """Make the risk service; nothing runs and nothing is connected yet."""
    clock = SystemClock()
    ids = IdMaker(clock, settings.instance)
    url = settings.database_url or f"sqlite:///{settings.data / 'risk.db'}"
    database, redis = Database(url), cache.connect(settings.redis_url)
    velocity = RedisVelocity(settings.redis_url, settings.velocity_timeout_ms / 1000)
    relay = Relay(NAME, database, (outbox, relay_lease), settings.kafka, clock, unread_max=settings.relay_unread_max)
    ports = Ports(
        store=SqlStore(database, ids),
        velocity=velocity,
        cache=RedisRuleCache(redis),
        ids=ids,
        clock=clock,
        render=mapping.rule_created,
        business=business_reasons(),
        committed=relay.nudge,
    )
    rules = usecases.RulesInForce()
    batcher = Batcher(
        {
            "assess_payments": partial(usecases.assess_payments, ports, rules),
            "create_rules": partial(usecases.create_rules, ports),
            "update_rules": partial(usecases.update_rules, ports),
            "set_blocks": partial(usecases.set_blocks, ports),
        }
    )
    # A Batcher of its own: nobody's payment waits for a disk that writes what was judged already.
    notes = Batcher({"note_payments": partial(usecases.note_payments, ports, rules)})
    reads, revoked = ReadPool(), RevokedSessions(settings.redis_url)
    servicer = RiskServicer(ports, rules, batcher, reads)
    return App(
        name=NAME,
        settings=settings,
        register=partial(rpc.add_RiskServiceServicer_to_server, servicer),
        parts=(
            Opening(partial(migrations.upgrade, NAME, url)),
            Closing(database.stop),
            Closing(redis.close),
            Closing(velocity.stop),
            revoked,
            reads,
            relay,
            Rules(ports, rules, settings.rules_refresh_ms / 1000),
            batcher,
            notes,
            EventConsumer(NAME, SUBSCRIPTIONS, notes, settings.kafka),
        ),
        revoked=revoked,
    )
