"""A service as Envoy meets it: each step of the interceptor in its order, errors, languages, health, and an ordered stop."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import REGISTRY

from paymesh.order.v1 import order_service_pb2, order_service_pb2_grpc
from paymesh.payment.v1 import payment_pb2
from paymesh.payment.v1 import payment_service_pb2 as pb
from paymesh.payment.v1 import payment_service_pb2_grpc as rpc
from paymesh.type.v1.money_pb2 import Money
from services.contract.load import contract
from services.kernel.errors import DomainError
from services.platform.batcher import Batcher
from services.platform.interceptor import STEPS, Call, current
from services.platform.process import App
from services.platform.settings import ServiceSettings
from services.platform.status import error_from
from tests.running import Served

BALANCE = payment_pb2.Payment.METHOD_BALANCE
PAY = pb.CreatePaymentRequest(order_id=11, method=BALANCE)
KEY = "key-00001"


class Servicer(rpc.PaymentServiceServicer):
    """Does what the test says, and keeps the calls as it saw them."""

    def __init__(self, batcher: Batcher) -> None:
        """Write through ``batcher``."""
        self.batcher, self.calls = batcher, list[Call]()
        self.does: Callable[[], object] = lambda: None

    async def CreatePayment(self, request: pb.CreatePaymentRequest, context: Any) -> pb.CreatePaymentResponse:  # noqa: ANN401 - as gRPC has it
        """Go through the Batcher."""
        self.calls.append(current())
        await self.batcher.submit("create_payments", request.order_id, current().deadline)
        return pb.CreatePaymentResponse(payment=payment_pb2.Payment(order_id=request.order_id))

    async def GetPayment(self, request: pb.GetPaymentRequest, context: Any) -> pb.GetPaymentResponse:  # noqa: ANN401 - as gRPC has it
        """Do what the test says."""
        self.calls.append(current())
        await asyncio.sleep(0)
        self.does()
        return pb.GetPaymentResponse()

    async def GetBalance(self, request: pb.GetBalanceRequest, context: Any) -> pb.GetBalanceResponse:  # noqa: ANN401 - as gRPC has it
        """Be there."""
        self.calls.append(current())
        return pb.GetBalanceResponse()

    async def TopUpBalance(self, request: pb.TopUpBalanceRequest, context: Any) -> pb.TopUpBalanceResponse:  # noqa: ANN401 - as gRPC has it
        """Be there."""
        self.calls.append(current())
        return pb.TopUpBalanceResponse()


class Service:
    """The service under test: payment's contract, a servicer and a use case of the test's own."""

    def __init__(self, run_dir: Path) -> None:
        """Prepare it."""
        self.revoked: set[str] = set()
        self.gate, self.paid = threading.Event(), list[int]()
        self.gate.set()
        batcher = Batcher({"create_payments": self.pay_all})
        self.servicer = Servicer(batcher)  # type: ignore[abstract] # what the tests call is there
        self.settings = ServiceSettings(data=run_dir, listen=f"unix:{run_dir}/s.sock", trace_ratio=0.0)

        def register(server: Any) -> None:  # noqa: ANN401 - a server of grpc.aio
            rpc.add_PaymentServiceServicer_to_server(self.servicer, server)

        self.app = App("payment", self.settings, register, (batcher,), self.revoked)
        self.served = Served(self.app)
        self.stub = rpc.PaymentServiceStub(self.served.channel)

    def pay_all(self, items: Sequence[int]) -> list[int]:
        """A use case that takes until the gate opens."""
        self.gate.wait(5)
        self.paid += items
        return list(items)

    def pay(self, request: pb.CreatePaymentRequest = PAY, **how: Any) -> pb.CreatePaymentResponse:  # noqa: ANN401 - see Served.call
        """Pay as a user, unless ``how`` says otherwise."""
        answer: pb.CreatePaymentResponse = self.served.call(
            self.stub.CreatePayment, request, **{"user": 7, "key": KEY, **how}
        )
        return answer

    def get(self, **how: Any) -> pb.GetPaymentResponse:  # noqa: ANN401 - see Served.call
        """Read as a user, unless ``how`` says otherwise."""
        answer: pb.GetPaymentResponse = self.served.call(
            self.stub.GetPayment, pb.GetPaymentRequest(id=1), **{"user": 7, **how}
        )
        return answer


@pytest.fixture
def service(run_dir: Path) -> Iterator[Service]:
    made = Service(run_dir)
    with made.served:
        yield made


def refusal(call: Callable[..., object], *args: Any, **how: Any) -> tuple[str, grpc.RpcError]:  # noqa: ANN401 - handed on
    """The reason of the contract that ``call`` is refused with, and the error as gRPC has it."""
    with pytest.raises(grpc.RpcError) as caught:
        call(*args, **how)
    return error_from(caught.value).reason, caught.value


def test_steps_refuse_in_their_order(service: Service) -> None:
    """A request that is wrong in every way is told of one fault after the other, in the order of STEPS."""
    assert [step.__name__ for step in STEPS] == [
        "request_id", "deadline", "peer", "authorize", "validate", "idempotency_key",
    ]  # fmt: skip
    service.revoked.add("gone")
    how: dict[str, Any] = {"peer": "notification", "user": 0, "sid": "gone", "key": ""}
    wrong = pb.CreatePaymentRequest(order_id=-1, method=BALANCE)
    repairs: list[tuple[str, dict[str, Any]]] = [
        ("CALLER_NOT_ALLOWED", {"peer": "edge"}),
        ("UNAUTHENTICATED", {"user": 7}),
        ("SESSION_REVOKED", {"sid": "s1"}),
    ]
    for expected, repair in repairs:
        assert refusal(service.pay, wrong, **how)[0] == expected
        how |= repair
    assert refusal(service.pay, wrong, **how)[0] == "INVALID_ARGUMENT"
    assert refusal(service.pay, **how)[0] == "IDEMPOTENCY_KEY_MISSING"
    assert refusal(service.pay, **{**how, "key": "short"})[0] == "INVALID_ARGUMENT"
    assert service.paid == []
    assert service.pay(**{**how, "key": KEY}).payment.order_id == 11


def test_scopes_and_owners_are_those_of_the_contract(service: Service) -> None:
    """A scope that is missing is named; another's data needs the scope that lifts it."""
    top_up = pb.TopUpBalanceRequest(user_id=9, amount=Money(currency_code="CNY", minor_units=1))
    call = service.served.call
    reason, error = refusal(call, service.stub.TopUpBalance, top_up, user=7, key=KEY)
    assert (reason, error_from(error).metadata) == ("SCOPE_MISSING", {"scope": "balance:write"})
    call(service.stub.TopUpBalance, top_up, user=7, key=KEY, scope="a:b balance:write")
    owner = contract().methods["/paymesh.payment.v1.PaymentService/GetBalance"].owner
    assert owner is not None
    balance = pb.GetBalanceRequest(user_id=9)
    assert refusal(call, service.stub.GetBalance, balance, user=7)[0] == "NOT_OWNER"
    call(service.stub.GetBalance, balance, user=9)
    call(service.stub.GetBalance, balance, user=7, scope=owner.lifted_by)


