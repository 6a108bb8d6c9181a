"""What is so at this moment: which instances there are, and with which keys tokens are verified."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

NO_KEYS = '{"keys":[]}'
"""The JWKS before the user service has shown its own: every token is refused."""


@dataclass(frozen=True, slots=True, order=True)
class Instance:
    """One instance of a service. `address` is host:port of its Envoy's inbound listener.

    An unhealthy one gets no calls while enough others are healthy; a draining one finishes what it has.
    """

    name: str
    address: str
    healthy: bool = True
    draining: bool = False
    weight: int = 1
    """Its share of the calls, beside the weights of the others."""


@dataclass(frozen=True, slots=True)
class ApiKeys:
    """What verifies API keys (a JWKS as JSON text), and the ids of those that are refused all the same."""

    jwks: str = NO_KEYS
    revoked: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class World:
    """Instances by service, in any order, and the JWKS (as JSON text) of the issuer of access tokens.

    `origins` are those whose pages may call the edge from a browser. `weights` by service and instance are there while a
    release is rolled out. `api_keys` None: what the gateway says of them is not known yet.
    Who is revoked, a service or an instance by the id of its node, is neither called nor listened to.
    """

    instances: Mapping[str, tuple[Instance, ...]] = field(default_factory=lambda: MappingProxyType({}))
    jwks: str = NO_KEYS
    api_keys: ApiKeys | None = None
    origins: frozenset[str] = frozenset()
    weights: Mapping[str, Mapping[str, int]] = field(default_factory=lambda: MappingProxyType({}))
    revoked: frozenset[str] = frozenset()

    def places(self, service: str) -> tuple[Instance, ...]:
        """Return the instances of a service that get calls, in order, each with its weight.

        Where there are weights an instance without one gets no calls: it is new, and nobody has let it in yet. But
        weights never empty a service: when all that have one are gone, the others take over.
        """
        if service in self.revoked:
            return ()
        found = tuple(sorted(each for each in self.instances.get(service, ()) if each.name not in self.revoked))
        weights = self.weights.get(service, {})
        weighed = tuple(replace(each, weight=weight) for each in found if (weight := weights.get(each.name, 0)) > 0)
        return weighed or found
