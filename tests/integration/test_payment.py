"""The payment service as it runs: real gRPC, SQL, Valkey and broker; risk and order say what the test wants."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
import sqlalchemy as sa
from confluent_kafka import Consumer

from paymesh.order.v1 import order_event_pb2
from paymesh.payment.v1 import (
    payment_event_pb2,
    payment_pb2,
)
from paymesh.payment.v1 import (
    payment_service_pb2 as pb,
)
from paymesh.payment.v1 import (
    payment_service_pb2_grpc as rpc,
)
from paymesh.risk.v1 import risk_pb2
from paymesh.type.v1.money_pb2 import Money
from services.kernel.ids import EPOCH_MS
from services.payment import audit
from services.payment.app import build
from services.payment.settings import Settings
from services.payment.store.tables import outbox
from services.platform import migrations
from services.platform.broker import EventProducer, Record
from services.platform.database import Database
from services.platform.status import error_from
from tests.fakes.mesh import FakeMesh
from tests.running import Served

BALANCE = payment_pb2.Payment.METHOD_BALANCE
SUCCESS = payment_pb2.Payment.STATUS_SUCCESS
USER = 7_000_001


class Payments:
    """The service under test with its stub and its neighbours."""

    def __init__(self, served: Served, mesh: FakeMesh, database_url: str, kafka: str) -> None:
        self.served, self.mesh, self.database_url, self.kafka = served, mesh, database_url, kafka
        self.stub = rpc.PaymentServiceStub(served.channel)

    def top_up(self, minor_units: int, user: int = USER, key: str = "top-up-0001") -> int:
        """Top up a balance; returns it."""
        request = pb.TopUpBalanceRequest(user_id=user, amount=Money(currency_code="CNY", minor_units=minor_units))
        answer = self.served.call(self.stub.TopUpBalance, request, user=1, scope="balance:write", key=key)
        return int(answer.balance.amount.minor_units)

    def pay(self, order_id: int, user: int = USER, key: str = "", **fields: object) -> pb.CreatePaymentResponse:
        """Pay an order, with a key of its own unless one is given."""
        request = pb.CreatePaymentRequest(order_id=order_id, **{"method": BALANCE, **fields})  # type: ignore[arg-type]
        answer: pb.CreatePaymentResponse = self.served.call(
            self.stub.CreatePayment, request, user=user, key=key or f"pay-{order_id:08}"
        )
        return answer

    def refund(
        self, payment_id: int, minor_units: int = 0, user: int = USER, key: str = "refund-0001", scope: str = ""
    ) -> pb.RefundPaymentResponse:
        """Refund a payment, whole unless an amount is given."""
        amount = Money(currency_code="CNY", minor_units=minor_units) if minor_units else None
        request = pb.RefundPaymentRequest(id=payment_id, amount=amount)
        answer: pb.RefundPaymentResponse = self.served.call(
            self.stub.RefundPayment, request, user=user, key=key, scope=scope
        )
        return answer

    def balance(self, user: int = USER) -> int:
        """Return a balance."""
        answer = self.served.call(self.stub.GetBalance, pb.GetBalanceRequest(user_id=user), user=user)
        return int(answer.balance.amount.minor_units)

    def breaches(self, *, settled: bool = False) -> list[str]:
        """What the audit finds."""
        database = Database(self.database_url)
        with database.read() as connection:
            found = [
                b for f in audit.invariants(connection, int(time.time() * 1000), settled=settled) for b in f.breaches
            ]
        database.stop()
        return found


@pytest.fixture
def payments(run_dir: Path, tmp_path: Path, redis_url: str, kafka: str) -> Iterator[Payments]:
    """A payment service over an empty database."""
    url = f"sqlite:///{tmp_path / 'payment.db'}"
    migrations.upgrade("payment", url)
    settings = Settings(data=tmp_path, listen=f"unix:{run_dir}/p.sock", mesh=f"unix:{run_dir}/out.sock",
                        database_url=url, redis_url=redis_url, kafka=kafka)  # fmt: skip
    fake = FakeMesh(settings.mesh)  # type: ignore[abstract] # payment asks for two of their methods
    with fake as mesh, Served(build(settings)) as served:
        yield Payments(served, mesh, url, kafka)


def reason(caught: pytest.ExceptionInfo[grpc.RpcError]) -> str:
    """The reason of the contract that a call was refused with."""
    return error_from(caught.value).reason


def test_payment_takes_the_money_once_when_it_is_repeated(payments: Payments) -> None:
    """The same key gets the same bytes, whatever happens, and the money moves once."""
    payments.top_up(1000)
    payments.mesh.add_order(11, USER, 300)
    first = payments.pay(11)
    assert first.payment.status == SUCCESS
    assert payments.pay(11).SerializeToString() == first.SerializeToString()
    with ThreadPoolExecutor(20) as pool:
        again = list(pool.map(lambda _: payments.pay(11).SerializeToString(), range(20)))
    assert set(again) == {first.SerializeToString()}
    assert payments.balance() == 700
    assert len(payments.mesh.assessed) == 1
    assert payments.breaches() == []


def test_key_is_refused_when_it_comes_with_another_request(payments: Payments) -> None:
    """One key stands for one request."""
    payments.top_up(1000)
    payments.mesh.add_order(11, USER, 300)
    payments.mesh.add_order(12, USER, 300)
    payments.pay(11, key="same-key-1")
    with pytest.raises(grpc.RpcError) as caught:
        payments.pay(12, key="same-key-1")
    assert reason(caught) == "IDEMPOTENCY_KEY_REUSED"


def test_payment_is_refused_without_a_key(payments: Payments) -> None:
    """The contract asks for a key."""
    with pytest.raises(grpc.RpcError) as caught:
        payments.served.call(
            payments.stub.CreatePayment, pb.CreatePaymentRequest(order_id=1, method=BALANCE), user=USER
        )
    assert reason(caught) == "IDEMPOTENCY_KEY_MISSING"


def test_order_takes_one_payment_when_twenty_come_at_once(payments: Payments) -> None:
    """Twenty keys, one order: one wins, the others are told which."""
    payments.top_up(100_000)
    payments.mesh.add_order(11, USER, 300)

    def attempt(n: int) -> str:
        try:
            return str(payments.pay(11, key=f"attempt-{n:04}").payment.id)
        except grpc.RpcError as error:
            return error_from(error).reason

    with ThreadPoolExecutor(20) as pool:
        outcomes = list(pool.map(attempt, range(20)))
    assert outcomes.count("ORDER_HAS_LIVE_PAYMENT") == 19
    assert payments.balance() == 99_700
    assert payments.breaches() == []


@pytest.mark.parametrize(("fields", "expected"), [
    ({"order_id": 99}, "ORDER_NOT_FOUND"),
    ({"order_id": 13}, "ORDER_NOT_FOUND"),
    ({"order_id": 14}, "ORDER_NOT_PAYABLE"),
    ({"order_id": 11, "method": payment_pb2.Payment.METHOD_ALIPAY}, "PAYMENT_METHOD_UNAVAILABLE"),
    ({"order_id": 11, "amount": Money(currency_code="CNY", minor_units=299)}, "AMOUNT_MISMATCH"),
    ({"order_id": 12}, "BALANCE_INSUFFICIENT"),
    ({"order_id": 0}, "INVALID_ARGUMENT"),
])  # fmt: skip
def test_payment_is_refused_with_its_reason(payments: Payments, fields: dict[str, object], expected: str) -> None:
    """Each refusal has its own reason and moves no money."""
    payments.top_up(1000)
    payments.mesh.add_order(11, USER, 300)
    payments.mesh.add_order(12, USER, 3000)
    payments.mesh.add_order(13, USER + 1, 300)
    payments.mesh.add_order(14, USER, 300, expires_in=-1)
    with pytest.raises(grpc.RpcError) as caught:
        payments.pay(key="refused-0001", **fields)  # type: ignore[arg-type]
    assert reason(caught) == expected
    assert payments.balance() == 1000
    assert payments.breaches() == []


def test_failed_payment_stays_visible_and_the_order_can_be_paid_again(payments: Payments) -> None:
    """A refusal for lack of money leaves a failed payment; its key replays it; a new key may succeed."""
    payments.mesh.add_order(11, USER, 300)
    for _ in range(2):
        with pytest.raises(grpc.RpcError) as caught:
            payments.pay(11, key="too-poor-01")
        assert reason(caught) == "BALANCE_INSUFFICIENT"
    payments.top_up(1000)
    assert payments.pay(11, key="richer-now").payment.status == SUCCESS
    listed = payments.served.call(payments.stub.ListOrderPayments, pb.ListOrderPaymentsRequest(order_id=11), user=USER)
    assert [p.failure_reason for p in listed.payments] == ["", "BALANCE_INSUFFICIENT"]
    assert payments.breaches() == []


def test_payment_waits_for_risk_unless_its_rules_say_otherwise(payments: Payments) -> None:
    """Risk blocks; risk that is down stops payments; a rule set that approves then lets them pass."""
    payments.top_up(1000)
    for order_id in (11, 12, 13, 14):
        payments.mesh.add_order(order_id, USER, 100)
    payments.mesh.blocked.add(USER)
    with pytest.raises(grpc.RpcError) as caught:
        payments.pay(11)
    assert reason(caught) == "PAYMENT_BLOCKED"
    payments.mesh.blocked.clear()
    payments.mesh.risk_down = True
    with pytest.raises(grpc.RpcError) as caught:
        payments.pay(12)
    assert reason(caught) == "UNAVAILABLE"
    payments.mesh.risk_down, payments.mesh.unreachable = False, risk_pb2.Assessment.DECISION_APPROVE
    assert payments.pay(12).payment.status == SUCCESS
    payments.mesh.risk_down = True
    assert payments.pay(13).payment.status == SUCCESS


def test_no_caller_gets_past_risk_by_being_in_a_hurry_or_by_crowding_it(payments: Payments) -> None:
    """Only silence counts as unreachable: a deadline too short to ask, and a risk service with too much to do, do not."""
    payments.top_up(1000)
    for order_id in (11, 12, 13):
        payments.mesh.add_order(order_id, USER, 100)
    payments.mesh.unreachable = risk_pb2.Assessment.DECISION_APPROVE
    payments.pay(11)
    payments.mesh.risk_takes_s = 0.5
    hurried = pb.CreatePaymentRequest(order_id=12, method=BALANCE)
    with pytest.raises(grpc.RpcError):
        payments.served.call(payments.stub.CreatePayment, hurried, user=USER, key="hurried-0001", timeout=0.15)
    time.sleep(0.6)
    payments.mesh.risk_takes_s, payments.mesh.risk_full = 0.0, True
    with pytest.raises(grpc.RpcError) as caught:
        payments.pay(13)
    assert reason(caught) == "UNAVAILABLE"
    assert payments.balance() == 900


def test_risk_is_asked_under_the_request_id_of_a_payment_and_in_nobodys_name(payments: Payments) -> None:
    """A payment is found in risk's log by its request id; a batch speaks for no single user."""
    payments.top_up(1000)
    payments.mesh.add_order(11, USER, 100)
    request = pb.CreatePaymentRequest(order_id=11, method=BALANCE)
    payments.served.call(payments.stub.CreatePayment, request, user=USER, key="traced-001", x_request_id="find-me")
    [heard] = payments.mesh.heard
    assert heard["x-request-id"] == "find-me"
    assert "x-paymesh-sub" not in heard


