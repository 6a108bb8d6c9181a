"""The HTTP filters, each made from the policy model, and what a route says to each of them."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

from envoy_data_plane.envoy.config.common.mutation_rules import v3 as mutation
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.config.rbac import v3 as rules
from envoy_data_plane.envoy.config.route import v3 as route
from envoy_data_plane.envoy.extensions.common.matching import v3 as matching
from envoy_data_plane.envoy.extensions.common.ratelimit import v3 as ratelimit
from envoy_data_plane.envoy.extensions.filters.common.matcher.action import v3 as action
from envoy_data_plane.envoy.extensions.filters.http.buffer import v3 as buffer
from envoy_data_plane.envoy.extensions.filters.http.grpc_json_transcoder import v3 as transcoder
from envoy_data_plane.envoy.extensions.filters.http.header_mutation import v3 as mutating
from envoy_data_plane.envoy.extensions.filters.http.jwt_authn import v3 as jwt
from envoy_data_plane.envoy.extensions.filters.http.local_ratelimit import v3 as limiting
from envoy_data_plane.envoy.extensions.filters.http.rbac import v3 as rbac
from envoy_data_plane.envoy.extensions.filters.http.router import v3 as router
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager import v3 as hcm
from envoy_data_plane.envoy.extensions.http.early_header_mutation.header_mutation import v3 as early
from envoy_data_plane.envoy.extensions.matching.common_inputs.ssl import v3 as ssl
from envoy_data_plane.envoy.extensions.rbac.principals.mtls_authenticated import v3 as mtls
from envoy_data_plane.envoy.extensions.transport_sockets.tls import v3 as tls
from envoy_data_plane.envoy.type import v3 as kind
from envoy_data_plane.envoy.type.matcher import v3 as matcher
from envoy_data_plane.xds.core import v3 as xds_core
from envoy_data_plane.xds.type.matcher import v3 as xds

from services.mesh import keys
from services.mesh.limits import counted_by
from services.mesh.resource import ads, extension, header, http_filter, ms, packed
from services.platform.identity import PREFIX, SCOPE, SESSION, SUBJECT, instance_name, spiffe_id

if TYPE_CHECKING:
    from collections.abc import Iterable

    from services.contract.model import Contract, RateLimit

ROUTER = "envoy.filters.http.router"
RBAC = "envoy.filters.http.rbac"
JWT = "envoy.filters.http.jwt_authn"
LIMIT = "envoy.filters.http.local_ratelimit"

BODY_BYTES_MAX = 1 << 20
"""A request is a form, not an upload."""
ISSUER, AUDIENCE = "paymesh", "paymesh-api"
"""Of access tokens."""
CLAIM_HEADERS = {"sub": SUBJECT, "scope": SCOPE, "sid": SESSION}
"""In which header a claim of a verified token travels."""
_TOKEN, _TOKEN_OR_KEY = "access", "access-or-key"
_TOKENS_KEPT = 10_000
"""About 1 KiB each, in each worker of an edge."""
_CLAIMS = "claims"
"""Where the JWT filter leaves a token's claims for RBAC."""


# -- Headers ---------------------------------------------------------------------------------------------------------


_PREFIXED = matcher.StringMatcher(prefix="grpc-")
_BINARY = matcher.StringMatcher(suffix="-bin")
_UNNAMEABLE = matcher.StringMatcher(safe_regex=matcher.RegexMatcher(regex=".*[^a-z0-9_.:-].*"))
"""Names that HTTP takes and gRPC's metadata do not, such as `a!b`."""
_ANSWERS = ("grpc-status", "grpc-message", "grpc-previous-rpc-attempts", "grpc-retry-pushback-ms")


def _remove(*names: str, like: Iterable[matcher.StringMatcher] = ()) -> list[mutation.HeaderMutation]:
    keys = [matcher.StringMatcher(prefix=PREFIX), *like]
    return [
        *(
            mutation.HeaderMutation(remove_on_match=mutation.HeaderMutationRemoveOnMatch(key_matcher=each))
            for each in keys
        ),
        *(mutation.HeaderMutation(remove=name) for name in names),
    ]


