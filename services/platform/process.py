"""A service as a process: settings, parts, gRPC server with health, signals, ordered stop."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import sys
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import uvloop
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection

from services.contract.load import contract
from services.platform import failpoint, telemetry
from services.platform.accesslog import AccessLog
from services.platform.follow import Following
from services.platform.interceptor import Interceptor
from services.platform.registration import Registration
from services.platform.settings import ServiceSettings, SettingsError, load

if TYPE_CHECKING:
    from collections.abc import Awaitable

S = TypeVar("S", bound=ServiceSettings)

EXIT_BAD_INPUT = 3
GRACE_S = 5.0
_DRAIN_S = 0.3
"""From being taken out of discovery until every caller's Envoy knows it."""


class Part(Protocol):
    """Something that runs beside the server: Batcher, relay, consumer, job. ``start`` and ``stop`` may be async."""

    def start(self) -> Awaitable[None] | None:
        """Begin."""
        ...

    def stop(self) -> Awaitable[None] | None:
        """End, and let go of everything."""
        ...


@dataclass(frozen=True)
class Closing:
    """A part that only has to be let go of: a database, a channel, a client."""

    close: Callable[[], None]

    def start(self) -> None:
        """Nothing to do."""

    def stop(self) -> None:
        """Let go."""
        self.close()


@dataclass(frozen=True)
class Opening:
    """A part that only has to be done before the others start: bringing the database to its newest version."""

    open: Callable[[], None]

    def start(self) -> None:
        """Do it; what it raises ends the start."""
        self.open()

    def stop(self) -> None:
        """Nothing to do."""


@dataclass(frozen=True)
class App:
    """A built service. ``parts`` start in order, before the server, and stop in reverse, after it."""

    name: str
    settings: ServiceSettings
    register: Callable[[aio.Server], None]
    parts: Sequence[Part]
    revoked: Container[str] = field(default_factory=frozenset)


class Running:
    """An App that was started; also what tests start without a process."""

    def __init__(self, app: App) -> None:
        """Prepare the server; nothing runs yet."""
        self.app = app
        settings = app.settings
        self.server = aio.server(
            interceptors=[Interceptor(app.revoked, settings.trace_ratio)],
            options=[
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", 4 << 20),
                # Headers are bounded at the edge, to 16 KiB; gRPC's own 8 KiB would refuse without a reason of ours.
                ("grpc.max_metadata_size", 32 << 10),
                ("grpc.absolute_max_metadata_size", 64 << 10),
                ("grpc.max_concurrent_streams", 2000),
            ],
        )
        self.health = HealthServicer()
        self._full_name = contract().services[app.name].full_name
        self._parts: list[Part] = [AccessLog(), *app.parts]
        if settings.mesh_address and settings.mesh:
            self._parts.append(Following(app.name, settings))
        if settings.mesh_address:
            self._parts.append(Registration(app.name, settings))

    async def start(self) -> None:
        """Start the parts and the server; healthy when it returns."""
        listen = self.app.settings.listen
        _clear(listen)
        self.app.register(self.server)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self.server)
        reflection.enable_server_reflection((self._full_name, reflection.SERVICE_NAME), self.server)
        if not self.server.add_insecure_port(listen):
            raise OSError(f"cannot listen on {listen}")
        for part in self._parts:
            if not isinstance(part, Registration):
                await _maybe(part.start())
        await self.server.start()
        await self._say(serving=True)
        for part in self._parts:
            if isinstance(part, Registration):
                part.start()

    async def stop(self) -> None:
        """Unready, drain, close: in this order, so that no call fails that was let in."""
        await self._say(serving=False)
        for part in self._parts:
            if isinstance(part, Registration):
                await asyncio.to_thread(part.stop)
                await asyncio.sleep(_DRAIN_S)
        await self.server.stop(GRACE_S)
        for part in reversed(self._parts):
            if not isinstance(part, Registration):
                await _maybe(part.stop())

    async def _say(self, *, serving: bool) -> None:
        """Tell those who watch, of the process as a whole and of its service."""
        answer = health_pb2.HealthCheckResponse
        status = answer.SERVING if serving else answer.NOT_SERVING
        for name in ("", self._full_name):
            await self.health.set(name, status)


def _clear(listen: str) -> None:
    """Remove the socket that a process before this one left behind."""
    if listen.startswith("unix:"):
        Path(listen.removeprefix("unix:")).unlink(missing_ok=True)


async def _maybe(result: Awaitable[None] | None) -> None:
    if inspect.isawaitable(result):
        await result


def run(name: str, settings_class: type[S], build: Callable[[S], App]) -> None:
    """Run a service until SIGINT or SIGTERM.

    Bad settings, its own or those of its database: every fault on standard error, exit code 3.
    """
    os.umask(0o077)
    try:
        settings = load(settings_class)
        # The loop and the batcher share one interpreter lock: neither may hold it for long.
        sys.setswitchinterval(0.001)
        telemetry.start(name, settings)
        failpoint.arm(settings.failpoints)
        if settings.failpoints:
            telemetry.log.warning("failpoints.armed", service=name, folder=settings.failpoints)
        uvloop.run(_serve(name, lambda: build(settings)))
    except SettingsError as error:
        sys.stderr.write(f"paymesh {name} cannot start:\n" + "".join(f"  - {fault}\n" for fault in error.faults))
        sys.exit(EXIT_BAD_INPUT)


async def _serve(name: str, build: Callable[[], Any]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, stop.set)
    running = Running(build())
    await running.start()
    telemetry.log.info("serving", service=name)
    await stop.wait()
    await running.stop()
    telemetry.log.info("stopped", service=name)
