"""Entries with versions, and leases of instances with what their health checks said. Times of leases are monotonic seconds."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from services.kernel.errors import DomainError

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence

LEASE_S = 15.0
"""How long an instance is known without a renewal; services renew every 5 s."""
DRAIN_S = 10.0
"""How long one that was taken out is still listed, so that it finishes what it has."""
CHECK_S = 2.0
"""Time between two health checks of an instance that passed the last one."""
RECHECK_S = 0.25
"""The same after a failure: it is soon known whether the instance is down, and soon that it is back."""
RECHECKS = 20
"""After so many failures in a row an instance is checked at the slower pace again."""
FAILURES_MAX = 2
"""Failures in a row with which a healthy instance stops getting calls; one success brings it back."""
SILENCES_MAX = 5
"""The same when the last one was silence: an instance that is busy is late, and taking it out makes nobody faster."""


class Health(StrEnum):
    """What is known of an instance."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    DRAINING = "draining"


class Phase(StrEnum):
    """How far a change to a new CA is."""

    STABLE = "stable"
    TRUSTING_BOTH = "trusting_both"
    ISSUING_NEW = "issuing_new"

    @property
    def following(self) -> Phase:
        """The phase that comes next."""
        order = tuple(Phase)
        return order[(order.index(self) + 1) % len(order)]


class Answer(StrEnum):
    """What a health check got."""

    SERVES = "serves"
    REFUSES = "refuses"
    """It says so, nobody listens at its address, or it cannot prove to be of the service."""
    SILENCE = "silence"
    """Nothing within the time of a check."""


@dataclass(frozen=True, slots=True, order=True)
class Name:
    """Which instance of which service."""

    service: str
    instance: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where calls of an instance go: host:port of its Envoy."""

    instance: str
    address: str


@dataclass(frozen=True, slots=True)
class Lease:
    """An instance that is known until ``until``. It gets no calls before a health check was passed."""

    name: Name
    address: str
    until: float
    healthy: bool = False
    failures: int = 0
    draining: bool = False
    permanent: bool = False

    @property
    def health(self) -> Health:
        """What is known of the instance."""
        if self.draining:
            return Health.DRAINING
        return Health.HEALTHY if self.healthy else Health.UNHEALTHY

    @property
    def check_after(self) -> float:
        """Seconds until the next health check."""
        return RECHECK_S if 0 < self.failures <= RECHECKS or not (self.healthy or self.failures) else CHECK_S

    def routable(self, now: float) -> bool:
        """Whether it gets calls."""
        return self.healthy and not self.draining and self.alive(now)

    def alive(self, now: float) -> bool:
        """Whether the lease holds."""
        return self.permanent or now < self.until

    def renewed(self, address: str, now: float) -> Lease:
        """Prolong it. At another address, or after it was taken out, it is a new instance that proves its health anew."""
        if address != self.address or self.draining or not self.alive(now):
            return granted(self.name, address, now)
        return replace(self, until=now + LEASE_S)

    def checked(self, answer: Answer) -> Lease:
        """Note what a health check got."""
        if answer is Answer.SERVES:
            return self if self.healthy and not self.failures else replace(self, healthy=True, failures=0)
        failures, most = self.failures + 1, SILENCES_MAX if answer is Answer.SILENCE else FAILURES_MAX
        return replace(self, failures=failures, healthy=self.healthy and failures < most)

    def taken_out(self, now: float) -> Lease:
        """Let it finish what it has, then forget it."""
        return self if self.draining else replace(self, draining=True, until=now + DRAIN_S)


def granted(name: Name, address: str, now: float) -> Lease:
    """Register an instance."""
    return Lease(name, address, now + LEASE_S)


def recovered(name: Name, address: str, now: float) -> Lease:
    """Know an instance again after a restart of config: it was healthy, so it gets calls unless its next check fails."""
    return Lease(name, address, now + LEASE_S, healthy=True, failures=FAILURES_MAX - 1)


def own(name: Name, address: str) -> Lease:
    """Config's own instance: while it can say so, it is there."""
    return Lease(name, address, 0.0, healthy=True, permanent=True)


@dataclass(frozen=True, slots=True)
class Register:
    """A command: ``caller`` (the service whose certificate was shown) wants ``name`` registered at ``address``."""

    name: Name
    address: str
    caller: str
    method: str

    def check(self) -> None:
        """A service registers itself alone. Raises CALLER_NOT_ALLOWED."""
        _own_service(self.name, self.caller, self.method)


@dataclass(frozen=True, slots=True)
class Deregister:
    """A command: ``caller`` wants ``name`` taken out."""

    name: Name
    caller: str
    method: str

    def check(self) -> None:
        """A service takes itself out alone. Raises CALLER_NOT_ALLOWED."""
        _own_service(self.name, self.caller, self.method)


def _own_service(name: Name, caller: str, method: str) -> None:
    if name.service != caller:
        raise DomainError("CALLER_NOT_ALLOWED", caller=caller, method=method)


