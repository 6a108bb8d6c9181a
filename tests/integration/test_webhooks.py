"""Webhooks as they run: real gRPC, SQL, broker, and a receiver behind a real HTTP server on loopback."""

from __future__ import annotations

import base64
import dataclasses
import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest
import sqlalchemy as sa
from google.protobuf.message import Message
from standardwebhooks import Webhook, WebhookVerificationError

from paymesh.notification.v1 import notification_service_pb2 as pb
from paymesh.notification.v1 import notification_service_pb2_grpc as rpc
from paymesh.notification.v1 import webhook_pb2
from paymesh.order.v1 import order_event_pb2 as order_pb
from paymesh.payment.v1 import payment_event_pb2 as payment_pb
from paymesh.type.v1.money_pb2 import Money
from services.contract.load import contract
from services.kernel.clock import SystemClock
from services.notification import audit
from services.notification.adapters.webhook import HttpHooks
from services.notification.app import build
from services.notification.domain import Attempt, Outcome
from services.notification.settings import Address, Places, Settings, Url
from services.notification.store.tables import inbox, notifications, webhook_deliveries
from services.platform import pki
from services.platform.broker import EventProducer, Record
from services.platform.database import Database
from services.platform.status import error_from
from tests.leaks import Leaks
from tests.receiver import Receiver, answer
from tests.running import Served

R = TypeVar("R", bound=Message)

PENDING, DELIVERED, FAILED = (
    webhook_pb2.WebhookDelivery.STATUS_PENDING,
    webhook_pb2.WebhookDelivery.STATUS_DELIVERED,
    webhook_pb2.WebhookDelivery.STATUS_FAILED,
)
SCOPES = "webhooks:read webhooks:write"
TIMEOUT_S = 0.5