def test_api_key_is_taken_where_the_contract_takes_one_until_it_is_revoked(service: Service) -> None:
    """The edge has asked the same before; a service does not rely on it."""
    edge = ("x-forwarded-client-cert", "URI=spiffe://paymesh/ns/default/sa/edge")
    shown = (edge, ("x-paymesh-sub", "7"), ("x-paymesh-key", "5"))
    service.stub.GetPayment(pb.GetPaymentRequest(id=1), metadata=shown)
    listing = pb.ListPaymentMethodsRequest()
    assert refusal(service.stub.ListPaymentMethods, listing, metadata=shown)[0] == "UNAUTHENTICATED"
    service.revoked.add("key:5")
    assert refusal(service.stub.GetPayment, pb.GetPaymentRequest(id=1), metadata=shown)[0] == "API_KEY_REVOKED"


def test_peer_is_what_the_own_envoy_verified_and_nothing_else(service: Service) -> None:
    """No certificate, another trust domain, a name inside another field: unknown, and refused."""
    for forged in ("", "URI=spiffe://elsewhere/ns/default/sa/edge", "URI=http://paymesh/ns/default/sa/edge"):
        metadata = (("x-forwarded-client-cert", forged), ("x-paymesh-sub", "7"))
        reason, error = refusal(service.stub.GetPayment, pb.GetPaymentRequest(id=1), metadata=metadata)
        assert (reason, error_from(error).metadata["caller"]) == ("CALLER_NOT_ALLOWED", "unknown")


