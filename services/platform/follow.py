"""Settings that a service follows while it runs: read from config again and again, applied when they are newer."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING

from paymesh.config.v1 import config_service_pb2 as pb
from paymesh.config.v1 import config_service_pb2_grpc as rpc
from services.kernel.errors import DomainError
from services.platform import telemetry
from services.platform.client import MeshChannel

if TYPE_CHECKING:
    from services.platform.settings import ServiceSettings

_ASK_MS = 3_000
_PAUSE_S = 1.0
"""After a question that config did not answer: it may be on its way back."""


class LogLevel:
    """The level of this process's log: `log.level.SERVICE` if it is set, else `log.level`, else as the process started."""

    def __init__(self, service: str) -> None:
        """Know neither."""
        self._keys = (f"log.level.{service}", "log.level")
        self._values: dict[str, str] = {}
        self.known = dict.fromkeys(self._keys, 0)
        """Version of each entry."""

    def take(self, key: str, value: str, version: int) -> None:
        """Apply an entry that is newer."""
        self.known[key], self._values[key] = version, value
        wanted = next(self._values[each] for each in self._keys if each in self._values)
        if telemetry.set_level(wanted):
            telemetry.log.warning("log.level", level=wanted)


class Following:
    """A part of every App that has an Envoy: asks config, which answers when there is something newer."""

    def __init__(self, service: str, settings: ServiceSettings) -> None:
        """Follow the log level of ``service``."""
        self._level = LogLevel(service)
        self._channel = MeshChannel(settings.mesh)
        self._stub = rpc.ConfigServiceStub(self._channel.channel)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="following", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End: an answer that is still waited for comes no more."""
        self._stopping.set()
        self._channel.stop()
        self._thread.join(timeout=3)

    def _work(self) -> None:
        while not self._stopping.is_set():
            try:
                self._ask()
            except (DomainError, ValueError):  # config is away, or our own channel is closed
                self._stopping.wait(_PAUSE_S * random.uniform(0.9, 1.1))  # noqa: S311 - jitter

    def _ask(self) -> None:
        known = [pb.WatchConfigRequest.Known(key=key, version=version) for key, version in self._level.known.items()]
        answer = self._channel.call(self._stub.WatchConfig, pb.WatchConfigRequest(known=known), _ASK_MS)
        for entry in answer.entries:
            self._level.take(entry.key, entry.value, entry.version)
