"""Composition root of the notification service: the only file that sees everyone."""

from __future__ import annotations

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
from services.notification.consumer import SUBSCRIPTIONS
from services.notification.domain import Channel
from services.notification.jobs import QUEUE_WAIT_S, Dispatcher
from services.notification.ports import Ports, Sender
from services.notification.servicer import NotificationServicer
from services.notification.store import SqlStore, outbox, relay_lease
from services.platform import migrations
from services.platform.batcher import Batcher
from services.platform.consumer import EventConsumer
from services.platform.database import Database
from services.platform.idempotency import business_reasons
from services.platform.process import App, Closing, Opening
from services.platform.reads import ReadPool
from services.platform.relay import Relay
from services.platform.revocation import RevokedSessions

if TYPE_CHECKING:
    from services.notification.settings import Settings

NAME = "notification"


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
    ports = Ports(
        store=SqlStore(database, ids),
        queue=queue,
        texts=TemplateTexts(),
        ids=ids,
        clock=clock,
        render=mapping.answer,
        business=business_reasons(),
        committed=relay.nudge,
        operators_email=settings.operators_email,
    )
    cases = ("send_notifications", "know_contacts", "tell", "claim", "settle", "push_due")
    batcher = Batcher({case: partial(getattr(usecases, case), ports) for case in cases})
    reads, revoked = ReadPool(), RevokedSessions(settings.redis_url)
    senders: dict[Channel, Sender] = {Channel.SMS: sms, Channel.EMAIL: mail, Channel.PUSH: push}
    servicer = NotificationServicer(ports, batcher, reads)
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
            relay,
            batcher,
            Dispatcher(ports, batcher, senders, settings.senders),
            EventConsumer(NAME, SUBSCRIPTIONS, batcher, settings.kafka),
        ),
        revoked=revoked,
    )
