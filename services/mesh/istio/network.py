"""Which packets may go where, whatever the sidecars say: the zones DMZ (edge), internal (rooms) and management."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.mesh import routes
from services.mesh.istio import jobs, outside
from services.mesh.istio.manifest import Json, document
from services.mesh.istio.telemetry import COLLECTOR_PORT
from services.mesh.node import EDGE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from services.contract.model import Contract, Service
    from services.mesh.istio.environment import Environment
    from services.mesh.istio.outside import Place

_MANAGEMENT = {"namespaceSelector": {"matchLabels": {"zone": "management"}}}
_EDGE_PORTS = (8443, 8444, 15021)
_SCRAPED = (15020, 15090)
"""Where a sidecar's agent and a gateway show metrics."""


def nobody() -> Json:
    """Let nothing in or out that no other policy allows."""
    return document("NetworkPolicy", "nobody", {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})


def everybody() -> Json:
    """Let every pod ask for names, and its proxy ask istiod and show traces."""
    names = {"to": [_namespace("kube-system")], "ports": _ports([53], "UDP") + _ports([53])}
    control = {"to": [_namespace("istio-system")], "ports": _ports([15012])}
    traces = {"to": [_MANAGEMENT], "ports": _ports([COLLECTOR_PORT])}
    spec = {"podSelector": {}, "policyTypes": ["Egress"], "egress": [names, control, traces]}
    return document("NetworkPolicy", "everybody", spec)


def management() -> Json:
    """Let namespaces of the management zone read metrics, and the jobs that change schemas reach the databases."""
    spec = {
        "podSelector": {},
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [_MANAGEMENT], "ports": _ports(_SCRAPED)}],
    }
    return document("NetworkPolicy", "management", spec)


def migrations(contract: Contract, env: Environment) -> Json:
    """Let the jobs that change schemas reach the databases, and nothing else."""
    databases = [place for place in outside.places(contract, env) if place.name == "database"]
    spec = {
        "podSelector": {"matchLabels": jobs.STEP},
        "policyTypes": ["Egress"],
        "egress": list(map(_towards, databases)),
    }
    return document("NetworkPolicy", jobs.MIGRATIONS, spec, labels=jobs.STEP)


def dmz(contract: Contract) -> Json:
    """Let everybody reach the edge, and the edge the services that clients call."""
    called = routes.called_by(contract, EDGE)
    spec = {
        "podSelector": {"matchLabels": {"app": EDGE}},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"ports": _ports(_EDGE_PORTS)}],
        "egress": [_call(service) for service in called],
    }
    return document("NetworkPolicy", EDGE, spec)


def room(contract: Contract, service: Service, env: Environment) -> Json:
    """Let the callers of a room's methods reach it, and the room its callees and what it needs outside."""
    callers = sorted({caller for method in service.methods for caller in method.callers} | set(routes.HEALTH_CALLERS))
    asks_all = service.name in routes.HEALTH_CALLERS
    called = contract.services.values() if asks_all else routes.called_by(contract, service.name)
    spec = {
        "podSelector": {"matchLabels": {"app": service.name}},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [_pods(callers)], "ports": _ports([service.port])}],
        "egress": [
            *map(_call, called),
            *map(_towards, outside.of_room(contract, env, service.name)),
        ],
    }
    return document("NetworkPolicy", service.name, spec)


def _call(service: Service) -> Json:
    return {"to": [_pods([service.name])], "ports": _ports([service.port])}


def _towards(place: Place) -> Json:
    """Name a place by the network that it is in: policies know no names of hosts."""
    if place.private:
        to: list[Json] = [{"ipBlock": {"cidr": cidr}} for cidr in outside.PRIVATE]
        # Stores that are pods are no addresses to every network plug-in.
        to.append({"namespaceSelector": {"matchLabels": {"zone": "data"}}})
    else:
        to = [{"ipBlock": {"cidr": "0.0.0.0/0", "except": list(outside.NOT_PUBLIC)}}]
    return {"to": to, "ports": _ports([place.port])}


def _pods(apps: Iterable[str]) -> Json:
    return {"podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": list(apps)}]}}


def _namespace(name: str) -> Json:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}


def _ports(numbers: Iterable[int], protocol: str = "TCP") -> list[Json]:
    return [{"protocol": protocol, "port": number} for number in numbers]
