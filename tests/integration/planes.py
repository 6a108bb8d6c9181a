"""Every service of the contract behind real Envoys, and the three ways to each of its methods."""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import grpc
import httpx

from services.contract.load import contract
from services.contract.model import Auth
from services.mesh.node import EDGE, Edge
from services.platform.identity import SCOPE, SESSION, SUBJECT
from tests.e2e.refusals import Refusal, of_grpc, of_rest
from tests.fakes.rooms import FakeRooms, message_of
from tests.integration.envoys import Mesh, envoy, free_address
from tests.integration.requests import at_rest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from google.protobuf.message import Message

    from services.contract.model import Contract, Method

KEY = "Idempotency-Key"
SLOWEST_S = 15.0
"""No method may take longer: a call that does is one that nobody ends."""


@dataclass(frozen=True, slots=True)
class Who:
    """A caller: nobody, or a subject with scopes."""

    subject: str = ""
    scopes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Said:
    """What a call came to: None, or why it was refused; how long it took, and which limit the edge told of."""

    refusal: Refusal | None
    seconds: float = field(default=0.0, compare=False)
    limit: str = field(default="", compare=False)

    @property
    def reason(self) -> str:
        """The reason of the refusal; OK."""
        return self.refusal.reason if self.refusal else "OK"


class Plane(Protocol):
    """A way to the methods of the contract."""

    name: str

    def call(self, method: Method, request: Message, who: Who, key: str = "") -> Said:
        """Call a method as somebody."""
        ...


class Rest:
    """JSON to the edge. A method without a route is asked for by its gRPC path, where nothing may answer."""

    name = "REST"

    def __init__(self, mesh: Mesh, edge: Edge) -> None:
        """Call the edge of a mesh."""
        self._mesh = mesh
        limits = httpx.Limits(max_connections=200)
        self.http = httpx.Client(base_url=f"https://{edge.rest}", verify=mesh.trust(), timeout=SLOWEST_S, limits=limits)

    def call(self, method: Method, request: Message, who: Who, key: str = "") -> Said:
        """Call a method on its route."""
        verb, path, sent = at_rest(method, request) if method.http else ("POST", method.path, {"json": {}})
        headers = {**sent.pop("headers", {}), **_bearer(self._mesh, who), **({KEY: key} if key else {})}
        began = time.monotonic()
        answer = self.http.request(verb, path, headers=headers, **sent)
        took = time.monotonic() - began
        refusal = None if answer.status_code == httpx.codes.OK else of_rest(answer)
        return Said(refusal, took, answer.headers.get("x-ratelimit-limit", ""))


class Native:
    """Protobuf over a channel, with metadata that says who calls."""

    def __init__(self, name: str, channel: grpc.Channel, mesh: Mesh, *, inside: bool) -> None:
        """Call by a channel; ``inside`` the mesh identity is told by headers, as the edge passes it on."""
        self.name, self.channel, self._mesh, self._inside = name, channel, mesh, inside

    def call(self, method: Method, request: Message, who: Who, key: str = "") -> Said:
        """Call a method by its path."""
        headers = _passed_on(who) if self._inside else _bearer(self._mesh, who)
        metadata: list[tuple[str, str | bytes]] = [*headers.items(), *([(KEY.lower(), key)] if key else [])]
        invoke: grpc.UnaryUnaryMultiCallable[Message, Message] = self.channel.unary_unary(
            method.path,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=message_of(method.response).FromString,
        )
        began = time.monotonic()
        # Longer than any method may take, so that it is the mesh that ends the call.
        call = invoke.future(request, timeout=SLOWEST_S, metadata=tuple(metadata))
        error = call.exception()
        assert error is None or isinstance(error, grpc.RpcError)
        took = time.monotonic() - began
        told = {key: str(value) for key, value in (*(call.initial_metadata() or ()), *(call.trailing_metadata() or ()))}
        return Said(of_grpc(error) if error else None, took, told.get("x-ratelimit-limit", ""))