def sleep(seconds: float) -> Callable[[BaseHTTPRequestHandler], None]:
    """Say nothing for some time, then that all is well."""

    def do(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(seconds)
        answer(204)(handler)

    return do


def drip(handler: BaseHTTPRequestHandler) -> None:
    """Answer a byte at a time, and never come to an end."""
    for byte in b"HTTP/1.1 200 OK\r\nx-slow: " + b"x" * 1000:
        try:
            handler.wfile.write(bytes([byte]))
            handler.wfile.flush()
        except OSError:
            return
        time.sleep(0.05)


def flood(handler: BaseHTTPRequestHandler) -> None:
    """Say that all is well, and a lot more."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n")
    try:
        while True:
            handler.wfile.write(b"x" * 65536)
    except OSError:
        return


class Merchant:
    """The service under test, as an operator of the merchant calls it."""

    def __init__(self, served: Served, settings: Settings) -> None:
        self.served, self.settings = served, settings
        self.stub = rpc.NotificationServiceStub(served.channel)
        self._keys = 0

    def ask(self, method: Callable[..., R], request: object, *, scope: str = SCOPES, key: str = "") -> R:
        """Call through the edge."""
        return self.served.call(method, request, user=1, scope=scope, key=key)

    def create(self, url: str, *topics: str) -> pb.CreateWebhookEndpointResponse:
        """Make an endpoint."""
        self._keys += 1
        request = pb.CreateWebhookEndpointRequest(url=url, event_types=topics or ["payment.success"])
        return self.ask(self.stub.CreateWebhookEndpoint, request, key=f"endpoint-{self._keys}")

    def endpoints(self) -> list[webhook_pb2.WebhookEndpoint]:
        """List endpoints."""
        return list(self.ask(self.stub.ListWebhookEndpoints, pb.ListWebhookEndpointsRequest()).endpoints)

    def deliveries(self, endpoint_id: int) -> list[webhook_pb2.WebhookDelivery]:
        """List deliveries."""
        request = pb.ListWebhookDeliveriesRequest(endpoint_id=endpoint_id, page_size=100)
        return list(self.ask(self.stub.ListWebhookDeliveries, request).deliveries)

    def statuses(self, endpoint_id: int) -> list[int]:
        """Where the deliveries stand, newest first."""
        return [each.status for each in self.deliveries(endpoint_id)]

    def publish(self, service: str, number: int, event: Message) -> None:
        """Put an event on the broker as the relay of its service does."""
        topic = contract().events[event.DESCRIPTOR.full_name].topic
        producer = EventProducer(self.settings.kafka)
        record = Record(topic, b"1", event.SerializeToString(), (("ce_id", f"{service}-{number}".encode()),))
        assert producer.publish([record]) == [True]
        producer.stop()

    def pay(self, *numbers: int) -> None:
        """Publish payment.success."""
        for number in numbers:
            self.publish("payment", number, payment_pb.PaymentSuccess(payment_id=number, version=2, payment_no="P1"))


def eventually(check: Callable[[], bool], seconds: float = 20) -> bool:
    """Whether ``check`` holds within some time."""
    until = time.monotonic() + seconds
    while not check():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def look(settings: Settings, query: sa.Select[Any]) -> list[Any]:
    """Read the room's database beside the service."""
    database = Database(f"sqlite:///{settings.data / 'notification.db'}")
    with database.read() as connection:
        found = list(connection.execute(query).all())
    database.stop()
    return found


def breaches(settings: Settings) -> list[str]:
    """Ask the audit, with nothing on its way."""
    database = Database(f"sqlite:///{settings.data / 'notification.db'}")
    with database.read() as connection:
        found = audit.invariants(connection, settled=True, now_ms=int(time.time() * 1000))
        said = [breach for finding in found for breach in finding.breaches]
    database.stop()
    return said


def refusal(call: Callable[[], object]) -> tuple[str, str]:
    """The reason of a call that is refused, and the word of its metadata that says why."""
    with pytest.raises(grpc.RpcError) as raised:
        call()
    error = error_from(raised.value)
    return error.reason, error.metadata.get("why", "")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as found:
        yield found


@pytest.fixture
def settings(run_dir: Path, redis_url: str, kafka: str, receiver: Receiver) -> Settings:
    """Pauses of 5 ms and up to 86 s; nothing listens for mails and messages."""
    return Settings(
        data=run_dir,
        listen=f"unix:{run_dir}/n.sock",
        redis_url=redis_url,
        kafka=kafka,
        smtp=Address("127.0.0.1:9"),
        sms_url=Url("http://127.0.0.1:9/sms"),
        push_url=Url("http://127.0.0.1:9/pushes"),
        webhook_allow=Places(receiver.place),
        webhook_timeout_s=TIMEOUT_S,
        webhook_time_scale=0.001,
    )


@pytest.fixture
def merchant(settings: Settings) -> Iterator[Merchant]:
    with Served(build(settings)) as served:
        yield Merchant(served, settings)


def test_event_is_posted_with_a_signature_that_verifies(merchant: Merchant, receiver: Receiver) -> None:
    """The library of Standard Webhooks accepts it, and no other secret's; data is the event as the edge would show it."""
    made = merchant.create(f"http://{receiver.place}/hook?shop=1")
    merchant.pay(1)
    assert eventually(lambda: merchant.statuses(made.endpoint.id) == [DELIVERED])
    [(path, headers, body)] = receiver.requests
    said = Webhook(made.secret).verify(body, headers)
    assert (path, headers["host"], headers["content-type"]) == ("/hook?shop=1", receiver.place, "application/json")
    assert (said["type"], said["data"]["payment_id"], said["data"]["payment_no"]) == ("payment.success", "1", "P1")
    with pytest.raises(WebhookVerificationError):
        Webhook("whsec_" + base64.b64encode(b"x" * 32).decode()).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(made.secret).verify(body.replace(b"P1", b"P2"), headers)
    [delivery] = merchant.deliveries(made.endpoint.id)
    assert (delivery.attempts, delivery.failure, delivery.event_type) == (1, "", "payment.success")
    assert (delivery.webhook_id, delivery.HasField("deliver_time")) == (headers["webhook-id"], True)
    assert len(base64.b64decode(made.secret.removeprefix("whsec_"))) == 32


def test_event_that_comes_twice_is_one_delivery(merchant: Merchant, receiver: Receiver) -> None:
    """To each endpoint that wants it; mails of the same event stay what they were, in the same transaction."""
    one = merchant.create(f"http://{receiver.place}/one", "order.paid", "order.created")
    two = merchant.create(f"http://{receiver.place}/two", "order.paid")
    merchant.create(f"http://{receiver.place}/other", "payment.failed")
    amount = Money(currency_code="CNY", minor_units=1234)
    paid = order_pb.OrderPaid(order_id=5, version=2, user_id=7, order_no="O5", amount=amount, payment_id=9)
    for _ in range(3):
        merchant.publish("order", 1, paid)
    merchant.publish("order", 2, order_pb.OrderCreated(order_id=6, version=1))
    assert eventually(lambda: merchant.statuses(one.endpoint.id) == [DELIVERED, DELIVERED])
    assert eventually(lambda: merchant.statuses(two.endpoint.id) == [DELIVERED])
    assert sorted(path for path, _, _ in receiver.requests) == ["/one", "/one", "/two"]
    assert len(set(receiver.ids)) == 3
    assert look(merchant.settings, sa.select(notifications.c.event_id)) == [("order-1",)]
    assert sorted(look(merchant.settings, sa.select(inbox.c.event_id))) == [("order-1",), ("order-2",)]


def test_try_that_fails_or_takes_too_long_is_made_again(merchant: Merchant, receiver: Receiver) -> None:
    """Under the same id and with the same body, each signed for its own second; a redirect is a failure like another."""
    elsewhere = answer(302, location=f"http://{receiver.place}/elsewhere")
    receiver.script = [answer(500), sleep(4 * TIMEOUT_S), elsewhere]
    made = merchant.create(f"http://{receiver.place}/hook")
    merchant.pay(1)
    assert eventually(lambda: merchant.statuses(made.endpoint.id) == [DELIVERED])
    assert merchant.deliveries(made.endpoint.id)[0].attempts == len(receiver.requests) == 4
    assert len(set(receiver.ids)) == len({body for _, _, body in receiver.requests}) == 1
    assert {path for path, _, _ in receiver.requests} == {"/hook"}
    for _, headers, body in receiver.requests:
        Webhook(made.secret).verify(body, headers)
    assert breaches(merchant.settings) == []


def test_endpoint_that_is_gone_is_disabled(merchant: Merchant, receiver: Receiver) -> None:
    """After 410 nothing is posted to it, until an operator enables it and sends again what failed."""
    receiver.script = [answer(410)]
    made = merchant.create(f"http://{receiver.place}/hook")
    merchant.pay(1)
    assert eventually(lambda: not merchant.endpoints()[0].enabled)
    assert merchant.endpoints()[0].disable_reason == "gone"
    [delivery] = merchant.deliveries(made.endpoint.id)
    assert (delivery.status, delivery.failure, delivery.HasField("next_attempt_time")) == (
        FAILED,
        "answered 410",
        False,
    )
    merchant.pay(2)
    taken = sa.select(inbox.c.event_id).where(inbox.c.event_id == "payment-2")
    assert eventually(lambda: len(look(merchant.settings, taken)) == 1)
    assert len(merchant.deliveries(made.endpoint.id)) == len(receiver.requests) == 1
    again = pb.ResendWebhookDeliveryRequest(id=delivery.id)
    assert refusal(lambda: merchant.ask(merchant.stub.ResendWebhookDelivery, again))[0] == "WEBHOOK_ENDPOINT_DISABLED"
    enable = pb.UpdateWebhookEndpointRequest(id=made.endpoint.id, enabled=True)
    assert merchant.ask(merchant.stub.UpdateWebhookEndpoint, enable).endpoint.enabled
    assert merchant.ask(merchant.stub.ResendWebhookDelivery, again).delivery.status == PENDING
    assert eventually(lambda: merchant.statuses(made.endpoint.id) == [DELIVERED])
    assert len(set(receiver.ids)) == 1


def test_delivery_is_given_up_after_ten_tries_and_can_be_resent(settings: Settings, receiver: Receiver) -> None:
    """Then it is failed for good, unless somebody asks; one that was delivered is not sent again."""
    receiver.script = [answer(500)] * 10
    with Served(build(dataclasses.replace(settings, webhook_time_scale=0.0))) as served:
        merchant = Merchant(served, settings)
        made = merchant.create(f"http://{receiver.place}/hook")
        merchant.pay(1)
        assert eventually(lambda: merchant.statuses(made.endpoint.id) == [FAILED])
        [delivery] = merchant.deliveries(made.endpoint.id)
        assert (delivery.attempts, delivery.failure, len(receiver.requests)) == (10, "answered 500", 10)
        again = pb.ResendWebhookDeliveryRequest(id=delivery.id)
        merchant.ask(merchant.stub.ResendWebhookDelivery, again)
        assert eventually(lambda: merchant.statuses(made.endpoint.id) == [DELIVERED])
        assert (merchant.deliveries(made.endpoint.id)[0].attempts, len(set(receiver.ids))) == (11, 1)
        reason, _ = refusal(lambda: merchant.ask(merchant.stub.ResendWebhookDelivery, again))
        assert reason == "WEBHOOK_DELIVERY_STATUS_CONFLICT"


def test_try_whose_outcome_was_lost_is_made_again(settings: Settings, receiver: Receiver) -> None:
    """The service ends after the endpoint took it and before that was stored: it is sent again, under the same id."""
    slow = dataclasses.replace(settings, webhook_timeout_s=20.0)
    receiver.script = [sleep(6)]
    with Served(build(slow)) as served:
        made = Merchant(served, slow).create(f"http://{receiver.place}/hook")
        Merchant(served, slow).pay(1)
        assert eventually(lambda: len(receiver.requests) == 1)
        served.stop()
    assert [(row.status, row.attempts) for row in look(settings, sa.select(webhook_deliveries))] == [("pending", 1)]
    database = Database(f"sqlite:///{settings.data / 'notification.db'}")
    with database.write() as connection:  # the lease ends
        connection.execute(sa.update(webhook_deliveries).values(due_ms=0))
        connection.commit()
    database.stop()
    with Served(build(settings)) as served:
        merchant = Merchant(served, settings)
        assert eventually(lambda: merchant.statuses(made.endpoint.id) == [DELIVERED])
        assert merchant.deliveries(made.endpoint.id)[0].attempts == len(receiver.requests) == 2
        assert len(set(receiver.ids)) == 1
    assert breaches(settings) == []


def test_both_secrets_sign_after_a_rotation(merchant: Merchant, receiver: Receiver) -> None:
    """So that the receiver can change over when it likes; a repeat of the rotation gets the same secret."""
    made = merchant.create(f"http://{receiver.place}/hook")
    request = pb.RotateWebhookSecretRequest(id=made.endpoint.id)
    turned = merchant.ask(merchant.stub.RotateWebhookSecret, request, key="rotate-0001")
    assert merchant.ask(merchant.stub.RotateWebhookSecret, request, key="rotate-0001") == turned
    assert turned.secret != made.secret
    until = turned.endpoint.old_secret_expire_time.seconds - time.time()
    assert 23.9 * 3600 < until <= 24 * 3600
    merchant.pay(1)
    assert eventually(lambda: len(receiver.requests) == 1)
    [(_, headers, body)] = receiver.requests
    for secret in (made.secret, turned.secret):
        assert json.loads(body) == Webhook(secret).verify(body, headers)


def test_secret_is_told_once_and_kept_nowhere_in_clear(
    merchant: Merchant, receiver: Receiver, capfd: pytest.CaptureFixture[str]
) -> None:
    """A repeat under the same key gets it again; no list does, and neither files nor the log have it in any form."""
    request = pb.CreateWebhookEndpointRequest(url=f"http://{receiver.place}/hook", event_types=["payment.success"])
    made = merchant.ask(merchant.stub.CreateWebhookEndpoint, request, key="endpoint-00001")
    assert merchant.ask(merchant.stub.CreateWebhookEndpoint, request, key="endpoint-00001") == made
    turn = pb.RotateWebhookSecretRequest(id=made.endpoint.id)
    turned = merchant.ask(merchant.stub.RotateWebhookSecret, turn, key="rotate-0001")
    merchant.pay(1)
    assert eventually(lambda: merchant.statuses(made.endpoint.id) == [DELIVERED])
    [listed] = merchant.endpoints()
    assert listed == turned.endpoint
    time.sleep(0.3)  # the access log writes every 100 ms
    keys = [base64.b64decode(each.secret.removeprefix("whsec_")) for each in (made, turned)]
    leaks = Leaks((), (), keys)
    assert leaks.in_bytes(made.secret.encode())
    assert leaks.in_files(merchant.settings.data) == []
    assert leaks.in_text(*capfd.readouterr()) == []


def test_url_that_may_not_be_called_is_refused(merchant: Merchant, receiver: Receiver) -> None:
    """Plain, private, in odd spelling, or unknown; a place is allowed by host and port."""
    for url, why in (
        ("http://shop.example/hook", "not_https"),
        (f"http://localhost:{receiver.port}/hook", "not_https"),
        ("https://127.0.0.1/hook", "address_not_public"),
        ("https://2130706433/hook", "address_not_public"),
        ("https://[::ffff:169.254.169.254]/latest/meta-data", "address_not_public"),
        ("https://localhost/hook", "address_not_public"),
        ("https://no-such-host.invalid/hook", "host_unknown"),
        ("https://user:pw@shop.example/hook", "url_malformed"),
    ):
        assert refusal(lambda url=url: merchant.create(url)) == ("WEBHOOK_URL_REFUSED", why)  # type: ignore[misc]
    assert merchant.endpoints() == []


def test_callers_are_refused_what_the_contract_says(merchant: Merchant, receiver: Receiver) -> None:
    """Scopes, keys, topics, ids that are not there."""
    stub, url = merchant.stub, f"http://{receiver.place}/hook"
    good = pb.CreateWebhookEndpointRequest(url=url, event_types=["payment.success"])
    made = merchant.create(url)
    listing = pb.ListWebhookDeliveriesRequest(endpoint_id=9)
    for method, request, scope, key, reason in (
        (stub.CreateWebhookEndpoint, good, "webhooks:read", "key-00000001", "SCOPE_MISSING"),
        (stub.ListWebhookEndpoints, pb.ListWebhookEndpointsRequest(), "", "", "SCOPE_MISSING"),
        (stub.CreateWebhookEndpoint, good, SCOPES, "", "IDEMPOTENCY_KEY_MISSING"),
        (
            stub.RotateWebhookSecret,
            pb.RotateWebhookSecretRequest(id=made.endpoint.id),
            SCOPES,
            "",
            "IDEMPOTENCY_KEY_MISSING",
        ),
        (
            stub.CreateWebhookEndpoint,
            pb.CreateWebhookEndpointRequest(url=url, event_types=["user.created"]),
            SCOPES,
            "key-00000002",
            "INVALID_ARGUMENT",
        ),
        (
            stub.UpdateWebhookEndpoint,
            pb.UpdateWebhookEndpointRequest(id=made.endpoint.id),
            SCOPES,
            "",
            "INVALID_ARGUMENT",
        ),
        (stub.ListWebhookDeliveries, listing, SCOPES, "", "WEBHOOK_ENDPOINT_NOT_FOUND"),
        (stub.ResendWebhookDelivery, pb.ResendWebhookDeliveryRequest(id=9), SCOPES, "", "WEBHOOK_DELIVERY_NOT_FOUND"),
    ):
        assert refusal(lambda m=method, r=request, s=scope, k=key: merchant.ask(m, r, scope=s, key=k))[0] == reason  # type: ignore[misc]
    delete = pb.DeleteWebhookEndpointRequest(id=made.endpoint.id)
    merchant.ask(stub.DeleteWebhookEndpoint, delete)
    assert refusal(lambda: merchant.ask(stub.DeleteWebhookEndpoint, delete))[0] == "WEBHOOK_ENDPOINT_NOT_FOUND"
    assert merchant.endpoints() == []


def test_endpoint_that_hangs_leaves_room_for_others(settings: Settings, receiver: Receiver) -> None:
    """Half of the threads are all that it gets, however much waits for it."""
    with Receiver() as dead:
        dead.script = [sleep(9)] * 40
        both = dataclasses.replace(
            settings,
            webhook_allow=Places(f"{receiver.place},{dead.place}"),
            webhook_timeout_s=10.0,
            webhook_senders=4,
        )
        with Served(build(both)) as served:
            merchant = Merchant(served, both)
            merchant.create(f"http://{dead.place}/hook")
            good = merchant.create(f"http://{receiver.place}/hook")
            merchant.pay(*range(1, 7))
            assert eventually(lambda: merchant.statuses(good.endpoint.id) == [DELIVERED] * 6, 8)
            assert len(dead.requests) == 2


# -- The sender alone --------------------------------------------------------------------------------------------------


def attempt(url: str) -> Attempt:
    return Attempt(5, 7, 1, url, "msg_7_payment-9", b'{"type":"payment.success"}', (b"s" * 32,))


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[tuple[Receiver, ssl.SSLContext]]:
    """A receiver with a certificate for hooks.example, and whom to trust for it."""
    authority = pki.make_authority()
    pair = authority.issue_server("hooks.example", names=["hooks.example"])
    for name, text in (("cert.pem", pair.cert_pem), ("key.pem", pair.key_pem), ("ca.pem", authority.cert_pem)):
        (tmp_path / name).write_text(text)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    with Receiver(tls) as found:
        yield found, ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))


