"""Everything that one node is served, at one moment: immutable, consistent, and packed once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cache, lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING

from services.mesh import render
from services.mesh.consistency import name_of, named_by
from services.mesh.node import Edge, Sidecar
from services.mesh.resource import packed
from services.mesh.world import ApiKeys

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from betterproto2 import Message

    from services.contract.model import Contract
    from services.mesh.node import Node
    from services.mesh.world import Instance, World

CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
ENDPOINTS = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"
ROUTES = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
SECRET = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"  # noqa: S105 the name of a type
EXTENSION = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"

ORDER = (CLUSTER, ENDPOINTS, LISTENER, ROUTES, SECRET, EXTENSION)
"""The order in which changes of several types are sent, so that what is named is there before who names it."""

_NODES_MAX = 512
"""Nodes whose rendering is kept."""


@dataclass(frozen=True, slots=True)
class Secrets:
    """The node's own certificate (with its chain) and key, and the CAs that it trusts; all PEM."""

    cert_pem: str
    key_pem: str = field(repr=False)
    ca_pem: str


@dataclass(frozen=True, slots=True)
class Packed:
    """A resource as it goes over the wire: an Any is (type_url, value). `version` is the hash of its content.

    `names` are the resources (type URL, name) that it cannot be without.
    """

    version: str
    value: bytes = field(repr=False)
    type_url: str
    name: str
    names: frozenset[tuple[str, str]] = frozenset()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Resources by type URL and name."""

    resources: Mapping[str, Mapping[str, Packed]]


class InconsistentSnapshotError(Exception):
    """A resource names another that is not there: a bug of the renderer, never sent to an Envoy."""


def make(contract: Contract, node: Node, world: World, secrets: Secrets) -> Snapshot:
    """Render everything for a node.

    What depends on the contract and the node alone is rendered once per node and kept; the rest is small.

    Raises:
        InconsistentSnapshotError: a resource names another that is not in the snapshot.
        KeyError: the node is of a service that the contract does not have.
    """
    places = [_places(service.name, world.places(service.name)) for service in render.callees(contract, node)]
    api_keys = world.api_keys or ApiKeys()
    keys = [_keys(world.jwks, api_keys.jwks), _revoked(api_keys.revoked)] if isinstance(node, Edge) else []
    callers = [_callers(contract, node.service, world.revoked)] if isinstance(node, Sidecar) else []
    return consistent([*_of_node(contract, node, world.origins), *callers, *places, *keys, *_secrets(secrets)])


def consistent(resources: Iterable[Packed]) -> Snapshot:
    """Order resources by type and name, after checking that every name leads somewhere and none is taken twice."""
    by_type: dict[str, dict[str, Packed]] = {type_url: {} for type_url in ORDER}
    for resource in resources:
        if resource.name in by_type[resource.type_url]:
            raise InconsistentSnapshotError(f"two resources {resource.name} of {resource.type_url}")
        by_type[resource.type_url][resource.name] = resource
    lost = {
        f"{resource.name} names {name} of {type_url}"
        for of_type in by_type.values()
        for resource in of_type.values()
        for type_url, name in resource.names
        if name not in by_type[type_url]
    }
    if lost:
        raise InconsistentSnapshotError("; ".join(sorted(lost)))
    return Snapshot(MappingProxyType({type_url: MappingProxyType(of_type) for type_url, of_type in by_type.items()}))


def pack(resource: Message) -> Packed:
    """Serialize a resource and give it its version. Slow (10 ms for 40 routes): the callers keep what they get."""
    sent = packed(resource)
    names = frozenset((_url(kind), name) for kind, name in named_by(resource))
    version = hashlib.sha256(sent.value).hexdigest()[:16]
    return Packed(version, sent.value, sent.type_url, name_of(resource), names)


@cache
def _url(kind: type[Message]) -> str:
    return packed(kind()).type_url


@lru_cache(maxsize=_NODES_MAX)
def _of_node(contract: Contract, node: Node, origins: frozenset[str]) -> tuple[Packed, ...]:
    return tuple(map(pack, render.of_node(contract, node, origins)))


@lru_cache(maxsize=_NODES_MAX)
def _places(service: str, instances: tuple[Instance, ...]) -> Packed:
    return pack(render.of_instances(service, instances))


@lru_cache(maxsize=_NODES_MAX)
def _callers(contract: Contract, service: str, revoked: frozenset[str]) -> Packed:
    return pack(render.of_callers(contract, service, revoked))


@lru_cache(maxsize=4)
def _keys(jwks: str, key_jwks: str) -> Packed:
    return pack(render.of_keys(jwks, key_jwks))


@lru_cache(maxsize=4)
def _revoked(ids: frozenset[str]) -> Packed:
    return pack(render.of_revoked(ids))


@lru_cache(maxsize=_NODES_MAX)
def _secrets(secrets: Secrets) -> tuple[Packed, ...]:
    return tuple(map(pack, render.of_secrets(secrets.cert_pem, secrets.key_pem, secrets.ca_pem)))