def strip_from_rest() -> core.TypedExtensionConfig:
    """Drop what a REST client may not say, before anything looks at the request, on every route.

    That is who he is, and the words of gRPC's own protocol: a gRPC server that cannot read one of those, or any `-bin`
    that is no base64, or a name that is none of its own, ends the stream without an answer, which counts as a failure
    of an instance that is well. A deadline is gRPC's affair too: in REST it is the contract's.
    """
    return _early(_remove("x-forwarded-for", like=(_PREFIXED, _BINARY, _UNNAMEABLE)))


def strip_from_grpc() -> core.TypedExtensionConfig:
    """Drop the same from a gRPC client, but for what a call needs: deadline and encoding, which the routes check."""
    return _early(_remove("x-forwarded-for", *_ANSWERS, like=(_BINARY, _UNNAMEABLE)))


def _early(mutations: list[mutation.HeaderMutation]) -> core.TypedExtensionConfig:
    made = early.HeaderMutation(mutations=mutations)
    return extension("envoy.http.early_header_mutation.header_mutation", made)


def strip_from_peers(trusted: Iterable[str]) -> hcm.HttpFilter:
    """Drop the identity that a peer passes on, unless the peer is one of `trusted` (names of services).

    The matcher skips the filter for trusted peers; a peer that it does not know gets the filter.
    """
    skip = xds.MatcherOnMatch(action=_xds("skip", action.SkipFilter()))
    peers = xds.MatcherMatcherTreeMatchMap(map={spiffe_id(name): skip for name in sorted(trusted)})
    tree = xds.MatcherMatcherTree(input=_xds("peer", ssl.UriSanInput()), exact_match_map=peers)
    drop = mutating.HeaderMutation(
        mutations=mutating.Mutations(request_mutations=_remove("x-forwarded-for", "x-envoy-external-address"))
    )
    return http_filter(
        "strip_identity",
        matching.ExtensionWithMatcher(
            xds_matcher=xds.Matcher(matcher_tree=tree),
            extension_config=extension("envoy.filters.http.header_mutation", drop),
        ),
    )


def _xds(name: str, message: action.SkipFilter | ssl.UriSanInput) -> xds_core.TypedExtensionConfig:
    return xds_core.TypedExtensionConfig(name=name, typed_config=packed(message))


# -- Who may call ----------------------------------------------------------------------------------------------------


def deny_by_default() -> hcm.HttpFilter:
    """Refuse every route that does not say who may take it."""
    return http_filter(RBAC, rbac.Rbac(rules=rules.Rbac(action=rules.RbacAction.ALLOW)))


def _allow(*principals: rules.Principal) -> rbac.RbacPerRoute:
    policy = rules.Policy(permissions=[rules.Permission(any=True)], principals=list(principals))
    policies = (
        {"allowed": policy} if principals else {}
    )  # Envoy refuses a policy without principals: nobody is no policy
    return rbac.RbacPerRoute(rbac=rbac.Rbac(rules=rules.Rbac(action=rules.RbacAction.ALLOW, policies=policies)))


def allow_anybody() -> rbac.RbacPerRoute:
    """Let everybody take a route."""
    return _allow(rules.Principal(any=True))


def allow_peers(services: Iterable[str], revoked: frozenset[str] = frozenset()) -> rbac.RbacPerRoute:
    """Let these services take a route, by the identity in their certificate; not who is ``revoked``.

    Said by the route and not by the listener, so that a revocation also reaches connections that are open.
    """
    return _allow(*(_peer(service, revoked) for service in sorted(set(services) - revoked)))


def _peer(service: str, revoked: frozenset[str]) -> rules.Principal:
    """Whoever is of the service, by the URI in the certificate, and none of its revoked instances, by a DNS name."""
    of_service = rules.Principal(
        authenticated=rules.PrincipalAuthenticated(principal_name=matcher.StringMatcher(exact=spiffe_id(service)))
    )
    shut_out = [name for name in sorted(revoked) if name.rpartition("-")[0] == service]
    if not shut_out:
        return of_service
    others = [rules.Principal(not_id=_instance(name, service)) for name in shut_out]
    return rules.Principal(and_ids=rules.PrincipalSet(ids=[of_service, *others]))


