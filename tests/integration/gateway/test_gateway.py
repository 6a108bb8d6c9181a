"""The gateway as it runs: its own server behind the interceptor, config's answers over gRPC."""

from __future__ import annotations

import asyncio
import time
from concurrent import futures
from typing import TYPE_CHECKING

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from paymesh.config.v1 import config_service_pb2 as config_pb
from paymesh.gateway.v1 import gateway_pb2
from paymesh.gateway.v1 import gateway_service_pb2 as pb
from paymesh.gateway.v1 import gateway_service_pb2_grpc as rpc
from services.gateway import app
from services.gateway.settings import GatewaySettings
from services.platform.process import Running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

EDGE = ("x-forwarded-client-cert", "By=spiffe://paymesh/ns/default/sa/gateway;URI=spiffe://paymesh/ns/default/sa/edge")
OPERATOR = (EDGE, ("x-paymesh-sub", "7"), ("x-paymesh-scope", "mesh:read"), ("x-paymesh-sid", "s"))


class Config:
    """Config's answer about the mesh, where the gateway's own Envoy would be. Notes the time that each call had left."""

    def __init__(self) -> None:
        """Every service is up."""
        self.healthy, self.remaining = 1, list[float]()

    def answer(
        self, _request: config_pb.GetMeshHealthRequest, context: grpc.ServicerContext
    ) -> config_pb.GetMeshHealthResponse:
        """Answer GetMeshHealth."""
        self.remaining.append(context.time_remaining() or 0.0)
        service = config_pb.ServiceHealth(service="payment", healthy=self.healthy, registered=2)
        return config_pb.GetMeshHealthResponse(services=[service])


@pytest.fixture
def config(tmp_path: Path) -> Iterator[tuple[Config, grpc.Server]]:
    """Config behind the socket of the outbound listener."""
    server, answering = grpc.server(futures.ThreadPoolExecutor(2)), Config()
    handler = grpc.unary_unary_rpc_method_handler(
        answering.answer, config_pb.GetMeshHealthRequest.FromString, config_pb.GetMeshHealthResponse.SerializeToString
    )
    name = config_pb.DESCRIPTOR.services_by_name["ConfigService"].full_name
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(name, {"GetMeshHealth": handler})])
    server.add_insecure_port(f"unix:{tmp_path}/out.sock")
    server.start()
    yield answering, server
    server.stop(None).wait()


@pytest.fixture
async def stub(tmp_path: Path, config: tuple[Config, grpc.Server]) -> AsyncIterator[rpc.GatewayServiceAsyncStub]:
    """The running gateway. Redis is not there: nothing here needs it."""
    settings = GatewaySettings(
        data=tmp_path,
        listen=f"unix:{tmp_path}/gateway.sock",
        mesh=f"unix:{tmp_path}/out.sock",
        redis_url=f"unix://{tmp_path}/none.sock",
        health_ask_ms=300,
        health_stale_s=1.0,
    )
    running = Running(app.build(settings))
    await running.start()
    async with grpc.aio.insecure_channel(settings.listen) as channel:
        yield rpc.GatewayServiceStub(channel)
    await running.stop()


def _reason(error: grpc.aio.AioRpcError) -> str:
    details = next(value for key, value in error.trailing_metadata() or () if key == "grpc-status-details-bin")
    assert isinstance(details, bytes)
    info = error_details_pb2.ErrorInfo()
    assert status_pb2.Status.FromString(details).details[0].Unpack(info)
    return info.reason


async def test_get_health_follows_config_until_it_is_gone(
    stub: rpc.GatewayServiceAsyncStub, config: tuple[Config, grpc.Server]
) -> None:
    """Serving, then degraded; with config dead the last answer while it is young, and UNAVAILABLE after that."""
    servicer, server = config
    found = await stub.GetHealth(pb.GetHealthRequest(), metadata=[EDGE])
    assert found.health.status == gateway_pb2.Health.STATUS_SERVING
    assert 0 < servicer.remaining[0] <= 0.35  # gRPC rounds a deadline up
    servicer.healthy = 0
    found = await stub.GetHealth(pb.GetHealthRequest(), metadata=[EDGE])
    assert found.health.status == gateway_pb2.Health.STATUS_DEGRADED
    server.stop(None).wait()
    began = time.monotonic()
    again = await stub.GetHealth(pb.GetHealthRequest(), metadata=[EDGE])
    assert again == found
    await asyncio.sleep(began + 1.1 - time.monotonic())
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.GetHealth(pb.GetHealthRequest(), metadata=[EDGE])
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert _reason(refused.value) == "UNAVAILABLE"


async def test_list_routes_asks_for_the_scope(stub: rpc.GatewayServiceAsyncStub) -> None:
    """An operator sees the routes; one without the scope, and a caller that is not the edge, do not."""
    assert len((await stub.ListRoutes(pb.ListRoutesRequest(), metadata=OPERATOR)).routes) == 20
    for metadata, reason in (
        ((*OPERATOR[:2], *OPERATOR[3:]), "SCOPE_MISSING"),
        ((EDGE,), "UNAUTHENTICATED"),
        (OPERATOR[1:], "CALLER_NOT_ALLOWED"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.ListRoutes(pb.ListRoutesRequest(), metadata=metadata)
        assert _reason(refused.value) == reason


async def test_list_routes_refuses_page_size_and_token_when_out_of_range(stub: rpc.GatewayServiceAsyncStub) -> None:
    """The contract's maximum holds, and a token of somewhere else is refused."""
    for request, reason in (
        (pb.ListRoutesRequest(page_size=101), "INVALID_ARGUMENT"),
        (pb.ListRoutesRequest(page_token="§"), "PAGE_TOKEN_INVALID"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.ListRoutes(request, metadata=OPERATOR)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert _reason(refused.value) == reason


async def test_documents_are_served_when_config_is_dead(
    stub: rpc.GatewayServiceAsyncStub, config: tuple[Config, grpc.Server]
) -> None:
    """Document and page need nobody else."""
    config[1].stop(None).wait()
    document = (await stub.GetOpenApi(pb.GetOpenApiRequest(), metadata=[EDGE])).body
    page = (await stub.GetApiPage(pb.GetApiPageRequest(), metadata=[EDGE])).body
    assert document.data.startswith(b"{")
    assert page.content_type.startswith("text/html")
