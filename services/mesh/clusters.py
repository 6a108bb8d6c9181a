"""Where calls go: a cluster per service that a node may call, the instances behind it, and the service beside a sidecar."""

from __future__ import annotations

from typing import TYPE_CHECKING

from envoy_data_plane.envoy.config.cluster import v3 as cluster
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.config.endpoint import v3 as endpoint
from envoy_data_plane.envoy.type import v3 as kind

from services.mesh.hardening import BUFFER_BYTES
from services.mesh.resource import address, ads, http2, ms
from services.mesh.tls import mesh_client

if TYPE_CHECKING:
    from collections.abc import Iterable

    from services.contract.model import CircuitBreaker, Outlier, Service
    from services.mesh.world import Instance

LOCAL = "service"
"""The cluster of a sidecar that is the service beside it."""

_BALANCING = {
    "least_request": cluster.ClusterLbPolicy.LEAST_REQUEST,
    "round_robin": cluster.ClusterLbPolicy.ROUND_ROBIN,
}

_SLOW_START = cluster.ClusterSlowStartConfig(
    # A process that just began compiles, connects and fills its caches with its first calls: it gets a tenth of its share
    # at first, and all of it after 10 s.
    slow_start_window=ms(10_000),
    min_weight_percent=kind.Percent(value=10.0),
)
_LEAST_REQUEST = cluster.ClusterLeastRequestLbConfig(slow_start_config=_SLOW_START)
_ROUND_ROBIN = cluster.ClusterRoundRobinLbConfig(slow_start_config=_SLOW_START)

_PANIC_PERCENT = 50.0
"""With fewer instances than this left by outlier detection its word is not believed: calls go to all of them again."""

_CONNECTION_MS_MAX = 600_000
"""A connection proves identities at its handshake only: what was true ten minutes ago is asked again."""


def remote(service: Service) -> cluster.Cluster:
    """Make the cluster of a service, with the limits that its callers keep."""
    return cluster.Cluster(
        name=service.name,
        type=cluster.ClusterDiscoveryType.EDS,
        eds_cluster_config=cluster.ClusterEdsClusterConfig(eds_config=ads()),
        # An instance that does not take a connection within a second is not there: the next one is asked.
        connect_timeout=ms(1000),
        per_connection_buffer_limit_bytes=BUFFER_BYTES,
        lb_policy=_BALANCING[service.load_balancing],
        least_request_lb_config=_LEAST_REQUEST if service.load_balancing == "least_request" else None,
        round_robin_lb_config=_ROUND_ROBIN if service.load_balancing == "round_robin" else None,
        common_lb_config=cluster.ClusterCommonLbConfig(healthy_panic_threshold=kind.Percent(value=_PANIC_PERCENT)),
        circuit_breakers=_breaker(service.circuit_breaker),
        outlier_detection=_outlier(service.outlier),
        transport_socket=mesh_client(service.name),
        typed_extension_protocol_options=http2(
            core.Http2ProtocolOptions(
                # A peer that vanished without a word (no FIN, no RST) is noticed within 15 s.
                connection_keepalive=core.KeepaliveSettings(interval=ms(10_000), timeout=ms(5_000))
            ),
            core.HttpProtocolOptions(
                idle_timeout=ms(300_000),
                max_connection_duration=ms(_CONNECTION_MS_MAX),
                max_connection_duration_jitter=kind.Percent(value=20.0),
            ),
        ),
    )


def local(socket: str) -> cluster.Cluster:
    """Make the cluster of the service beside a sidecar: plaintext HTTP/2 on its unix socket."""
    unlimited = 1 << 20
    return cluster.Cluster(
        name=LOCAL,
        type=cluster.ClusterDiscoveryType.STATIC,
        connect_timeout=ms(1000),
        # The callers keep the contract's limits, and the service's own queue refuses what is too much.
        circuit_breakers=cluster.CircuitBreakers(
            thresholds=[
                cluster.CircuitBreakersThresholds(
                    max_connections=unlimited, max_pending_requests=unlimited, max_requests=unlimited
                )
            ]
        ),
        typed_extension_protocol_options=http2(core.Http2ProtocolOptions()),
        load_assignment=_assignment(LOCAL, [endpoint.LbEndpoint(endpoint=endpoint.Endpoint(address=_pipe(socket)))]),
    )


def assignment(service: str, instances: Iterable[Instance]) -> endpoint.ClusterLoadAssignment:
    """List a service's instances, in an order that does not depend on who registered first."""
    return _assignment(
        service,
        [
            endpoint.LbEndpoint(
                endpoint=endpoint.Endpoint(address=address(instance.address), hostname=instance.name),
                health_status=_health(instance),
                load_balancing_weight=instance.weight,
            )
            for instance in sorted(instances)
        ],
    )


def _assignment(name: str, endpoints: list[endpoint.LbEndpoint]) -> endpoint.ClusterLoadAssignment:
    locality = endpoint.LocalityLbEndpoints(
        # Without a locality and a weight gRPC's own xDS clients see no endpoints.
        locality=core.Locality(region="local"),
        load_balancing_weight=1,
        lb_endpoints=endpoints,
    )
    return endpoint.ClusterLoadAssignment(cluster_name=name, endpoints=[locality] if endpoints else [])


def _pipe(socket: str) -> core.Address:
    return core.Address(pipe=core.Pipe(path=socket))


def _health(instance: Instance) -> core.HealthStatus:
    if instance.draining:
        return core.HealthStatus.DRAINING
    return core.HealthStatus.HEALTHY if instance.healthy else core.HealthStatus.UNHEALTHY


def budget_percent(limits: CircuitBreaker) -> float:
    """The retry budget in Envoy's words.

    Envoy counts the repeats among what is in flight: 20 of 120 are 20 % more than the 100 that the callers asked for.
    """
    stated = limits.retry_budget_percent
    return round(100 * stated / (100 + stated), 2)


def _breaker(limits: CircuitBreaker) -> cluster.CircuitBreakers:
    budget = cluster.CircuitBreakersThresholdsRetryBudget(
        budget_percent=kind.Percent(value=budget_percent(limits)),
        # With one call in flight a percentage is nothing: that many retries are always allowed.
        min_retry_concurrency=3,
    )
    return cluster.CircuitBreakers(
        thresholds=[
            cluster.CircuitBreakersThresholds(
                max_connections=limits.connections_max,
                max_pending_requests=limits.pending_max,
                max_requests=limits.requests_max,
                retry_budget=budget,
            )
        ]
    )


def _outlier(rule: Outlier) -> cluster.OutlierDetection:
    return cluster.OutlierDetection(
        consecutive_5xx=rule.consecutive_failures,
        consecutive_gateway_failure=rule.consecutive_failures,
        enforcing_consecutive_gateway_failure=100,
        # Failures in a row alone: statistics over two instances say nothing.
        enforcing_success_rate=0,
        interval=ms(rule.interval_ms),
        base_ejection_time=ms(rule.ejection_time_ms),
        # No longer the tenth time than the first: whoever is well again is asked again within an interval and this.
        max_ejection_time=ms(rule.ejection_time_ms),
        max_ejection_percent=rule.ejection_percent_max,
    )
