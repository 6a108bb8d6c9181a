"""The pods of a room, and what keeps the right number of them up.

They are StatefulSets, not Deployments: ids are made unique by the number of the instance, and payment takes up after a
crash what the instance of its number was doing, so no two pods may ever have the same one.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from services.mesh.istio.destination import STABLE
from services.mesh.istio.environment import INSTANCES_MAX
from services.mesh.istio.manifest import IMAGE, NAMESPACE, Json, document
from services.mesh.istio.settings import DATA, METRICS_PORT, ROOMS, environment
from services.platform.process import GRACE_S

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.contract.model import Service
    from services.mesh.istio.environment import Environment

USER = 10001
PRE_STOP_S = 5
"""From the order to stop until every sidecar has heard that this pod is gone."""
PARTS_S = 15
"""For relay, consumer and batches to end after the last call."""
_SECRETS = "/run/paymesh-secrets"


def account(name: str, labels: dict[str, str] | None = None) -> Json:
    """Make the identity of a room; it has no business with Kubernetes' API."""
    return document("ServiceAccount", name, labels=labels, automountServiceAccountToken=False)


def headless(service: str) -> str:
    """Name the Service by which single instances are found: config asks each whether it serves."""
    return f"{service}-instances"


def service(policy: Service) -> Json:
    """Give a room one address, whatever pods it has."""
    return document("Service", policy.name, _service_spec(policy, "grpc", "grpc"), labels={"app": policy.name})


def instances(policy: Service) -> Json:
    """Give its single instances theirs."""
    # TCP to the caller's sidecar: of HTTP it would ask for a name, and who asks an instance has its address alone.
    spec = {"clusterIP": "None", **_service_spec(policy, "tcp-health", "tcp")}
    return document("Service", headless(policy.name), spec, labels={"app": policy.name})


def _service_spec(policy: Service, name: str, protocol: str) -> Json:
    port = {"name": name, "port": policy.port, "targetPort": "grpc", "appProtocol": protocol}
    return {"selector": {"app": policy.name}, "ports": [port]}


def pods(policy: Service, env: Environment) -> Json:
    """Make the instances that are no trial, from number 1 on."""
    made = trial(policy, STABLE, first=1)
    made["metadata"]["name"] = policy.name
    if not ROOMS[policy.name].autoscaled:
        made["spec"]["replicas"] = 1 if ROOMS[policy.name].single else env.replicas
    return made


def trial(policy: Service, version: str, *, first: int, image: str = IMAGE) -> Json:
    """Make instances of another version, whose numbers begin with `first`."""
    assert 1 <= first <= INSTANCES_MAX
    labels = {"app": policy.name, "version": version}
    spec = {
        "serviceName": headless(policy.name),
        "selector": {"matchLabels": labels},
        "ordinals": {"start": first},
        "podManagementPolicy": "Parallel",
        "minReadySeconds": 5,
        "revisionHistoryLimit": 5,
        "template": {
            "metadata": {"labels": {**labels, "zone": "internal"}, "annotations": _annotations()},
            "spec": _pod(policy, image),
        },
    }
    return document("StatefulSet", f"{policy.name}-{version}", spec, labels=labels)


def _annotations() -> dict[str, str]:
    proxy = {
        # Probes go to loopback, where the service listens.
        "proxyMetadata": {"REWRITE_PROBE_LEGACY_LOCALHOST_DESTINATION": "true"},
        "terminationDrainDuration": f"{PRE_STOP_S + int(GRACE_S)}s",
    }
    return {
        "proxy.istio.io/config": json.dumps(proxy),
        # Scraped by the sidecar's agent, which shows them with its own.
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(METRICS_PORT),
        "prometheus.io/path": "/metrics",
    }


def _pod(policy: Service, image: str) -> Json:
    keys = ROOMS[policy.name].keys
    return {
        "serviceAccountName": policy.name,
        **pod_security(),
        "terminationGracePeriodSeconds": PRE_STOP_S + int(GRACE_S) + PARTS_S,
        "topologySpreadConstraints": spread(policy.name),
        **({"initContainers": [_private_copies(keys, image)]} if keys else {}),
        "containers": [_container(policy, image)],
        "volumes": [
            {"name": "data", "emptyDir": {"sizeLimit": "256Mi"}},
            {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}},
            *({"name": name, "secret": {"secretName": name, "defaultMode": 0o440}} for name in keys),
            *({"name": f"{name}-copy", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}} for name in keys),
        ],
    }


def pod_security() -> Json:
    """Give a pod no rights that it does not need."""
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }


def container_security() -> Json:
    """Give a container none either, and nothing to write to but its volumes."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def spread(app: str) -> list[Json]:
    """Spread pods over zones and machines, so that one that fails takes a part of them."""
    return [
        {
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": {"app": app}},
        }
        for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
    ]


def _private_copies(keys: Mapping[str, str], image: str) -> Json:
    """Copy keys to where their owner alone may read them: the files of a Secret are root's, and the group's."""
    copies = (f"install -m 0600 {_SECRETS}/{name}/* {DATA}/{folder}/" for name, folder in keys.items())
    return {
        "name": "keys",
        "image": image,
        "command": ["sh", "-ec", "; ".join(copies)],
        "securityContext": container_security(),
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "32Mi"}},
        "volumeMounts": [
            *({"name": name, "mountPath": f"{_SECRETS}/{name}", "readOnly": True} for name in keys),
            *_key_mounts(keys),
        ],
    }


def _key_mounts(keys: Mapping[str, str], *, read_only: bool = False) -> list[Json]:
    mounts = [{"name": f"{name}-copy", "mountPath": f"{DATA}/{folder}"} for name, folder in keys.items()]
    return [{**mount, "readOnly": True} for mount in mounts] if read_only else mounts


def _container(policy: Service, image: str) -> Json:
    room = ROOMS[policy.name]
    probe = {"grpc": {"port": policy.port}, "timeoutSeconds": 2}
    return {
        "name": policy.name,
        "image": image,
        "command": ["python", "-P", "-m", f"services.{policy.name}"],
        "env": environment(policy),
        "ports": [{"name": "grpc", "containerPort": policy.port}],
        # A start waits for the database and for Kafka; a minute is a fault.
        "startupProbe": {**probe, "periodSeconds": 1, "failureThreshold": 60},
        "readinessProbe": {**probe, "periodSeconds": 2, "failureThreshold": 2},
        "livenessProbe": {**probe, "periodSeconds": 10, "failureThreshold": 3},
        "lifecycle": {"preStop": {"sleep": {"seconds": PRE_STOP_S}}},
        "securityContext": container_security(),
        # No limit of processor time: a service that is throttled keeps its callers waiting while machines idle.
        "resources": {
            "requests": {"cpu": "250m", "memory": f"{room.memory_mib}Mi"},
            "limits": {"memory": f"{2 * room.memory_mib}Mi"},
        },
        "volumeMounts": [
            {"name": "data", "mountPath": DATA},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 a folder of the container
            *_key_mounts(room.keys, read_only=True),
        ],
    }


def namespace() -> Json:
    """Make the namespace: sidecars in every pod, and no pod with rights that it does not need."""
    labels = {"istio-injection": "enabled"}
    labels |= {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "audit", "warn")}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}
