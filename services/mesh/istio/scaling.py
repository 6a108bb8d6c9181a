"""How many pods there are: followed by load, and kept up while machines are drained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.mesh.istio.manifest import Json, document

if TYPE_CHECKING:
    from services.mesh.istio.environment import Environment


def budget(app: str) -> Json:
    """Let a drained machine take one pod at a time."""
    spec = {
        "maxUnavailable": 1,
        "selector": {"matchLabels": {"app": app}},
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }
    return document("PodDisruptionBudget", app, spec)


def autoscaler(kind: str, name: str, container: str, env: Environment) -> Json:
    """Follow the load: up at once, down slowly."""
    least, most = env.scale
    usage = {"type": "Utilization", "averageUtilization": 70}
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": kind, "name": name},
        "minReplicas": least,
        "maxReplicas": most,
        "metrics": [{"type": "ContainerResource", "containerResource": _of_container(container, usage)}],
        "behavior": {
            "scaleUp": {"policies": [{"type": "Pods", "value": 2, "periodSeconds": 30}]},
            "scaleDown": {
                "stabilizationWindowSeconds": 300,
                "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}],
            },
        },
    }
    return document("HorizontalPodAutoscaler", name, spec)


def _of_container(container: str, usage: Json) -> Json:
    """Look at one container: the sidecar's idling would make a service that is at its limit seem half as busy."""
    return {"name": "cpu", "container": container, "target": usage}
