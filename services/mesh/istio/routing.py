"""Where each method goes, within which time and with which repeats."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.mesh import routes
from services.mesh.istio.authorization import open_to_clients
from services.mesh.istio.manifest import Json, document, duration, host
from services.mesh.node import EDGE
from services.mesh.refusals import NOT_SENT
from services.mesh.tls import CIPHERS
from services.platform.identity import SCOPE, SESSION, SUBJECT

if TYPE_CHECKING:
    from services.contract.model import Contract, Method, Service
    from services.mesh.istio.environment import Environment

MESH = "mesh"
MESH_PORT = 50050
"""The one address that services call at: their sidecars choose the callee by the method."""
REST_PORT, GRPC_PORT = 443, 8444

_GRPC = {"content-type": {"prefix": "application/grpc"}}
_BACKOFF_MS = 25


def gateway(env: Environment) -> Json:
    """Take TLS from clients: REST on one port, native gRPC on the other."""
    return document(
        "Gateway",
        EDGE,
        {
            "selector": {"app": EDGE},
            "servers": [_server(env, REST_PORT, "https-rest"), _server(env, GRPC_PORT, "https-grpc")],
        },
    )


def _server(env: Environment, port: int, name: str) -> Json:
    return {
        "port": {"number": port, "name": name, "protocol": "HTTPS"},
        "hosts": [env.host],
        "tls": {
            "mode": "SIMPLE",
            "credentialName": f"{EDGE}-tls",
            "minProtocolVersion": "TLSV1_2",
            "maxProtocolVersion": "TLSV1_3",
            "cipherSuites": [name for group in CIPHERS for name in group.strip("[]").split("|")],
        },
    }


def clients(service: Service, env: Environment) -> Json:
    """Route what clients may call of a service, by its gRPC path: REST was transcoded before."""
    return document(
        "VirtualService",
        service.name,
        {
            "hosts": [env.host],
            "gateways": [EDGE],
            "http": [_from_client(method, service) for method in open_to_clients(service)],
        },
    )


def mesh(contract: Contract) -> Json:
    """Route what services may call of each other, each from its callers alone; refuse the rest where it starts."""
    called = [(m, s) for s in contract.services.values() for m in s.methods if set(m.callers) - {EDGE}]
    http = [
        *(_from_peer(method, service) for method, service in called),
        # Refused by name where the method is known, and otherwise as one that is not there.
        *(_answer(f"refused {s.full_name}", f"/{s.full_name}/", 403) for s in contract.services.values()),
        _answer("elsewhere", "/", 404),
    ]
    return document("VirtualService", MESH, {"hosts": [host(MESH)], "gateways": ["mesh"], "http": http})


def mesh_service() -> Json:
    """Give the one address of the mesh a name and a port; it has no pods."""
    port = {"name": "grpc", "port": MESH_PORT, "appProtocol": "grpc"}
    return document("Service", MESH, {"ports": [port]})


def destination(service: Service, *, subset: str = "", weight: int | None = None) -> Json:
    """Name a service, or a subset of its instances, and its share of the calls."""
    to: Json = {"host": host(service.name), "port": {"number": service.port}}
    if subset:
        to["subset"] = subset
    return {"destination": to} if weight is None else {"destination": to, "weight": weight}


def _from_client(method: Method, service: Service) -> Json:
    route = _route(method, [{"uri": {"exact": method.path}, "headers": _GRPC}], service)
    # Read by the edge's own retries, and nobody else's affair.
    route["headers"] = {"response": {"remove": [NOT_SENT]}}
    return route


def _from_peer(method: Method, service: Service) -> Json:
    match = {"uri": {"exact": method.path}, "headers": _GRPC}
    callers = [caller for caller in method.callers if caller != EDGE]
    route = _route(method, [{**match, "sourceLabels": {"app": caller}} for caller in callers], service)
    if not set(callers) & set(service.on_behalf):
        # The callee's sidecar does not believe them either.
        route["headers"] = {"request": {"remove": [SUBJECT, SCOPE, SESSION]}}
    return route


def _route(method: Method, matches: list[Json], service: Service) -> Json:
    # Said even where there are none: Istio's default is two, on failures after which the contract allows none.
    retries: Json = {"attempts": method.retry_attempts}
    if method.retry_attempts:
        retries |= {"retryOn": routes.retry_on(method), "backoff": duration(_BACKOFF_MS)}
    return {
        "name": method.path.strip("/"),
        "match": matches,
        "route": [destination(service)],
        "timeout": duration(method.timeout_ms),
        "retries": retries,
    }


def _answer(name: str, prefix: str, status: int) -> Json:
    return {"name": name, "match": [{"uri": {"prefix": prefix}}], "directResponse": {"status": status}}
