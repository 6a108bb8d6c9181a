"""Limits that all edges count together: the gateway's rate-limit service is asked, and missed by nobody when it is away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.config.ratelimit import v3 as service
from envoy_data_plane.envoy.config.route import v3 as route
from envoy_data_plane.envoy.extensions.filters.http.ratelimit import v3 as ratelimit

from services.mesh.resource import http_filter, ms
from services.platform.identity import KEY, SUBJECT

if TYPE_CHECKING:
    from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager import v3 as hcm

    from services.contract.model import Method, RateLimit

GLOBAL = "envoy.filters.http.ratelimit"
SERVER = "gateway"
"""The room that counts, and the cluster in which the edge asks it."""
ASK = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
ASK_MS = 250
"""How long a call waits for the answer at most; then it is counted by its own edge alone."""
DOMAIN = "paymesh"
METHOD = "method"
"""The first entry of a descriptor; the contract says the limit of the method that it names."""

Counted = tuple[tuple[str, str], ...]
"""Entries of a descriptor, key and value; "": the value is that of the call, and each has a bucket of its own."""


def counted_by(rule: RateLimit) -> list[tuple[Counted, list[route.RateLimitAction]]]:
    """Return what a limit counts by: descriptors, of which each call has one, and the actions that make them.

    Raises:
        ValueError: the limit counts by something that the edge does not know.
    """
    match rule.by:
        case "user":
            return [((("user", ""),), [_header(SUBJECT, "user")])]
        case "ip":
            return [((("remote_address", ""),), [_address()])]
        case "api_key":
            without = route.RateLimitActionHeaderValueMatch(
                descriptor_key="shown",
                descriptor_value="token",
                headers=[route.HeaderMatcher(name=KEY, present_match=True, invert_match=True)],
            )
            of_token = [route.RateLimitAction(header_value_match=without), _header(SUBJECT, "user")]
            return [((("api_key", ""),), [_header(KEY, "api_key")]), ((("shown", "token"), ("user", "")), of_token)]
        case _:
            raise ValueError(f"a limit by {rule.by} has no place in the edge: it is counted by user, ip or api_key")


def _header(name: str, key: str) -> route.RateLimitAction:
    return route.RateLimitAction(
        request_headers=route.RateLimitActionRequestHeaders(header_name=name, descriptor_key=key)
    )


def _address() -> route.RateLimitAction:
    return route.RateLimitAction(remote_address=route.RateLimitActionRemoteAddress())


def globally_by_route() -> hcm.HttpFilter:
    """Ask for what routes say. Who does not answer limits nothing: the limit in this Envoy comes before."""
    asked = core.GrpcService(envoy_grpc=core.GrpcServiceEnvoyGrpc(cluster_name=SERVER), timeout=ms(ASK_MS))
    return http_filter(
        GLOBAL,
        ratelimit.RateLimit(
            domain=DOMAIN,
            timeout=ms(ASK_MS),
            failure_mode_deny=False,
            rate_limited_as_resource_exhausted=True,
            rate_limit_service=service.RateLimitServiceConfig(
                grpc_service=asked, transport_api_version=core.ApiVersion.V3
            ),
        ),
    )


def globally(method: Method, rule: RateLimit) -> ratelimit.RateLimitPerRoute:
    """Say by what the calls of a method are counted; how many are let through, the gateway reads from the contract."""
    name = route.RateLimitActionGenericKey(descriptor_key=METHOD, descriptor_value=method.full_name)
    named = route.RateLimitAction(generic_key=name)
    return ratelimit.RateLimitPerRoute(
        rate_limits=[route.RateLimit(actions=[named, *actions]) for _, actions in counted_by(rule)]
    )
