"""A method of the contract that was registered as a stream: the steps would not see it, so nobody gets to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from services.platform.process import App
from services.platform.settings import ServiceSettings
from tests.running import Served

METHOD = "/paymesh.payment.v1.PaymentService/GetPayment"


@pytest.mark.parametrize("kind", ["unary_stream", "stream_unary", "stream_stream"])
def test_stream_is_refused_when_a_method_of_the_contract_has_one(run_dir: Path, kind: str) -> None:
    """UNIMPLEMENTED, without the identity that the method asks for and with it; the handler is never called."""
    reached = list[str]()

    async def answer(_request: object, _context: object) -> bytes:
        reached.append(kind)
        return b""

    async def answers(_request: object, _context: object) -> AsyncIterator[bytes]:
        reached.append(kind)
        yield b""

    def register(server: Any) -> None:  # noqa: ANN401 - a server of grpc.aio
        make: Any = getattr(grpc, f"{kind}_rpc_method_handler")
        handlers = {"GetPayment": make(answers if kind.endswith("stream") else answer)}
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("paymesh.payment.v1.PaymentService", handlers),)
        )

    settings = ServiceSettings(data=run_dir, listen=f"unix:{run_dir}/s.sock", trace_ratio=0.0)
    with Served(App("payment", settings, register, (), set())) as served:
        call: Any = getattr(served.channel, kind)(METHOD)
        for user in (0, 7):
            sent = iter([b""]) if kind.startswith("stream") else b""
            with pytest.raises(grpc.RpcError) as caught:
                list(call(sent, timeout=5, metadata=[("x-paymesh-sub", str(user))]))
            assert isinstance(caught.value, grpc.Call)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert reached == []
