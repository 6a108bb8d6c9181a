"""`python -m services.cli.reach HOST:PORT CA`: ends with 0 once the edge answers a gRPC call that every service serves.

A process of its own: grpcio would stay in the supervisor's memory for a question that is asked once.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import grpc

from paymesh.gateway.v1 import gateway_pb2, gateway_service_pb2, gateway_service_pb2_grpc

_CALL_S = 2.0
_PAUSE_S = 0.1


def serving(address: str, ca: Path) -> bool:
    """Ask once, with a connection of its own: channels back off longer than a start takes."""
    credentials = grpc.ssl_channel_credentials(ca.read_bytes())
    with grpc.secure_channel(address, credentials) as channel:
        stub = gateway_service_pb2_grpc.GatewayServiceStub(channel)
        try:
            answer = stub.GetHealth(gateway_service_pb2.GetHealthRequest(), timeout=_CALL_S)
        except grpc.RpcError:
            return False
        return bool(answer.health.status == gateway_pb2.Health.STATUS_SERVING)


def main(address: str, ca: Path) -> None:
    """Ask until the answer is yes; whoever started this ends it when it takes too long."""
    while not serving(address, ca):
        time.sleep(_PAUSE_S)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
