"""Which Envoys there are, what each brings as its layout, and the bootstrap with which it finds its config.

A node says its layout (addresses and sockets) in the metadata of its first xDS request, so that who renders for it keeps
no list of nodes. What a node *is* follows from its id, which its join token is bound to: `payment-2` is a sidecar of
payment, `edge-1` an edge, whatever else it says.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from services.mesh.hardening import overload_manager

if TYPE_CHECKING:
    from collections.abc import Mapping

EDGE = "edge"
"""Cluster, and identity, of the Envoys that clients reach."""
JOIN_TOKEN = "x-paymesh-join-token"  # noqa: S105 the name of a header
"""Metadata key of an xDS stream that carries the node's join token."""


@dataclass(frozen=True, slots=True)
class Sidecar:
    """The Envoy beside one instance of a service.

    `inbound` is host:port of its mTLS listener; `service_socket` is the path on which the service listens in plaintext,
    `outbound_socket` the path on which this Envoy takes the service's own calls.
    """

    id: str
    service: str
    inbound: str
    service_socket: str
    outbound_socket: str

    @property
    def cluster(self) -> str:
        """Envoy's node.cluster, and the name in the node's SPIFFE id."""
        return self.service


@dataclass(frozen=True, slots=True)
class Edge:
    """An Envoy that clients reach: host:port of the listener for REST and of the one for native gRPC."""

    id: str
    rest: str
    grpc: str

    @property
    def cluster(self) -> str:
        """Envoy's node.cluster, and the name in the node's SPIFFE id."""
        return EDGE


Node = Sidecar | Edge


def metadata(node: Node) -> dict[str, str]:
    """The layout as node metadata: what from_metadata() reads; id and service travel as node.id and node.cluster."""
    return {key: value for key, value in asdict(node).items() if key not in {"id", "service"}}


def from_metadata(node_id: str, cluster: str, layout: Mapping[str, object]) -> Node:
    """Read a node's own words about itself.

    Raises:
        ValueError: the id is not that of a member of the cluster, or an address or socket is missing or malformed.
    """
    service, _, number = node_id.rpartition("-")
    if not number.isascii() or not number.isdecimal() or service != cluster:
        raise ValueError(
            f"node id {node_id!r} is not of cluster {cluster!r}: it is the cluster's name, a dash, a number"
        )
    kind: type[Edge | Sidecar] = Edge if cluster == EDGE else Sidecar
    said = {field.name: layout.get(field.name) for field in fields(kind) if field.name not in {"id", "service"}}
    faults = [name for name, value in said.items() if not _well_formed(name, value)]
    if faults:
        raise ValueError(f"metadata of node {node_id!r} lacks or garbles {', '.join(faults)}")
    texts = {name: str(value) for name, value in said.items()}
    return Edge(id=node_id, **texts) if kind is Edge else Sidecar(id=node_id, service=service, **texts)


def _well_formed(name: str, value: object) -> bool:
    if not isinstance(value, str):
        return False
    # The kernel's sun_path takes 107 bytes.
    return value.startswith("/") and len(value) < 108 if name.endswith("_socket") else is_address(value)


def is_address(text: str) -> bool:
    """Whether a text is host:port with a port from 1 to 65535 (port 0 would make every node listen elsewhere)."""
    host, _, port = text.rpartition(":")
    return bool(host) and port.isascii() and port.isdecimal() and 0 < int(port) < 65536


def bootstrap(node: Node, *, xds_socket: str, join_token: str, admin: str) -> dict[str, Any]:
    """Make the bootstrap of a node that gets everything else by ADS.

    Args:
        node: The node; its layout travels as metadata.
        xds_socket: Path of the unix socket on which config serves delta ADS.
        join_token: Bound to the node's id at config; the file with this bootstrap is as secret as the token.
        admin: host:port of the admin listener, on loopback.
    """
    ads = {"ads": {}, "resource_api_version": "V3"}
    return {
        "node": {"id": node.id, "cluster": node.cluster, "metadata": metadata(node)},
        **process(admin),
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": True,
                "grpc_services": [
                    {
                        "envoy_grpc": {
                            "cluster_name": "xds",
                            # Without it a start waits up to 6 s for a config server that is up after 0.3 s.
                            "retry_policy": {"retry_back_off": {"base_interval": "0.1s", "max_interval": "1s"}},
                        },
                        "initial_metadata": [{"key": JOIN_TOKEN, "value": join_token}],
                    }
                ],
            },
            "cds_config": ads,
            "lds_config": ads,
        },
        "static_resources": {"clusters": [_xds(xds_socket)]},
    }


def process(admin: str) -> dict[str, Any]:
    """The part of a bootstrap that is the same for every node: admin, limits of the process, stats."""
    host, _, port = admin.rpartition(":")
    return {
        "admin": {"address": {"socket_address": {"address": host, "port_value": int(port)}}},
        # Nobody is sent statistics, so none are gathered in vain: who asks the admin listener has them gathered.
        "stats_flush_on_admin": True,
        "stats_config": {
            "stats_matcher": {"exclusion_list": {"patterns": [{"prefix": prefix} for prefix in _UNREAD_STATS]}}
        },
        "overload_manager": overload_manager(),
        "layered_runtime": {
            # The rules of waf.py are longer than the 100 steps that Envoy takes by default; none comes from outside.
            "layers": [{"name": "static", "static_layer": {"re2.max_program_size.error_level": 32_768}}]
        },
    }


_UNREAD_STATS = (
    "runtime.",
    "overload.",
    "vhost.",
    "http1.",
    "filesystem.",
    "main_thread.",
    "workers.",
    "dns.",
    "tls_inspector.",
)
"""Families of stats that nothing of ours reads; they cost memory in each of nine Envoys."""


def _xds(socket: str) -> dict[str, Any]:
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    return {
        "name": "xds",
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {
            options: {
                "@type": f"type.googleapis.com/{options}",
                "explicit_http_config": {
                    # A config server that hangs is left after 40 s; one that died is noticed by its socket.
                    "http2_protocol_options": {"connection_keepalive": {"interval": "30s", "timeout": "10s"}}
                },
            }
        },
        "load_assignment": {
            "cluster_name": "xds",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": socket}}}}]}],
        },
    }
