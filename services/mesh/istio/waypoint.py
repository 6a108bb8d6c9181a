"""Istio's ambient mode: one waypoint for the namespace in place of a sidecar in every pod.

A waypoint takes no EnvoyFilter. What stands in one for sidecars (texts of refusals, `x-paymesh-not-sent`, headers of peers
dropped at the callee) is missing there; the edge, which is a gateway either way, keeps all of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.mesh.istio import routing
from services.mesh.istio.manifest import NAMESPACE, VERSIONS, Json, document, principals

if TYPE_CHECKING:
    from services.contract.model import Contract, Service

_NAME = "waypoint"
_HBONE = 15008
_CONFIG = "config"


def waypoint(contract: Contract) -> dict[str, list[Json]]:
    """Render the component."""
    services = contract.services.values()
    differences = [_namespace(), _any_caller(contract), *map(_policy, services), *map(_pods, services)]
    index = {
        "apiVersion": VERSIONS["Component"],
        "kind": "Component",
        "resources": ["waypoint.yaml"],
        "patches": [{"path": "differences.yaml"}],
    }
    return {
        "kustomization.yaml": [index],
        "waypoint.yaml": [_gateway(), _below(), _packets()],
        "differences.yaml": differences,
    }


def _gateway() -> Json:
    made = document(
        "Gateway",
        _NAME,
        {
            "gatewayClassName": "istio-waypoint",
            # Services read who called from this header, which a sidecar would set.
            "infrastructure": {"annotations": {"ambient.istio.io/xfcc-include-client-identity": "true"}},
            "listeners": [{"name": "mesh", "port": _HBONE, "protocol": "HBONE"}],
        },
        labels={"istio.io/waypoint-for": "service"},
    )
    return {**made, "apiVersion": "gateway.networking.k8s.io/v1"}


def _below() -> Json:
    """Let the waypoint alone reach the pods, and config, which asks each of them whether it serves."""
    callers = [{"source": {"principals": principals([_NAME, _CONFIG])}}]
    return document("AuthorizationPolicy", "below-waypoint", {"action": "ALLOW", "rules": [{"from": callers}]})


def _packets() -> Json:
    """Let pods reach each other through the tunnel; who may, its certificate says."""
    tunnel = [{"protocol": "TCP", "port": _HBONE}]
    everyone: list[Json] = [{"podSelector": {}}]
    spec = {
        "podSelector": {},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": everyone, "ports": tunnel}],
        "egress": [{"to": everyone, "ports": tunnel}],
    }
    return document("NetworkPolicy", _NAME, spec)


def _namespace() -> Json:
    labels = {
        "istio-injection": None,
        "istio.io/dataplane-mode": "ambient",
        "istio.io/use-waypoint": _NAME,
        "istio.io/ingress-use-waypoint": "true",
    }
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}


def _any_caller(contract: Contract) -> Json:
    """Route for every caller alike: labels of sources are those of the waypoint here. Policies say who may."""
    routes = routing.mesh(contract)
    for route in routes["spec"]["http"]:
        route["match"] = [{key: value for key, value in route["match"][0].items() if key != "sourceLabels"}]
    return {**routes, "spec": {"http": routes["spec"]["http"]}}


def _policy(service: Service) -> Json:
    """Enforce a room's policy in the waypoint."""
    target = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": _NAME}
    return document("AuthorizationPolicy", service.name, {"selector": None, "targetRefs": [target]})


def _pods(service: Service) -> Json:
    """Listen where the tunnel ends, which is the pod's own address."""
    listen = {"name": "PAYMESH_LISTEN", "value": f"0.0.0.0:{service.port}"}
    pod = {"spec": {"containers": [{"name": service.name, "env": [listen]}]}}
    return document("StatefulSet", service.name, {"template": pod})
