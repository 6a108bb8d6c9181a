"""Every method of the contract stands in what Istio is told, with its policy; the files under istio/ are that."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from services.cli.generate import manifests
from services.contract.load import contract
from services.contract.model import Auth, Method, RetryOn
from services.mesh.istio.manifest import NAMESPACE, host, principal
from services.mesh.node import EDGE
from services.platform.identity import KEY, SCOPE, SESSION, SUBJECT, spiffe_id
from tests.contract.counted import COUNTED, GLOBAL, counted_by
from tests.contract.manifests import ISTIO, Json, in_tree, of_kind

if TYPE_CHECKING:
    from services.contract.model import Service

METHODS = [pytest.param(method, id=method.full_name) for method in contract().methods.values()]
SERVICES = [pytest.param(service, id=service.name) for service in contract().services.values()]
RBAC, JWT = "envoy.filters.http.rbac", "envoy.filters.http.jwt_authn"
LIMIT = "envoy.filters.http.local_ratelimit"


def test_files_are_what_the_contracts_render() -> None:
    """A contract that was changed without `tox -e gen` is found here; so is a file that nobody renders."""
    there = {path.relative_to(ISTIO).as_posix(): path.read_bytes() for path in ISTIO.rglob("*") if path.is_file()}
    assert {name: content for name, content in there.items() if name not in manifests.BY_HAND} == manifests.files(), (
        "run `tox -e gen` and commit istio/"
    )


# -- Who may call ----------------------------------------------------------------------------------------------------


def _policies(app: str) -> list[Json]:
    """Return what is said about the pods of a service by policies that select them."""
    found = of_kind(in_tree(), "AuthorizationPolicy").values()
    return [p["spec"] for p in found if p["spec"].get("selector", {}).get("matchLabels") == {"app": app}]


def _rules(app: str, path: str) -> list[Json]:
    """Return the rules that let a path through to the pods of a service."""
    rules = []
    for policy in _policies(app):
        assert policy["action"] == "ALLOW"
        for rule in policy["rules"]:
            ((operation,),) = (list(to.values()) for to in rule["to"])
            assert operation["methods"] == ["POST"]
            if path in operation["paths"]:
                rules.append(rule)
    return rules


def test_nobody_may_call_what_no_rule_names() -> None:
    """An ALLOW policy without rules, for all pods, is what makes the others the only way in; and mutual TLS is a must."""
    assert in_tree()["AuthorizationPolicy", "nobody"]["spec"] == {}
    assert in_tree()["PeerAuthentication", "strict"]["spec"] == {"mtls": {"mode": "STRICT"}}
    named = {p for app in contract().services for policy in _policies(app) for r in policy["rules"]
             for to in r["to"] for p in to["operation"]["paths"]}  # fmt: skip
    asked = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
    assert named == contract().methods.keys() | {"/grpc.health.v1.Health/Check", asked}
    (rule,) = _rules("gateway", asked)
    assert rule["from"] == [{"source": {"principals": [principal(EDGE)]}}], "the edge alone asks what is counted"


@pytest.mark.parametrize("method", METHODS)
def test_sidecar_lets_in_the_callers_of_a_method_and_nobody_else(method: Method) -> None:
    """The identities in the one rule of a method are the contract's callers."""
    (rule,) = _rules(method.service, method.path)
    assert rule.keys() == {"from", "to"}
    ((source,),) = (list(each.values()) for each in rule["from"])
    assert source == {"principals": [principal(caller) for caller in sorted(method.callers)]}
    assert not any(_rules(other, method.path) for other in contract().services if other != method.service)


@pytest.mark.parametrize("method", METHODS)
def test_edge_asks_for_the_token_of_a_method(method: Method) -> None:
    """Public: none. User: a verified one. Scopes: each of them, as conditions that all must hold. Internal: no rule."""
    rules = _rules(EDGE, method.path)
    if method.auth is Auth.INTERNAL or EDGE not in method.callers:
        assert not rules
        return
    (rule,) = rules
    if method.auth is Auth.PUBLIC:
        assert rule.keys() == {"to"}
        return
    issuers = ["paymesh/*", *(["paymesh-keys/*"] if method.api_key else [])]
    assert rule["from"] == [{"source": {"requestPrincipals": issuers}}]
    asked = [(each["key"], each["values"]) for each in rule.get("when", [])]
    assert asked == [("request.auth.claims[scope]", [scope]) for scope in method.scopes]
    assert bool(asked) == (method.auth is Auth.SCOPES)


