"""What a room's sidecar takes and what it lets out: its own port in, and by name whom it may call out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.mesh import routes
from services.mesh.istio import outside
from services.mesh.istio.manifest import Json, document, host
from services.mesh.istio.routing import MESH
from services.mesh.istio.telemetry import COLLECTOR, OBSERVABILITY
from services.mesh.istio.workload import headless

if TYPE_CHECKING:
    from services.contract.model import Contract, Service
    from services.mesh.istio.environment import Environment


def sidecar(contract: Contract, service: Service, env: Environment) -> Json:
    """Make a room's Sidecar."""
    called = [s.name for s in routes.called_by(contract, service.name)]
    hosts = [host(MESH), *map(host, called)]
    if service.name in routes.HEALTH_CALLERS:
        hosts += [host(headless(name)) for name in contract.services]
    hosts += [name for place in outside.of_room(contract, env, service.name) for name in place.hosts]
    return document(
        "Sidecar",
        service.name,
        {
            "workloadSelector": {"labels": {"app": service.name}},
            "outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"},
            "ingress": [
                {
                    "port": {"number": service.port, "protocol": "GRPC", "name": "grpc"},
                    # The service listens on loopback: without its sidecar nobody reaches it.
                    "defaultEndpoint": f"127.0.0.1:{service.port}",
                }
            ],
            "egress": [{"hosts": [*sorted(f"./{name}" for name in set(hosts)), f"{OBSERVABILITY}/{COLLECTOR}"]}],
        },
    )
