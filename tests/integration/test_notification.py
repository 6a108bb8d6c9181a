"""The notification service as it runs: real gRPC, SQL, Valkey, broker, SMTP and HTTP providers."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import grpc
import httpx
import pytest
import redis as redispy
from google.protobuf.message import Message

from paymesh.notification.v1 import notification_pb2
from paymesh.notification.v1 import notification_service_pb2 as pb
from paymesh.notification.v1 import notification_service_pb2_grpc as rpc
from paymesh.order.v1 import order_event_pb2 as order_pb
from paymesh.risk.v1 import risk_event_pb2 as risk_pb
from paymesh.type.v1.money_pb2 import Money
from paymesh.user.v1 import user_event_pb2 as user_pb
from services.contract.load import contract
from services.notification import audit
from services.notification.app import build
from services.notification.settings import Address, Settings, Url
from services.platform.broker import EventProducer, Record
from services.platform.database import Database
from services.platform.status import error_from
from services.sandbox.app import build as build_sandbox
from services.sandbox.settings import Settings as SandboxSettings
from tests.running import Served

QUEUED, SENT, FAILED = (
    notification_pb2.Notification.STATUS_QUEUED,
    notification_pb2.Notification.STATUS_SENT,
    notification_pb2.Notification.STATUS_FAILED,
)
USER = 7_000_001
SENDING = "notifications:send notifications:read"


class Outside:
    """The sandbox: what came to its providers, and how they misbehave."""

    def __init__(self) -> None:
        self.http, self.smtp = free_port(), free_port()
        self._server = build_sandbox(SandboxSettings(sandbox_http=self.http, sandbox_smtp=self.smtp))
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{self.http}", timeout=5)

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        assert eventually(lambda: self._server.started)
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._client.close()
        self._server.should_exit = True
        self._thread.join(10)

    def received(self, kind: str, to: str = "") -> list[dict[str, object]]:
        """Return the messages of ``mails``, ``sms`` or ``pushes``."""
        found = self._client.get(f"/{kind}", params={"to": to} if to else {}).json()["messages"]
        assert isinstance(found, list)
        return found

    def misbehave(self, kind: str, **script: object) -> None:
        """Set the script of a provider."""
        assert self._client.put(f"/scripts/{kind}", json=script).status_code == 200


class Notifications:
    """The service under test with its stub."""

    def __init__(self, served: Served, settings: Settings) -> None:
        self._served, self._settings = served, settings
        self.stub = rpc.NotificationServiceStub(served.channel)

    def ask(
        self, method: Callable[..., object], request: object, *, user: int = 1, scope: str = SENDING, key: str = ""
    ) -> object:
        """Call through the edge."""
        return self._served.call(method, request, user=user, scope=scope, key=key)

    def send_sms(self, text: str = "hi", key: str = "") -> notification_pb2.Notification:
        """Ask for a text message."""
        request = pb.SendSmsRequest(user_id=USER, phone="+8613800000000", text=text)
        answer = self.ask(self.stub.SendSms, request, key=key)
        assert isinstance(answer, pb.SendSmsResponse)
        return answer.notification

    def get(self, notification_id: int, *, user: int = 1, scope: str = SENDING) -> notification_pb2.Notification:
        """Read one."""
        request = pb.GetNotificationRequest(id=notification_id)
        answer = self.ask(self.stub.GetNotification, request, user=user, scope=scope)
        assert isinstance(answer, pb.GetNotificationResponse)
        return answer.notification

    def listed(self) -> list[notification_pb2.Notification]:
        """List the user's own."""
        request = pb.ListUserNotificationsRequest(user_id=USER)
        answer = self.ask(self.stub.ListUserNotifications, request, user=USER, scope="")
        assert isinstance(answer, pb.ListUserNotificationsResponse)
        return list(answer.notifications)

    def publish(self, service: str, number: int, event: Message) -> None:
        """Put an event on the broker as the relay of its service does."""
        topic = contract().events[event.DESCRIPTOR.full_name].topic
        producer = EventProducer(self._settings.kafka)
        record = Record(topic, b"1", event.SerializeToString(), (("ce_id", f"{service}-{number}".encode()),))
        assert producer.publish([record]) == [True]
        producer.stop()

    def breaches(self) -> list[str]:
        """Ask the audit."""
        database = Database(f"sqlite:///{self._settings.data / 'notification.db'}")
        with database.read() as connection:
            found = audit.invariants(connection, settled=False, now_ms=int(time.time() * 1000))
            breaches = [breach for finding in found for breach in finding.breaches]
        database.stop()
        return breaches


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def eventually(check: Callable[[], bool], seconds: float = 10) -> bool:
    """Whether ``check`` holds within some time."""
    until = time.monotonic() + seconds
    while not check():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


