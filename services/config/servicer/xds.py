"""Delta ADS with secrets: every Envoy gets, on one stream, what was rendered for its node, and what changes of it.

A stream is answered only when it brings the join token of the node that it says it is, since whoever is answered gets
that node's private key.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import grpc
from betterproto2 import parse_fields
from envoy_data_plane.envoy.service.discovery.v3 import (
    AggregatedDiscoveryServiceBase,
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    Resource,
)
from envoy_data_plane.google.protobuf import Any as AnyMessage
from prometheus_client import Counter, Gauge

from services.config.domain import NodeState
from services.config.servicer.delta import Session
from services.mesh.node import JOIN_TOKEN
from services.platform import telemetry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from services.config.servicer.delta import Push
    from services.mesh.node import Node
    from services.mesh.snapshot import Snapshot

    _Context = grpc.aio.ServicerContext[DeltaDiscoveryRequest, DeltaDiscoveryResponse]

FIRST_REQUEST_S = 5.0
"""A stream that says nothing is ended after this."""

PUSHED = Counter("paymesh_xds_resources_pushed_total", "Resources sent to Envoys, by type.", ("type",))
REFUSED = Counter(
    "paymesh_xds_refused_total", "Pushes that an Envoy refused (NACK), by node and type.", ("node", "type")
)
REJECTED = Counter("paymesh_xds_streams_rejected_total", "Streams without the token of the node that they name.")
SETTLED = Gauge("paymesh_xds_node_settled", "1: the node accepted all that it was sent.", ("node",))


class Snapshots(Protocol):
    """What every node is to be served. ``generation`` ascends with each change."""

    generation: int

    async def snapshot(self, node: Node) -> Snapshot | None:
        """Return what the node is to be served now; None: nothing yet, it keeps what it has."""
        ...

    async def later_than(self, generation: int) -> None:
        """Return when there is a generation after ``generation``."""
        ...

    def fault(self, node_id: str) -> str:
        """Return why the newest configuration was not rendered for a node; "": it was."""
        ...

    def revoked(self, node_id: str) -> bool:
        """Return whether a node is shut out."""
        ...


class Admission(Protocol):
    """Who may be served."""

    def admit(self, node_id: str, cluster: str, layout: Mapping[str, object], token: str) -> Node | str:
        """Return the node; or why the stream is not its."""
        ...

    def ids(self) -> Iterable[str]:
        """Return the ids of the nodes that may join."""
        ...


def read_request(data: bytes) -> DeltaDiscoveryRequest:
    """Parse a request without the 500 extensions that an Envoy lists in its first one: 60 KB, 12 ms otherwise."""
    kept = []
    for top in parse_fields(data):
        if top.number == 1 and isinstance(top.value, bytes):
            # Node: 1 id, 2 cluster, 3 metadata. The lengths here may need two bytes, as protobuf's varint.
            node = b"".join(part.raw for part in parse_fields(top.value) if part.number <= 3)
            kept.append(b"\x0a" + _varint(len(node)) + node)
        else:
            kept.append(top.raw)
    return DeltaDiscoveryRequest.FromString(b"".join(kept))


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _response(push: Push) -> DeltaDiscoveryResponse:
    return DeltaDiscoveryResponse(
        type_url=push.type_url,
        nonce=push.nonce,
        removed_resources=list(push.gone),
        resources=[
            Resource(name=name, version=p.version, resource=AnyMessage(type_url=p.type_url, value=p.value))
            for name, p in push.changed.items()
        ],
    )


def _short(type_url: str) -> str:
    return type_url.rpartition(".")[2]


class DeltaDiscovery:
    """The server side of envoy.service.discovery.v3.AggregatedDiscoveryService, delta alone."""

    def __init__(self, snapshots: Snapshots, admission: Admission, *, first_request_s: float = FIRST_REQUEST_S) -> None:
        """Serve ``snapshots`` to the nodes that ``admission`` lets in."""
        self._snapshots, self._admission = snapshots, admission
        self._first_request_s = first_request_s
        self._sessions: dict[str, Session] = {}

    def handler(self) -> grpc.GenericRpcHandler:
        """Return what a grpc.aio server takes."""
        path = next(path for path in AggregatedDiscoveryServiceBase().__mapping__() if "/Delta" in path)
        _, service, method = path.split("/")
        stream = grpc.stream_stream_rpc_method_handler(
            self.delta_aggregated_resources,
            request_deserializer=read_request,
            response_serializer=DeltaDiscoveryResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(service, {method: stream})

    def settled(self, node_id: str) -> bool:
        """Whether a node is connected and has accepted all that there is for it at this moment."""
        session = self._sessions.get(node_id)
        if session is None or self._snapshots.fault(node_id):
            return False
        return session.settled() and session.generation == self._snapshots.generation

    def states(self) -> list[NodeState]:
        """Return every node that may join, by id, as it is at this moment."""
        snapshots = self._snapshots
        return [
            NodeState(
                node_id,
                connected=node_id in self._sessions,
                settled=self.settled(node_id),
                refusals=self.refusals(node_id),
                not_rendered=snapshots.fault(node_id),
                revoked=snapshots.revoked(node_id),
            )
            for node_id in sorted(self._admission.ids())
        ]

    def refusals(self, node_id: str) -> dict[str, str]:
        """What a connected node complains about, by resource; empty: nothing."""
        session = self._sessions.get(node_id)
        return session.refusals() if session else {}

    async def delta_aggregated_resources(
        self, requests: AsyncIterator[DeltaDiscoveryRequest], context: _Context
    ) -> None:
        """Answer one node until it leaves."""
        first = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._first_request_s):
                first = await anext(requests, None)
        node = self._admit(first, context)
        if isinstance(node, str) or first is None:
            REJECTED.inc()
            telemetry.log.warning("xds.stream_rejected", reason=node)
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, str(node))
            return
        session = self._sessions[node.id] = Session()  # a second stream of a node replaces the first
        telemetry.log.info("xds.joined", node=node.id)
        with contextlib.ExitStack() as stack:
            stack.callback(self._left, node, session)
            stream = _Stream(node, session, self._snapshots, context)
            async with asyncio.TaskGroup() as tasks:
                changes = tasks.create_task(stream.follow_changes())
                await stream.take(first)
                async for request in requests:
                    await stream.take(request)
                changes.cancel()

    def _admit(self, first: DeltaDiscoveryRequest | None, context: _Context) -> Node | str:
        said = first.node if first else None
        if said is None:
            return "no first request that names a node"
        layout = said.metadata.to_dict() if said.metadata else {}
        token = dict(context.invocation_metadata() or ()).get(JOIN_TOKEN, "")
        return self._admission.admit(said.id, said.cluster, layout, str(token))

    def _left(self, node: Node, session: Session) -> None:
        telemetry.log.info("xds.left", node=node.id)
        if self._sessions.get(node.id) is session:
            del self._sessions[node.id]
            SETTLED.labels(node.id).set(0)


class _Stream:
    """A node that was let in: its requests and the changes of the world are answered one at a time."""

    def __init__(self, node: Node, session: Session, snapshots: Snapshots, context: _Context) -> None:
        self._node, self._session, self._snapshots, self._context = node, session, snapshots, context
        self._turn = asyncio.Lock()

    async def take(self, request: DeltaDiscoveryRequest) -> None:
        async with self._turn:
            complaint = self._session.take(request)
            if complaint:
                kind = _short(request.type_url)
                REFUSED.labels(self._node.id, kind).inc()
                telemetry.ALARMS.labels("mesh", "xds.refused").inc()
                telemetry.log.error("xds.refused", node=self._node.id, type=kind, complaint=complaint)
            await self._answer()

    async def follow_changes(self) -> None:
        while True:
            await self._snapshots.later_than(self._session.generation)
            async with self._turn:
                await self._answer()

    async def _answer(self) -> None:
        # Taken before the snapshot: a change in between is then seen as one that is still to come.
        generation = self._snapshots.generation
        snapshot = await self._snapshots.snapshot(self._node)
        self._session.generation = generation
        for push in self._session.pushes(snapshot) if snapshot else ():
            PUSHED.labels(_short(push.type_url)).inc(len(push.changed))
            await self._context.write(_response(push))
        good = snapshot is not None and not self._snapshots.fault(self._node.id)
        SETTLED.labels(self._node.id).set(good and self._session.settled())


class XdsServer:
    """The gRPC server of the Envoys, apart from the one behind our own Envoy. A part of the App."""

    def __init__(self, listen: str, discovery: DeltaDiscovery) -> None:
        """Listen on ``listen`` (unix:…), whose folder only we may enter."""
        self._listen, self._discovery = listen, discovery
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Serve; a socket that a dead process left is replaced."""
        self._server = self._bind()
        await self._server.start()

    def _bind(self) -> grpc.aio.Server:
        if self._listen.startswith("unix:"):
            Path(self._listen.removeprefix("unix:")).unlink(missing_ok=True)
        # The largest request is a node's first, 60 KB; streams are one per Envoy, and a few that reconnect.
        limits = (("grpc.max_receive_message_length", 1 << 20), ("grpc.max_concurrent_streams", 1000))
        # Envoys ping every 30 s on a stream that is silent for hours; by default the third ping within 5 min ends it.
        pings = (("grpc.http2.min_ping_interval_without_data_ms", 10_000), ("grpc.keepalive_permit_without_calls", 1))
        server = grpc.aio.server(options=(("grpc.so_reuseport", 0), *limits, *pings))
        server.add_generic_rpc_handlers([self._discovery.handler()])
        if not server.add_insecure_port(self._listen):
            raise OSError(f"cannot listen on {self._listen}")
        return server

    async def stop(self) -> None:
        """End every stream at once: the Envoys keep what they have."""
        if self._server is not None:
            await self._server.stop(None)
