"""Active health checks: grpc.health.v1 through the instance's own Envoy, like every caller."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.config.domain import Answer
from services.platform.identity import dns_name

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from services.config.domain import Name
    from services.mesh.snapshot import Secrets

TIMEOUT_S = 0.9
"""A little less than the instance's own Envoy waits, so that silence is told from a refusal."""

_BACKOFF_MS = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 250),
    ("grpc.min_reconnect_backoff_ms", 500),
)
"""A connection that failed is tried again with the next check, not much later."""


class GrpcHealthProbe:
    """Keeps a channel per address; all of them are made anew when our certificate is."""

    def __init__(self, identity: Callable[[], Secrets] | None) -> None:
        """Show the certificate of ``identity``; None: Istio's sidecar beside us shows its own, and asks for theirs."""
        self._identity = identity
        self._secrets: Secrets | None = None
        self._credentials: grpc.ChannelCredentials | None = None
        self._channels: dict[str, tuple[str, aio.Channel]] = {}

    async def ask(self, name: Name, address: str) -> Answer:
        """Ask the instance at ``address``, which must prove to be of the service."""
        stub = health_pb2_grpc.HealthStub(await self._channel(name, address))
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)  # type: ignore[attr-defined]
        except aio.AioRpcError as error:
            return Answer.SILENCE if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED else Answer.REFUSES
        return Answer.SERVES if answer.status == health_pb2.HealthCheckResponse.SERVING else Answer.REFUSES

    async def forget_all_but(self, present: Collection[str]) -> None:
        """Close the channels to addresses that are not in ``present``."""
        gone = [self._channels.pop(address) for address in self._channels.keys() - set(present)]
        for _, channel in gone:
            await channel.close()

    async def _channel(self, name: Name, address: str) -> aio.Channel:
        if self._identity is None:
            return self._in_plaintext(name, address)
        secrets = self._identity()
        if secrets is not self._secrets:
            self._secrets = secrets
            self._credentials = grpc.ssl_channel_credentials(
                secrets.ca_pem.encode(), secrets.key_pem.encode(), secrets.cert_pem.encode()
            )
            await self.forget_all_but(set())
        held = self._channels.get(address)
        if held is None or held[0] != name.service:
            options = (("grpc.ssl_target_name_override", dns_name(name.service)), *_BACKOFF_MS)
            assert self._credentials is not None
            held = (name.service, aio.secure_channel(address, self._credentials, options))
            self._channels[address] = held
        return held[1]

    def _in_plaintext(self, name: Name, address: str) -> aio.Channel:
        held = self._channels.get(address)
        if held is None:
            held = self._channels[address] = (name.service, aio.insecure_channel(address, _BACKOFF_MS))
        return held[1]
