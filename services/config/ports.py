"""What config's use cases need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from services.config.domain import Answer, Endpoint, Entry, Lease, Name, NodeState, Phase
    from services.kernel.pages import Page


class Transaction(Protocol):
    """One durable change; rolls back unless committed."""

    def entries(self, keys: Iterable[str]) -> dict[str, Entry]:
        """Read entries and hold them until the end."""
        ...

    def save_entries(self, changes: Sequence[Entry]) -> None:
        """Write every version in order: the last one is the entry, each is in the history and published."""
        ...

    def instances(self) -> dict[Name, str]:
        """Read the mesh address of each instance that is kept."""
        ...

    def keep_instances(self, addresses: Mapping[Name, str]) -> None:
        """Keep instances across restarts of config."""
        ...

    def forget_instances(self, names: Iterable[Name]) -> None:
        """Keep them no longer."""
        ...

    def commit(self) -> None:
        """Make it durable."""
        ...


class Store(Protocol):
    """Where entries and instances are kept."""

    def write(self) -> AbstractContextManager[Transaction]:
        """Begin a change."""
        ...

    def entry(self, key: str) -> Entry | None:
        """Read an entry."""
        ...

    def list_entries(self, prefix: str, page: Page) -> Sequence[Entry]:
        """Read ``page.limit`` entries by key after ``page.after``."""
        ...


class EntryCache(Protocol):
    """Entries at hand. It may lose any of them, and never gives an older version than the newest it was told."""

    def get(self, key: str) -> Entry | None:
        """Return an entry; None: ask the store."""
        ...

    def put(self, entries: Iterable[Entry]) -> None:
        """Remember entries for 24 hours, unless newer versions are known."""
        ...


class Registry(Protocol):
    """The leases, in memory. Every change is shown to the mesh before ``change`` returns."""

    def all(self) -> Sequence[Lease]:
        """Return every lease, by name."""
        ...

    def change(self, name: Name, to: Callable[[Lease | None], Lease | None]) -> Lease | None:
        """Replace the lease of ``name`` (None: there is none) by what ``to`` makes of it (None: forget it)."""
        ...


class Mesh(Protocol):
    """The Envoys."""

    def show_endpoints(self, endpoints: Mapping[str, Sequence[Endpoint]]) -> None:
        """Route calls to these endpoints, by service, and to no others."""
        ...

    def show_weights(self, service: str, weights: Mapping[str, int]) -> None:
        """Share the calls of a service by these weights of instances; none: all are alike."""
        ...

    def show_keys(self, jwks: str) -> None:
        """Verify access tokens with these keys (a JWKS as JSON)."""
        ...

    def show_api_keys(self, jwks: str, revoked: Collection[str]) -> None:
        """Take API keys that these keys verify, but for those with the ids ``revoked``."""
        ...

    def show_identities(self) -> None:
        """Serve certificates that were renewed."""
        ...

    def show_revoked(self, names: frozenset[str]) -> None:
        """Shut out services, and instances by their node id: nobody takes their calls, nobody calls them."""
        ...


class Nodes(Protocol):
    """The Envoys, as they are served."""

    def states(self) -> Sequence[NodeState]:
        """Return every Envoy that may join, by id."""
        ...


class Authorities(Protocol):
    """The CA, and its change to a new one. What was begun survives a kill."""

    @property
    def phase(self) -> Phase:
        """How far a change is."""
        ...

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """SHA-256 of each CA that is trusted; the one that signs first."""
        ...

    def advance(self) -> None:
        """Take the next step, and issue and trust by it."""
        ...


class HealthProbe(Protocol):
    """Asks an instance how it is."""

    async def ask(self, name: Name, address: str) -> Answer:
        """Ask the instance at ``address``, which must prove to be of the service, for at most a second."""
        ...

    async def forget_all_but(self, present: Collection[str]) -> None:
        """Let go of what is kept for addresses that are not in ``present``."""
        ...


class HealthChecks(Protocol):
    """Who checks the instances."""

    def soon(self) -> None:
        """Check at once who was never checked. Callable from any thread."""
        ...


class TokenKeys(Protocol):
    """Who issues access tokens."""

    def jwks(self) -> str:
        """Return the keys as a JWKS in JSON. Raises DomainError when there is no answer."""
        ...


class ApiKeyTrust(Protocol):
    """Who issues API keys."""

    def api_keys(self) -> tuple[str, frozenset[str]]:
        """Return what verifies them, as a JWKS in JSON, and the ids of those that are revoked.

        Raises DomainError when there is no answer.
        """
        ...


class Certificates(Protocol):
    """The leaf certificates that were issued."""

    def renew(self) -> bool:
        """Forget those past half of their life; whether there were any."""
        ...

    def ends_ms(self, node_id: str) -> int:
        """When the certificate of an Envoy ends, in milliseconds since 1970 UTC; 0: it has none."""
        ...
