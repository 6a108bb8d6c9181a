"""The delta protocol without its wire."""

from __future__ import annotations

from typing import Any

from envoy_data_plane.envoy.config.core.v3 import Extension, Node
from envoy_data_plane.envoy.service.discovery.v3 import DeltaDiscoveryRequest
from envoy_data_plane.google.protobuf import Struct, Value
from envoy_data_plane.google.rpc import Status

from services.config.servicer.delta import Push, Session
from services.config.servicer.xds import read_request
from services.mesh.snapshot import CLUSTER, ENDPOINTS, LISTENER, ROUTES, SECRET, Packed, Snapshot

ALL = (CLUSTER, ENDPOINTS, LISTENER, ROUTES, SECRET)


def _snapshot(**versions: str) -> Snapshot:
    """One resource of each type; ``cds="2"`` gives the cluster version 2, ``cds=""`` leaves it out."""
    said = {"cds": "1", "eds": "1", "lds": "1", "rds": "1", "sds": "1", **versions}
    resources: dict[str, dict[str, Packed]] = {}
    for type_url, kind in zip(ALL, ("cds", "eds", "lds", "rds", "sds"), strict=True):
        name = "risk" if kind in {"cds", "eds"} else kind
        packed = Packed(said[kind], kind.encode(), type_url, name)
        resources[type_url] = {name: packed} if said[kind] else {}
    return Snapshot(resources)


def _ask(session: Session, type_url: str, *names: str, **more: Any) -> str:  # noqa: ANN401 - fields of the request
    return session.take(DeltaDiscoveryRequest(type_url=type_url, resource_names_subscribe=list(names), **more))


def _drain(session: Session, snapshot: Snapshot) -> list[Push]:
    """Take the pushes and accept each."""
    pushes = list(session.pushes(snapshot))
    for push in pushes:
        session.take(DeltaDiscoveryRequest(type_url=push.type_url, response_nonce=push.nonce))
    return pushes


def _subscribed(snapshot: Snapshot) -> Session:
    session = Session()
    _ask(session, CLUSTER)
    _ask(session, ENDPOINTS, "risk")
    _ask(session, LISTENER)
    _ask(session, ROUTES, "rds")
    _ask(session, SECRET, "sds")
    _drain(session, snapshot)
    return session


def _short(pushes: list[Push]) -> list[tuple[str, list[str], list[str]]]:
    return [(push.type_url.rpartition(".")[2], list(push.changed), list(push.gone)) for push in pushes]


def test_what_is_named_goes_before_who_names_it() -> None:
    """Clusters, endpoints, listeners, routes, secrets; what is taken away goes the other way round."""
    session = _subscribed(_snapshot())
    changed = _drain(session, _snapshot(cds="2", eds="2", lds="2", rds="2", sds="2"))
    assert [push.type_url for push in changed] == list(ALL)
    gone = _drain(session, _snapshot(cds="", eds="", lds="", rds="", sds=""))
    assert [push.type_url for push in gone] == list(reversed(ALL))
    assert all(push.gone and not push.changed for push in gone)


def test_unchanged_content_is_not_sent_again() -> None:
    """Another snapshot with the same versions is no push at all."""
    session = _subscribed(_snapshot())
    assert not _drain(session, _snapshot())
    assert _short(_drain(session, _snapshot(rds="2"))) == [("RouteConfiguration", ["rds"], [])]


def test_changed_cluster_brings_its_unchanged_endpoints() -> None:
    """Without them it would stay warming, with the old configuration, until a time-out."""
    session = _subscribed(_snapshot())
    assert _short(_drain(session, _snapshot(cds="2"))) == [
        ("Cluster", ["risk"], []),
        ("ClusterLoadAssignment", ["risk"], []),
    ]


def test_reconnect_sends_only_what_changed_meanwhile() -> None:
    """A node says what it holds; equal versions are not sent, although it names them as subscribed too."""
    session = Session()
    _ask(session, CLUSTER, initial_resource_versions={"risk": "1"})
    assert not _drain(session, _snapshot())
    _ask(session, ENDPOINTS, "risk", initial_resource_versions={"risk": "1"})
    _ask(session, LISTENER, initial_resource_versions={"lds": "1", "old": "1"})
    _ask(session, ROUTES, "rds", initial_resource_versions={"rds": "0"})
    assert _short(_drain(session, _snapshot())) == [
        ("RouteConfiguration", ["rds"], []),
        ("Listener", [], ["old"]),
    ]


