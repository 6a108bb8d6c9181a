"""What every Envoy of the mesh is served: rendered when the world changes, once for each node, outside the event loop."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

from services.mesh import snapshot
from services.mesh.node import Edge
from services.mesh.world import NO_KEYS, ApiKeys, Instance, World
from services.platform import failpoint, telemetry

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from services.config.domain import Endpoint
    from services.mesh.node import Node
    from services.mesh.snapshot import Secrets, Snapshot


PREPARE_AFTER_S = 1.0
"""When the edge is prepared that waits for the keys of tokens: sidecars first, for the keys come through two of them."""


class Identities(Protocol):
    """Certificates of nodes."""

    def secrets(self, node: Node) -> Secrets:
        """Return the node's present certificate, key and CAs."""
        ...


@dataclass(frozen=True, slots=True)
class _Rendered:
    generation: int
    snapshot: Snapshot | None


class Envoys:
    """The world as the Envoys are to see it, and its snapshots. Changes come from any thread."""

    def __init__(
        self,
        make: Callable[[Node, World, Secrets], Snapshot],
        identities: Identities,
        origins: frozenset[str] = frozenset(),
    ) -> None:
        """Render with ``make``; the certificates are those of ``identities``, pages of ``origins`` may call the edge."""
        self._make, self._identities = make, identities
        self._world = World(origins=origins)
        self._change = threading.Lock()
        self.generation = 1
        self._faults: dict[str, str] = {}
        self._rendered: dict[Node, _Rendered] = {}  # a node that comes back with another layout is another node
        # One thread: rendering is CPU alone, a second one would only contend for the interpreter lock.
        self._renderer = ThreadPoolExecutor(1, "render")
        self._prepared: set[Node] = set()
        self._timers: list[asyncio.TimerHandle] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken = asyncio.Event()

    async def start(self) -> None:
        """Begin on the running loop."""
        self._loop = asyncio.get_running_loop()

    def stop(self) -> None:
        """End the renderer."""
        for timer in self._timers:
            timer.cancel()
        self._renderer.shutdown(wait=True, cancel_futures=True)

    def show_endpoints(self, endpoints: Mapping[str, Sequence[Endpoint]]) -> None:
        """Route calls to these endpoints, by service, and to no others."""
        instances = {s: tuple(sorted(Instance(e.instance, e.address) for e in es)) for s, es in endpoints.items()}
        self._turn(lambda world: replace(world, instances=instances))

    def show_weights(self, service: str, weights: Mapping[str, int]) -> None:
        """Share the calls of a service by these weights of instances; none: all are alike."""
        self._turn(lambda world: replace(world, weights={**world.weights, service: dict(weights)}))

    def show_keys(self, jwks: str) -> None:
        """Verify access tokens with these keys (a JWKS as JSON)."""
        self._turn(lambda world: replace(world, jwks=jwks))

    def show_api_keys(self, jwks: str, revoked: Collection[str]) -> None:
        """Take API keys that these keys verify, but for those with the ids ``revoked``."""
        known = ApiKeys(jwks, frozenset(revoked))
        self._turn(lambda world: replace(world, api_keys=known))

    def show_revoked(self, names: frozenset[str]) -> None:
        """Shut out services, and instances by their node id."""
        self._turn(lambda world: replace(world, revoked=names))

    def revoked(self, node_id: str) -> bool:
        """Whether a node is shut out: it is told nothing any more, least of all a new certificate."""
        return not self._world.revoked.isdisjoint({node_id, node_id.rpartition("-")[0]})

    def fault(self, node_id: str) -> str:
        """Why the newest configuration was not rendered for a node; "": it was."""
        return self._faults.get(node_id, "")

    def show_identities(self) -> None:
        """Serve certificates that were renewed."""
        self._turn(lambda world: world, always=True)

    def _turn(self, change: Callable[[World], World], *, always: bool = False) -> None:
        with self._change:
            world = change(self._world)
            if world == self._world and not always:
                return
            self._world = world
            self.generation += 1
        failpoint.reach("P19", "world")
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        woken, self._woken = self._woken, asyncio.Event()
        woken.set()

    async def later_than(self, generation: int) -> None:
        """Return when there is a generation after ``generation``; a change just before the wait is not missed."""
        while self.generation <= generation:
            await self._woken.wait()

    async def snapshot(self, node: Node) -> Snapshot | None:
        """Return what ``node`` is to be served now; None: nothing yet, it keeps what it has."""
        rendered = self._rendered.get(node)
        if rendered is None or rendered.generation != self.generation:
            rendered = await asyncio.get_running_loop().run_in_executor(self._renderer, self._render, node)
        return rendered.snapshot

    def _render(self, node: Node) -> _Rendered:
        last = self._rendered.get(node)
        with self._change:
            generation, world = self.generation, self._world
        if last is not None and last.generation == generation:
            return last
        if self.revoked(node.id):
            rendered = _Rendered(generation, None)
        # An edge without keys would refuse every token, and a restarted config must not tell it to forget them, nor which
        # API keys are revoked.
        elif isinstance(node, Edge) and (world.jwks == NO_KEYS or world.api_keys is None):
            rendered = _Rendered(generation, None)
            self._prepare(node, world)
        else:
            rendered = _Rendered(generation, self._try(node, world, last))
        self._rendered[node] = rendered
        return rendered

    def _prepare(self, node: Node, world: World) -> None:
        """Render for nobody, once the others are served: the renderer keeps the parts that do not change (0.5 s)."""
        if self._loop is not None and node not in self._prepared:
            self._prepared.add(node)
            self._loop.call_soon_threadsafe(self._prepare_later, node, world)

    def _prepare_later(self, node: Node, world: World) -> None:
        assert self._loop is not None
        render = partial(self._renderer.submit, self._try, node, world, None)
        self._timers.append(self._loop.call_later(PREPARE_AFTER_S, render))

    def _try(self, node: Node, world: World, last: _Rendered | None) -> Snapshot | None:
        """Render; what cannot be rendered leaves the node with the last good one, and is said."""
        try:
            made = self._make(node, world, self._identities.secrets(node))
        except (snapshot.InconsistentSnapshotError, LookupError, ValueError, OSError) as error:
            telemetry.log.error("xds.not_rendered", node=node.id, error=str(error))
            telemetry.ALARMS.labels("mesh", "xds.not_rendered").inc()
            self._faults[node.id] = str(error) or type(error).__name__
            return last.snapshot if last else None
        self._faults.pop(node.id, None)
        return made