def _instance(name: str, service: str) -> rules.Principal:
    exact = matcher.StringMatcher(exact=instance_name(name, service))
    wanted = tls.SubjectAltNameMatcher(san_type=tls.SubjectAltNameMatcherSanType.DNS, matcher=exact)
    return rules.Principal(
        custom=extension("envoy.rbac.principals.mtls_authenticated", mtls.Config(san_matcher=wanted))
    )


def allow_scopes(scopes: Iterable[str]) -> rbac.RbacPerRoute:
    """Let in who has a verified token with every one of the scopes."""
    verified = rules.Principal(header=route.HeaderMatcher(name=SUBJECT, present_match=True))
    ids = [verified, *(_has(scope) for scope in scopes)]
    return _allow(rules.Principal(and_ids=rules.PrincipalSet(ids=ids)))


def _has(scope: str) -> rules.Principal:
    one_of = matcher.ValueMatcher(string_match=matcher.StringMatcher(exact=scope))
    path = [matcher.MetadataMatcherPathSegment(key=key) for key in (_CLAIMS, "scope")]
    value = matcher.ValueMatcher(list_match=matcher.ListMatcher(one_of=one_of))
    return rules.Principal(
        sourced_metadata=rules.SourcedMetadata(
            metadata_matcher=matcher.MetadataMatcher(filter=JWT, path=path, value=value)
        )
    )


# -- Tokens ----------------------------------------------------------------------------------------------------------


_NOBODYS_KEY = {
    "kty": "EC",
    "crv": "P-256",
    "kid": "nobody",
    "x": "rxBdfKr7KnqlnPZx_1oXChRgAmpJcEOMwp8199zVZx4",
    "y": "LYsOWe4Tr8ly1zwnrrO2OV7Fe-SaFLjUFWZbHDiAfFY",
}
"""A key to which nobody can have the private half: x is the SHA-256 of "paymesh: nobody's key 0", y the smaller of the two
that make it a point of the curve. Envoy takes no empty key set, and without keys every token must be refused."""


def jwt_verification(jwks: str, key_jwks: str) -> jwt.JwtAuthentication:
    """Verify access tokens, and API keys, against these keys and turn their claims into identity headers."""
    tokens = jwt.JwtProvider(
        issuer=ISSUER,
        audiences=[AUDIENCE],
        require_expiration=True,
        local_jwks=_jwks(jwks),
        # The token ends here: nobody behind the edge can lose it.
        forward=False,
        payload_in_metadata=_CLAIMS,
        normalize_payload_in_metadata=jwt.JwtProviderNormalizePayload(space_delimited_claims=["scope"]),
        claim_to_headers=[
            jwt.JwtClaimToHeader(claim_name=claim, header_name=name) for claim, name in CLAIM_HEADERS.items()
        ],
        # Clocks of our own machines: a few seconds, not the default minute.
        clock_skew_seconds=10,
        # A token is used many times in its 15 minutes; its signature is checked once, its expiry each time.
        jwt_cache_config=jwt.JwtCacheConfig(jwt_cache_size=_TOKENS_KEPT),
    )
    token, key = (jwt.JwtRequirement(provider_name=name) for name in (ISSUER, keys.ISSUER))
    either = jwt.JwtRequirement(requires_any=jwt.JwtRequirementOrList(requirements=[token, key]))
    return jwt.JwtAuthentication(
        providers={ISSUER: tokens, keys.ISSUER: keys.provider(tokens, _jwks(key_jwks))},
        requirement_map={_TOKEN: token, _TOKEN_OR_KEY: either},
    )


def _jwks(text: str) -> core.DataSource:
    return core.DataSource(inline_string=text if json.loads(text)["keys"] else json.dumps({"keys": [_NOBODYS_KEY]}))


def jwt_by_discovery() -> hcm.HttpFilter:
    """Verify tokens with what extension discovery says, so that new keys reach open connections and drain none."""
    source = core.ExtensionConfigSource(
        config_source=ads(),
        type_urls=["type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication"],
    )
    return hcm.HttpFilter(name=JWT, config_discovery=source)


