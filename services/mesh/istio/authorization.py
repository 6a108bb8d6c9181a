"""Who may call what: nobody, unless a rule says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.contract.model import Auth
from services.mesh import filters, keys, limits, routes
from services.mesh.istio.manifest import Json, document, principals, selector
from services.mesh.node import EDGE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from services.contract.model import Contract, Method, Service
    from services.mesh.istio.environment import Environment


def nobody() -> Json:
    """Refuse everything in the namespace that no other policy allows."""
    return document("AuthorizationPolicy", "nobody", {})


def strict() -> Json:
    """Take mutual TLS alone: who shows no certificate is not heard."""
    return document("PeerAuthentication", "strict", {"mtls": {"mode": "STRICT"}})


def tokens(contract: Contract, env: Environment) -> Json:
    """Verify access tokens and API keys at the edge and turn their claims into identity headers.

    A request without a token passes; the rules of the edge say which methods take it.
    """
    of_tokens = _issued(contract, env, filters.ISSUER, "GetJwks", filters.CLAIM_HEADERS)
    of_keys = _issued(contract, env, keys.ISSUER, "GetApiKeyJwks", keys.CLAIM_HEADERS)
    of_keys["fromHeaders"] = [{"name": keys.HEADER}]
    return document("RequestAuthentication", "tokens", {**selector(EDGE), "jwtRules": [of_tokens, of_keys]})


def _issued(contract: Contract, env: Environment, issuer: str, jwks: str, claims: Mapping[str, str]) -> Json:
    (path,) = (m.http.path for m in contract.methods.values() if m.name == jwks and m.http)
    return {
        "issuer": issuer,
        "audiences": [filters.AUDIENCE],
        # istiod fetches it; it is public, and whoever could change it on the way could sign tokens.
        "jwksUri": f"{env.public_url}{path}",
        "forwardOriginalToken": False,
        "outputClaimToHeaders": [{"header": header, "claim": claim} for claim, header in claims.items()],
    }


def peers(service: Service) -> Json:
    """Let the callers of each method through to a service."""
    by_callers: dict[tuple[str, ...], list[str]] = {}
    for method in service.methods:
        by_callers.setdefault(method.callers, []).append(method.path)
    rules = [_rule(paths, [{"source": {"principals": principals(callers)}}]) for callers, paths in by_callers.items()]
    rules.append(_rule([routes.HEALTH_CHECK], [{"source": {"principals": principals(routes.HEALTH_CALLERS)}}]))
    if service.name == limits.SERVER:
        rules.append(_rule([limits.ASK], [{"source": {"principals": principals([EDGE])}}]))
    return document("AuthorizationPolicy", service.name, {**selector(service.name), **_allow(rules)})


def clients(service: Service) -> Json:
    """Let clients through the edge to what the contract opens to them, with the token that it asks for."""
    by_token: dict[tuple[Auth, tuple[str, ...], bool], list[str]] = {}
    for method in open_to_clients(service):
        by_token.setdefault((method.auth, method.scopes, method.api_key), []).append(method.path)
    rules = [_with_token(*of_client, paths) for of_client, paths in by_token.items()]
    return document("AuthorizationPolicy", f"{EDGE}-{service.name}", {**selector(EDGE), **_allow(rules)})


def open_to_clients(service: Service) -> list[Method]:
    """Return the methods of a service that clients may call."""
    return [m for m in service.methods if EDGE in m.callers and m.auth is not Auth.INTERNAL]


def _with_token(auth: Auth, scopes: Iterable[str], or_key: bool, paths: list[str]) -> Json:  # noqa: FBT001 - a part of what groups them
    if auth is Auth.PUBLIC:
        return _rule(paths, [])
    issuers = [filters.ISSUER, keys.ISSUER] if or_key else [filters.ISSUER]
    rule = _rule(paths, [{"source": {"requestPrincipals": [f"{issuer}/*" for issuer in issuers]}}])
    if scopes:
        # One condition a scope: the values of one would be alternatives.
        rule["when"] = [{"key": "request.auth.claims[scope]", "values": [scope]} for scope in scopes]
    return rule


def _rule(paths: list[str], sources: list[Json]) -> Json:
    to = [{"operation": {"methods": ["POST"], "paths": paths}}]
    return {"from": sources, "to": to} if sources else {"to": to}


def _allow(rules: list[Json]) -> Json:
    return {"action": "ALLOW", "rules": rules}
