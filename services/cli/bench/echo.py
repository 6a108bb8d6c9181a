"""The yardstick: a bare grpc.aio server on uvloop, no interceptor, that answers CreatePayment with a payment at once."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import grpc
import uvloop
from grpc import aio

from paymesh.payment.v1 import payment_pb2
from paymesh.payment.v1 import payment_service_pb2 as pb
from paymesh.type.v1 import money_pb2

SERVICE = "paymesh.payment.v1.PaymentService"


async def create_payment(request: pb.CreatePaymentRequest, _context: object) -> pb.CreatePaymentResponse:
    """Answer with a payment of the order asked for: what an answer of the same shape costs, and nothing else."""
    return pb.CreatePaymentResponse(
        payment=payment_pb2.Payment(
            id=request.order_id,
            payment_no=f"P{request.order_id}",
            order_id=request.order_id,
            user_id=request.order_id,
            amount=money_pb2.Money(currency_code="CNY", minor_units=100),
            refunded=money_pb2.Money(currency_code="CNY", minor_units=0),
            method=request.method,
            status=payment_pb2.Payment.STATUS_SUCCESS,
        )
    )


async def _serve(path: str) -> None:
    server = aio.server(options=[("grpc.so_reuseport", 0), ("grpc.max_concurrent_streams", 2000)])
    handler = grpc.unary_unary_rpc_method_handler(
        create_payment, pb.CreatePaymentRequest.FromString, pb.CreatePaymentResponse.SerializeToString
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"CreatePayment": handler}),))
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    ended = asyncio.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signum, ended.set)
    await ended.wait()
    await server.stop(0)


if __name__ == "__main__":
    os.umask(0o077)
    Path(sys.argv[1]).unlink(missing_ok=True)
    uvloop.run(_serve(sys.argv[1]))
