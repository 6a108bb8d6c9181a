"""Two payment instances that call an order instance through real Envoys, over a wire of ours."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import grpc

from paymesh.config.v1 import config_service_pb2 as pb
from paymesh.order.v1 import order_service_pb2, order_service_pb2_grpc
from tests.integration.config_mesh import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from paymesh.config.v1 import config_pb2
    from services.mesh.node import Sidecar
    from tests.integration.config_mesh import ConfigMesh
    from tests.integration.wire import Wire


class Site:
    """The wire is between the Envoys: every connection over it can be made to shake hands anew."""

    def __init__(self, mesh: ConfigMesh, wire: Wire) -> None:
        """Run the Envoys and the order service."""
        self.mesh, self.wire = mesh, wire
        self.cutting = False
        """Whether load() cuts connections now: a health check that config makes first after a restart must not fail."""
        self.payments, self.order = (mesh.sidecar("payment", 1), mesh.sidecar("payment", 2)), mesh.sidecar("order", 1)
        for node in (*self.payments, self.order):
            mesh.join(node)
        _, _, self.orders = mesh.serve(self.order)
        wire.target = self.order.inbound
        self.register()

    def register(self) -> None:
        """Make order known behind the wire, and wait until it is called there, and there alone."""
        self.mesh.register(self.order, address=self.wire.address)
        for node in self.payments:
            until(lambda node=node: self.mesh.endpoints(node, "order") == [self.wire.address])  # type: ignore[misc]

    def nodes(self) -> dict[str, config_pb2.MeshNode]:
        """What config says of the Envoys, by id."""
        found = self.mesh.operate("ListNodes", pb.ListNodesRequest(page_size=100))
        return {node.id: node for node in found.nodes}

    def set_revoked(self, names: str) -> None:
        """Shut out."""
        self.mesh.operate("SetConfig", pb.SetConfigRequest(key="mesh.revoked", value=names))


def ask(caller: Sidecar | grpc.Channel, timeout_s: float = 5.0) -> grpc.StatusCode:
    """Call order as the service of a sidecar does, or over a channel."""
    if not isinstance(caller, grpc.Channel):
        with grpc.insecure_channel(f"unix:{caller.outbound_socket}") as channel:
            return ask(channel, timeout_s)
    stub = order_service_pb2_grpc.OrderServiceStub(caller)
    try:
        stub.BatchGetOrders(order_service_pb2.BatchGetOrdersRequest(ids=[1]), timeout=timeout_s)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


@contextmanager
def load(site: Site, *, cut: bool = True) -> Iterator[list[grpc.StatusCode]]:
    """Call all the time through the sidecars, with ``cut`` again and again over a new connection, and renew the lease."""
    site.cutting = cut
    codes: list[grpc.StatusCode] = []
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            end = time.monotonic() + 1.5
            while time.monotonic() < end:
                codes.append(ask(site.payments[0]))
                over.wait(0.02)
            if site.cutting:
                site.wire.cut()  # nothing is under way but perhaps a health check: the only caller is this thread
                over.wait(0.05)

    def renew() -> None:
        while not over.wait(4):
            with suppress(grpc.RpcError):  # config may be dead at this moment; the next one comes in time
                site.mesh.register(site.order, address=site.wire.address)

    with ThreadPoolExecutor(2) as pool:
        done = [pool.submit(work), pool.submit(renew)]
        try:
            yield codes
        finally:
            over.set()
            for each in done:
                each.result(10)
