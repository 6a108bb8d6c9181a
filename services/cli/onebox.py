"""The whole mesh on one machine: started in parallel, reported when it serves, ended in order."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from typing import TYPE_CHECKING, Any

from services.cli import children
from services.cli.broker import EmbeddedBroker
from services.cli.children import envoy_name
from services.cli.control import Control
from services.cli.delivery.orders import Delivery
from services.cli.exits import CommandError, Exit
from services.cli.fleet import Fleet, admit
from services.cli.folder import write_json
from services.cli.layout import EDGE, base_environ, lay_out, python
from services.cli.migrate import is_current, with_migrations
from services.cli.probes import Edge, accepts
from services.cli.releases import Releases
from services.cli.settings import ROOMS
from services.cli.supervisor.signals import asked_to_end
from services.cli.supervisor.supervisor import Supervisor
from services.cli.supervisor.tether import tether
from services.platform import pki
from services.sandbox import keys

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence
    from pathlib import Path

    from services.cli.console import Console
    from services.cli.folder import Folder
    from services.cli.layout import Instance, Layout
    from services.cli.settings import UpSettings
    from services.cli.supervisor.child import Child
    from services.mesh.node import Node

_HEALTH_S = 0.1
_XDS_S = 0.02
_TURN_S = 2.0
"""How long a service may keep the next one from starting: it may be one that cannot start at all."""
FUTILE_MAX = 5
"""Starts in a row that come to nothing, until `up` gives up a mesh that has not served yet: 3 s of waits, and the starts."""
_SLOW_S = 30.0
"""A start that takes longer says what it waits for."""


class OneBox:
    """A mesh from `up` to its end. It is the supervisor's watcher: what changes is shown and recorded."""

    def __init__(self, folder: Folder, settings: UpSettings, console: Console, ready_file: Path | None) -> None:
        """Prepare; nothing is started until ``run``."""
        self._folder, self._settings, self._console, self._ready_file = folder, settings, console, ready_file
        self._releases = Releases(folder.releases)
        self._fleet: Fleet
        self._control: Control | None = None
        self._admin: dict[str, str] = {}
        self._supervisor = Supervisor(self)
        self._recorded = False
        self._hopeless: asyncio.Future[None]
        """Fails when a child turns out to be unable to start; once the mesh has served nothing is given up."""
        self._turns = asyncio.Semaphore(max(1, (os.cpu_count() or 1) - 1))
        self._queued: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        """Start, say when it serves, wait for a signal, end. Raises CommandError when it will never serve."""
        self._hopeless = asyncio.get_running_loop().create_future()
        asked = asked_to_end(self._supervisor.kill)
        self._forget_record()
        broker = None if self._settings.kafka else EmbeddedBroker()
        try:
            start = self._start(broker.address() if broker else self._settings.kafka)
            await _unless(asked, self._hopeless, start)
            self._hopeless.cancel()
            await asked.wait()
        finally:
            self._hopeless.cancel()  # a start that was interrupted gives nothing up
            self._console.event("stopping", "stopping …")
            if self._control:
                await self._control.stop()
            self._recorded = False
            self._forget_record()
            await self._supervisor.stop()
            if broker:
                broker.stop()
            self._console.event("stopped", "stopped")

    @property
    def _layout(self) -> Layout:
        """Everybody's place, with those who came later."""
        return self._fleet.layout

    async def _start(self, kafka: str) -> None:
        self._admin = self._folder.admin()
        layout = lay_out(self._folder, self._settings, kafka, {room: self._releases.of(room) for room in ROOMS})
        self._fleet = Fleet(layout, self._supervisor, self._admin, self._record)
        self._write_secrets()
        if not self._settings.redis_url:
            self._supervisor.start(children.valkey(self._layout))
        await asyncio.to_thread(keys.make, self._folder.providers)  # half a second at the first start
        self._supervisor.start(children.sandbox(self._layout))
        outdated = [room for room in ROOMS if not is_current(room, self._layout.database_url(room))]
        for room in ROOMS:
            if room not in outdated:
                self._queue(room)
        await asyncio.gather(self._migrate(outdated), self._start_envoys())
        await asyncio.gather(self._until_serving(), self._grpc_reached())
        self._recorded = True
        self._record()
        delivery = Delivery(self._fleet, self._releases, self._admin)
        self._control = Control(self._folder.control, delivery.orders(), self._console.event)
        await self._control.start()
        self._announce()
        await delivery.leave_off(self._console.event)

    def _queue(self, room: str) -> None:
        for instance in self._layout.of({room}):
            self._queued.append(asyncio.create_task(self._start_in_turn(instance)))

    async def _start_in_turn(self, instance: Instance) -> None:
        """Start config at once, others a few at a time: config takes longest, and everybody waits for it."""
        spec = children.service(self._layout, instance, self._admin)
        if instance.service == "config":
            self._supervisor.start(spec)
            return
        async with self._turns:
            child = self._supervisor.start(spec)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(child.ready.wait(), _TURN_S)

    async def _start_envoys(self) -> None:
        """Start all Envoys once config serves them: before that they would ask in vain, and say so."""
        xds = accepts(self._layout.xds)
        while not await xds():  # noqa: ASYNC110 - it happens in another process
            await asyncio.sleep(_XDS_S)
        self._supervisor.start(children.edge(self._layout))
        for instance in self._layout.instances:
            self._supervisor.start(children.sidecar(self._layout, instance))

    def _write_secrets(self) -> None:
        """Write the CA (once), and for this run the join tokens and the Envoys' bootstraps that hold them."""
        if not self._folder.ca.exists():
            (self._folder.pki / pki.KEY_FILE).unlink(
                missing_ok=True
            )  # of a first start that was killed between the two
            pki.save(pki.make_authority(), self._folder.pki)
        layout = self._layout
        admins: dict[Node, int] = {layout.node(each): each.admin for each in layout.instances}
        admit(layout, admins | {layout.edge: layout.edge_admin}, anew=True)

    async def _migrate(self, rooms: Sequence[str]) -> None:
        """Upgrade the databases of ``rooms`` in a process of its own; a service starts as soon as its own is done."""
        if not rooms:
            return
        urls = {f"PAYMESH_{room.upper()}_DATABASE_URL": self._layout.database_url(room) for room in rooms}
        process = await asyncio.create_subprocess_exec(
            *python("-m", "services.cli.migrate", *self._releases.migrated),
            env={**base_environ(), **urls},
            cwd=self._folder.run,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
            preexec_fn=tether(),
        )
        assert process.stdout
        try:
            async for line in process.stdout:
                done = json.loads(line)
                self._console.line("migrate", f"{done['room']} is at the newest schema after {done['took_s']} s")
                self._queue(done["room"])
            if await process.wait():
                raise CommandError(Exit.UNAVAILABLE, "A database could not be brought to the newest schema; see above.")
        finally:
            await _ended(process)

    async def _until_serving(self) -> None:
        """Wait until the edge says over REST that every instance of every service serves."""
        next_word = self._console.since() + _SLOW_S
        edge = Edge(self._layout.rest, self._folder.ca)
        while True:
            health = await asyncio.to_thread(edge.health)
            lacking = _lacking(health, self._settings.instances)
            if not lacking:
                return
            if self._console.since() > next_word:
                self._console.event("waiting", f"  … still waiting for {', '.join(lacking)}", lacking=lacking)
                next_word += _SLOW_S
            await asyncio.sleep(_HEALTH_S)

    async def _grpc_reached(self) -> None:
        """Wait until a gRPC client outside gets an answer through the edge."""
        process = await asyncio.create_subprocess_exec(
            *python("-m", "services.cli.reach", f"127.0.0.1:{self._layout.grpc}", str(self._folder.ca)),
            env=base_environ(),
            cwd=self._folder.run,
            start_new_session=True,
            preexec_fn=tether(),
        )
        try:
            if await process.wait():
                raise CommandError(
                    Exit.BUG, "The question whether the edge answers gRPC could not be asked; see above."
                )
        finally:
            await _ended(process)

    def _announce(self) -> None:
        took = self._console.since()
        record = self._describe()
        text = (
            f"\npaymesh serves after {took:.1f} s\n"
            f"  REST      {record['rest']}   (pages for people: {record['rest']}/docs)\n"
            f"  gRPC      {record['grpc']}\n"
            f"  CA        {record['ca']}\n"
            f"  operator  {self._admin['username']}, password in {self._folder.path / 'admin.json'}\n"
            f"  sandbox   {record['sandbox']}   (mails, SMS and pushes that were sent)\n"
            "Ctrl-C ends it."
        )
        self._console.event("ready", text, took_s=round(took, 2), rest=record["rest"], grpc=record["grpc"])

    def _describe(self) -> dict[str, Any]:
        """Return what the ready file and run.json say."""
        layout, kept = self._layout, self._supervisor.children
        services: dict[str, list[dict[str, Any]]] = {}
        envoys: dict[str, list[dict[str, Any]]] = {
            "edge": [{"id": EDGE, "admin": f"127.0.0.1:{layout.edge_admin}", "pid": kept[EDGE].pid}]
        }
        for each in layout.instances:
            described = {
                "instance": each.number,
                "name": each.name,
                "pid": kept[each.name].pid,
                "mesh": f"127.0.0.1:{each.mesh}",
                "socket": str(layout.socket(each)),
                "release": each.release.name,
                **({"metrics": f"127.0.0.1:{each.metrics}"} if each.metrics else {}),
            }
            services.setdefault(each.service, []).append(described)
            envoy = {"id": each.name, "admin": f"127.0.0.1:{each.admin}", "pid": kept[envoy_name(each.name)].pid}
            envoys.setdefault(each.service, []).append(envoy)
        others = {name: kept[name].pid for name in ("valkey", "sandbox") if name in kept}
        return {
            "rest": layout.rest_url,
            "grpc": f"127.0.0.1:{layout.grpc}",
            "ca": str(self._folder.ca),
            "services": services,
            "envoys": envoys,
            "admin": self._admin,
            "sandbox": layout.sandbox_url,
            "redis": layout.redis_url,
            "kafka": layout.kafka,
            "databases": {room: layout.database_url(room) for room in with_migrations()},
            "others": others,
            "data": str(self._folder.path),
            "pid": os.getpid(),
        }

    def _record(self) -> None:
        described = self._describe()
        write_json(self._folder.record, described)
        if self._ready_file:
            write_json(self._ready_file, described)

    def _forget_record(self) -> None:
        """Nobody is to find a mesh that is not there."""
        self._folder.record.unlink(missing_ok=True)
        if self._ready_file:
            self._ready_file.unlink(missing_ok=True)

    def changed(self, child: Child) -> None:
        """Show it, and record the new pid."""
        self._console.changed(child)
        if self._recorded:
            self._record()

    def line(self, name: str, text: str) -> None:
        """Show and file it."""
        self._console.line(name, text)

    def died(self, child: Child, how: str, delay_s: float) -> None:
        """Show it; give up the whole mesh when it never served and this child seems to be why."""
        if child.futile < FUTILE_MAX or self._hopeless.done():
            self._console.died(child, how, delay_s)
            return
        name, words = child.spec.name, self._console.last_words(child.spec.name)
        self._console.event("given_up", None, name=name, how=how, starts=child.futile)
        fault = f"{name} cannot be started: {child.futile} starts in a row came to nothing, and the last one {how}."
        self._hopeless.set_exception(CommandError(Exit.UNAVAILABLE, fault, *words))


def _lacking(health: dict[str, Any] | None, wanted: Mapping[str, int]) -> list[str]:
    """Return the services of which fewer serve than are wanted; all of them while the edge says nothing."""
    said = {each["service"]: each.get("healthy", 0) for each in (health or {}).get("services", [])}
    return [room for room, count in wanted.items() if said.get(room, 0) < count]


async def _unless(asked: asyncio.Event, hopeless: asyncio.Future[None], work: Awaitable[None]) -> None:
    """Do ``work`` until it is done, a signal comes, or ``hopeless`` fails, whose exception is then raised."""
    doing, told = asyncio.ensure_future(work), asyncio.create_task(asked.wait())
    either: set[asyncio.Future[Any]] = {doing, told, hopeless}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    for each in (doing, told):
        each.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await doing
    if hopeless.done() and (fault := hopeless.exception()) and not asked.is_set():
        raise fault


async def _ended(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()