def hooks(
    receiver: Receiver, tls: ssl.SSLContext | None, *answers: list[str], name: str = "hooks.example"
) -> HttpHooks:
    """A sender for whom the name's addresses are each of ``answers`` in turn; only the receiver's place is allowed."""
    left = list(answers)
    allowed = Places(f"{name}:{receiver.port},{receiver.place}")
    return HttpHooks(allowed, TIMEOUT_S, SystemClock(), resolve=lambda _host, _port: left.pop(0), tls=tls)


def test_connection_goes_to_the_checked_address_under_the_hosts_name(secure: tuple[Receiver, ssl.SSLContext]) -> None:
    """One look-up a try; TLS and Host have the name, and the certificate must be for it. Nobody resolves hooks.example."""
    receiver, tls = secure
    url = f"https://hooks.example:{receiver.port}/hook"
    assert hooks(receiver, tls, ["127.0.0.1"]).post(attempt(url)) == Outcome()
    [(_, headers, _)] = receiver.requests
    assert headers["host"] == f"hooks.example:{receiver.port}"
    stranger = f"https://other.example:{receiver.port}/hook"
    refused = hooks(receiver, tls, ["127.0.0.1"], name="other.example").post(attempt(stranger))
    assert refused == Outcome("not reached: SSLCertVerificationError")
    assert hooks(receiver, None, ["127.0.0.1"]).post(attempt(url)) == Outcome("not reached: SSLCertVerificationError")
    assert len(receiver.requests) == 1


