"""API keys at the edge: verified like access tokens, from a header of their own, and refused once they are revoked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.config.rbac import v3 as rules
from envoy_data_plane.envoy.extensions.filters.http.jwt_authn import v3 as jwt
from envoy_data_plane.envoy.extensions.filters.http.rbac import v3 as rbac
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager import v3 as hcm
from envoy_data_plane.envoy.type.matcher import v3 as matcher
from envoy_data_plane.xds.core import v3 as xds_core
from envoy_data_plane.xds.type.matcher import v3 as xds

from services.mesh.resource import ads, packed
from services.platform.identity import KEY, SCOPE, SUBJECT

if TYPE_CHECKING:
    from collections.abc import Iterable

HEADER = "x-api-key"
"""In which a client shows a key."""
ISSUER = "paymesh-keys"
"""Of API keys: no token of log-in is one, and no key is a token."""
CLAIM_HEADERS = {"sub": SUBJECT, "scope": SCOPE, "jti": KEY}
"""In which header a claim of a verified key travels."""
REVOKED = "revoked_keys"
"""The filter that refuses keys, and what it says of a refusal in Envoy's code details."""
REFUSED = f"rbac_access_denied_matched_policy[{REVOKED}]"


def provider(tokens: jwt.JwtProvider, keys: core.DataSource) -> jwt.JwtProvider:
    """Take a key as ``tokens`` takes a token, but for where it stands, who signed it and which claims it has."""
    return jwt.JwtProvider(
        issuer=ISSUER,
        audiences=tokens.audiences,
        require_expiration=True,
        local_jwks=keys,
        from_headers=[jwt.JwtHeader(name=HEADER)],
        forward=False,
        payload_in_metadata=tokens.payload_in_metadata,
        normalize_payload_in_metadata=tokens.normalize_payload_in_metadata,
        claim_to_headers=[
            jwt.JwtClaimToHeader(claim_name=claim, header_name=name) for claim, name in CLAIM_HEADERS.items()
        ],
        clock_skew_seconds=tokens.clock_skew_seconds,
        jwt_cache_config=tokens.jwt_cache_config,
    )


def revoked_by_discovery() -> hcm.HttpFilter:
    """Refuse what extension discovery lists, so that a revocation reaches open connections and drains none."""
    source = core.ExtensionConfigSource(
        config_source=ads(), type_urls=["type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"]
    )
    return hcm.HttpFilter(name=REVOKED, config_discovery=source)


def revoked(ids: Iterable[str]) -> rbac.Rbac:
    """Refuse these keys. They are looked up, not tried one by one: thousands cost a call nothing."""
    taken = xds.MatcherOnMatch(action=_action("taken", rules.RbacAction.ALLOW))
    refused = xds.MatcherOnMatch(action=_action(REVOKED, rules.RbacAction.DENY))
    found = dict.fromkeys(sorted(ids), refused)
    if not found:
        return rbac.Rbac(matcher=xds.Matcher(on_no_match=taken))
    shown = xds_core.TypedExtensionConfig(
        name="key", typed_config=packed(matcher.HttpRequestHeaderMatchInput(header_name=KEY))
    )
    tree = xds.MatcherMatcherTree(input=shown, exact_match_map=xds.MatcherMatcherTreeMatchMap(map=found))
    return rbac.Rbac(matcher=xds.Matcher(matcher_tree=tree, on_no_match=taken))


def _action(name: str, action: rules.RbacAction) -> xds_core.TypedExtensionConfig:
    return xds_core.TypedExtensionConfig(name=name, typed_config=packed(rules.Action(name=name, action=action)))
