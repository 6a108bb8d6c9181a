"""What the Envoy beside an instance counts of its answers: by method and status of gRPC, with the time that each took.

Statistics of HTTP know no failure of gRPC, whose status is 200 whatever happened; releases are judged by these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from envoy_data_plane.envoy.extensions.filters.http.grpc_stats import v3 as grpc_stats

from services.mesh.resource import http_filter

if TYPE_CHECKING:
    from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager import v3 as hcm

COUNTING = "envoy.filters.http.grpc_stats"


def counting() -> hcm.HttpFilter:
    """Count at a sidecar's inbound listener, where only methods of the contract have a route: no caller makes names."""
    return http_filter(COUNTING, grpc_stats.FilterConfig(stats_for_all_methods=True, enable_upstream_stats=True))