def test_refunds_never_exceed_what_was_captured_when_they_race(payments: Payments) -> None:
    """Two refunds of 60 on 100: one passes; the rest can still be given back."""
    payments.top_up(1000)
    payments.mesh.add_order(11, USER, 100)
    paid = payments.pay(11).payment

    def attempt(n: int) -> str:
        try:
            return payment_pb2.Payment.Status.Name(payments.refund(paid.id, 60, key=f"refund-{n:04}").payment.status)
        except grpc.RpcError as error:
            return error_from(error).reason

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(attempt, range(2))) == ["REFUND_EXCEEDS_CAPTURED", "STATUS_PARTIALLY_REFUNDED"]
    rest = payments.refund(paid.id, key="the-rest-1")
    assert rest.payment.status == payment_pb2.Payment.STATUS_REFUNDED
    assert rest.refund.amount.minor_units == 40
    assert payments.refund(paid.id, key="the-rest-1") == rest
    assert payments.balance() == 1000
    assert payments.breaches() == []


def test_trial_balance_is_even_and_for_operators_alone(payments: Payments) -> None:
    """Debits equal credits in the currency; without the scope it is refused."""
    payments.top_up(1000)
    payments.mesh.add_order(11, USER, 100)
    payments.pay(11)
    request = pb.GetTrialBalanceRequest()
    answer = payments.served.call(payments.stub.GetTrialBalance, request, user=1, scope="ledger:read")
    lines = {line.kind: (line.accounts, line.debits.minor_units, line.credits.minor_units) for line in answer.lines}
    assert lines == {
        "funding_clearing": (1, 1000, 0), "merchant_settlement": (1, 0, 100), "user_balance": (1, 100, 1000),
    }  # fmt: skip
    assert sum(debits - credits_ for _, debits, credits_ in lines.values()) == 0
    with pytest.raises(grpc.RpcError) as caught:
        payments.served.call(payments.stub.GetTrialBalance, request, user=1)
    assert reason(caught) == "SCOPE_MISSING"


