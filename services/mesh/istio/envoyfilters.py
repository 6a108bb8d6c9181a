"""What Istio has no field for: the resources of our own Envoys, patched into those that istiod makes."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from services.mesh import filters, hardening, limits, waf
from services.mesh.istio import plane
from services.mesh.istio.authorization import open_to_clients
from services.mesh.istio.manifest import Json, document, host
from services.mesh.istio.routing import MESH_PORT
from services.mesh.node import EDGE
from services.mesh.refusals import NOT_SENT

if TYPE_CHECKING:
    from services.contract.model import Contract, Method, Service

_MANAGER = "envoy.filters.network.http_connection_manager"
_FIRST = (hardening.HEADERS, hardening.CORS, hardening.COMPRESSION, waf.NAME, "envoy.filters.http.buffer")
"""What comes before the transcoder, in order; a gRPC client meets the last two alone."""
_TRANSCODER = "envoy.filters.http.grpc_json_transcoder"
_LISTENERS = {"rest": 8443, "grpc": 8444}
"""Ports on which the edge's pods listen."""
_REFUSED = ("unreadable ", "two credentials")
"""How the names of routes begin that the edge answers before any other."""
_REPEATABLE = {"route": {"retry_policy": {"retriable_headers": [{"name": NOT_SENT, "present_match": True}]}}}


def edge(contract: Contract) -> Json:
    """Harden the edge, transcode REST, and make room for limits: what is the same for every method."""
    patches = []
    for listener, port in _LISTENERS.items():
        manager = plane.edge_manager(contract, listener)
        patches.append(_manager("GATEWAY", port, plane.options(manager)))
        # Each is put in front of all others: the last patch is the first filter.
        first = _FIRST if listener == "rest" else _FIRST[-2:]
        if listener == "rest":
            patches.append(_filter("GATEWAY", port, _with_file(plane.filter_named(manager, _TRANSCODER))))
        patches += [_filter("GATEWAY", port, plane.filter_named(manager, name)) for name in reversed(first)]
        # Who is it, is it too much (for one edge, for all of them), may they.
        patches.append(
            _filter("GATEWAY", port, _asking(contract, plane.filter_named(manager, limits.GLOBAL)), after=filters.JWT)
        )
        patches.append(_filter("GATEWAY", port, plane.filter_named(manager, filters.LIMIT), after=filters.JWT))
    refused = [route for name, route in plane.edge_routes(contract).items() if name.startswith(_REFUSED)]
    patches += [_patch("HTTP_ROUTE", "GATEWAY", {}, "INSERT_FIRST", route) for route in refused]
    # After every other: its limits stand behind a filter that istiod puts there for a RequestAuthentication.
    return _envoy_filter(EDGE, EDGE, patches, priority=10)


def clients(contract: Contract, service: Service) -> Json:
    """Say per method of a service what the edge's filters ask: limit, no look at tokens, text of a refusal."""
    table = plane.edge_routes(contract)
    patches = [
        _named("GATEWAY", name, _of_edge(table[name], method))
        for method in open_to_clients(service)
        for name in [method.path.strip("/")]
    ]
    return _envoy_filter(f"{EDGE}-{service.name}", EDGE, patches)


def _of_edge(route: Json, method: Method) -> Json:
    """Take from our own edge's route what a VirtualService cannot say. Who may call is an AuthorizationPolicy."""
    said = {key: value for key, value in route["typed_per_filter_config"].items() if key != filters.RBAC}
    if "requirement_name" in said.get(filters.JWT, {}):
        del said[filters.JWT]  # istiod's filter knows no names; what it lets pass without a token, the policy refuses
    made: Json = {key: route[key] for key in ("metadata",) if key in route}
    if said:
        made["typed_per_filter_config"] = said
    made |= {key: route[key] for key in ("response_headers_to_add",) if key in route}
    return made | (_REPEATABLE if method.retry_attempts else {})


