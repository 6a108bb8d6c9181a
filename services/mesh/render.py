"""The resources of a node, as messages: what the contract says, for an edge or for the sidecar of a service."""

from __future__ import annotations

from typing import TYPE_CHECKING

from envoy_data_plane.envoy.config.core import v3 as core

from services.contract.descriptors import descriptor_set
from services.mesh import clusters, filters, keys, listeners, routes, tls
from services.mesh.node import Edge, Sidecar
from services.mesh.resource import packed

if TYPE_CHECKING:
    from betterproto2 import Message

    from services.contract.model import Contract, Service
    from services.mesh.node import Node
    from services.mesh.world import Instance


def callees(contract: Contract, node: Node) -> list[Service]:
    """Services that a node calls for somebody: its clusters."""
    return routes.called_by(contract, node.cluster)


def of_node(contract: Contract, node: Node, origins: frozenset[str] = frozenset()) -> list[Message]:
    """Render what depends on the contract, the node and the setting alone: listeners, routes, clusters; not of_callers()."""
    remote = [clusters.remote(service) for service in callees(contract, node)]
    match node:
        case Edge():
            return [
                *remote,
                listeners.rest(node, contract, descriptor_set()),
                listeners.grpc(node),
                routes.edge(contract, origins),
            ]
        case Sidecar():
            service = contract.services[node.service]
            return [
                *remote,
                clusters.local(node.service_socket),
                listeners.inbound(node, service),
                listeners.outbound(node),
                routes.outbound(contract, service.name),
            ]


def of_callers(contract: Contract, service: str, revoked: frozenset[str]) -> Message:
    """Render who may call which method of the service beside a sidecar. Apart from the rest: revocations change it."""
    return routes.inbound(contract.services[service], revoked)


def of_instances(service: str, instances: tuple[Instance, ...]) -> Message:
    """Render where a service is."""
    return clusters.assignment(service, instances)


def of_keys(jwks: str, key_jwks: str) -> core.TypedExtensionConfig:
    """Render the verification of tokens and API keys, under the name by which the edge's listeners ask for it."""
    return core.TypedExtensionConfig(name=filters.JWT, typed_config=packed(filters.jwt_verification(jwks, key_jwks)))


def of_revoked(ids: frozenset[str]) -> core.TypedExtensionConfig:
    """Render the refusal of API keys that are revoked."""
    return core.TypedExtensionConfig(name=keys.REVOKED, typed_config=packed(keys.revoked(ids)))


def of_secrets(cert_pem: str, key_pem: str, ca_pem: str) -> list[Message]:
    """Render the node's identity and what it trusts."""
    return [tls.identity(cert_pem, key_pem), tls.trust(ca_pem)]
