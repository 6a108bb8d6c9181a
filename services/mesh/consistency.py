"""What resources name: a snapshot in which a name leads nowhere never reaches an Envoy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from envoy_data_plane.envoy.config.cluster.v3 import Cluster, ClusterDiscoveryType
from envoy_data_plane.envoy.config.core.v3 import TypedExtensionConfig
from envoy_data_plane.envoy.config.endpoint.v3 import ClusterLoadAssignment
from envoy_data_plane.envoy.config.listener.v3 import Listener
from envoy_data_plane.envoy.config.route.v3 import RouteConfiguration
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpConnectionManager
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import (
    CommonTlsContext,
    DownstreamTlsContext,
    SdsSecretConfig,
    Secret,
    UpstreamTlsContext,
)

from services.mesh import limits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from betterproto2 import Message
    from envoy_data_plane.envoy.config.core.v3 import TransportSocket

Named = tuple[type["Message"], str]
"""A resource by its kind and name."""


def name_of(resource: Message) -> str:
    """Return the name by which a resource is asked for."""
    name = resource.cluster_name if isinstance(resource, ClusterLoadAssignment) else getattr(resource, "name", "")
    assert name, f"a resource without a name: {type(resource).__name__}"
    return str(name)


def named_by(resource: Message) -> Iterator[Named]:
    """Yield what a resource names and cannot be without."""
    match resource:
        case Cluster():
            if resource.type is ClusterDiscoveryType.EDS:
                yield ClusterLoadAssignment, resource.name
            yield from _secrets(resource.transport_socket)
        case RouteConfiguration():
            for host in resource.virtual_hosts:
                for route in host.routes:
                    if route.route and route.route.cluster:
                        yield Cluster, route.route.cluster
        case Listener():
            yield from _of_listener(resource)
        case _:
            return


def _of_listener(listener: Listener) -> Iterator[Named]:
    for chain in listener.filter_chains:
        yield from _secrets(chain.transport_socket)
        for network in chain.filters:
            manager = network.typed_config.unpack() if network.typed_config else None
            if isinstance(manager, HttpConnectionManager):
                if manager.rds:
                    yield RouteConfiguration, manager.rds.route_config_name
                yield from ((TypedExtensionConfig, f.name) for f in manager.http_filters if f.config_discovery)
                yield from ((Cluster, limits.SERVER) for f in manager.http_filters if f.name == limits.GLOBAL)


def _secrets(socket: TransportSocket | None) -> Iterator[Named]:
    context = socket.typed_config.unpack() if socket and socket.typed_config else None
    if isinstance(context, DownstreamTlsContext | UpstreamTlsContext) and context.common_tls_context:
        yield from ((Secret, config.name) for config in _configs(context.common_tls_context))


def _configs(common: CommonTlsContext) -> Iterator[SdsSecretConfig]:
    yield from common.tls_certificate_sds_secret_configs
    combined = common.combined_validation_context
    if combined and combined.validation_context_sds_secret_config:
        yield combined.validation_context_sds_secret_config