def sidecars(contract: Contract) -> Json:
    """Tell every sidecar how to refuse, and to say of a peer only what its certificate proves."""
    service = next(iter(contract.services.values()))
    inbound, outbound = plane.inbound_manager(service), plane.outbound_manager(service.name)
    patches = [
        _manager("SIDECAR_INBOUND", 0, plane.options(inbound)),
        _manager("SIDECAR_OUTBOUND", MESH_PORT, plane.options(outbound)),
        # A sidecar says it, or nobody.
        _patch("ROUTE_CONFIGURATION", "SIDECAR_INBOUND", {}, "MERGE", {"response_headers_to_remove": [NOT_SENT]}),
    ]
    return document("EnvoyFilter", "sidecars", {"configPatches": patches})


def sidecar(contract: Contract, service: Service) -> Json:
    """Tell a service's sidecar whose identity headers to believe, and the words in which it refuses."""
    inbound = plane.inbound_manager(service)
    refused = next(iter(plane.inbound_routes(service).values()))["metadata"]
    patches = [
        _filter("SIDECAR_INBOUND", service.port, plane.filter_named(inbound, "strip_identity")),
        _patch("HTTP_ROUTE", "SIDECAR_INBOUND", {}, "MERGE", {"metadata": refused}),
    ]
    for name, route in plane.outbound_routes(contract, service.name).items():
        method = contract.methods.get(f"/{name}")
        if method and method.retry_attempts:
            patches.append(_named("SIDECAR_OUTBOUND", name, _REPEATABLE))
        elif "metadata" in route:
            patches.append(_named("SIDECAR_OUTBOUND", name, {"metadata": route["metadata"]}))
    return _envoy_filter(service.name, service.name, patches)


def _asking(contract: Contract, limiting: Json) -> Json:
    """Ask in the cluster that istiod makes of the service."""
    made = copy.deepcopy(limiting)
    port = contract.services[limits.SERVER].port
    asked = made["typed_config"]["rate_limit_service"]["grpc_service"]["envoy_grpc"]
    asked["cluster_name"] = f"outbound|{port}||{host(limits.SERVER)}"
    return made


def _with_file(transcoder: Json) -> Json:
    """Name the file that the ConfigMap is mounted as: the set is too large to stand in every listener."""
    config = {key: value for key, value in transcoder["typed_config"].items() if key != "proto_descriptor_bin"}
    return {**transcoder, "typed_config": {**config, "proto_descriptor": plane.DESCRIPTORS}}


def _manager(context: str, port: int, options: Json) -> Json:
    value = {"name": _MANAGER, "typed_config": options}
    return _patch("NETWORK_FILTER", context, _in_listener(port, {"name": _MANAGER}), "MERGE", value)


def _filter(context: str, port: int, made: Json, after: str = "") -> Json:
    beside: Json = {"name": _MANAGER, "subFilter": {"name": after}} if after else {"name": _MANAGER}
    return _patch("HTTP_FILTER", context, _in_listener(port, beside), "INSERT_AFTER" if after else "INSERT_FIRST", made)


def _in_listener(port: int, network_filter: Json) -> Json:
    chain: Json = {"filterChain": {"filter": network_filter}}
    return {"listener": {"portNumber": port, **chain} if port else chain}


def _named(context: str, route: str, value: Json) -> Json:
    match = {"routeConfiguration": {"vhost": {"route": {"name": route}}}}
    return _patch("HTTP_ROUTE", context, match, "MERGE", value)


def _patch(to: str, context: str, match: Json, operation: str, value: Json) -> Json:
    return {
        "applyTo": to,
        "match": {"context": context, **match},
        "patch": {"operation": operation, "value": value},
    }


def _envoy_filter(name: str, app: str, patches: list[Json], priority: int = 0) -> Json:
    spec: Json = {"workloadSelector": {"labels": {"app": app}}, "configPatches": patches}
    if priority:
        spec["priority"] = priority
    return document("EnvoyFilter", name, spec)
