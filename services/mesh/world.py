"""What is so at this moment: which instances there are, and with which keys tokens are verified."""

from __future__ import annotations

from dataclasses import dataclass, field
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


@dataclass(frozen=True, slots=True)
class World:
    """Instances by service, in any order, and the JWKS (as JSON text) of the issuer of access tokens.

    Who is revoked, a service or an instance by the id of its node, is neither called nor listened to.
    """

    instances: Mapping[str, tuple[Instance, ...]] = field(default_factory=lambda: MappingProxyType({}))
    jwks: str = NO_KEYS
    revoked: frozenset[str] = frozenset()

    def reachable(self, service: str) -> tuple[Instance, ...]:
        """Return the instances of a service that may be called, in their order."""
        if service in self.revoked:
            return ()
        return tuple(sorted(each for each in self.instances.get(service, ()) if each.name not in self.revoked))
