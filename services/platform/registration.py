"""Keeps this instance known to config: registers it under a lease, renews it, and takes it out before it stops."""

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

RENEW_S = 5.0
_FIRST_TRIES_S = 0.25


class Registration:
    """A part of every App that has an Envoy; the last to start and the first to stop."""

    def __init__(self, service: str, settings: ServiceSettings) -> None:
        """Register ``service`` as the settings' instance at its Envoy's mesh address."""
        self._service, self._settings = service, settings
        self._instance = f"{service}-{settings.instance}"
        self._channel = MeshChannel(settings.mesh)
        self._stub = rpc.ConfigServiceStub(self._channel.channel)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="registration", daemon=True)

    def start(self) -> None:
        """Register as soon as config answers, then renew."""
        self._thread.start()

    def stop(self) -> None:
        """Deregister, so that callers stop choosing this instance before it ends."""
        self._stopping.set()
        self._thread.join(timeout=3)
        request = pb.DeregisterInstanceRequest(service=self._service, instance=self._instance)
        try:
            self._channel.call(self._stub.DeregisterInstance, request, 1000)
        except DomainError as error:
            telemetry.log.info("registration.not_taken_out", reason=error.reason)
        self._channel.stop()

    def _work(self) -> None:
        known, pause = False, _FIRST_TRIES_S
        while not self._stopping.is_set():
            renewed = self._renew()
            if renewed and not known:
                telemetry.log.info("registered", service=self._service, instance=self._instance)
            known = known or renewed
            if renewed:
                pause = RENEW_S
            elif not known or pause == RENEW_S:
                pause = _FIRST_TRIES_S
            else:
                pause = min(pause * 1.5, RENEW_S - 1)
            self._stopping.wait(pause * random.uniform(0.9, 1.1))  # noqa: S311 - jitter

    def _renew(self) -> bool:
        address = self._settings.mesh_address
        request = pb.RegisterInstanceRequest(service=self._service, instance=self._instance, mesh_address=address)
        try:
            self._channel.call(self._stub.RegisterInstance, request, 1000)
        except DomainError as error:
            telemetry.log.debug("registration.refused", reason=error.reason)
            return False
        return True
