"""How the callers of a service choose an instance, and how much they ask of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.mesh.clusters import budget_percent
from services.mesh.istio.manifest import Json, document, duration, host

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.contract.model import Service

STABLE = "stable"
"""The subset, and the label `version`, of the instances that are no trial."""

_BALANCING = {"least_request": "LEAST_REQUEST", "round_robin": "ROUND_ROBIN"}
_WARM_UP_S = 30
"""A new instance gets its share step by step: its caches and connections are cold."""


def rule(service: Service, subsets: Mapping[str, Mapping[str, str]] | None = None) -> Json:
    """Make the rule of a service; `subsets` are labels by name."""
    spec: Json = {"host": host(service.name), "trafficPolicy": _policy(service)}
    if subsets:
        spec["subsets"] = [{"name": name, "labels": dict(labels)} for name, labels in subsets.items()]
    return document("DestinationRule", service.name, spec)


def _policy(service: Service) -> Json:
    limits, outlier = service.circuit_breaker, service.outlier
    return {
        "tls": {"mode": "ISTIO_MUTUAL"},
        "loadBalancer": {
            "simple": _BALANCING[service.load_balancing],
            "warmup": {"duration": duration(1000 * _WARM_UP_S)},
        },
        "connectionPool": {
            "tcp": {
                "maxConnections": limits.connections_max,
                "connectTimeout": "1s",
                # A connection proves identities at its handshake only.
                "maxConnectionDuration": "10m",
                "tcpKeepalive": {"time": "10s", "interval": "5s", "probes": 3},
            },
            "http": {
                "http1MaxPendingRequests": limits.pending_max,
                "http2MaxRequests": limits.requests_max,
                "idleTimeout": "5m",
            },
        },
        "retryBudget": {"percent": budget_percent(limits), "minRetryConcurrency": 3},
        "outlierDetection": {
            "consecutive5xxErrors": outlier.consecutive_failures,
            "consecutiveGatewayErrors": outlier.consecutive_failures,
            "interval": duration(outlier.interval_ms),
            "baseEjectionTime": duration(outlier.ejection_time_ms),
            "maxEjectionPercent": outlier.ejection_percent_max,
        },
    }
