"""What one Envoy has asked for, was sent and has answered: the delta protocol without its wire.

The rules that are easy to miss, each met with a real Envoy:

- A cluster that changed stays warming until its endpoints are sent again, even unchanged ones; so a changed cluster
  makes its endpoints unsent. After a reconnect the clusters may change before the node says which endpoints it holds.
- The first request of a type after a reconnect names what the node subscribes to *and* holds: what it holds in our
  version is not sent again. Any later subscription is answered in any case, since the node may have dropped it.
- A refused version is not sent again until its content changes: no hot loop.
- What is named goes before who names it; what is taken away goes in the opposite order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

from services.mesh.snapshot import CLUSTER, ENDPOINTS, LISTENER, ORDER

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from envoy_data_plane.envoy.service.discovery.v3 import DeltaDiscoveryRequest

    from services.mesh.snapshot import Packed, Snapshot

_WILDCARD = "*"
_LISTED = frozenset({CLUSTER, LISTENER})
"""Types of which a node wants all without naming any; of the others it wants what it names."""


@dataclass(frozen=True, slots=True)
class Push:
    """A response to be sent: resources that are new or changed by name, and names that are gone."""

    type_url: str
    nonce: str
    changed: Mapping[str, Packed]
    gone: tuple[str, ...] = ()


@dataclass(slots=True)
class _Subscription:
    names: set[str] = field(default_factory=set)
    held: dict[str, str] = field(default_factory=dict)
    unanswered: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Names of the resources in each push that is not answered yet, by nonce."""
    refused: dict[str, str] = field(default_factory=dict)
    """Complaint by the name of each resource whose last version the node does not have for it."""

    def wants(self, name: str) -> bool:
        return name in self.names or _WILDCARD in self.names


class Session:
    """One stream of one node."""

    def __init__(self) -> None:
        """Begin with nothing subscribed."""
        self._subscriptions: dict[str, _Subscription] = {}
        self._rewarm: set[str] = set()
        self._nonces = count(1)
        self.generation = 0
        """Generation of the snapshot that the node was brought to last."""

    def take(self, request: DeltaDiscoveryRequest) -> str:
        """Note what a request subscribes to and answers; returns the node's complaint when it refuses a push."""
        subscription = self._subscriptions.get(request.type_url)
        if subscription is None:
            subscription = self._first(request)
        else:
            for name in request.resource_names_subscribe:
                subscription.held.pop(name, None)
        subscription.names.update(request.resource_names_subscribe)
        for name in request.resource_names_unsubscribe:
            subscription.names.discard(name)
            subscription.held.pop(name, None)
        return self._answered(subscription, request) if request.response_nonce else ""

    @staticmethod
    def _answered(subscription: _Subscription, request: DeltaDiscoveryRequest) -> str:
        names = subscription.unanswered.pop(request.response_nonce, ())
        if not request.error_detail:
            for name in names:
                subscription.refused.pop(name, None)
            return ""
        complaint = request.error_detail.message or "no reason given"
        # Envoy keeps the good ones of a push and does not say by name which those are.
        subscription.refused.update(dict.fromkeys(names, complaint))
        return complaint

    def _first(self, request: DeltaDiscoveryRequest) -> _Subscription:
        subscription = _Subscription(held=dict(request.initial_resource_versions))
        if not request.resource_names_subscribe and request.type_url in _LISTED:
            subscription.names.add(_WILDCARD)
        if request.type_url == ENDPOINTS:
            for name in self._rewarm:
                subscription.held.pop(name, None)
        self._subscriptions[request.type_url] = subscription
        return subscription

    def pushes(self, snapshot: Snapshot) -> Iterator[Push]:
        """Yield what brings the node from what it holds to ``snapshot``; nothing when it is there already."""
        present = [type_url for type_url in ORDER if type_url in self._subscriptions]
        for type_url in present:
            subscription, have = self._subscriptions[type_url], snapshot.resources.get(type_url, {})
            changed = {
                name: packed
                for name, packed in have.items()
                if subscription.wants(name) and subscription.held.get(name) != packed.version
            }
            if changed:
                subscription.held.update((name, packed.version) for name, packed in changed.items())
                if type_url == CLUSTER:
                    self._unsend_endpoints(set(changed))
                yield self._push(subscription, type_url, changed)
        for type_url in reversed(present):
            subscription, have = self._subscriptions[type_url], snapshot.resources.get(type_url, {})
            gone = tuple(name for name in subscription.held if name not in have)
            if gone:
                for name in gone:
                    del subscription.held[name]
                    subscription.refused.pop(name, None)
                yield self._push(subscription, type_url, {}, gone)

    def _unsend_endpoints(self, clusters: set[str]) -> None:
        endpoints = self._subscriptions.get(ENDPOINTS)
        if endpoints is None:
            self._rewarm |= clusters
            return
        for name in clusters:
            endpoints.held.pop(name, None)

    def _push(
        self, subscription: _Subscription, type_url: str, changed: Mapping[str, Packed], gone: tuple[str, ...] = ()
    ) -> Push:
        nonce = str(next(self._nonces))
        subscription.unanswered[nonce] = (*changed, *gone)
        return Push(type_url, nonce, changed, gone)

    def refusals(self) -> dict[str, str]:
        """What the node complains about, by resource."""
        return {name: complaint for s in self._subscriptions.values() for name, complaint in s.refused.items()}

    def settled(self) -> bool:
        """Whether the node subscribed to clusters and listeners, and accepted everything that it was sent."""
        return self._subscriptions.keys() >= _LISTED and not any(
            s.unanswered or s.refused for s in self._subscriptions.values()
        )