@dataclass(frozen=True, slots=True)
class RotateAuthority:
    """A command: bring a change of CA to the phase ``to``."""

    to: Phase

    def check(self, present: Phase, waiting: Sequence[str]) -> None:
        """Every step follows the one before, and waits for every Envoy to have what that brought.

        Raises AUTHORITY_PHASE_CONFLICT or MESH_NOT_SETTLED.
        """
        if self.to is not present.following:
            raise DomainError("AUTHORITY_PHASE_CONFLICT", phase=present.name)
        if waiting:
            raise DomainError("MESH_NOT_SETTLED", nodes=" ".join(waiting))


@dataclass(frozen=True, slots=True)
class Authority:
    """The CA: how far a change is, which CAs are trusted (the one that signs first), which Envoys lack that."""

    phase: Phase
    fingerprints: tuple[str, ...]
    waiting: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NodeState:
    """An Envoy as config serves it; ``refusals`` are complaints by resource, ``not_rendered`` a fault of ours."""

    id: str
    connected: bool
    settled: bool
    refusals: Mapping[str, str]
    not_rendered: str = ""
    revoked: bool = False
    certificate_ends_ms: int = 0


@dataclass(frozen=True, slots=True)
class ServiceHealth:
    """How many instances of a service serve, of how many that hold a lease."""

    service: str
    healthy: int
    registered: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A configuration entry as it is at ``version``; ``update_ms`` since 1970 UTC."""

    key: str
    value: str
    version: int
    updated_by: int
    update_ms: int


ROLLOUTS = "mesh.rollout."
"""Entries that say, by service, how its calls are shared while a release is rolled out; JSON with `weights`."""
WEIGHT_MAX = 1_000_000
"""Of one instance: the sum over all of them stays far below what an Envoy counts to."""


@dataclass(frozen=True, slots=True)
class Split:
    """How the calls of ``service`` are shared: weights by instance; none: all are alike."""

    service: str
    weights: Mapping[str, int]


def split(key: str, value: str) -> Split | None:
    """Read what an entry says of the sharing of calls; None: it is about something else. Raises INVALID_ARGUMENT."""
    if not key.startswith(ROLLOUTS):
        return None
    try:
        said = json.loads(value)
    except ValueError:
        said = None
    weights = said.get("weights") if isinstance(said, dict) else None
    if not isinstance(weights, dict) or not all(map(_is_weight, weights.values())):
        raise DomainError("INVALID_ARGUMENT", field="value")
    return Split(key.removeprefix(ROLLOUTS), weights)


def _is_weight(value: object) -> bool:
    return type(value) is int and 0 <= value <= WEIGHT_MAX


@dataclass(frozen=True, slots=True)
class SetConfig:
    """A command: set ``key`` to ``value``; ``expected_version`` 0 builds on whatever is there."""

    key: str
    value: str
    expected_version: int
    subject: int

    def applied(self, present: Entry | None, now_ms: int) -> Entry:
        """Return the entry as it is afterwards: ``present`` itself when it has the value already.

        Raises CONFIG_VERSION_CONFLICT, and INVALID_ARGUMENT for a rollout that cannot be read. A repeat of a change that
        was made is no conflict: its value is there.
        """
        split(self.key, self.value)
        if present is not None and present.value == self.value:
            return present
        version = present.version if present else 0
        if self.expected_version not in {0, version}:
            raise DomainError("CONFIG_VERSION_CONFLICT", key=self.key, version=version)
        return Entry(self.key, self.value, version + 1, self.subject, now_ms)


REVOKED = "mesh.revoked"
"""The entry that names who is shut out of the mesh: services, or instances such as `payment-2`, apart by spaces."""
REVOKED_MAX = 100
_SHUT_OUT = re.compile(r"(?P<service>[a-z][a-z-]*?)(-[0-9]{1,5})?")
CONFIG = "config"
LOG_LEVEL = "log.level"
"""The entry that every service takes its log level from; `log.level.payment` is payment's own and goes before."""
LOG_LEVELS = ("debug", "info", "warning", "error")


def check_value(key: str, value: str, services: Container[str]) -> None:
    """Check what the mesh itself reads; ``services`` are those that there are. Raises CONFIG_VALUE_INVALID."""
    rule = ""
    if key == REVOKED:
        rule = _revocation_fault(value, services)
    elif key == LOG_LEVEL or key.removeprefix(f"{LOG_LEVEL}.") in services:
        rule = "" if value in LOG_LEVELS else f"one of {', '.join(LOG_LEVELS)}"
    if rule:
        raise DomainError("CONFIG_VALUE_INVALID", key=key, rule=rule)


def _revocation_fault(value: str, services: Container[str]) -> str:
    names = value.split()
    named = [match["service"] if (match := _SHUT_OUT.fullmatch(name)) else "" for name in names]
    if len(names) > REVOKED_MAX or not all(service in services for service in named):
        return f"at most {REVOKED_MAX} services, or instances such as payment-2, apart by spaces"
    return "config itself tells the mesh who is shut out" if CONFIG in named else ""


def revoked_names(entry: Entry | None) -> frozenset[str]:
    """Who is shut out."""
    return frozenset(entry.value.split()) if entry else frozenset()