def token_required(*, or_key: bool) -> jwt.PerRouteConfig:
    """Ask for a token on a route, or for an API key too."""
    return jwt.PerRouteConfig(requirement_name=_TOKEN_OR_KEY if or_key else _TOKEN)


def token_ignored() -> jwt.PerRouteConfig:
    """Look at no token on a route, so that a stale one is no hindrance to log in."""
    return jwt.PerRouteConfig(disabled=True)


# -- Limits ----------------------------------------------------------------------------------------------------------

_COUNTED_MAX = 10_000
"""Users (or addresses) counted per method at a time; the one not seen for longest is forgotten first."""


def limits_by_route() -> hcm.HttpFilter:
    """Limit nothing but what routes say."""
    return http_filter(LIMIT, limiting.LocalRateLimit(stat_prefix="edge"))


def limit(rule: RateLimit) -> limiting.LocalRateLimit:
    """Count the calls of a route by the user, the API key, or the address of the client."""
    bucket = kind.TokenBucket(max_tokens=rule.requests, tokens_per_fill=rule.requests, fill_interval=ms(rule.per_ms))
    everything = core.RuntimeFractionalPercent(default_value=kind.FractionalPercent(numerator=100))
    counted = counted_by(rule)
    versions = ratelimit.XRateLimitHeadersRfcVersion
    return limiting.LocalRateLimit(
        stat_prefix="edge",
        filter_enabled=everything,
        filter_enforced=everything,
        rate_limits=[route.RateLimit(actions=actions) for _, actions in counted],
        descriptors=[
            ratelimit.LocalRateLimitDescriptor(
                # No value: each value that comes along has a bucket of its own.
                entries=[ratelimit.RateLimitDescriptorEntry(key=key, value=value) for key, value in entries],
                token_bucket=bucket,
            )
            for entries, _ in counted
        ],
        max_dynamic_descriptors=_COUNTED_MAX,
        token_bucket=bucket,
        always_consume_default_token_bucket=False,
        # What is left of a global limit, only who counts for all edges can say.
        enable_x_ratelimit_headers=versions.OFF if rule.is_global else versions.DRAFT_VERSION_03,
        rate_limited_as_resource_exhausted=True,
        response_headers_to_add=[header("retry-after", str(retry_after_s(rule)))],
    )


def retry_after_s(rule: RateLimit) -> int:
    """Seconds after which an empty bucket has a token again: it is filled evenly, not at the end of the interval."""
    return max(1, math.ceil(rule.per_ms / 1000 / rule.requests))


# -- Bodies ----------------------------------------------------------------------------------------------------------


def transcoding(contract: Contract, descriptors: bytes) -> hcm.HttpFilter:
    """Turn REST into gRPC and back, for every service that states a REST mapping.

    It stands first, so that all others see the gRPC path and one policy per method serves both.
    """
    services = [s.full_name for s in contract.services.values() if any(m.http for m in s.methods)]
    return http_filter(
        "envoy.filters.http.grpc_json_transcoder",
        transcoder.GrpcJsonTranscoder(
            proto_descriptor_bin=descriptors,
            services=services,
            convert_grpc_status=True,
            # What gRPC itself takes at most as one message; the default is 1 MiB, and a 500 beyond it.
            max_response_body_size=4 << 20,
            print_options=transcoder.GrpcJsonTranscoderPrintOptions(
                preserve_proto_field_names=True,
                # An answer is complete: a zero is said, not left out.
                always_print_primitive_fields=True,
            ),
            request_validation_options=transcoder.GrpcJsonTranscoderRequestValidationOptions(
                reject_unknown_method=True,
                reject_unknown_query_parameters=True,
                reject_binding_body_field_collisions=True,
            ),
        ),
    )


def whole_requests() -> hcm.HttpFilter:
    """Take requests as a whole, up to the limit: every method is unary.

    The transcoder has a limit too, but it counts what is left after unknown fields are dropped.
    """
    return http_filter("envoy.filters.http.buffer", buffer.Buffer(max_request_bytes=BODY_BYTES_MAX))


def routing() -> hcm.HttpFilter:
    """Send the request on; the last filter of every chain."""
    return http_filter(ROUTER, router.Router(suppress_envoy_headers=True))
