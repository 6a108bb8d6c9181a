"""The servicer's protobuf in and out, through grpcio-testing.

It runs no interceptors and knows no coroutines, so a shim runs each handler to its end on a loop of its own, in the call
that the interceptor would have made.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import grpc
import grpc_testing

from paymesh.gateway.v1 import gateway_pb2
from paymesh.gateway.v1 import gateway_service_pb2 as pb
from services.contract.load import contract
from services.gateway import usecases
from services.gateway.adapters import documents
from services.gateway.adapters.routes import ContractRoutes
from services.gateway.domain import MeshHealth, ServiceHealth
from services.gateway.servicer import Gateway
from services.kernel.clock import SystemClock
from services.platform import interceptor
from services.platform.batcher import Batcher
from services.platform.reads import ReadPool
from tests.fakes.gateway import Keys

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.message import Message

    from services.kernel.caller import Caller

SERVICE = pb.DESCRIPTOR.services_by_name["GatewayService"]
DOCUMENTS = documents.load()


class FakeMesh:
    """The port Mesh with one service down."""

    def health(self, caller: Caller) -> MeshHealth:
        """Answer."""
        assert caller.deadline >= 0
        return MeshHealth((ServiceHealth("payment", 0, 2), ServiceHealth("user", 1, 1)))


class Synchronous:
    """The servicer's coroutines as plain functions."""

    def __init__(self, servicer: Gateway) -> None:
        """Wrap ``servicer``."""
        self._servicer = servicer

    def __getattr__(self, name: str) -> Callable[[Message, object], Message]:
        """A handler that ends before it returns."""
        handler = getattr(self._servicer, name)
        method = contract().methods[f"/{SERVICE.full_name}/{name}"]

        async def within_call(request: Message, context: object) -> Message:
            until = time.monotonic() + method.timeout_ms / 1000
            interceptor._CURRENT.set(interceptor.Call(method, context, request, {}, frozenset(), deadline=until))
            response: Message = await handler(request, context)
            return response

        return lambda request, context: asyncio.run(within_call(request, context))


def _answer(name: str, request: Message) -> Any:  # noqa: ANN401 - the response of whichever method
    reads = ReadPool(1)
    health = usecases.Health(FakeMesh(), SystemClock(), 5.0)
    keys, batcher = Keys(), Batcher({})
    servicer = Synchronous(Gateway(reads, health, ContractRoutes(), DOCUMENTS, keys.ports, batcher))
    server = grpc_testing.server_from_dictionary({SERVICE: servicer}, grpc_testing.strict_real_time())
    rpc = server.invoke_unary_unary(SERVICE.methods_by_name[name], (), request, time.monotonic() + 5)
    response, _, code, _ = rpc.termination()
    reads.stop()
    assert code is grpc.StatusCode.OK
    return response


def test_get_health_is_degraded_when_a_service_is_down() -> None:
    """Each service keeps its numbers, and the worst decides."""
    found = _answer("GetHealth", pb.GetHealthRequest()).health
    assert found.status == gateway_pb2.Health.STATUS_DEGRADED
    assert [(s.service, s.healthy, s.registered) for s in found.services] == [("payment", 0, 2), ("user", 1, 1)]


def test_list_routes_tells_the_policy_when_asked_for_a_page() -> None:
    """A route carries what the contract says of its method."""
    response = _answer("ListRoutes", pb.ListRoutesRequest(page_size=100))
    route = next(route for route in response.routes if route.method.endswith(".CreatePayment"))
    method = contract().methods["/paymesh.payment.v1.PaymentService/CreatePayment"]
    assert route.http == "POST /api/payments"
    assert route.timeout_ms == method.timeout_ms
    assert route.idempotency == "required"
    assert route.rate_limit == str(method.rate_limit)
    assert len(response.routes) == len(contract().methods)
    assert response.next_page_token == ""


def test_get_open_api_is_the_shipped_document() -> None:
    """The document goes out byte for byte as it was generated."""
    body = _answer("GetOpenApi", pb.GetOpenApiRequest()).body
    assert body.content_type == "application/json"
    assert body.data == DOCUMENTS.openapi
    assert json.loads(body.data)["openapi"] == "3.1.0"


def test_get_api_page_is_html() -> None:
    """The page says that it is HTML, in UTF-8."""
    body = _answer("GetApiPage", pb.GetApiPageRequest()).body
    assert body.content_type == "text/html; charset=utf-8"
    assert body.data.startswith(b"<!doctype html>")