def test_error_of_a_handler_is_internal_without_its_text(service: Service) -> None:
    """What nobody foresaw is said with the request's id and nothing else; a reason that no contract has likewise."""
    for unforeseen in (ValueError("the secret 4711"), DomainError("NO_SUCH_REASON", secret="4711")):
        service.servicer.does = _raiser(unforeseen)
        reason, error = refusal(service.get, x_request_id="request-1")
        assert reason == "INTERNAL"
        assert error_from(error).metadata == {"request_id": "request-1"}
        assert isinstance(error, grpc.Call)
        assert error.code() is grpc.StatusCode.INTERNAL
        assert "4711" not in f"{error.details()} {error.trailing_metadata()}"


def test_text_is_in_the_language_that_is_asked_for(service: Service) -> None:
    """Chinese for those who accept it first, English for all others; the reason is the same."""
    service.servicer.does = _raiser(DomainError("PAYMENT_NOT_FOUND", payment_id=1))
    known = contract().reasons["PAYMENT_NOT_FOUND"]
    for language, text in (("zh-CN,en;q=0.5", known.zh), ("en", known.en), ("fr", known.en), ("", known.en)):
        reason, error = refusal(service.get, accept_language=language)
        assert isinstance(error, grpc.Call)
        assert (reason, error.details()) == ("PAYMENT_NOT_FOUND", text.replace("{payment_id}", "1"))


def test_every_violation_is_listed_and_a_long_list_still_arrives(run_dir: Path) -> None:
    """All at once; beyond what a trailer carries, how many more there are."""

    class Orders(order_service_pb2_grpc.OrderServiceServicer):
        """Never reached."""

    def register(server: Any) -> None:  # noqa: ANN401 - a server of grpc.aio
        order_service_pb2_grpc.add_OrderServiceServicer_to_server(Orders(), server)  # type: ignore[abstract] # none is reached

    settings = ServiceSettings(data=run_dir, listen=f"unix:{run_dir}/o.sock")
    with Served(App("order", settings, register, ())) as served:
        stub = order_service_pb2_grpc.OrderServiceStub(served.channel)
        for count, complete in ((3, True), (100, False)):
            items = [order_service_pb2.OrderLine(sku=" " * 65, quantity=-n) for n in range(1, count + 1)]
            request = order_service_pb2.CreateOrderRequest(items=items)
            reason, error = refusal(served.call, stub.CreateOrder, request, user=7, key=KEY)
            assert reason == "INVALID_ARGUMENT"
            violations = _violations(error)
            assert {f"items[{n}].quantity" for n in range(3)} <= {v.field for v in violations}
            assert violations[-1].description.endswith(" more") is not complete


def test_deadline_is_the_shorter_of_the_callers_and_the_contracts(service: Service) -> None:
    """It is what a servicer sees, and what the calls made inside are cut to."""
    longest = contract().methods["/paymesh.payment.v1.PaymentService/GetPayment"].timeout_ms / 1000
    for asked, expected in ((100, longest), (0.5, 0.5)):
        service.get(timeout=asked)
        call = service.servicer.calls[-1]
        assert call.deadline - call.began == pytest.approx(expected, abs=0.1)
        assert call.caller.deadline == call.deadline


def test_headers_that_the_edge_lets_in_are_taken(service: Service) -> None:
    """As many as 16 KiB, beside what Envoys add."""
    headers = {f"x_wide_{number}": "y" * 1000 for number in range(16)}
    assert service.get(**headers) == pb.GetPaymentResponse()
    assert service.servicer.calls[-1].metadata["x-wide-15"] == "y" * 1000


def test_request_id_is_kept_or_made(service: Service) -> None:
    """The edge's, or one of our own."""
    service.get(x_request_id="from-the-edge")
    service.get()
    kept, made = [call.request_id for call in service.servicer.calls]
    assert kept == "from-the-edge"
    assert len(made) == 32


@pytest.mark.parametrize("traceparent", ["x" * 54 + "1", "00-" + "0" * 32 + "-" + "z" * 16 + "-01", "00-1-2-01", "1"])
def test_traceparent_that_is_none_harms_nothing(service: Service, traceparent: str) -> None:
    """It comes from clients: the call is answered as without it."""
    assert service.get(traceparent=traceparent) == pb.GetPaymentResponse()


