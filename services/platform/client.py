"""Calls to other services: plaintext to our own Envoy, which does the rest. Deadlines always, identity passed on."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import grpc

from services.platform import identity
from services.platform.status import error_from

if TYPE_CHECKING:
    from services.kernel.caller import Caller

Request = TypeVar("Request")
Response = TypeVar("Response")


class MeshChannel:
    """A channel to the outbound listener of our own Envoy; stubs are made on ``channel``. Safe to use from threads."""

    def __init__(self, address: str) -> None:
        """Connect lazily to ``address`` (unix:…)."""
        options = [
            ("grpc.enable_retries", 0),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),
        ]
        self.channel = grpc.insecure_channel(address, options=options)

    def call(
        self, method: Callable[..., Response], request: object, timeout_ms: int, on_behalf: Caller | None = None
    ) -> Response:
        """Call a stub's ``method`` within ``timeout_ms`` and, with ``on_behalf``, within the caller's own deadline.

        Raises the DomainError that the peer answered with, UNAVAILABLE or DEADLINE_EXCEEDED.
        """
        timeout = timeout_ms / 1000
        metadata: list[tuple[str, str]] = []
        if on_behalf is not None:
            timeout = min(timeout, max(on_behalf.deadline - time.monotonic(), 0.001))
            metadata = [(k, v) for k, v in _headers(on_behalf).items() if v]
        try:
            return method(request, timeout=timeout, metadata=metadata)
        except grpc.RpcError as error:
            raise error_from(error) from None

    def stop(self) -> None:
        """Close the channel."""
        self.channel.close()


def _headers(caller: Caller) -> dict[str, str]:
    return {
        "x-request-id": caller.request_id,
        "traceparent": caller.traceparent,
        identity.SUBJECT: str(caller.subject or ""),
        identity.SCOPE: " ".join(sorted(caller.scopes)),
        identity.SESSION: caller.session_id,
    }
