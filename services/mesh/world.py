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
class ApiKeys:
    """What verifies API keys (a JWKS as JSON text), and the ids of those that are refused all the same."""

    jwks: str = NO_KEYS
    revoked: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class World:
    """Instances by service, in any order, and the JWKS (as JSON text) of the issuer of access tokens.

    `api_keys` None: what the gateway says of them is not known yet.
    """

    instances: Mapping[str, tuple[Instance, ...]] = field(default_factory=lambda: MappingProxyType({}))
    jwks: str = NO_KEYS
    api_keys: ApiKeys | None = None
