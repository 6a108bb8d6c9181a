"""A mesh with two edges and two gateways: real Envoys, the gateway's own processes, a Valkey between them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from services.mesh.node import Edge
from services.mesh.world import ApiKeys
from tests.integration.envoys import Mesh, envoy, free_address

if TYPE_CHECKING:
    from collections.abc import Iterator

    from services.mesh.world import World

ROOT = Path(__file__).parents[2]
GATEWAYS = ("gateway-1", "gateway-2")


@dataclass
class GatewayMesh(Mesh):
    """The mesh. ``api_keys`` is what the edges know of keys; ``redis_url`` what the gateways count in."""

    instances: tuple[str, ...] = ("user-1", *GATEWAYS)
    redis_url: str = ""
    api_keys: ApiKeys = field(default_factory=ApiKeys)
    gateways: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.second = Edge("edge-2", free_address(), free_address())

    def world(self) -> World:
        """Say what the edges know of keys, too."""
        return replace(super().world(), api_keys=self.api_keys)

    @contextmanager
    def running(self) -> Iterator[GatewayMesh]:
        """Run everything until the block ends."""
        with super().running(), envoy(self.bootstrap(self.second), self.directory, self.second.id):
            self.await_gateways()
            yield self

    def serve(self, name: str) -> None:
        """Start an instance; a gateway is a process of its own."""
        if name not in GATEWAYS:
            super().serve(name)
            return
        node, data = self.sidecars[name], self.directory / name
        data.mkdir(exist_ok=True)
        environ = {
            "PAYMESH_DATA": str(data),
            "PAYMESH_INSTANCE": name[-1],
            "PAYMESH_LISTEN": f"unix:{node.service_socket}",
            "PAYMESH_MESH": f"unix:{node.outbound_socket}",
            "PAYMESH_REDIS_URL": self.redis_url,
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'gen' / 'python'}",
        }
        with (data / "log").open("ab") as log:
            self.gateways[name] = subprocess.Popen(
                [sys.executable, "-m", "services.gateway"], env={**os.environ, **environ}, stdout=log, stderr=log
            )

    def stop(self, name: str) -> None:
        """Stop an instance at once."""
        if name not in GATEWAYS:
            super().stop(name)
            return
        self.gateways[name].kill()
        self.gateways[name].wait(10)

    def await_gateways(self) -> None:
        """Wait until both serve."""
        deadline = time.monotonic() + 60
        for name in GATEWAYS:
            with grpc.insecure_channel(f"unix:{self.sidecars[name].service_socket}") as channel:
                grpc.channel_ready_future(channel).result(deadline - time.monotonic())
