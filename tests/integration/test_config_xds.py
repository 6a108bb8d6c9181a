"""The xDS server on its socket, spoken to as an Envoy would, and as one would not."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from envoy_data_plane.envoy.config.core.v3 import Node as NodeMessage
from envoy_data_plane.envoy.service.discovery.v3 import DeltaDiscoveryRequest, DeltaDiscoveryResponse
from envoy_data_plane.google.rpc import Status

from services.config.servicer.xds import DeltaDiscovery, XdsServer
from services.mesh.node import JOIN_TOKEN, Sidecar
from services.mesh.snapshot import CLUSTER, LISTENER, Packed, Snapshot

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from services.mesh.node import Node

DELTA = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
NODE = Sidecar("payment-1", "payment", "127.0.0.1:1", "/run/p.sock", "/run/p.out.sock")


class World:
    """A cluster whose version a test turns, and who is let in."""

    def __init__(self) -> None:
        self.generation = 1
        self._turned = asyncio.Condition()

    async def turn(self) -> None:
        """Change the cluster."""
        async with self._turned:
            self.generation += 1
            self._turned.notify_all()

    async def later_than(self, generation: int) -> None:
        """Wait for a turn."""
        async with self._turned:
            await self._turned.wait_for(lambda: self.generation > generation)

    async def snapshot(self, node: Node) -> Snapshot | None:
        """A cluster of this generation, and a listener."""
        cluster = Packed(str(self.generation), node.id.encode(), CLUSTER, "risk")
        return Snapshot({CLUSTER: {"risk": cluster}, LISTENER: {"in": Packed("1", b"", LISTENER, "in")}})

    def admit(self, node_id: str, cluster: str, layout: Mapping[str, object], token: str) -> Node | str:
        """Who says the word is payment-1."""
        del node_id, cluster, layout
        return NODE if token == "right" else "a wrong token"

    def ids(self) -> tuple[str, ...]:
        """Who may join."""
        return (NODE.id,)

    def fault(self, node_id: str) -> str:
        """Everything can be rendered."""
        del node_id
        return ""

    def revoked(self, node_id: str) -> bool:
        """Nobody is shut out."""
        del node_id
        return False


class Envoy:
    """A stream to the server."""

    def __init__(self, channel: grpc.aio.Channel, token: str = "right") -> None:
        method: Any = channel.stream_stream(
            DELTA, DeltaDiscoveryRequest.SerializeToString, DeltaDiscoveryResponse.FromString
        )
        self.stream = method(metadata=((JOIN_TOKEN, token),), timeout=10)

    async def ask(self, type_url: str, **more: Any) -> None:  # noqa: ANN401 - fields of the request
        """Send a request."""
        node = NodeMessage(id="payment-1", cluster="payment")
        await self.stream.write(DeltaDiscoveryRequest(node=node, type_url=type_url, **more))

    async def take(self) -> tuple[str, str]:
        """Accept the next push; returns the name and version of its resource."""
        push = await self.stream.read()
        assert push is not grpc.aio.EOF, await self.stream.details()
        await self.ask(push.type_url, response_nonce=push.nonce)
        return push.resources[0].name, push.resources[0].version


@asynccontextmanager
async def _served(run_dir: Path) -> AsyncIterator[tuple[World, DeltaDiscovery, grpc.aio.Channel]]:
    world, address = World(), f"unix:{run_dir}/xds.sock"
    discovery = DeltaDiscovery(world, world, first_request_s=0.3)
    server = XdsServer(address, discovery)
    await server.start()
    async with grpc.aio.insecure_channel(address) as channel:
        yield world, discovery, channel
    await server.stop()


async def _until_settled(discovery: DeltaDiscovery) -> None:
    async with asyncio.timeout(2):
        while not discovery.settled(NODE.id):  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)


async def test_node_gets_what_there_is_and_what_changes(run_dir: Path) -> None:
    """Asked for at once, changed later; settled when everything of this moment was accepted."""
    async with _served(run_dir) as (world, discovery, channel):
        envoy = Envoy(channel)
        await envoy.ask(CLUSTER)
        assert await envoy.take() == ("risk", "1")
        await envoy.ask(LISTENER)
        assert await envoy.take() == ("in", "1")
        await _until_settled(discovery)
        await world.turn()
        assert not discovery.settled(NODE.id)
        assert await envoy.take() == ("risk", "2")
        await _until_settled(discovery)


async def test_refusal_is_recorded_until_something_better_is_accepted(run_dir: Path) -> None:
    """The complaint can be asked for; the refused version is not sent again, the next one is."""
    async with _served(run_dir) as (world, discovery, channel):
        envoy = Envoy(channel)
        await envoy.ask(CLUSTER)
        push = await envoy.stream.read()
        await envoy.ask(CLUSTER, response_nonce=push.nonce, error_detail=Status(code=3, message="no such thing"))
        await envoy.ask(LISTENER)
        assert await envoy.take() == ("in", "1")
        assert discovery.refusals(NODE.id) == {"risk": "no such thing"}
        assert not discovery.settled(NODE.id)
        await world.turn()
        assert await envoy.take() == ("risk", "2")
        await _until_settled(discovery)
        assert discovery.refusals(NODE.id) == {}


@pytest.mark.parametrize("fault", ["wrong token", "silence", "nothing", "no node"])
async def test_stream_that_does_not_prove_its_node_gets_nothing(run_dir: Path, fault: str) -> None:
    """A wrong token, no word in time, a stream that ends at once, a request without a node."""
    async with _served(run_dir) as (_, discovery, channel):
        envoy = Envoy(channel, "wrong" if fault == "wrong token" else "right")
        if fault == "wrong token":
            await envoy.ask(CLUSTER)
        elif fault == "nothing":
            await envoy.stream.done_writing()
        elif fault == "no node":
            await envoy.stream.write(DeltaDiscoveryRequest(type_url=CLUSTER))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await envoy.stream.read()
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert not discovery.settled(NODE.id)


async def test_second_stream_of_a_node_replaces_the_first(run_dir: Path) -> None:
    """A node that reconnects before its old stream was missed is known by the new one, also when the old one ends."""
    async with _served(run_dir) as (world, discovery, channel):
        old, new = Envoy(channel), Envoy(channel)
        for envoy in (old, new):
            await envoy.ask(CLUSTER)
            assert await envoy.take() == ("risk", "1")
        await new.ask(LISTENER)
        assert await new.take() == ("in", "1")
        await _until_settled(discovery)
        old.stream.cancel()
        await asyncio.sleep(0.05)
        assert discovery.settled(NODE.id)
        await world.turn()
        assert await new.take() == ("risk", "2")


async def test_node_that_left_is_not_settled(run_dir: Path) -> None:
    """Readiness is that of a stream which is there."""
    async with _served(run_dir) as (_, discovery, channel):
        envoy = Envoy(channel)
        await envoy.ask(CLUSTER)
        await envoy.take()
        await envoy.ask(LISTENER)
        await envoy.take()
        await _until_settled(discovery)
        await envoy.stream.done_writing()
        assert await envoy.stream.read() is grpc.aio.EOF
        assert not discovery.settled(NODE.id)