@pytest.fixture(scope="module")
def outside() -> Iterator[Outside]:
    with Outside() as found:
        yield found


@pytest.fixture
def settings(run_dir: Path, redis_url: str, kafka: str, outside: Outside) -> Settings:
    return Settings(
        data=run_dir,
        listen=f"unix:{run_dir}/n.sock",
        redis_url=redis_url,
        kafka=kafka,
        smtp=Address(f"127.0.0.1:{outside.smtp}"),
        sms_url=Url(f"http://127.0.0.1:{outside.http}/sms"),
        push_url=Url(f"http://127.0.0.1:{outside.http}/pushes"),
    )


@pytest.fixture
def notifications(settings: Settings) -> Iterator[Notifications]:
    with Served(build(settings)) as served:
        yield Notifications(served, settings)


def test_each_channel_reaches_its_provider(notifications: Notifications, outside: Outside) -> None:
    """Queued at once, sent within seconds, with time and one attempt; the provider has the very words."""
    stub, to = notifications.stub, f"u{time.time_ns()}@example.com"
    mail = pb.SendEmailRequest(user_id=USER, email=to, subject="问候 · Hello", text="你好\nhello")
    push = pb.SendPushRequest(user_id=USER, device_token=f"device-{time.time_ns()}", subject="S", text="T")
    made = [notifications.send_sms("验证码 1234")]
    mailed, pushed = notifications.ask(stub.SendEmail, mail), notifications.ask(stub.SendPush, push)
    assert isinstance(mailed, pb.SendEmailResponse)
    assert isinstance(pushed, pb.SendPushResponse)
    made += [mailed.notification, pushed.notification]
    assert {each.status for each in made} == {QUEUED}
    assert eventually(lambda: all(notifications.get(each.id).status == SENT for each in made))
    assert notifications.get(made[1].id).attempts == 1
    assert notifications.get(made[1].id).send_time.seconds > 0
    [received] = outside.received("mails", to)
    assert (received["subject"], str(received["text"]).strip().replace("\r\n", "\n")) == ("问候 · Hello", "你好\nhello")
    assert outside.received("sms")[-1]["text"] == "验证码 1234"
    assert [p["subject"] for p in outside.received("pushes", push.device_token)] == ["S"]


def test_repeat_with_the_same_key_is_one_message(notifications: Notifications, outside: Outside) -> None:
    """It gets the first answer, byte for byte."""
    text = f"once {time.time_ns()}"
    first = notifications.send_sms(text, key="sms-00000001")
    assert notifications.send_sms(text, key="sms-00000001") == first
    assert eventually(lambda: notifications.get(first.id).status == SENT)
    assert [m["text"] for m in outside.received("sms")].count(text) == 1


def test_events_become_mails(notifications: Notifications, outside: Outside) -> None:
    """The contact is learned from the user's events, even when another event was read before; each event is told once."""
    to = f"ann{time.time_ns()}@example.com"
    amount = Money(currency_code="CNY", minor_units=1234)
    paid = order_pb.OrderPaid(order_id=5, version=2, user_id=USER, order_no="O5", amount=amount, payment_id=9)
    notifications.publish("order", 1, paid)
    notifications.publish("order", 1, paid)
    assert eventually(lambda: len(notifications.listed()) == 1, 20)
    created = user_pb.UserCreated(user_id=USER, version=1, username="ann", email=to)
    notifications.publish("user", 1, created)
    blocked = risk_pb.RiskBlock(assessment_id=3, version=1, payment_id=9, user_id=USER, amount=amount, rules_hit=["r"])
    notifications.publish("risk", 1, blocked)
    assert eventually(lambda: len(outside.received("mails", to)) == 2, 20)
    subjects = {str(mail["subject"]) for mail in outside.received("mails", to)}
    assert subjects == {"欢迎使用 PayMesh,ann · Welcome to PayMesh, ann", "支付成功 · Payment received: 12.34 CNY"}
    assert eventually(
        lambda: any("9" in str(m["subject"]) for m in outside.received("mails", "ops@paymesh.example")), 20
    )
    assert eventually(lambda: {each.status for each in notifications.listed()} == {SENT})
    assert len(notifications.listed()) == 2  # the alert is for the operators alone
    assert notifications.breaches() == []