class Inside:
    """gRPC through the callee's own sidecar, by a peer that the contract lets in: the edge, or else a service."""

    name = "mesh"

    def __init__(self, planes: Planes, stack: ExitStack) -> None:
        """Call the services of a mesh; channels are closed by the stack."""
        self._planes, self._stack = planes, stack
        self._channels: dict[tuple[str, str], Native] = {}

    def call(self, method: Method, request: Message, who: Who, key: str = "") -> Said:
        """Call a method as a peer that it is for."""
        return self.as_peer(peer_of(method), method, request, who, key)

    def as_peer(self, peer: str, method: Method, request: Message, who: Who, key: str = "") -> Said:
        """Call a method with the certificate of a peer."""
        known = self._channels.get((method.service, peer))
        if known is None:
            channel = self._stack.enter_context(self._planes.grpc_peer(f"{method.service}-1", peer))
            known = self._channels[method.service, peer] = Native(self.name, channel, self._planes, inside=True)
        return known.call(method, request, who, key)


def peer_of(method: Method) -> str:
    """The peer as which a method is called inside the mesh."""
    return EDGE if EDGE in method.callers else method.callers[0]


def _bearer(mesh: Mesh, who: Who) -> dict[str, str]:
    if not who.subject:
        return {}
    return {"authorization": f"Bearer {mesh.token(subject=who.subject, scope=' '.join(who.scopes))}"}


def _passed_on(who: Who) -> dict[str, str]:
    return {SUBJECT: who.subject, SCOPE: " ".join(who.scopes), SESSION: "s1"} if who.subject else {}


class Planes(Mesh):
    """One instance of each service, or as many as are named, and the edge; every server is empty (FakeRooms)."""

    def __init__(self, directory: Path, policy: Contract | None = None, instances: tuple[str, ...] = ()) -> None:
        """Lay out a mesh of a contract; nothing runs yet."""
        policy = policy or contract()
        super().__init__(directory, policy, instances or tuple(f"{room}-1" for room in policy.services))
        self.rooms = FakeRooms()
        self._stack = ExitStack()

    @contextmanager
    def running(self) -> Iterator[Planes]:
        """Run everything until the block ends."""
        with self.rooms, super().running(), self._stack:
            yield self

    def serve(self, name: str) -> None:
        """Start an instance (again)."""
        node = self.sidecars[name]
        self.rooms.serve(name, self.contract.services[node.service], f"unix:{node.service_socket}")

    def stop(self, name: str) -> None:
        """Stop an instance at once; its Envoy stays."""
        self.rooms.stop(name)

    def ways(self, edge: Edge | None = None) -> tuple[Rest, Native, Inside]:
        """The three planes, open until the mesh ends."""
        edge = edge or self.edge
        rest = Rest(self, edge)
        self._stack.callback(rest.http.close)
        credentials = grpc.ssl_channel_credentials(self.authority.cert_pem.encode())
        channel = self._stack.enter_context(grpc.secure_channel(edge.grpc, credentials))
        return rest, Native("gRPC", channel, self, inside=False), Inside(self, self._stack)

    def second_edge(self, number: int, policy: Contract) -> Edge:
        """Run one more edge, with another contract than the others have."""
        node, kept = Edge(f"edge-{number}", free_address(), free_address()), self.contract
        self.contract = policy
        try:
            self.admin[node.id] = self._stack.enter_context(envoy(self.bootstrap(node), self.directory, node.id))
        finally:
            self.contract = kept
        return node


def narrowed(policy: Contract, requests: int) -> Contract:
    """The contract with as few calls let through by every method that has a limit, each Envoy counting for itself."""
    services = {}
    for name, service in policy.services.items():
        of_service = tuple(
            replace(m, rate_limit=replace(m.rate_limit, requests=requests, is_global=False)) if m.rate_limit else m
            for m in service.methods
        )
        services[name] = replace(service, methods=of_service)
    methods = {m.path: m for s in services.values() for m in s.methods}
    return replace(policy, services=services, methods=methods)


def right(method: Method, request: Message) -> Who:
    """Somebody who may make a request: the owner, where it names one; with the scopes that are asked for."""
    if method.auth in {Auth.PUBLIC, Auth.INTERNAL}:
        return Who()
    owner = str(getattr(request, method.owner.field)) if method.owner and method.owner.field else "42"
    return Who(owner, method.scopes)
