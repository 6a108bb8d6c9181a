"""What a service writes of calls that bring cards and callbacks, however they end: no digit of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import orjson
import pytest
from google.api.httpbody_pb2 import HttpBody

from paymesh.payment.v1 import payment_pb2
from paymesh.payment.v1 import payment_service_pb2 as pb
from paymesh.payment.v1 import payment_service_pb2_grpc as rpc
from services.kernel.errors import DomainError
from services.platform import wire
from services.platform.interceptor import current
from services.platform.process import App
from services.platform.settings import ServiceSettings
from tests.leaks import Leaks
from tests.running import Served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NUMBER, CVV = "4929603781452063", "815"
LEAKS = Leaks([NUMBER], [CVV])
KEY = "key-00001"
TRACED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Servicer(rpc.PaymentServiceServicer):
    """Ends every call as the test wants it, after what a servicer does with a request."""

    error: Exception | None = None

    async def SavePaymentMethod(self, request: pb.SavePaymentMethodRequest, _: Any) -> pb.SavePaymentMethodResponse:  # noqa: ANN401 - as gRPC has it
        """Take a card's number."""
        self._end()
        return pb.SavePaymentMethodResponse()

    async def CreatePayment(self, request: pb.CreatePaymentRequest, _: Any) -> pb.CreatePaymentResponse:  # noqa: ANN401 - as gRPC has it
        """Take a verification value, with an idempotency key."""
        assert wire.idempotency_key(current(), request)
        self._end()
        return pb.CreatePaymentResponse()

    async def HandleCallback(self, request: pb.HandleCallbackRequest, _: Any) -> pb.HandleCallbackResponse:  # noqa: ANN401 - as gRPC has it
        """Take what somebody sent."""
        self._end()
        return pb.HandleCallbackResponse()

    def _end(self) -> None:
        if self.error:
            raise self.error


@pytest.fixture
def servicer() -> Servicer:
    return Servicer()  # type: ignore[abstract] # what the tests call is there


@pytest.fixture
def served(run_dir: Path, servicer: Servicer) -> Iterator[Served]:
    def register(server: Any) -> None:  # noqa: ANN401 - a server of grpc.aio
        rpc.add_PaymentServiceServicer_to_server(servicer, server)

    settings = ServiceSettings(data=run_dir, listen=f"unix:{run_dir}/s.sock", trace_ratio=1.0)
    with Served(App("payment", settings, register, ())) as running:
        yield running


def card(number: str) -> pb.SavePaymentMethodRequest:
    """A card to be kept."""
    return pb.SavePaymentMethodRequest(card_number=number, expire_month=12, expire_year=2030)


def payment(cvv: str) -> pb.CreatePaymentRequest:
    """A payment with a verification value."""
    return pb.CreatePaymentRequest(order_id=7, method=payment_pb2.Payment.METHOD_BANK_CARD, cvv=cvv)


def callback(provider: str) -> pb.HandleCallbackRequest:
    """A callback that tells of a card."""
    body = f"card={NUMBER}&cvv={CVV}".encode()
    return pb.HandleCallbackRequest(provider=provider, body=HttpBody(content_type="text/plain", data=body))


@pytest.mark.parametrize(
    "error", [None, DomainError("CALLBACK_REFUSED", provider="x"), ValueError("unforeseen")], ids=repr
)
@pytest.mark.parametrize("traceparent", ["", TRACED], ids=["untraced", "traced"])
def test_nothing_is_written_of_a_card(
    served: Served,
    servicer: Servicer,
    capfd: pytest.CaptureFixture[str],
    error: Exception | None,
    traceparent: str,
) -> None:
    """Done, refused, broken or not of the contract's form: neither the line of the call nor the answer has a digit of it."""
    servicer.error, stub = error, rpc.PaymentServiceStub(served.channel)
    how: dict[str, Any] = {"user": 7, "key": KEY, "traceparent": traceparent}
    answers = [
        _answer(served, method, request, **how)
        for method, request in (
            (stub.SavePaymentMethod, card(NUMBER)),
            (stub.SavePaymentMethod, card(f"{NUMBER}x")),
            (stub.CreatePayment, payment(CVV)),
            (stub.CreatePayment, payment(f"{CVV}15")),
            (stub.HandleCallback, callback("alipay")),
            (stub.HandleCallback, callback("nobody")),
        )
    ]
    served.stop()
    said = capfd.readouterr()
    lines = [orjson.loads(line) for line in said.err.splitlines() if line.startswith("{")]
    methods = [line["method"].rpartition(".")[2] for line in lines if line.get("event") == "audit"]
    assert methods == ["SavePaymentMethod"] * 2 + ["CreatePayment"] * 2 + ["HandleCallback"] * 2
    times = {"duration_us": 0, "time_ms": 0}  # three digits stand in them by chance
    written = [orjson.dumps({**line, **times}).decode() for line in lines]
    written += [line for line in said.err.splitlines() if not line.startswith("{")]
    assert LEAKS.in_text(said.out, *written, *answers) == []
    assert [line["reason"] for line in lines][1::2] == ["INVALID_ARGUMENT"] * 3


def test_leak_is_found_when_there_is_one() -> None:
    """The search of the test before this one would see what it looks for."""
    said = [repr(each) for each in (card(NUMBER), payment(CVV), callback("alipay"))]
    assert LEAKS.in_text(*said) == said


def _answer(served: Served, method: Any, request: object, **how: Any) -> str:  # noqa: ANN401 - a stub's method
    """Everything that a caller gets."""
    try:
        return repr(served.call(method, request, **how))
    except grpc.RpcError as error:
        trailers = error.trailing_metadata() if isinstance(error, grpc.Call) else ()
        return f"{error!r} {trailers}"
