"""Everything that one node is served, at one moment: immutable, consistent, and packed once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.contract.model import Contract
    from services.mesh.node import Node
    from services.mesh.world import World

CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
ENDPOINTS = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"
ROUTES = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
SECRET = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"  # noqa: S105 the name of a type
EXTENSION = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"

ORDER = (CLUSTER, ENDPOINTS, LISTENER, ROUTES, SECRET, EXTENSION)
"""The order in which changes of several types are sent, so that what is named is there before who names it."""


@dataclass(frozen=True, slots=True)
class Secrets:
    """The node's own certificate (with its chain) and key, and the CAs that it trusts; all PEM."""

    cert_pem: str
    key_pem: str = field(repr=False)
    ca_pem: str


@dataclass(frozen=True, slots=True)
class Packed:
    """A resource as it goes over the wire: an Any is (type_url, value). `version` is the hash of its content."""

    version: str
    value: bytes = field(repr=False)
    type_url: str


def pack(type_url: str, value: bytes) -> Packed:
    """Give a serialized resource its version."""
    return Packed(hashlib.sha256(value).hexdigest()[:16], value, type_url)


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
    raise InconsistentSnapshotError(f"{contract}, {node}, {world}, {secrets}: the renderer comes next")
