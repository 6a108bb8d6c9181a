"""Where calls come in: the listeners and what each does to a request before it is routed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.config.listener import v3 as listener
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager import v3 as hcm
from envoy_data_plane.envoy.type import v3 as kind

from services.mesh import filters, hardening, keys, limits, refusals, routes, tls, waf
from services.mesh.counting import counting
from services.mesh.node import EDGE
from services.mesh.resource import address, ads, ms, packed

if TYPE_CHECKING:
    from services.contract.model import Contract, Service
    from services.mesh.node import Edge, Sidecar

_Forward = hcm.HttpConnectionManagerForwardClientCertDetails
_Escaped = hcm.HttpConnectionManagerPathWithEscapedSlashesAction
_Codec = hcm.HttpConnectionManagerCodecType
_Underscores = core.HttpProtocolOptionsHeadersWithUnderscoresAction


def inbound(node: Sidecar, service: Service) -> listener.Listener:
    """Make a sidecar's listener for peers: mutual TLS, identity checked, then the service's socket."""
    manager = _in_mesh(
        routes.INBOUND,
        [
            filters.strip_from_peers({EDGE, *service.on_behalf}),
            filters.deny_by_default(),
            counting(),
            filters.routing(),
        ],
    )
    # The service reads who called from this header alone; what a peer sends in it is dropped.
    manager.forward_client_cert_details = _Forward.SANITIZE_SET
    manager.set_current_client_cert_details = hcm.HttpConnectionManagerSetCurrentClientCertDetails(uri=True)
    return _listener("inbound", node.inbound, manager, tls.mesh_server())


def outbound(node: Sidecar) -> listener.Listener:
    """Make a sidecar's listener for the service beside it: plaintext on a socket that only the service reaches."""
    return _listener("outbound", node.outbound_socket, _in_mesh(routes.OUTBOUND, [filters.routing()]))


def rest(node: Edge, contract: Contract, descriptors: bytes) -> listener.Listener:
    """Make the edge's listener for REST. The order of the filters is the policy."""
    manager = _at_edge(
        "rest",
        [*_browsers(), *_sound(), filters.transcoding(contract, descriptors), *_admission()],
    )
    manager.local_reply_config = refusals.as_json(refusals.edge_rest(contract))
    manager.early_header_mutation_extensions = [filters.strip_from_rest()]
    return _listener("rest", node.rest, manager, tls.public_server("h2", "http/1.1"))


def grpc(node: Edge) -> listener.Listener:
    """Make the edge's listener for native gRPC: the same policy without the transcoder."""
    manager = _at_edge("grpc", [*_sound(), *_admission()])
    manager.codec_type = _Codec.HTTP2
    manager.local_reply_config = refusals.as_grpc(refusals.EDGE_GRPC)
    manager.early_header_mutation_extensions = [filters.strip_from_grpc()]
    return _listener("grpc", node.grpc, manager, tls.public_server("h2"))


def _browsers() -> list[hcm.HttpFilter]:
    """Look after answers, from the last touch to the first: they come by in the opposite order."""
    return [hardening.answer_headers(), hardening.cross_origin(), hardening.compression()]


def _sound() -> list[hcm.HttpFilter]:
    """Refuse what is an attack by its form or too large, before anything is read of it."""
    return [waf.refusing_attacks(), filters.whole_requests()]


def _admission() -> list[hcm.HttpFilter]:
    """Who is it, is it too much, may they; limits come after the token, by whose subject they count."""
    return [
        filters.jwt_by_discovery(),
        keys.revoked_by_discovery(),
        filters.limits_by_route(),
        limits.globally_by_route(),
        filters.deny_by_default(),
        filters.routing(),
    ]


def _in_mesh(table: str, chain: list[hcm.HttpFilter]) -> hcm.HttpConnectionManager:
    return hcm.HttpConnectionManager(
        codec_type=_Codec.HTTP2,
        stat_prefix=table,
        rds=hcm.Rds(config_source=ads(), route_config_name=table),
        http_filters=chain,
        # The edge has said who the client is; a hop inside the mesh adds nothing to it.
        use_remote_address=False,
        skip_xff_append=True,
        http2_protocol_options=core.Http2ProtocolOptions(max_concurrent_streams=1024),
        local_reply_config=refusals.as_grpc(refusals.SIDECAR),
        forward_client_cert_details=_Forward.SANITIZE,
    )


def _at_edge(name: str, chain: list[hcm.HttpFilter]) -> hcm.HttpConnectionManager:
    """Take requests from anybody: everything has a limit, and nothing that a client says about itself is believed."""
    return hcm.HttpConnectionManager(
        stat_prefix=name,
        rds=hcm.Rds(config_source=ads(), route_config_name=EDGE),
        http_filters=chain,
        server_name="paymesh",
        use_remote_address=True,
        # Nobody is internal by their address, not even on loopback: x-envoy-* headers and the request id of a client are
        # dropped. An empty list would mean all private addresses, so it names one that nobody calls from.
        internal_address_config=hcm.HttpConnectionManagerInternalAddressConfig(
            cidr_ranges=[core.CidrRange(address_prefix="0.0.0.0", prefix_len=32)]  # noqa: S104 nothing is bound to it
        ),
        always_set_request_id_in_response=True,
        forward_client_cert_details=_Forward.SANITIZE,
        normalize_path=True,
        merge_slashes=True,
        path_with_escaped_slashes_action=_Escaped.REJECT_REQUEST,
        max_request_headers_kb=16,
        common_http_protocol_options=core.HttpProtocolOptions(
            idle_timeout=ms(300_000),
            max_connection_duration=ms(3_600_000),
            max_connection_duration_jitter=kind.Percent(value=20.0),
            max_headers_count=64,
            headers_with_underscores_action=_Underscores.REJECT_REQUEST,
        ),
        http2_protocol_options=core.Http2ProtocolOptions(
            max_concurrent_streams=100,
            initial_stream_window_size=1 << 16,
            initial_connection_window_size=1 << 20,
            max_outbound_control_frames=1000,
            override_stream_error_on_invalid_http_message=True,
        ),
        # Slow senders hold a stream this long: headers, the whole request, and silence in between.
        request_headers_timeout=ms(5_000),
        request_timeout=ms(30_000),
        stream_idle_timeout=ms(60_000),
    )


def _listener(
    name: str, at: str, manager: hcm.HttpConnectionManager, socket: core.TransportSocket | None = None
) -> listener.Listener:
    http = listener.Filter(name="envoy.filters.network.http_connection_manager", typed_config=packed(manager))
    chain = listener.FilterChain(filters=[http], transport_socket=socket)
    if socket:
        # A client that opens a connection and says nothing is let go.
        chain.transport_socket_connect_timeout = ms(5_000)
    return listener.Listener(
        name=name,
        address=address(at),
        filter_chains=[chain],
        per_connection_buffer_limit_bytes=hardening.BUFFER_BYTES,
    )
