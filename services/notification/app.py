"""Composition root of the notification service: the only file that sees everyone."""

from __future__ import annotations

import random
import secrets
import threading
from functools import partial
from typing import TYPE_CHECKING

from paymesh.notification.v1 import notification_service_pb2_grpc as rpc
from services.kernel.clock import SystemClock
from services.kernel.ids import IdMaker
from services.notification import mapping, usecases
from services.notification.adapters.http import HttpSender
from services.notification.adapters.redis import RedisQueue
from services.notification.adapters.smtp import SmtpSender
from services.notification.adapters.texts import TemplateTexts
from services.notification.adapters.webhook import HttpHooks
from services.notification.consumer import SUBSCRIPTIONS
from services.notification.domain import Channel
from services.notification.jobs import QUEUE_WAIT_S, Dispatcher, WebhookDispatcher
from services.notification.ports import Ports, Sender
from services.notification.servicer import NotificationServicer
from services.notification.store import SqlStore
from services.notification.store.tables import outbox, relay_lease
from services.platform import migrations
from services.platform.batcher import Batcher
from services.platform.consumer import EventConsumer
from services.platform.database import Database
from services.platform.idempotency import business_reasons
from services.platform.masterkey import MasterKey
from services.platform.process import App, Closing, Opening
from services.platform.reads import ReadPool
from services.platform.relay import Relay
from services.platform.revocation import RevokedSessions

if TYPE_CHECKING:
    from services.notification.settings import Settings

NAME = "notification"
CASES = (
    "send_notifications",
    "know_contacts",
    "tell",
    "claim",
    "settle",
    "push_due",
    "create_webhook_endpoints",
    "update_webhook_endpoints",
    "delete_webhook_endpoints",
    "rotate_webhook_secrets",
    "claim_deliveries",
    "settle_deliveries",
    "resend_webhook_deliveries",
)
"""The use cases that write."""
CHECKS_AT_ONCE = 2
"""Look-ups of hosts at the same time: an operator makes endpoints seldom."""


def build(settings: Settings) -> App:
    """Make the notification service; nothing runs and nothing is connected yet."""
    clock = SystemClock()
    ids = IdMaker(clock, settings.instance)
    url = settings.database_url or f"sqlite:///{settings.data / 'notification.db'}"
    database = Database(url)
    queue = RedisQueue(settings.redis_url, settings.instance, QUEUE_WAIT_S)
    sms = HttpSender(settings.sms_url, settings.send_timeout_s)
    push = HttpSender(settings.push_url, settings.send_timeout_s)
    mail = SmtpSender(settings.smtp, settings.mail_from, settings.send_timeout_s)
    relay = Relay(NAME, database, (outbox, relay_lease), settings.kafka, clock, unread_max=settings.relay_unread_max)
    posted = threading.Event()
    ports = Ports(
        store=SqlStore(database, ids),
        queue=queue,
        texts=TemplateTexts(),
        hooks=HttpHooks(settings.webhook_allow, settings.webhook_timeout_s, clock),
        seal=MasterKey(settings.data / "keys", NAME),
        ids=ids,
        clock=clock,
        random_bytes=secrets.token_bytes,
        jitter=random.random,
        render=mapping.answer,
        render_created=mapping.webhook_created,
        render_rotated=mapping.webhook_rotated,
        business=business_reasons(),
        committed=relay.nudge,
        posted=posted.set,
        operators_email=settings.operators_email,
        time_scale=settings.webhook_time_scale,
    )
    batcher = Batcher({case: partial(getattr(usecases, case), ports) for case in CASES})
    reads, checks, revoked = ReadPool(), ReadPool(CHECKS_AT_ONCE), RevokedSessions(settings.redis_url)
    senders: dict[Channel, Sender] = {Channel.SMS: sms, Channel.EMAIL: mail, Channel.PUSH: push}
    servicer = NotificationServicer(ports, batcher, reads, checks)
    return App(
        name=NAME,
        settings=settings,
        register=partial(rpc.add_NotificationServiceServicer_to_server, servicer),
        parts=(
            Opening(partial(migrations.upgrade, NAME, url)),
            Closing(database.stop),
            Closing(queue.stop),
            Closing(sms.stop),
            Closing(push.stop),
            revoked,
            reads,
            checks,
            relay,
            batcher,
            Dispatcher(ports, batcher, senders, settings.senders),
            WebhookDispatcher(ports, batcher, posted, settings.webhook_senders),
            EventConsumer(NAME, SUBSCRIPTIONS, batcher, settings.kafka),
        ),
        revoked=revoked,
    )
