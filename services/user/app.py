"""Composition root of the user service: the only file that sees everyone."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from paymesh.user.v1 import user_service_pb2_grpc as rpc
from services.kernel.clock import SystemClock
from services.kernel.ids import IdMaker
from services.platform import cache
from services.platform.batcher import Batcher, Handler
from services.platform.database import Database
from services.platform.durability import check_durable
from services.platform.idempotency import business_reasons
from services.platform.jobs import Every
from services.platform.masterkey import MasterKey
from services.platform.process import App, Closing, Opening
from services.platform.reads import ReadPool
from services.platform.relay import Relay
from services.platform.revocation import RevokedSessions
from services.user import jobs, mapping, usecases
from services.user.adapters.passwords import Argon2Passwords
from services.user.adapters.redis import RedisCache, RedisRevocations
from services.user.adapters.tokens import Es256Signer, RandomSecrets
from services.user.domain import LockPolicy, SessionPolicy
from services.user.ports import Ports
from services.user.servicer import UserServicer
from services.user.store import SqlStore
from services.user.store.tables import outbox, relay_lease

if TYPE_CHECKING:
    from services.user.settings import Settings

NAME = "user"


def build(settings: Settings) -> App:
    """Make the user service; nothing runs and nothing is connected yet."""
    clock = SystemClock()
    ids = IdMaker(clock, settings.instance)
    database = Database(settings.database_url or f"sqlite:///{settings.data / 'user.db'}")
    redis, master = cache.connect(settings.redis_url), MasterKey(settings.data / "keys", NAME)
    relay = Relay(NAME, database, (outbox, relay_lease), settings.kafka, clock, unread_max=settings.relay_unread_max)
    ports = Ports(
        store=SqlStore(database, ids),
        cache=RedisCache(redis, clock),
        revocations=RedisRevocations(redis),
        passwords=Argon2Passwords(settings.hash_memory_kib, settings.hash_passes),
        signer=Es256Signer(master),
        secrets=RandomSecrets(),
        ids=ids,
        clock=clock,
        render_registered=mapping.registered,
        business=business_reasons(),
        lock=LockPolicy(settings.lock_failures, settings.lock_s * 1000),
        sessions=SessionPolicy(settings.access_token_s * 1000, settings.session_idle_s * 1000, settings.session_life_s * 1000),
        committed=relay.nudge,
    )  # fmt: skip
    handlers: dict[str, Handler] = {
        "register_users": partial(usecases.register_users, ports),
        "login_users": partial(usecases.login_users, ports),
        "refresh_sessions": partial(usecases.refresh_sessions, ports),
        "logout_users": partial(usecases.logout_users, ports),
        "update_users": partial(usecases.update_users, ports),
        "set_user_roles": partial(usecases.set_user_roles, ports),
    }
    batcher, reads, hashing = Batcher(handlers), ReadPool(), ReadPool(settings.hash_threads)
    revoked = RevokedSessions(settings.redis_url)
    servicer = UserServicer(ports, batcher, reads, hashing, master.fingerprint)
    return App(
        name=NAME,
        settings=settings,
        register=partial(rpc.add_UserServiceServicer_to_server, servicer),
        parts=(
            Opening(partial(check_durable, database)),
            Closing(database.stop),
            Closing(redis.close),
            revoked,
            reads,
            hashing,
            relay,
            batcher,
            jobs.FirstStart(ports, batcher, settings.admin_username, settings.admin_password),
            Every(jobs.REMIND_S, partial(usecases.remind_revocations, ports), "remind-revocations"),
            Every(jobs.FORGET_S, partial(usecases.forget_sessions, ports), "forget-sessions"),
        ),
        revoked=revoked,
    )
