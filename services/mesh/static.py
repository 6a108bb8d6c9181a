"""A complete static bootstrap that holds the very resources of a snapshot: what is reviewed, validated and tried out.

A bootstrap whose resources come by ADS is accepted by `envoy --mode validate` whatever the resources are; this one says
the same things in one file, with names replaced by what they stand for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from envoy_data_plane.google.protobuf import Any as Sent

from services.mesh import node as nodes
from services.mesh.snapshot import CLUSTER, ENDPOINTS, EXTENSION, LISTENER, ROUTES, SECRET

if TYPE_CHECKING:
    from collections.abc import Mapping

    from betterproto2 import Casing

    from services.mesh.node import Node
    from services.mesh.snapshot import Snapshot

Json = dict[str, Any]

_AS_WRITTEN = cast("Casing", str)
"""Names as protos write them; the library's snake case would make `consecutive_5_xx` of `consecutive_5xx`."""


def bootstrap(node: Node, snapshot: Snapshot, *, admin: str) -> Json:
    """Make the bootstrap of a node that asks nobody. `admin` is host:port."""
    said = {kind: _messages(snapshot, kind) for kind in (CLUSTER, ENDPOINTS, LISTENER, ROUTES, SECRET, EXTENSION)}
    return {
        "node": {"id": node.id, "cluster": node.cluster, "metadata": nodes.metadata(node)},
        **nodes.process(admin),
        "static_resources": {
            "clusters": [_cluster(cluster, said[ENDPOINTS]) for cluster in said[CLUSTER].values()],
            "listeners": [_listener(listener, said) for listener in said[LISTENER].values()],
            "secrets": list(said[SECRET].values()),
        },
    }


def _messages(snapshot: Snapshot, kind: str) -> dict[str, Json]:
    said = {name: as_json(one.type_url, one.value) for name, one in snapshot.resources[kind].items()}
    _drop_streams(said)
    return said


def as_json(type_url: str, value: bytes) -> Json:
    """Read a serialized resource as the JSON of its kind."""
    made: Json = Sent(type_url=type_url, value=value).to_dict(casing=_AS_WRITTEN)
    made.pop("@type")
    return made


def _drop_streams(value: object) -> None:
    """Drop every `sds_config`: a secret without it is the one of that name in the same file."""
    if isinstance(value, dict):
        value.pop("sds_config", None)
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            _drop_streams(inner)


def _cluster(cluster: Json, places: Mapping[str, Json]) -> Json:
    if "eds_cluster_config" not in cluster:
        return cluster
    inlined = {key: value for key, value in cluster.items() if key != "eds_cluster_config"}
    return {**inlined, "type": "STATIC", "load_assignment": places[cluster["name"]]}


def _listener(listener: Json, said: Mapping[str, Mapping[str, Json]]) -> Json:
    for chain in listener["filter_chains"]:
        for network in chain["filters"]:
            manager = network["typed_config"]
            manager["route_config"] = said[ROUTES][manager.pop("rds")["route_config_name"]]
            for http in manager["http_filters"]:
                if http.pop("config_discovery", None):
                    http["typed_config"] = said[EXTENSION][http["name"]]["typed_config"]
    return listener
