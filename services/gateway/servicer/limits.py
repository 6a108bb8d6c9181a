"""Envoy's rate-limit protocol (envoy.service.ratelimit.v3), which the edges alone speak to us.

It is no method of the contract: the sidecar lets the edge's identity through to it and nobody else's, and so does this.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import grpc
from envoy_data_plane.envoy.config.core.v3 import HeaderValue
from envoy_data_plane.envoy.service.ratelimit.v3 import (
    RateLimitRequest,
    RateLimitResponse,
    RateLimitResponseCode,
    RateLimitResponseDescriptorStatus,
)

from services.gateway.domain import Ask
from services.platform import identity
from services.platform.interceptor import peer_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from grpc.aio import ServicerContext

    from services.gateway import usecases
    from services.gateway.domain import Limit, Verdict
    from services.platform.batcher import Batcher

    Context = ServicerContext[RateLimitRequest, RateLimitResponse]

SERVICE, METHOD = "envoy.service.ratelimit.v3.RateLimitService", "ShouldRateLimit"
_CALLER = "edge"
_NAMED = "method"
"""The first entry of a descriptor, whose value is a method of the contract."""
_ANSWER_S = 0.2
"""An answer that comes later finds nobody who waits for it."""


class RateLimits:
    """Answers from what is in hand, and else when the common bucket has been asked."""

    def __init__(self, limits: usecases.Limits, of_method: Mapping[str, Limit], batcher: Batcher) -> None:
        """Count by ``of_method``; ``batcher`` (kind decide) asks, in a thread of its own."""
        self._limits, self._of_method, self._batcher = limits, of_method, batcher

    def handler(self) -> grpc.GenericRpcHandler:
        """Return what a grpc.aio server takes."""
        ask = grpc.unary_unary_rpc_method_handler(
            self.should_rate_limit,
            request_deserializer=RateLimitRequest.FromString,
            response_serializer=RateLimitResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(SERVICE, {METHOD: ask})

    async def should_rate_limit(self, request: RateLimitRequest, context: Context) -> RateLimitResponse:
        """Count a call. While Redis is away it fails: then each edge counts by itself."""
        metadata: dict[str, Any] = dict(context.invocation_metadata() or ())
        if peer_of(metadata.get(identity.PEER, "")) != _CALLER:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "only the edge asks this")
        asks = [ask for ask in self._asks(request) if ask]
        decided = [(ask, self._limits.at_hand(ask) or await self._decide(ask)) for ask in asks]
        known = [(ask, verdict) for ask, verdict in decided if verdict]
        if len(known) < len(decided):
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the common count is not known now")
        return _response(known)

    async def _decide(self, ask: Ask) -> Verdict | None:
        verdict: Verdict | None = await self._batcher.submit("decide", ask, time.monotonic() + _ANSWER_S)
        return verdict

    def _asks(self, request: RateLimitRequest) -> list[Ask | None]:
        return [
            self._ask([(entry.key, entry.value) for entry in each.entries], request.hits_addend or 1)
            for each in request.descriptors
        ]

    def _ask(self, entries: list[tuple[str, str]], hits: int) -> Ask | None:
        """Read a descriptor. What the contract does not limit is not counted: an edge may be newer than this process."""
        (first, method), *by = entries
        limit = self._of_method.get(method) if first == _NAMED else None
        if limit is None:
            return None
        return Ask(":".join([method, *(f"{key}={value}" for key, value in by)]), limit, hits)


def _response(decided: list[tuple[Ask, Verdict]]) -> RateLimitResponse:
    refused = [verdict for _, verdict in decided if not verdict.allowed]
    code = RateLimitResponseCode
    headers = _headers(*decided[0]) if decided else {}
    if refused:
        headers["retry-after"] = str(max(verdict.retry_after_s for verdict in refused))
    return RateLimitResponse(
        overall_code=code.OVER_LIMIT if refused else code.OK,
        statuses=[
            RateLimitResponseDescriptorStatus(
                code=code.OK if verdict.allowed else code.OVER_LIMIT,
                limit_remaining=verdict.remaining,
                duration_until_reset=timedelta(seconds=verdict.retry_after_s),
            )
            for _, verdict in decided
        ],
        response_headers_to_add=[HeaderValue(key=name, value=value) for name, value in headers.items()],
    )


def _headers(ask: Ask, verdict: Verdict) -> dict[str, str]:
    """Say what an Envoy that counts by itself says; its own numbers would be those of one edge."""
    limit = ask.limit
    return {
        "x-ratelimit-limit": f"{limit.requests}, {limit.requests};w={limit.per_ms // 1000}",
        "x-ratelimit-remaining": str(verdict.remaining),
        "x-ratelimit-reset": str(verdict.retry_after_s),
    }