def test_tokens_are_verified_at_the_edge_and_end_there() -> None:
    """Issuer, audience and keys are those of the user service; claims travel on in the headers that services read."""
    tokens, keys = in_tree()["RequestAuthentication", "tokens"]["spec"]["jwtRules"]
    for rule, issuer, jwks in (
        (tokens, "paymesh", "/paymesh.user.v1.UserService/GetJwks"),
        (keys, "paymesh-keys", "/paymesh.gateway.v1.GatewayService/GetApiKeyJwks"),
    ):
        assert (rule["issuer"], rule["audiences"], rule["forwardOriginalToken"]) == (issuer, ["paymesh-api"], False)
        http = contract().methods[jwks].http
        assert http
        assert rule["jwksUri"].endswith(f".example{http.path}")
    headers = [{each["claim"]: each["header"] for each in rule["outputClaimToHeaders"]} for rule in (tokens, keys)]
    assert headers == [{"sub": SUBJECT, "scope": SCOPE, "sid": SESSION}, {"sub": SUBJECT, "scope": SCOPE, "jti": KEY}]
    assert "fromHeaders" not in tokens
    assert keys["fromHeaders"] == [{"name": "x-api-key"}]


@pytest.mark.parametrize("service", SERVICES)
def test_sidecar_believes_identity_headers_of_the_edge_and_of_who_may_pass_them_on(service: Service) -> None:
    """The filter that drops them is skipped for those peers alone, by their identities in Kubernetes."""
    patches = in_tree()["EnvoyFilter", service.name]["spec"]["configPatches"]
    (strip,) = [p for p in patches if p["applyTo"] == "HTTP_FILTER"]
    assert strip["match"]["context"] == "SIDECAR_INBOUND"
    assert strip["match"]["listener"]["portNumber"] == service.port
    tree = strip["patch"]["value"]["typed_config"]["xds_matcher"]["matcher_tree"]
    trusted = {spiffe_id(name, NAMESPACE) for name in (EDGE, *service.on_behalf)}
    assert tree["exact_match_map"]["map"].keys() == trusted
    (everyone,) = [p for p in in_tree()["EnvoyFilter", "sidecars"]["spec"]["configPatches"]
                   if p["applyTo"] == "NETWORK_FILTER" and p["match"]["context"] == "SIDECAR_INBOUND"]  # fmt: skip
    said = everyone["patch"]["value"]["typed_config"]
    assert said["forward_client_cert_details"] == "SANITIZE_SET", "else a peer could say whom it is"


# -- Where a method goes, how long, how often ------------------------------------------------------------------------


def _routes(name: str) -> dict[str, Json]:
    """Return the routes of a VirtualService by gRPC path, in order."""
    routes = in_tree()["VirtualService", name]["spec"]["http"]
    return {
        each["match"][0]["uri"].get("exact", each["match"][0]["uri"].get("prefix", "") + "*"): each for each in routes
    }


