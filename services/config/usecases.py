"""What config does: one function per RPC or event, over a sequence of commands where it writes."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from services.config.domain import (
    REVOKED,
    ROLLOUTS,
    Authority,
    Deregister,
    Entry,
    Health,
    Lease,
    Name,
    Register,
    ServiceHealth,
    SetConfig,
    check_value,
    granted,
    recovered,
    revoked_names,
    split,
)
from services.kernel.errors import DomainError
from services.kernel.pages import Page

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping, Sequence

    from services.config import ports
    from services.config.domain import Answer, NodeState, RotateAuthority
    from services.kernel.clock import Clock

C = TypeVar("C")
R = TypeVar("R")

_SERVICES_MAX = 100


class Configuration:
    """Entries: set in batches, read from the cache. Those about rollouts are shown to the mesh."""

    def __init__(
        self,
        store: ports.Store,
        cache: ports.EntryCache,
        clock: Clock,
        committed: Callable[[], None],
        mesh: ports.Mesh,
        services: Container[str],
    ) -> None:
        """Keep entries in ``store``, and at hand in ``cache``; ``committed`` says that there are events to publish.

        What the mesh itself reads is shown to ``mesh``; it may name ``services``.
        """
        self._store, self._cache, self._clock, self._committed = store, cache, clock, committed
        self._mesh, self._services = mesh, services

    def recover(self) -> None:
        """Show the mesh, after a restart, what it read before; what a version before this one took unread is passed over."""
        self._mesh.show_revoked(revoked_names(self._store.entry(REVOKED)))
        for entry in self._store.list_entries(ROLLOUTS, Page(_SERVICES_MAX, "")):
            with contextlib.suppress(DomainError):
                self._mesh_reads([entry])

    def set_configs(self, commands: Sequence[SetConfig]) -> list[Entry | DomainError]:
        """Set entries in order, in one transaction; a conflict refuses its own command alone."""
        now = self._clock.now_ms()
        changes: list[Entry] = []
        with self._store.write() as tx:
            present = tx.entries({command.key for command in commands})

            def apply(command: SetConfig) -> Entry:
                check_value(command.key, command.value, self._services)
                before = present.get(command.key)
                after = present[command.key] = command.applied(before, now)
                if after is not before:
                    changes.append(after)
                return after

            outcomes = [_outcome(apply, command) for command in commands]
            if changes:
                tx.save_entries(changes)
                tx.commit()
        if changes:
            self._cache.put(changes)
            self._mesh_reads(changes)
            self._committed()
        return outcomes

    def _mesh_reads(self, changes: Sequence[Entry]) -> None:
        shut_out = [entry for entry in changes if entry.key == REVOKED]
        if shut_out:
            self._mesh.show_revoked(revoked_names(shut_out[-1]))
        for entry in changes:
            if shared := split(entry.key, entry.value):
                self._mesh.show_weights(shared.service, shared.weights)

    def get_config(self, key: str) -> Entry:
        """Read an entry. Raises CONFIG_NOT_FOUND."""
        entry = self._cache.get(key)
        if entry is None:
            entry = self._store.entry(key)
            if entry is None:
                raise DomainError("CONFIG_NOT_FOUND", key=key)
            self._cache.put([entry])
        return entry

    def newer(self, known: Mapping[str, int]) -> list[Entry]:
        """Entries that have a newer version than is known."""
        found = [self._cache.get(key) or self._store.entry(key) for key in known]
        return [entry for entry in found if entry is not None and entry.version > known[entry.key]]

    def list_configs(self, prefix: str, page: Page) -> tuple[Sequence[Entry], str]:
        """One page of the entries by key, and the token of the next."""
        return page.cut(self._store.list_entries(prefix, page), lambda entry: entry.key)


class Discovery:
    """Instances: registered under leases in memory; their addresses are kept, so that a restart does not empty the mesh."""

    def __init__(
        self,
        store: ports.Store,
        registry: ports.Registry,
        checks: ports.HealthChecks,
        clock: Clock,
        services: Sequence[str],
    ) -> None:
        """Know instances of ``services``."""
        self._store, self._registry, self._checks = store, registry, checks
        self._clock, self._services = clock, services

    def recover(self, own_lease: Lease | None) -> None:
        """Know again, after a restart, what was known before; each gets a lease within which it must renew.

        Config's own instance is known without a registration: nobody could take that call otherwise.
        """
        with self._store.write() as tx:
            kept = tx.instances()
        now = self._clock.monotonic()
        leases = [recovered(name, address, now) for name, address in kept.items()]
        for lease in [*leases, own_lease] if own_lease else leases:
            self._registry.change(lease.name, partial(_keep_or, lease))
        self._checks.soon()

    def register_instances(self, commands: Sequence[Register]) -> list[Lease | DomainError]:
        """Register instances or renew their leases; only what is new or moved is written."""
        allowed = [command for command in commands if _refusal(command) is None]
        known = {lease.name: lease.address for lease in self._registry.all() if not lease.draining}
        moved = {c.name: c.address for c in allowed if known.get(c.name) != c.address}
        if moved:
            with self._store.write() as tx:
                tx.keep_instances(moved)
                tx.commit()
        return [_outcome(self._register, command) for command in commands]

    def _register(self, command: Register) -> Lease:
        command.check()
        now = self._clock.monotonic()

        def renew(lease: Lease | None) -> Lease:
            if lease is None:
                return granted(command.name, command.address, now)
            return lease.renewed(command.address, now)

        lease = self._registry.change(command.name, renew)
        assert lease is not None
        if not lease.healthy and not lease.failures:
            self._checks.soon()
        return lease

    def deregister_instances(self, commands: Sequence[Deregister]) -> list[Lease | DomainError]:
        """Take instances out: no calls from now on, and forgotten a while later. Those that are not known are refused."""
        held = {lease.name for lease in self._registry.all()}
        gone = [c.name for c in commands if _refusal(c) is None and c.name in held]
        if gone:
            with self._store.write() as tx:
                tx.forget_instances(gone)
                tx.commit()
        return [_outcome(self._deregister, command) for command in commands]

    def _deregister(self, command: Deregister) -> Lease:
        command.check()
        now = self._clock.monotonic()
        lease = self._registry.change(command.name, lambda lease: lease.taken_out(now) if lease else None)
        if lease is None:
            name = command.name
            raise DomainError("LEASE_NOT_FOUND", service=name.service, instance=name.instance)
        return lease

    def expire_leases(self, names: Sequence[Name]) -> list[Lease | None]:
        """Forget instances whose lease ended; one that was renewed meanwhile stays (None: it is gone)."""
        now = self._clock.monotonic()
        left = [
            self._registry.change(name, lambda lease: lease if lease and lease.alive(now) else None) for name in names
        ]
        gone = [name for name, lease in zip(names, left, strict=True) if lease is None]
        if gone:
            with self._store.write() as tx:
                tx.forget_instances(gone)
                tx.commit()
        return left

    def expired(self) -> list[Name]:
        """Whose lease ended."""
        now = self._clock.monotonic()
        return [lease.name for lease in self._registry.all() if not lease.alive(now)]

    def list_instances(self, service: str, page: Page) -> tuple[Sequence[Lease], str]:
        """One page of the instances by service and name (of ``service`` alone unless it is ""), and the next token."""
        after = tuple(page.after.split("/", 1)) if page.after else ("", "")
        if len(after) != 2:
            raise DomainError("PAGE_TOKEN_INVALID")
        found = [
            lease
            for lease in self._registry.all()
            if service in {"", lease.name.service} and (lease.name.service, lease.name.instance) > after
        ]
        return page.cut(found[: page.limit], lambda lease: f"{lease.name.service}/{lease.name.instance}")

    def get_mesh_health(self) -> list[ServiceHealth]:
        """For each service of the contract, how many of its instances serve."""
        leases, now = self._registry.all(), self._clock.monotonic()
        held = {s: [lease for lease in leases if lease.name.service == s and lease.alive(now)] for s in self._services}
        return [
            ServiceHealth(s, sum(lease.health is Health.HEALTHY for lease in found), len(found))
            for s, found in held.items()
        ]


class Trust:
    """The Envoys and the CA that they trust: its change to a new one waits for all of them at every step."""

    def __init__(
        self,
        authorities: ports.Authorities | None,
        certificates: ports.Certificates,
        nodes: ports.Nodes,
        mesh: ports.Mesh,
    ) -> None:
        """Change the CA of ``authorities``; None: somebody else issues the certificates of this mesh."""
        self._authorities, self._certificates = authorities, certificates
        self._nodes, self._mesh = nodes, mesh

    def rotate_authorities(self, commands: Sequence[RotateAuthority]) -> list[Authority | DomainError]:
        """Take steps, each on its own; one that was taken already changes nothing."""
        return [_outcome(self._rotate, command) for command in commands]

    def _rotate(self, command: RotateAuthority) -> Authority:
        authorities = self._known()
        if authorities.phase is not command.to:
            command.check(authorities.phase, self._waiting())
            authorities.advance()
            self._mesh.show_identities()
        return self.get_authority()

    def get_authority(self) -> Authority:
        """How far a change is, and which Envoys lack what it brought last. Raises UNAVAILABLE."""
        authorities = self._known()
        return Authority(authorities.phase, authorities.fingerprints, self._waiting())

    def list_nodes(self, page: Page) -> tuple[Sequence[NodeState], str]:
        """One page of the Envoys by id, and the token of the next."""
        found = [node for node in self._nodes.states() if node.id > page.after][: page.limit]
        ends = self._certificates.ends_ms
        return page.cut([replace(node, certificate_ends_ms=ends(node.id)) for node in found], lambda node: node.id)

    def _known(self) -> ports.Authorities:
        if self._authorities is None:
            raise DomainError("UNAVAILABLE")
        return self._authorities

    def _waiting(self) -> tuple[str, ...]:
        """Envoys that lack something. One that is shut out is told nothing more, and is not waited for."""
        return tuple(node.id for node in self._nodes.states() if not (node.settled or node.revoked))


def note_check(registry: ports.Registry, name: Name, address: str, answer: Answer) -> Lease | None:
    """Note what a health check of ``name`` at ``address`` got; nothing when it is elsewhere by now."""

    def note(lease: Lease | None) -> Lease | None:
        return lease.checked(answer) if lease and lease.address == address else lease

    return registry.change(name, note)


def _keep_or(lease: Lease, known: Lease | None) -> Lease:
    return known or lease


def _outcome(do: Callable[[C], R], command: C) -> R | DomainError:
    """One item's refusal is its own."""
    try:
        return do(command)
    except DomainError as error:
        return error


def _refusal(command: Register | Deregister) -> DomainError | None:
    try:
        command.check()
    except DomainError as error:
        return error
    return None
