"""What a node says about itself is read back as it was, and believed only as far as its id goes."""

from __future__ import annotations

import pytest

from services.mesh import node
from services.mesh.node import Edge, Sidecar

SIDECAR = Sidecar("payment-2", "payment", "127.0.0.1:9001", "/run/payment-2.sock", "/run/payment-2.out.sock")
EDGE = Edge("edge-1", "127.0.0.1:8443", "127.0.0.1:8444")


@pytest.mark.parametrize("one", [SIDECAR, EDGE], ids=["sidecar", "edge"])
def test_layout_is_the_same_when_read_back(one: node.Node) -> None:
    """By the metadata of the bootstrap, id and cluster."""
    made = node.bootstrap(one, xds_socket="/run/xds.sock", join_token="t", admin="127.0.0.1:9901")["node"]
    assert node.from_metadata(made["id"], made["cluster"], made["metadata"]) == one


@pytest.mark.parametrize(
    ("node_id", "cluster"),
    [("payment-2", "user"), ("payment", "payment"), ("payment-x", "payment"), ("-1", "payment"), ("edge-1", "payment")],
)
def test_node_is_refused_when_its_id_is_not_of_the_cluster(node_id: str, cluster: str) -> None:
    """The join token is bound to the id: the cluster must follow from it, or a token would open any service."""
    with pytest.raises(ValueError, match="is not of cluster"):
        node.from_metadata(node_id, cluster, node.metadata(SIDECAR))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("inbound", "127.0.0.1"),
        ("inbound", "127.0.0.1:0"),
        ("inbound", "127.0.0.1:65536"),
        ("inbound", ":80"),
        ("inbound", None),
        ("service_socket", "relative.sock"),
        ("service_socket", "/" + "x" * 107),
        ("outbound_socket", 7),
    ],
)
def test_layout_is_refused_when_a_place_is_missing_or_malformed(name: str, value: object) -> None:
    """The complaint names the field."""
    layout: dict[str, object] = {**node.metadata(SIDECAR), name: value}
    with pytest.raises(ValueError, match=name):
        node.from_metadata("payment-2", "payment", layout)


def test_bootstrap_brings_the_token_and_asks_by_delta_over_the_socket() -> None:
    """The parts that the ADS server depends on."""
    made = node.bootstrap(SIDECAR, xds_socket="/run/xds.sock", join_token="t", admin="127.0.0.1:9901")
    ads = made["dynamic_resources"]["ads_config"]
    assert ads["api_type"] == "DELTA_GRPC"
    assert ads["set_node_on_first_message_only"] is True
    (service,) = ads["grpc_services"]
    assert service["initial_metadata"] == [{"key": "x-paymesh-join-token", "value": "t"}]
    assert service["envoy_grpc"]["retry_policy"]["retry_back_off"] == {"base_interval": "0.1s", "max_interval": "1s"}
    assert '"/run/xds.sock"' in str(made["static_resources"]).replace("'", '"')