def _ms(text: str) -> int:
    for unit, factor in (("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)):
        if text.endswith(unit):
            return int(text.removesuffix(unit)) * factor
    raise ValueError(text)


def _as_the_contract_says(route: Json, method: Method, patched: dict[str, Json]) -> None:
    """Check destination, time-out and repeats. `patched` is what EnvoyFilters say of routes, by their names."""
    service = contract().services[method.service]
    assert route["route"] == [{"destination": {"host": host(service.name), "port": {"number": service.port}}}]
    assert _ms(route["timeout"]) == method.timeout_ms
    retries = route["retries"]
    assert retries["attempts"] == method.retry_attempts
    words = set(filter(None, retries.get("retryOn", "").split(",")))
    assert bool(words) == bool(method.retry_on)
    assert ("unavailable" in words) == ("reset" in words) == (RetryOn.UNAVAILABLE in method.retry_on)
    assert words <= {"connect-failure", "retriable-headers", "refused-stream", "unavailable", "reset"}
    headers = patched.get(route["name"], {}).get("route", {}).get("retry_policy", {}).get("retriable_headers", [])
    assert [each["name"] for each in headers] == (["x-paymesh-not-sent"] if words else [])


def _patched(name: str, context: str) -> dict[str, Json]:
    """Return what an EnvoyFilter says of routes, by their names."""
    patches = in_tree()["EnvoyFilter", name]["spec"]["configPatches"]
    return {
        each["match"]["routeConfiguration"]["vhost"]["route"]["name"]: each["patch"]["value"]
        for each in patches
        if each["applyTo"] == "HTTP_ROUTE"
        and each["match"]["context"] == context
        and "routeConfiguration" in each["match"]
    }


@pytest.mark.parametrize("method", METHODS)
def test_edge_has_a_method_with_its_policy_or_none_of_it(method: Method) -> None:
    """What clients may call has a route with time-out, repeats, limit; what is internal has none."""
    patched = _patched(f"{EDGE}-{method.service}", "GATEWAY")
    route = _routes(method.service).get(method.path)
    if method.auth is Auth.INTERNAL or EDGE not in method.callers:
        assert route is None
        assert method.path.strip("/") not in patched
        return
    assert route is not None
    assert route["name"] == method.path.strip("/"), "patches find it by this name"
    _as_the_contract_says(route, method, patched)
    said = patched.get(route["name"], {}).get("typed_per_filter_config", {})
    assert (JWT in said) == (method.auth is Auth.PUBLIC)
    assert said.get(JWT, {"disabled": True})["disabled"]
    assert RBAC not in said, "who may call is an AuthorizationPolicy"
    _limited_as_stated(said.get(LIMIT), method)
    assert (GLOBAL in said) == bool(method.rate_limit and method.rate_limit.is_global)


def _limited_as_stated(said: dict[str, Any] | None, method: Method) -> None:
    if not method.rate_limit:
        assert said is None
        return
    assert said
    for descriptor in said["descriptors"]:
        bucket = descriptor["token_bucket"]
        assert (bucket["max_tokens"], bucket["tokens_per_fill"]) == (method.rate_limit.requests,) * 2
        assert _ms(bucket["fill_interval"]) == method.rate_limit.per_ms
    assert counted_by(said["descriptors"]) == COUNTED[method.rate_limit.by]
    assert said["filter_enabled"] == said["filter_enforced"] == {"default_value": {"numerator": 100}}


@pytest.mark.parametrize("method", METHODS)
def test_callers_have_a_route_and_others_a_refusal(method: Method) -> None:
    """In the one table of calls inside, a method is matched for its callers; what follows refuses the rest by name."""
    table = _routes("mesh")
    callers = set(method.callers) - {EDGE}
    route = table.get(method.path)
    assert (route is not None) == bool(callers)
    if route:
        assert {match["sourceLabels"]["app"] for match in route["match"]} == callers
        assert {match["uri"]["exact"] for match in route["match"]} == {method.path}
        for caller in callers:
            _as_the_contract_says(route, method, _patched(caller, "SIDECAR_OUTBOUND"))
    refusal = table[f"/{method.full_name.rpartition('.')[0]}/*"]
    assert refusal["directResponse"] == {"status": 403}
    paths = list(table)
    assert paths[-1] == "/*"
    assert all("exact" in table[path]["match"][0]["uri"] for path in paths[: -1 - len(contract().services)])


@pytest.mark.parametrize("service", SERVICES)
def test_callers_keep_the_limits_of_a_service(service: Service) -> None:
    """Balancing, circuit breaker, retry budget and outlier rule are the service's; calls prove identities."""
    rule = in_tree()["DestinationRule", service.name]["spec"]
    assert rule["host"] == host(service.name)
    said = rule["trafficPolicy"]
    assert said["tls"] == {"mode": "ISTIO_MUTUAL"}
    assert said["loadBalancer"]["simple"] == service.load_balancing.upper()
    pool, breaker = said["connectionPool"], service.circuit_breaker
    assert pool["tcp"]["maxConnections"] == breaker.connections_max
    assert pool["http"]["http1MaxPendingRequests"] == breaker.pending_max
    assert pool["http"]["http2MaxRequests"] == breaker.requests_max
    repeats = said["retryBudget"]["percent"]
    assert round(100 * repeats / (100 - repeats)) == breaker.retry_budget_percent
    outlier = said["outlierDetection"]
    assert outlier["consecutive5xxErrors"] == service.outlier.consecutive_failures
    assert outlier["consecutiveGatewayErrors"] == service.outlier.consecutive_failures
    assert _ms(outlier["interval"]) == service.outlier.interval_ms
    assert _ms(outlier["baseEjectionTime"]) == service.outlier.ejection_time_ms
    assert outlier["maxEjectionPercent"] == service.outlier.ejection_percent_max


# -- What a sidecar and the network let through ----------------------------------------------------------------------


@pytest.mark.parametrize("service", SERVICES)
def test_room_reaches_its_callees_and_its_places_outside_alone(service: Service) -> None:
    """A Sidecar names hosts, a NetworkPolicy pods and ports; nothing outside is seen by a room that has no business there."""
    named = in_tree()["Sidecar", service.name]["spec"]
    assert named["outboundTrafficPolicy"] == {"mode": "REGISTRY_ONLY"}
    ((egress,),) = (named["egress"],)
    callees = {m.service for m in contract().methods.values() if service.name in m.callers}
    hosts = {each.removeprefix("./") for each in egress["hosts"] if each.startswith("./")}
    assert {name for name in contract().services if host(name) in hosts} == callees
    places = of_kind(in_tree(), "ServiceEntry")
    outside = {name for name, place in places.items() if hosts & set(place["spec"]["hosts"])}
    assert outside == OUTSIDE[service.name]

    policy = in_tree()["NetworkPolicy", service.name]["spec"]
    ((ingress,),) = (policy["ingress"],)
    ((peers,),) = (ingress["from"],)
    callers = {caller for method in service.methods for caller in method.callers}
    (expression,) = peers["podSelector"]["matchExpressions"]
    assert set(expression["values"]) == callers | {"config", EDGE}, "config asks whether it serves"
    assert ingress["ports"] == [{"protocol": "TCP", "port": service.port}]
    open_ports = {port["port"] for rule in policy["egress"] for port in rule["ports"]}
    everyone = {s.port for s in contract().services.values()} if service.name == "config" else set()
    inside = everyone | {contract().services[name].port for name in callees}
    assert open_ports == inside | {
        place["spec"]["ports"][0]["number"] for name, place in places.items() if name in outside
    }


_STORES = {"database", "redis", "kafka"}
OUTSIDE = {
    "user": _STORES,
    "order": _STORES,
    "payment": _STORES | {"alipay", "alipay-bills", "wechat", "cards"},
    "risk": _STORES,
    "notification": _STORES | {"sms", "push", "smtp", "webhooks"},
    "config": _STORES,
    "gateway": {"database", "redis"},
}
"""What each room's card says that it needs."""


def test_metadata_service_and_private_networks_are_closed_to_calls_to_the_internet() -> None:
    """Who makes a room call an address of his choice must not reach what is inside."""
    wide = [
        to["ipBlock"]
        for policy in of_kind(in_tree(), "NetworkPolicy").values()
        for rule in policy["spec"].get("egress", [])
        for to in rule.get("to", [])
        if to.get("ipBlock", {}).get("cidr") == "0.0.0.0/0"
    ]
    assert wide
    for block in wide:
        assert {"169.254.0.0/16", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"} <= set(block["except"])
    nobody = in_tree()["NetworkPolicy", "nobody"]["spec"]
    assert nobody == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_edge_takes_modern_tls_and_hears_nobody_about_himself() -> None:
    """TLS 1.2 and 1.3 with forward secrecy and AEAD; identity headers of clients are dropped before anything reads them."""
    for server in in_tree()["Gateway", EDGE]["spec"]["servers"]:
        tls = server["tls"]
        assert (tls["mode"], tls["minProtocolVersion"], tls["maxProtocolVersion"]) == ("SIMPLE", "TLSV1_2", "TLSV1_3")
        assert all("GCM" in name or "CHACHA20" in name for name in tls["cipherSuites"])
        assert all(name.startswith("ECDHE-") for name in tls["cipherSuites"])
    patches = in_tree()["EnvoyFilter", EDGE]["spec"]["configPatches"]
    managers = [p["patch"]["value"]["typed_config"] for p in patches if p["applyTo"] == "NETWORK_FILTER"]
    assert len(managers) == 2
    for manager in managers:
        assert '"prefix": "x-paymesh-"' in json.dumps(manager["early_header_mutation_extensions"])
        assert manager["path_with_escaped_slashes_action"] == "REJECT_REQUEST"
        assert manager["use_remote_address"] is True