def test_second_address_is_tried_when_the_first_does_not_answer(secure: tuple[Receiver, ssl.SSLContext]) -> None:
    """Nothing listens at 127.0.0.2; without any that answers it is a failure."""
    receiver, tls = secure
    url = f"https://hooks.example:{receiver.port}/hook"
    assert hooks(receiver, tls, ["127.0.0.2", "127.0.0.1"]).post(attempt(url)) == Outcome()
    assert hooks(receiver, tls, ["127.0.0.2"]).post(attempt(url)) == Outcome("not reached: ConnectionRefusedError")


def test_host_that_moves_to_a_private_address_is_not_called() -> None:
    """What was public when the endpoint was made is checked again at each try, and answered from that very check."""
    with Receiver() as receiver:
        answers = [["8.8.8.8"], ["127.0.0.1"], ["8.8.8.8", "127.0.0.1"], []]
        sender = HttpHooks(Places(), TIMEOUT_S, SystemClock(), resolve=lambda _host, _port: answers.pop(0))
        url = f"https://rebind.example:{receiver.port}/hook"
        sender.check(url)
        for why in ("address_not_public", "address_not_public", "host_unknown"):
            assert sender.post(attempt(url)) == Outcome(f"the URL is not called: {why}")
        assert receiver.requests == []