def test_trace_goes_on_below_the_call(service: Service) -> None:
    """What is called from here has this call as its parent, in the caller's trace."""
    trace = "0af7651916cd43dd8448eb211c80319c"
    service.get(traceparent=f"00-{trace}-b7ad6b7169203331-01")
    service.get(traceparent=f"00-{trace}-b7ad6b7169203331-00")
    traced, untraced = [call.caller.traceparent for call in service.servicer.calls]
    assert untraced == f"00-{trace}-b7ad6b7169203331-00"
    assert traced.startswith(f"00-{trace}-") or traced == "00-" + "0" * 32 + "-" + "0" * 16 + "-00"


def test_health_is_told_of_the_process_and_of_its_service(service: Service) -> None:
    """Whoever asks, with or without a name, gets SERVING; a stop says NOT_SERVING first."""
    stub: Any = health_pb2_grpc.HealthStub(service.served.channel)
    for name in ("", "paymesh.payment.v1.PaymentService"):
        assert stub.Check(health_pb2.HealthCheckRequest(service=name)).status == health_pb2.HealthCheckResponse.SERVING


def test_no_call_is_lost_when_the_service_stops(run_dir: Path) -> None:
    """Calls in flight end well; those that come later are UNAVAILABLE; none hangs."""
    service = Service(run_dir)
    with ThreadPoolExecutor(12) as pool, service.served:
        service.pay()
        service.gate.clear()
        before = [pool.submit(service.pay, pb.CreatePaymentRequest(order_id=n, method=BALANCE)) for n in range(1, 9)]
        until = time.monotonic() + 5
        while len(service.servicer.calls) < 9 and time.monotonic() < until:
            time.sleep(0.01)
        stopping = pool.submit(service.served.stop)
        time.sleep(0.3)
        with grpc.insecure_channel(service.settings.listen) as channel:
            stub = rpc.PaymentServiceStub(channel)
            _, error = refusal(service.served.call, stub.CreatePayment, PAY, user=7, key=KEY, timeout=3)
        service.gate.set()
        answers = sorted(_answer(future) for future in before)
        stopping.result(10)
    assert isinstance(error, grpc.Call)
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert answers == list(range(1, 9))
    assert sorted(service.paid) == [*range(1, 9), 11]


def cancelled() -> float:
    """How many calls of CreatePayment were cancelled, as Prometheus is told."""
    labels = {"method": "paymesh.payment.v1.PaymentService.CreatePayment", "code": "CANCELLED"}
    return REGISTRY.get_sample_value("paymesh_call_seconds_count", labels) or 0.0


def test_call_whose_caller_is_gone_is_counted_as_cancelled(service: Service) -> None:
    """Neither a success nor a fault of ours; what was submitted is done all the same."""
    before = cancelled()
    service.gate.clear()
    _, error = refusal(service.pay, timeout=0.3)
    time.sleep(0.3)  # until the server has heard of it, too
    service.gate.set()
    assert isinstance(error, grpc.Call)
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    until = time.monotonic() + 5
    while not service.paid and time.monotonic() < until:
        time.sleep(0.01)
    assert service.paid == [11]
    assert cancelled() == before + 1


def test_process_names_every_fault_of_its_settings_and_ends_with_3() -> None:
    """Nothing is started."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("PAYMESH_")}
    environ |= {"PAYMESH_INSTANCE": "99", "PAYMESH_LOG_LEVEL": "loud"}
    command = [sys.executable, "-m", "services.payment"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3
    for name in ("PAYMESH_DATA", "PAYMESH_LISTEN", "PAYMESH_INSTANCE", "PAYMESH_LOG_LEVEL"):
        assert f"  - {name}" in done.stderr


def _answer(future: Future[pb.CreatePaymentResponse]) -> int:
    return int(future.result(10).payment.order_id)


def _raiser(error: Exception) -> Callable[[], object]:
    def does() -> object:
        raise error

    return does


def _violations(error: grpc.RpcError) -> Sequence[error_details_pb2.BadRequest.FieldViolation]:
    assert isinstance(error, grpc.Call)
    trailers = dict(error.trailing_metadata() or ())
    bad = error_details_pb2.BadRequest()
    for detail in status_pb2.Status.FromString(trailers["grpc-status-details-bin"]).details:
        detail.Unpack(bad)
    return list(bad.field_violations)