def test_reconnect_warms_a_cluster_that_changed_meanwhile() -> None:
    """The cluster is sent before the node says which endpoints it holds; they are sent although it holds them."""
    session = Session()
    _ask(session, CLUSTER, initial_resource_versions={"risk": "0"})
    assert _short(_drain(session, _snapshot())) == [("Cluster", ["risk"], [])]
    _ask(session, ENDPOINTS, "risk", initial_resource_versions={"risk": "1"})
    assert _short(_drain(session, _snapshot())) == [("ClusterLoadAssignment", ["risk"], [])]


def test_later_subscription_is_answered_in_any_case() -> None:
    """The node may have dropped what we believe it holds."""
    session = _subscribed(_snapshot())
    _ask(session, ENDPOINTS, "risk")
    assert _short(_drain(session, _snapshot())) == [("ClusterLoadAssignment", ["risk"], [])]


def test_unsubscribed_resource_is_left_alone() -> None:
    """Neither sent nor taken away any more."""
    session = _subscribed(_snapshot())
    session.take(DeltaDiscoveryRequest(type_url=SECRET, resource_names_unsubscribe=["sds"]))
    assert not _drain(session, _snapshot(sds="2"))
    assert not _drain(session, _snapshot(sds=""))


def test_names_are_needed_for_what_is_not_listed() -> None:
    """A first request without names wants all clusters and listeners, and no endpoints."""
    session = Session()
    _ask(session, ENDPOINTS)
    assert not _drain(session, _snapshot())
    _ask(session, CLUSTER)
    assert _short(_drain(session, _snapshot())) == [("Cluster", ["risk"], [])]


def test_refused_version_is_sent_once_and_its_successor_at_once() -> None:
    """No hot loop; the complaint stays until something better was accepted."""
    session = _subscribed(_snapshot())
    (push,) = list(session.pushes(_snapshot(lds="2")))
    complaint = _ask(session, LISTENER, response_nonce=push.nonce, error_detail=Status(message="bad listener"))
    assert complaint == "bad listener"
    assert session.refusals() == {"lds": "bad listener"}
    assert not session.settled()
    assert not list(session.pushes(_snapshot(lds="2")))
    assert _short(_drain(session, _snapshot(lds="3"))) == [("Listener", ["lds"], [])]
    assert session.refusals() == {}
    assert session.settled()


def test_node_is_settled_once_all_is_accepted() -> None:
    """Not before it asked for clusters and listeners, nor while an answer is awaited."""
    session = Session()
    assert not session.settled()
    _ask(session, CLUSTER)
    _drain(session, _snapshot())
    assert not session.settled()
    _ask(session, LISTENER)
    (push,) = list(session.pushes(_snapshot()))
    assert not session.settled()
    _ask(session, LISTENER, response_nonce=push.nonce)
    assert session.settled()


def test_first_request_is_read_without_the_extensions_of_the_node() -> None:
    """Everything that we use is as a whole parse gives it; the 500 extensions are left out."""
    whole = DeltaDiscoveryRequest(
        node=Node(
            id="payment-1",
            cluster="payment",
            metadata=Struct(
                fields={"inbound": Value(string_value="127.0.0.1:1"), "long": Value(string_value="x" * 300)}
            ),
            extensions=[Extension(name=f"e{n}", category="c" * 40) for n in range(500)],
        ),
        type_url=CLUSTER,
        resource_names_subscribe=["a"],
        initial_resource_versions={"a": "1"},
        response_nonce="7",
    )
    read = read_request(whole.SerializeToString())
    assert read.node is not None
    assert whole.node is not None
    assert (read.node.id, read.node.cluster, read.node.metadata) == ("payment-1", "payment", whole.node.metadata)
    assert read.node.extensions == []
    read.node, whole.node = None, None
    assert read == whole