def test_payments_of_others_cannot_be_seen_or_refunded(payments: Payments) -> None:
    """Another's payment does not exist for a user; the scope lifts that."""
    payments.top_up(1000)
    payments.mesh.add_order(11, USER, 100)
    paid = payments.pay(11).payment
    for call in (
        lambda: payments.refund(paid.id, user=USER + 1),
        lambda: payments.served.call(payments.stub.GetPayment, pb.GetPaymentRequest(id=paid.id), user=USER + 1),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            call()
        assert reason(caught) == "PAYMENT_NOT_FOUND"
    assert (
        payments.refund(paid.id, user=USER + 1, key="operator-1", scope="payments:refund").refund.amount.minor_units
        == 100
    )


def test_read_shows_the_refund_at_once_when_the_payment_was_cached(payments: Payments) -> None:
    """The status cache never hides a change that was committed."""
    payments.top_up(1000)
    payments.mesh.add_order(11, USER, 100)
    paid = payments.pay(11).payment
    for amount, status in ((0, "STATUS_SUCCESS"), (30, "STATUS_PARTIALLY_REFUNDED"), (70, "STATUS_REFUNDED")):
        if amount:
            payments.refund(paid.id, amount, key=f"refund-{amount:04}")
        for _ in range(2):
            seen = payments.served.call(payments.stub.GetPayment, pb.GetPaymentRequest(id=paid.id), user=USER).payment
            assert payment_pb2.Payment.Status.Name(seen.status) == status


def test_lists_come_in_pages(payments: Payments) -> None:
    """Newest first, each once, the last page without a token."""
    payments.top_up(1000)
    for order_id in range(11, 16):
        payments.mesh.add_order(order_id, USER, 100)
        payments.pay(order_id)
    seen, token = [], ""
    while True:
        request = pb.ListPaymentsRequest(page_size=2, page_token=token)
        answer = payments.served.call(payments.stub.ListPayments, request, user=USER)
        seen += [p.order_id for p in answer.payments]
        token = answer.next_page_token
        if not token:
            break
    assert seen == [15, 14, 13, 12, 11]
    with pytest.raises(grpc.RpcError) as caught:
        payments.served.call(payments.stub.ListPayments, pb.ListPaymentsRequest(page_token="%%%"), user=USER)
    assert reason(caught) == "PAGE_TOKEN_INVALID"


def read_events(kafka: str, topics: list[str], count: int) -> list[tuple[str, bytes, dict[str, Any]]]:
    """Read ``count`` events from the broker."""
    consumer = Consumer(
        {"bootstrap.servers": kafka, "group.id": "test", "auto.offset.reset": "earliest", "fetch.wait.max.ms": 10}
    )
    consumer.subscribe(topics)
    found: list[tuple[str, bytes, dict[str, Any]]] = []
    until = time.monotonic() + 15
    while len(found) < count and time.monotonic() < until:
        messages = [m for m in consumer.consume(50, timeout=0.2) if m.error() is None]
        found += [(str(m.topic()), m.value() or b"", dict(m.headers() or [])) for m in messages]
    consumer.close()
    return found


def test_events_reach_the_broker_as_cloud_events(payments: Payments) -> None:
    """Initiated and success, versions 1 and 2, with the headers of CloudEvents."""
    payments.top_up(1000)
    payments.mesh.add_order(11, USER, 100)
    paid = payments.pay(11).payment
    events = {
        topic: (value, headers)
        for topic, value, headers in read_events(payments.kafka, ["payment.initiated", "payment.success"], 2)
    }
    success = payment_event_pb2.PaymentSuccess.FromString(events["payment.success"][0])
    assert (success.payment_id, success.version, success.amount.minor_units) == (paid.id, 2, 100)
    assert events["payment.initiated"][1]["ce_type"] == b"payment.initiated"
    assert events["payment.initiated"][1]["ce_subject"] == str(paid.id).encode()


def test_rejected_payment_is_refunded_whole_and_once(payments: Payments) -> None:
    """order.payment_rejected, delivered three times, gives the money back once; a poison event does not stop it."""
    payments.top_up(1000)
    payments.mesh.add_order(11, USER, 100)
    paid = payments.pay(11).payment
    event = order_event_pb2.OrderPaymentRejected(
        order_id=11, version=2, user_id=USER, payment_id=paid.id, reject_reason="order_cancelled"
    )
    headers = (("ce_id", b"order-1"),)
    good = Record("order.payment_rejected", b"11", event.SerializeToString(), headers)
    poison = Record("order.payment_rejected", b"11", b"\xff\xff\xff", (("ce_id", b"order-2"),))
    assert all(EventProducer(payments.kafka).publish([good, poison, good, good]))
    until = time.monotonic() + 20
    while payments.balance() < 1000 and time.monotonic() < until:
        time.sleep(0.1)
    assert payments.balance() == 1000
    dead = read_events(payments.kafka, ["order.payment_rejected.dead_letter"], 1)
    assert [value for _, value, _ in dead] == [b"\xff\xff\xff"]
    assert payments.breaches() == []


def test_ids_ascend_after_a_restart_though_the_clock_went_back(
    run_dir: Path, tmp_path: Path, redis_url: str, kafka: str
) -> None:
    """An event of ten minutes ahead stands in the outbox: what is paid now comes after it."""
    url = f"sqlite:///{tmp_path / 'payment.db'}"
    migrations.upgrade("payment", url)
    ahead = (int(time.time() * 1000) + 600_000 - EPOCH_MS) << 22
    database = Database(url)
    with database.write() as connection:
        row = {"id": ahead, "topic": "payment.initiated", "event_key": "1", "version": 1, "payload": b"", "event_ms": 1}
        connection.execute(sa.insert(outbox).values({**row, "published_ms": 1}))
        connection.commit()
    database.stop()
    settings = Settings(data=tmp_path, listen=f"unix:{run_dir}/p.sock", mesh=f"unix:{run_dir}/out.sock",
                        database_url=url, redis_url=redis_url, kafka=kafka)  # fmt: skip
    fake = FakeMesh(settings.mesh)  # type: ignore[abstract] # payment asks for two of their methods
    with fake as mesh, Served(build(settings)) as served:
        payments = Payments(served, mesh, url, kafka)
        payments.top_up(100)
        mesh.add_order(11, USER, 100)
        assert payments.pay(11).payment.id > ahead


def test_planted_bugs_are_found_by_the_audit(payments: Payments) -> None:
    """Each kind of damage to the stored money makes its invariant speak."""
    payments.top_up(1000)
    payments.mesh.add_order(11, USER, 100)
    paid = payments.pay(11).payment
    payments.refund(paid.id, 30)
    damages = {
        "I1": "UPDATE ledger_entries SET amount_minor = amount_minor + 1 WHERE line = 2",
        "I2": "UPDATE accounts SET balance_minor = balance_minor + 5 WHERE kind = 'user_balance'",
        "I3": "UPDATE payments SET live_order_id = NULL",
        "I4": "UPDATE payments SET status = 'processing', update_ms = 1",
        "I5": "UPDATE payments SET refunded_minor = 29",
        "I6": "UPDATE idempotency_keys SET response = NULL",
        "I7": "UPDATE outbox SET published_ms = NULL, event_ms = 1",
        "I8": "DELETE FROM outbox WHERE version = 2",
        "I10": "UPDATE ledger_entries SET account_id = account_id + 1",
        "I10 ": "UPDATE ledger_transactions SET at_ms = at_ms + 1",
        "I12": "UPDATE payment_history SET status = 'refunded' WHERE version = 2",
    }
    database = Database(payments.database_url)
    for invariant, damage in damages.items():
        with database.write() as connection:
            connection.execute(sa.text(damage))
            found = audit.invariants(connection, int(time.time() * 1000), settled=False)
            assert invariant.strip() in {f.invariant for f in found if f.breaches}, f"{damage} was not found"
    database.stop()
    assert payments.breaches() == []
