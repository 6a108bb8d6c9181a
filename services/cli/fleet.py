"""The instances of a mesh that runs: added and removed one by one, each with its Envoy, while the others serve."""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import time
from typing import TYPE_CHECKING

from services.cli import children
from services.cli.children import envoy_name
from services.cli.exits import CommandError, Exit
from services.cli.folder import write_json
from services.cli.probes import Edge, drained
from services.cli.settings import INSTANCES_MAX, ROOMS, SINGLE
from services.mesh.node import bootstrap

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from services.cli.control import Tell
    from services.cli.folder import Folder
    from services.cli.layout import Instance, Layout
    from services.cli.releases import Release
    from services.cli.supervisor.supervisor import Supervisor
    from services.mesh.node import Node

SERVING_S = 90.0
"""From the start of an instance until it gets calls, at most; an idle machine needs 3 s."""
_FUTILE_MAX = 3
_LOOK_S = 0.1


class NotServing(Exception):
    """An instance that was started does not come to serve; the message says which and why."""


class Fleet:
    """The instances, by the layout that they and everybody else are found in."""

    def __init__(
        self, layout: Layout, supervisor: Supervisor, admin: Mapping[str, str], changed: Callable[[], None]
    ) -> None:
        """Begin with those of ``layout``, which others start; ``changed`` is told when there are others."""
        self.layout = layout
        self._supervisor, self._admin, self._changed = supervisor, admin, changed
        self._edge = Edge(layout.rest, layout.folder.ca)

    def of(self, service: str) -> tuple[Instance, ...]:
        """Return the instances of a service by number."""
        return tuple(sorted(self.layout.of({service}), key=lambda each: each.number))

    def starts(self, instance: Instance) -> int:
        """Return how often the process of an instance was started."""
        return self._supervisor.children[instance.name].starts

    async def add(self, service: str, release: Release) -> Instance:
        """Start a further instance; it registers itself, and is let in by config once it serves. Raises NotServing."""
        self.layout, made = self.layout.with_instance(service, release)
        admit(self.layout, {self.layout.node(made): made.admin})
        self._supervisor.start(children.sidecar(self.layout, made))
        self._supervisor.start(children.service(self.layout, made, self._admin))
        self._changed()
        await self._until_serving(made)
        return made

    async def _until_serving(self, made: Instance) -> None:
        wanted, child, until = (
            len(self.of(made.service)),
            self._supervisor.children[made.name],
            time.monotonic() + SERVING_S,
        )
        while await self._healthy(made.service) < wanted:
            if child.futile >= _FUTILE_MAX:
                raise NotServing(f"{made.name} cannot be started: {child.futile} starts in a row came to nothing")
            if time.monotonic() > until:
                raise NotServing(f"{made.name} does not serve after {SERVING_S:g} s")
            await asyncio.sleep(_LOOK_S)

    async def _healthy(self, service: str) -> int:
        """Return how many instances of a service pass their health checks, as the edge says."""
        health = await asyncio.to_thread(self._edge.health)
        return sum(each.get("healthy", 0) for each in (health or {}).get("services", []) if each["service"] == service)

    async def remove(self, instance: Instance) -> None:
        """End an instance in order: it takes itself out of discovery, ends what it has; then its Envoy does.

        What a crash in the middle leaves of a payment's attempts the completer of another instance takes up, once the
        lease of 15 s is over.
        """
        self.layout = self.layout.without(instance)
        self._changed()
        await self._supervisor.remove(instance.name)
        await drained(instance.admin)()
        await self._supervisor.remove(envoy_name(instance.name))
        dismiss(self.layout.folder, instance.name)

    async def scale(self, service: str, count: int, tell: Tell) -> None:
        """Bring a service to ``count`` instances, one after the other; the highest numbers go first.

        Raises NotServing when a new one does not come to serve: it is removed again, and the ones before it stay.
        """
        check(service, count)
        release = self.of(service)[0].release
        while len(self.of(service)) < count:
            try:
                made = await self.add(service, release)
            except NotServing:
                await self.remove(self.of(service)[-1])
                raise
            tell("instance_added", f"  + {made.name} serves", name=made.name)
        while len(self.of(service)) > count:
            gone = self.of(service)[-1]
            await self.remove(gone)
            tell("instance_removed", f"  - {gone.name} has ended", name=gone.name)


def check(service: str, count: int) -> None:
    """Refuse what no mesh can have. Raises CommandError."""
    if service not in ROOMS:
        raise CommandError(Exit.BAD_INPUT, f"There is no service {service!r}; there are {', '.join(ROOMS)}.")
    if service in SINGLE:
        raise CommandError(Exit.BAD_INPUT, f"There is one {service}: all Envoys know its socket.")
    if not 1 <= count <= INSTANCES_MAX:
        what = f"{count} instances of {service}: there can be 1 to {INSTANCES_MAX}, whose numbers are in the ids they make."
        raise CommandError(Exit.BAD_INPUT, what)


def admit(layout: Layout, admins: Mapping[Node, int], *, anew: bool = False) -> None:
    """Give nodes (with the ports of their admin listeners) a join token each, and the bootstraps that hold them.

    ``anew`` forgets all nodes that were admitted before.
    """
    folder, tokens = layout.folder, {node.id: secrets.token_urlsafe(32) for node in admins}
    known = {} if anew else _digests(folder)
    _admit(folder, known | {name: hashlib.sha256(each.encode()).hexdigest() for name, each in tokens.items()})
    for node, admin in admins.items():
        token, at = tokens[node.id], f"127.0.0.1:{admin}"
        made = bootstrap(node, xds_socket=str(layout.xds), join_token=token, admin=at)
        write_json(folder.envoy / f"{node.id}.json", made)


def dismiss(folder: Folder, node_id: str) -> None:
    """Let a node in no longer."""
    _admit(folder, {name: digest for name, digest in _digests(folder).items() if name != node_id})
    (folder.envoy / f"{node_id}.json").unlink(missing_ok=True)


def _digests(folder: Folder) -> dict[str, str]:
    return dict(json.loads(folder.tokens.read_text()))


def _admit(folder: Folder, digests: Mapping[str, str]) -> None:
    write_json(folder.tokens, dict(digests))
