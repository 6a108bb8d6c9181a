"""What our own Envoys are served, as JSON to be patched into what istiod makes.

Made once, for it is slow: who uses a part of it does not change it.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from services.mesh import listeners, routes, static
from services.mesh.istio.manifest import NAMESPACE, Json
from services.mesh.node import Edge, Sidecar
from services.mesh.resource import packed
from services.platform.identity import spiffe_id

if TYPE_CHECKING:
    from betterproto2 import Message

    from services.contract.model import Contract, Service

DESCRIPTORS = "/etc/paymesh/descriptors/paymesh.binpb"
"""Where the edge finds the descriptor set of the contracts."""

_ISTIODS_OWN = {"http_filters", "rds", "stat_prefix"}
_EDGE = Edge("edge-1", "127.0.0.1:8443", "127.0.0.1:8444")


@cache
def edge_manager(contract: Contract, listener: str) -> Json:
    """Return what the edge's `rest` or `grpc` listener does to a request, filters included."""
    made = listeners.rest(_EDGE, contract, b"-") if listener == "rest" else listeners.grpc(_EDGE)
    return _manager(made)


@cache
def inbound_manager(service: Service) -> Json:
    """Return the same of a sidecar's listener for peers, who are of our namespace."""
    return _in_namespace(_manager(listeners.inbound(_sidecar(service.name), service)))


@cache
def outbound_manager(caller: str) -> Json:
    """Return the same of a sidecar's listener for its own service."""
    return _manager(listeners.outbound(_sidecar(caller)))


def options(manager: Json) -> Json:
    """Return the options of a connection manager that are ours and not istiod's."""
    return {key: value for key, value in manager.items() if key not in _ISTIODS_OWN}


def filter_named(manager: Json, name: str) -> Json:
    """Return one of its filters."""
    (found,) = (each for each in manager["http_filters"] if each["name"] == name)
    assert isinstance(found, dict)
    return found


@cache
def edge_routes(contract: Contract) -> dict[str, Json]:
    """Return the routes of the edge by name, in order."""
    return _by_name(routes.edge(contract))


@cache
def inbound_routes(service: Service) -> dict[str, Json]:
    """Return the routes of a service's sidecar for peers, by name."""
    return _by_name(routes.inbound(service))


@cache
def outbound_routes(contract: Contract, caller: str) -> dict[str, Json]:
    """Return the routes of a service's sidecar for its own calls, by name."""
    return _by_name(routes.outbound(contract, caller))


def _by_name(table: Message) -> dict[str, Json]:
    return {each["name"]: each for each in _json(table)["virtual_hosts"][0]["routes"]}


def _sidecar(service: str) -> Sidecar:
    return Sidecar(f"{service}-1", service, "127.0.0.1:1", "/in.sock", "/out.sock")


def _manager(listener: Message) -> Json:
    made: Json = _json(listener)["filter_chains"][0]["filters"][0]["typed_config"]
    return made


def _json(message: Message) -> Json:
    sent = packed(message)
    return static.as_json(sent.type_url, sent.value)


def _in_namespace(value: Json) -> Json:
    """Rename peers: in Kubernetes an identity has the namespace of its ServiceAccount."""
    here, there = spiffe_id(""), spiffe_id("", NAMESPACE)

    def renamed(each: object) -> object:
        if isinstance(each, dict):
            return {key.replace(here, there): renamed(inner) for key, inner in each.items()}
        if isinstance(each, list):
            return [renamed(inner) for inner in each]
        return each.replace(here, there) if isinstance(each, str) else each

    made = renamed(value)
    assert isinstance(made, dict)
    return made
