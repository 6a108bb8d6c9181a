"""Names that all manifests share, and the shape of a document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from services.platform.identity import TRUST_DOMAIN

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Json = dict[str, Any]

NAMESPACE = "paymesh"
IMAGE = "paymesh"
"""Image of every service; overlays put registry and tag."""
SETTINGS = "paymesh-settings"
"""ConfigMap of what the overlays decide."""

VERSIONS = {
    "AuthorizationPolicy": "security.istio.io/v1",
    "Certificate": "cert-manager.io/v1",
    "Component": "kustomize.config.k8s.io/v1alpha1",
    "Deployment": "apps/v1",
    "DestinationRule": "networking.istio.io/v1",
    "EnvoyFilter": "networking.istio.io/v1alpha3",
    "Gateway": "networking.istio.io/v1",
    "HorizontalPodAutoscaler": "autoscaling/v2",
    "Issuer": "cert-manager.io/v1",
    "Job": "batch/v1",
    "Kustomization": "kustomize.config.k8s.io/v1beta1",
    "NetworkPolicy": "networking.k8s.io/v1",
    "PeerAuthentication": "security.istio.io/v1",
    "PodDisruptionBudget": "policy/v1",
    "RequestAuthentication": "security.istio.io/v1",
    "ServiceEntry": "networking.istio.io/v1",
    "Sidecar": "networking.istio.io/v1",
    "StatefulSet": "apps/v1",
    "Telemetry": "telemetry.istio.io/v1",
    "VirtualService": "networking.istio.io/v1",
}
"""apiVersion by kind; what is not here is of the core."""


def document(
    kind: str,
    name: str,
    spec: Json | None = None,
    *,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    **top: object,
) -> Json:
    """Make a document in our namespace; `top` are further members beside its spec."""
    metadata: Json = {"name": name, "namespace": NAMESPACE}
    if labels:
        metadata["labels"] = dict(labels)
    if annotations:
        metadata["annotations"] = dict(annotations)
    made: Json = {"apiVersion": VERSIONS.get(kind, "v1"), "kind": kind, "metadata": metadata, **top}
    if spec is not None:
        made["spec"] = spec
    return made


def selector(app: str) -> Json:
    """Select the pods of a service, or of the edge, in Istio's way."""
    return {"selector": {"matchLabels": {"app": app}}}


def host(service: str) -> str:
    """Return the DNS name of a Service."""
    return f"{service}.{NAMESPACE}.svc.cluster.local"


def principal(service: str) -> str:
    """Return a service's identity as AuthorizationPolicies write it."""
    return f"{TRUST_DOMAIN}/ns/{NAMESPACE}/sa/{service}"


def principals(services: Iterable[str]) -> list[str]:
    """Return the identities of several, sorted."""
    return sorted(map(principal, services))


def duration(milliseconds: int) -> str:
    """Write a time as Istio does: the largest unit that is whole."""
    for unit, factor in (("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if milliseconds and not milliseconds % factor:
            return f"{milliseconds // factor}{unit}"
    return f"{milliseconds}ms"