NO_HTTP = Outcome("not reached: RemoteProtocolError")


@pytest.mark.parametrize(
    ("deed", "outcome"),
    [
        (drip, Outcome("no answer in time")),
        (flood, Outcome()),
        (sleep(3 * TIMEOUT_S), Outcome("no answer in time")),
        (lambda handler: handler.connection.shutdown(socket.SHUT_RDWR), NO_HTTP),
        (lambda handler: handler.wfile.write(b"SSH-2.0-x\r\n"), NO_HTTP),
        (
            lambda handler: handler.wfile.write(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 500_000),
            NO_HTTP,
        ),
        (answer(199), NO_HTTP),
        (answer(299), Outcome()),
        (answer(300), Outcome("answered 300")),
        (answer(410), Outcome("answered 410", gone=True)),
    ],
    ids=["drips", "floods", "hangs", "hangs up", "is no HTTP", "has no end of head", "is interim", "299", "300", "410"],
)
def test_answer_is_bounded_in_time_and_size(
    receiver: Receiver, deed: Callable[[BaseHTTPRequestHandler], None], outcome: Outcome
) -> None:
    """Whatever comes back, a try ends within its time-out, and only a status is learned from it."""
    receiver.script = [deed]
    began = time.monotonic()
    assert hooks(receiver, None, ["127.0.0.1"]).post(attempt(f"http://{receiver.place}/hook")) == outcome
    assert time.monotonic() - began < TIMEOUT_S + 0.5