def test_provider_that_fails_is_tried_again(notifications: Notifications, outside: Outside) -> None:
    """After a second; a message that it took although it said no is recognised by its key, and arrives once."""
    text = f"again {time.time_ns()}"
    outside.misbehave("sms", fail=1, accept=True)
    made = notifications.send_sms(text)
    assert eventually(lambda: notifications.get(made.id).failure == "provider answered 503")
    assert notifications.get(made.id).status == QUEUED
    assert eventually(lambda: notifications.get(made.id).status == SENT)
    assert (notifications.get(made.id).attempts, notifications.get(made.id).failure) == (2, "")
    assert [m["text"] for m in outside.received("sms")].count(text) == 1


def test_mail_server_that_defers_is_tried_again(notifications: Notifications, outside: Outside) -> None:
    """The Message-ID makes the repeat the same mail; the failure names the code and no address."""
    to = f"later{time.time_ns()}@example.com"
    outside.misbehave("mails", fail=1, accept=True)
    request = pb.SendEmailRequest(email=to, subject="s", text="t")
    made = notifications.ask(notifications.stub.SendEmail, request)
    assert isinstance(made, pb.SendEmailResponse)
    assert eventually(lambda: notifications.get(made.notification.id).failure == "mail server answered 451")
    assert eventually(lambda: notifications.get(made.notification.id).status == SENT)
    assert len(outside.received("mails", to)) == 1


def test_lost_queue_is_rebuilt(notifications: Notifications, redis_url: str, outside: Outside) -> None:
    """Redis loses everything while a message pauses: it is sent nevertheless, for SQL knows of it."""
    outside.misbehave("sms", fail=1)
    made = notifications.send_sms()
    assert eventually(lambda: notifications.get(made.id).attempts == 1)
    with redispy.Redis.from_url(redis_url) as client:
        client.flushall()
    assert eventually(lambda: notifications.get(made.id).status == SENT)


def test_restart_takes_up_what_was_left(settings: Settings, outside: Outside, redis_url: str) -> None:
    """What was stored and never pushed, or taken and never tried, goes out after the start."""
    outside.misbehave("sms", fail=0, delay_ms=0)
    with Served(build(settings)) as served:
        notifications = Notifications(served, settings)
        outside.misbehave("sms", fail=1)
        made = notifications.send_sms()
        assert eventually(lambda: notifications.get(made.id).attempts == 1)
    with redispy.Redis.from_url(redis_url) as client:
        client.lpush("notifications:processing:1", made.id)
    with Served(build(settings)) as served:
        notifications = Notifications(served, settings)
        assert eventually(lambda: notifications.get(made.id).status == SENT)


def test_only_the_receiver_reads_it(notifications: Notifications) -> None:
    """Another's is as good as none; listing another's is refused; the scope lifts both."""
    made = notifications.send_sms()
    assert notifications.get(made.id, user=USER, scope="").id == made.id
    listing = pb.ListUserNotificationsRequest(user_id=USER)
    reading = pb.GetNotificationRequest(id=made.id)
    sending = pb.SendSmsRequest(phone="+8613800000000", text="x")
    for method, request, reason in (
        (notifications.stub.GetNotification, reading, "NOTIFICATION_NOT_FOUND"),
        (notifications.stub.ListUserNotifications, listing, "NOT_OWNER"),
        (notifications.stub.SendSms, sending, "SCOPE_MISSING"),
    ):
        with pytest.raises(grpc.RpcError) as raised:
            notifications.ask(method, request, user=USER + 1, scope="")
        assert error_from(raised.value).reason == reason
