"""The pods that clients reach: a gateway of Istio's, under an account of ours."""

from __future__ import annotations

import json

from services.mesh.istio import plane
from services.mesh.istio.manifest import Json, document
from services.mesh.istio.routing import GRPC_PORT, REST_PORT
from services.mesh.istio.workload import container_security, pod_security, spread
from services.mesh.node import EDGE

DESCRIPTORS = "paymesh-descriptors"
"""ConfigMap of the descriptor set; its name gets a hash, so that a new set is a new rollout."""
CONTAINER = "istio-proxy"
_PROXY_USER = 1337
_DRAIN_S = 20
_PORTS = {"status": (15021, 15021), "https-rest": (REST_PORT, 8443), "https-grpc": (GRPC_PORT, 8444)}


def service() -> Json:
    """Give the edge an address on the internet; the address of the client, by which limits count, is kept."""
    ports = [{"name": name, "port": port, "targetPort": target} for name, (port, target) in _PORTS.items()]
    spec = {"type": "LoadBalancer", "externalTrafficPolicy": "Local", "selector": {"app": EDGE}, "ports": ports}
    return document("Service", EDGE, spec, labels={"app": EDGE})


def pods() -> Json:
    """Make the edge's pods; istiod's webhook puts the image of the proxy and its settings in."""
    folder = plane.DESCRIPTORS.rpartition("/")[0]
    container = {
        "name": CONTAINER,
        "image": "auto",
        "ports": [{"name": name, "containerPort": target} for name, (_, target) in _PORTS.items()],
        "securityContext": {**container_security(), "runAsUser": _PROXY_USER, "runAsGroup": _PROXY_USER},
        "resources": {"requests": {"cpu": "500m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}},
        "volumeMounts": [{"name": "descriptors", "mountPath": folder, "readOnly": True}],
    }
    security = pod_security()
    security["securityContext"] |= {"runAsUser": _PROXY_USER, "runAsGroup": _PROXY_USER, "fsGroup": _PROXY_USER}
    template = {
        "metadata": {
            "labels": {"app": EDGE, "zone": "dmz", "sidecar.istio.io/inject": "true"},
            "annotations": {
                "inject.istio.io/templates": "gateway",
                "proxy.istio.io/config": json.dumps({"terminationDrainDuration": f"{_DRAIN_S}s"}),
            },
        },
        "spec": {
            "serviceAccountName": EDGE,
            **security,
            "terminationGracePeriodSeconds": _DRAIN_S + 10,
            "topologySpreadConstraints": spread(EDGE),
            "containers": [container],
            "volumes": [{"name": "descriptors", "configMap": {"name": DESCRIPTORS}}],
        },
    }
    spec = {
        "selector": {"matchLabels": {"app": EDGE}},
        "minReadySeconds": 5,
        "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        "template": template,
    }
    return document("Deployment", EDGE, spec, labels={"app": EDGE})
