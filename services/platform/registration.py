"""Keeps this instance known to config: registers it under a lease, renews it, and takes it out before it stops."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paymesh.config.v1 import config_service_pb2 as pb
from paymesh.config.v1 import config_service_pb2_grpc as rpc
from services.kernel.errors import DomainError
from services.platform import telemetry
from services.platform.client import MeshChannel
from services.platform.jobs import Every

if TYPE_CHECKING:
    from services.platform.settings import ServiceSettings

RENEW_S = 5.0
_FIRST_TRIES_S = 0.25


class Registration:
    """A part of every App that has an Envoy; the last to start and the first to stop."""

    def __init__(self, service: str, settings: ServiceSettings) -> None:
        """Register ``service`` as the settings' instance at its Envoy's mesh address."""
        self._service, self._settings = service, settings
        self._channel = MeshChannel(settings.mesh)
        self._stub = rpc.ConfigServiceStub(self._channel.channel)
        self._known = False
        self._quick = Every(_FIRST_TRIES_S, self._first, "register")
        self._renewal = Every(RENEW_S, self._renew, "renew-lease")

    def start(self) -> None:
        """Register as soon as config answers, then renew."""
        self._quick.start()
        self._renewal.start()

    def stop(self) -> None:
        """Deregister, so that callers stop choosing this instance before it ends."""
        self._quick.stop()
        self._renewal.stop()
        request = pb.DeregisterInstanceRequest(service=self._service, instance=self._name())
        try:
            self._channel.call(self._stub.DeregisterInstance, request, 1000)
        except DomainError as error:
            telemetry.log.info("registration.not_taken_out", reason=error.reason)
        self._channel.stop()

    def _name(self) -> str:
        return f"{self._service}-{self._settings.instance}"

    def _first(self) -> None:
        if not self._known:
            self._renew()

    def _renew(self) -> None:
        request = pb.RegisterInstanceRequest(
            service=self._service, instance=self._name(), mesh_address=self._settings.mesh_address
        )
        try:
            self._channel.call(self._stub.RegisterInstance, request, 1000)
        except DomainError as error:
            telemetry.log.debug("registration.refused", reason=error.reason)
            return
        if not self._known:
            telemetry.log.info("registered", service=self._service, instance=self._name())
        self._known = True
