"""What is seen of the mesh, and what Istio itself is told when it is installed."""

from __future__ import annotations

from services.mesh.istio.manifest import Json, document
from services.platform.identity import TRUST_DOMAIN

_TRACES = "traces"
OBSERVABILITY = "observability"
"""The namespace, of the management zone, in which traces are collected."""
COLLECTOR, COLLECTOR_PORT = f"collector.{OBSERVABILITY}.svc.cluster.local", 4317


def telemetry() -> Json:
    """Log what failed or was slow, trace one call in a hundred, count all."""
    return document(
        "Telemetry",
        "paymesh",
        {
            # Services log every call with what it was about; a proxy's line is for what never reached one.
            "accessLogging": [
                {
                    "providers": [{"name": "envoy"}],
                    "filter": {"expression": "response.code >= 400 || response.duration > duration('1s')"},
                }
            ],
            "tracing": [{"providers": [{"name": _TRACES}], "randomSamplingPercentage": 1}],
            "metrics": [{"providers": [{"name": "prometheus"}]}],
        },
    )


def mesh_config() -> Json:
    """Say how istiod must be installed for the rest to hold: for `istioctl install -f`."""
    return {
        "apiVersion": "install.istio.io/v1alpha1",
        "kind": "IstioOperator",
        "metadata": {"name": "paymesh", "namespace": "istio-system"},
        "spec": {
            "profile": "minimal",
            # Pods need no rights over the network of their own.
            "components": {"cni": {"enabled": True, "namespace": "istio-system"}},
            "meshConfig": {
                "trustDomain": TRUST_DOMAIN,
                "outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"},
                "meshMTLS": {"minProtocolVersion": "TLSV1_3"},
                "enablePrometheusMerge": True,
                "defaultConfig": {
                    "holdApplicationUntilProxyStarts": True,
                    # Each outside host gets an address of its own: two TCP services of one port differ by nothing else.
                    "proxyMetadata": {"ISTIO_META_DNS_CAPTURE": "true"},
                },
                "extensionProviders": [
                    {
                        "name": _TRACES,
                        "opentelemetry": {"service": COLLECTOR, "port": COLLECTOR_PORT},
                    }
                ],
            },
        },
    }
