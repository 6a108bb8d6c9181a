"""The world outside the mesh: what there is, and which room may reach it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.mesh.istio.environment import host_of, port_of
from services.mesh.istio.manifest import Json, document

if TYPE_CHECKING:
    from services.contract.model import Contract
    from services.mesh.istio.environment import Environment

PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
"""Where the stores are."""
NOT_PUBLIC = (*PRIVATE, "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "0.0.0.0/8", "224.0.0.0/3")
"""What is no address of a provider: among it the metadata service of a cloud."""
_ANYWHERE = ("0.0.0.0/1", "128.0.0.0/1")
"""In two halves: a listener's chain for 0.0.0.0/0 and one for no address in particular would be the same to Envoy."""


@dataclass(frozen=True, slots=True)
class Place:
    """Something outside. `hosts` are names; `addresses`, where there are any, the range that it is found in instead.

    `private` ones are ours, in our network; the others are on the internet. `protocol` is what Istio sees of it: TLS is
    told by its server name, TCP by port.
    """

    name: str
    hosts: tuple[str, ...]
    port: int
    rooms: frozenset[str]
    protocol: str = "TLS"
    resolution: str = "DNS"
    private: bool = False
    addresses: tuple[str, ...] = ()


def places(contract: Contract, env: Environment) -> list[Place]:
    """Return everything that is outside."""
    everyone = frozenset(contract.services)
    payment, notification = frozenset({"payment"}), frozenset({"notification"})

    def store(name: str, at: str, rooms: frozenset[str], resolution: str = "DNS") -> Place:
        return Place(name, (host_of(at),), port_of(at), rooms, "TCP", resolution, private=True)

    def vendor(name: str, at: str, rooms: frozenset[str], protocol: str = "TLS") -> Place:
        return Place(name, (host_of(at),), port_of(at), rooms, protocol)

    return [
        store("database", env.database, everyone),
        store("redis", env.redis, everyone),
        # A client is told by Kafka which broker to ask: each must be reached at its own address.
        store("kafka", env.kafka, with_events(contract), "NONE"),
        vendor("alipay", env.alipay_url, payment),
        # Bills lie on hosts that Alipay names when it is asked for one.
        Place("alipay-bills", ("*.alipay.com",), 443, payment, resolution="NONE"),
        vendor("wechat", env.wechat_url, payment),
        vendor("cards", env.cards_url, payment),
        vendor("sms", env.sms_url, notification),
        vendor("push", env.push_url, notification),
        vendor("smtp", env.smtp, notification, "TCP"),
        # Merchants' endpoints are anywhere; the room itself refuses addresses that are not public.
        Place("webhooks", ("webhooks.internal",), 443, notification, "TCP", "NONE", addresses=_ANYWHERE),
    ]


def with_events(contract: Contract) -> frozenset[str]:
    """Return the rooms that publish or consume."""
    events = contract.events.values()
    return frozenset({event.service for event in events}.union(*(event.consumers for event in events)))


def of_room(contract: Contract, env: Environment, room: str) -> list[Place]:
    """Return what a room may reach."""
    return [place for place in places(contract, env) if room in place.rooms]


def entry(place: Place) -> Json:
    """Make a place known to sidecars of this namespace; which of them see it, their Sidecar says."""
    spec: Json = {
        "hosts": list(place.hosts),
        "location": "MESH_EXTERNAL",
        "resolution": place.resolution,
        "exportTo": ["."],
        "ports": [{"number": place.port, "name": f"{place.protocol.lower()}-{place.name}", "protocol": place.protocol}],
    }
    if place.addresses:
        spec["addresses"] = list(place.addresses)
    return document("ServiceEntry", place.name, spec)
