"""The folders under istio/: which document stands where."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.mesh.istio import (
    authorization,
    certificates,
    components,
    destination,
    edge,
    envoyfilters,
    jobs,
    network,
    outside,
    overlay,
    routing,
    scaling,
    sidecar,
    telemetry,
    workload,
)
from services.mesh.istio.environment import BASE, DEV, PROD
from services.mesh.istio.manifest import NAMESPACE, VERSIONS, Json
from services.mesh.istio.settings import ROOMS
from services.mesh.node import EDGE

if TYPE_CHECKING:
    from services.contract.model import Contract, Service
    from services.mesh.istio.environment import Environment

Files = dict[str, list[Json]]
"""Documents by path below istio/."""

DESCRIPTORS = "base/paymesh.binpb"
"""Where the descriptor set is copied to: kustomize reads no file outside the folder that names it."""


def files(contract: Contract) -> Files:
    """Render every file but the descriptor set."""
    made = {**base(contract, BASE), **_of_services(contract, BASE)}
    made |= {
        f"components/{name}/{file}": documents
        for name, folder in components.folders(contract).items()
        for file, documents in folder.items()
    }
    for env in (DEV, PROD):
        made |= {f"overlays/{env.name}/{name}": documents for name, documents in _overlay(contract, env).items()}
    return {**made, "install/istio.yaml": [telemetry.mesh_config()]}


def _overlay(contract: Contract, env: Environment) -> Files:
    said, wanted = (
        [each for documents in _documents(contract, place).values() for each in documents] for place in (BASE, env)
    )
    return {
        "kustomization.yaml": [kustomization(overlay.kustomization(env, BASE, contract.services))],
        "issuers.yaml": overlay.issuers(env),
        "differences.yaml": overlay.patches(said, wanted),
    }


def _documents(contract: Contract, env: Environment) -> Files:
    made = {**base(contract, env), **_of_services(contract, env)}
    return {path: documents for path, documents in made.items() if not path.endswith("kustomization.yaml")}


def base(contract: Contract, env: Environment) -> Files:
    """Render what is there once: the edge, the mesh's table, the zones, the outside."""
    made = {
        "namespace.yaml": [workload.namespace()],
        "authorization.yaml": [authorization.nobody(), authorization.strict(), authorization.tokens(contract, env)],
        "edge.yaml": [
            workload.account(EDGE),
            edge.service(),
            edge.pods(),
            scaling.budget(EDGE),
            scaling.autoscaler("Deployment", EDGE, edge.CONTAINER, env),
            routing.gateway(env),
            certificates.certificate(env),
        ],
        "edge-filters.yaml": [envoyfilters.edge(contract)],
        "mesh.yaml": [routing.mesh_service(), routing.mesh(contract), envoyfilters.sidecars(contract)],
        "migrations.yaml": [workload.account(jobs.MIGRATIONS, jobs.STEP), network.migrations(contract, env)],
        "network.yaml": [network.nobody(), network.everybody(), network.management(), network.dmz(contract)],
        "outside.yaml": [outside.entry(place) for place in outside.places(contract, env)],
        "telemetry.yaml": [telemetry.telemetry()],
    }
    generated = [
        overlay.settings(env.literals()),
        {"name": edge.DESCRIPTORS, "namespace": NAMESPACE, "files": [DESCRIPTORS.rpartition("/")[2]]},
    ]
    index = kustomization({"resources": list(made), "configMapGenerator": generated})
    return {f"base/{name}": documents for name, documents in {"kustomization.yaml": [index], **made}.items()}


def _of_services(contract: Contract, env: Environment) -> Files:
    made: Files = {}
    for service in contract.services.values():
        folder = _of_service(contract, service, env)
        index = kustomization({"resources": list(folder)})
        made |= {
            f"services/{service.name}/{name}": documents
            for name, documents in {"kustomization.yaml": [index], **folder}.items()
        }
    return made


def _of_service(contract: Contract, service: Service, env: Environment) -> Files:
    name = service.name
    scaled = [scaling.autoscaler("StatefulSet", name, name, env)] if ROOMS[name].autoscaled else []
    return {
        "pods.yaml": [
            workload.account(name),
            workload.service(service),
            workload.instances(service),
            workload.pods(service, env),
            scaling.budget(name),
            *scaled,
        ],
        "policy.yaml": [
            authorization.peers(service),
            authorization.clients(service),
            routing.clients(service, env),
            destination.rule(service),
        ],
        "filters.yaml": [envoyfilters.clients(contract, service), envoyfilters.sidecar(contract, service)],
        "network.yaml": [sidecar.sidecar(contract, service, env), network.room(contract, service, env)],
        "migration.yaml": [jobs.migration(service)],
    }


def kustomization(said: Json, kind: str = "Kustomization") -> Json:
    """Make an index of a folder."""
    return {"apiVersion": VERSIONS[kind], "kind": kind, **said}
