"""What can be added to an overlay: two versions side by side, faults, the waypoint in place of sidecars.

The first four change the routes of one service, so an overlay takes one of them at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.mesh.istio import destination, routing, workload
from services.mesh.istio.destination import STABLE
from services.mesh.istio.environment import BASE, PROD
from services.mesh.istio.manifest import IMAGE, VERSIONS, Json, duration
from services.mesh.istio.waypoint import waypoint

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.contract.model import Contract, Method, Service

Folder = dict[str, list[Json]]

_ROOM = "payment"
"""The room whose releases are tried out like this: it has the money."""
_FIRST = PROD.scale[1] + 1
"""Number of the first instance of a trial: those below are taken by the instances that are no trial, however many."""
CANARY_PERCENT = 10


def folders(contract: Contract) -> dict[str, Folder]:
    """Render every component."""
    service = contract.services[_ROOM]
    return {
        "canary": _trial(service, "canary", {STABLE: 100 - CANARY_PERCENT, "canary": CANARY_PERCENT}),
        "blue-green": _trial(service, "green", {STABLE: 100, "green": 0}, replicas=PROD.replicas),
        "blue-green-switched": _trial(service, "green", {STABLE: 0, "green": 100}, replicas=PROD.replicas),
        "mirroring": _mirroring(contract, service),
        "fault-injection": {
            "kustomization.yaml": [_index({"patches": [_by_path("routes.yaml")]})],
            "routes.yaml": [_with_faults(contract, service)],
        },
        "waypoint": waypoint(contract),
    }


def _trial(service: Service, version: str, shares: Mapping[str, int], *, replicas: int = 1) -> Folder:
    """Run a second version beside the first; each version has its share of the calls."""
    routes = routing.clients(service, BASE)
    for route in routes["spec"]["http"]:
        route["route"] = [
            routing.destination(service, subset=subset, weight=weight) for subset, weight in shares.items()
        ]
    return _side_by_side(service, version, routes, replicas)


def _mirroring(contract: Contract, service: Service) -> Folder:
    """Show a second version a share of the reads, and nobody its answers. What changes something is shown to one alone."""
    routes = routing.clients(service, BASE)
    for route in routes["spec"]["http"]:
        route["route"] = [routing.destination(service, subset=STABLE)]
        if _reads(contract.methods[f"/{route['name']}"]):
            seen = routing.destination(service, subset="shadow")
            route["mirrors"] = [{**seen, "percentage": {"value": CANARY_PERCENT}}]
    return _side_by_side(service, "shadow", routes, 1)


def _side_by_side(service: Service, version: str, routes: Json, replicas: int) -> Folder:
    image = f"{IMAGE}-{version}"
    pods = workload.trial(service, version, first=_FIRST, image=image)
    pods["spec"]["replicas"] = replicas
    subsets = {name: {"version": name} for name in (STABLE, version)}
    index = {
        "resources": ["pods.yaml"],
        "patches": [_by_path("routes.yaml")],
        "images": [{"name": image, "newName": PROD.image, "newTag": version}],
    }
    hostless = {key: value for key, value in routes["spec"].items() if key != "hosts"}
    return {
        "kustomization.yaml": [_index(index)],
        "pods.yaml": [pods],
        "routes.yaml": [{**routes, "spec": hostless}, destination.rule(service, subsets)],
    }


def _with_faults(contract: Contract, service: Service) -> Json:
    """Make a share of the reads fail and a share of the changes slow: where a caller must cope, and no money is at stake."""
    routes = routing.clients(service, BASE)
    for route in routes["spec"]["http"]:
        method = contract.methods[f"/{route['name']}"]
        if _reads(method):
            route["fault"] = {"abort": {"grpcStatus": "UNAVAILABLE", "percentage": {"value": 5}}}
        else:
            slow = duration(method.timeout_ms // 4)
            route["fault"] = {"delay": {"fixedDelay": slow, "percentage": {"value": 10}}}
    del routes["spec"]["hosts"]
    return routes


def _reads(method: Method) -> bool:
    return method.http is not None and method.http.verb == "GET"


def _by_path(path: str) -> Json:
    return {"path": path}


def _index(said: Json) -> Json:
    return {"apiVersion": VERSIONS["Component"], "kind": "Component", **said}
