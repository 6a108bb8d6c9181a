"""The config room's ports in memory; the store passes the suite of the real one (tests/integration/test_config_store.py)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from services.config.domain import Answer, Endpoint, Entry, Name, NodeState, Phase
from services.config.ports import Transaction
from services.kernel.errors import DomainError
from services.kernel.pages import Page


class FakeClock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        """Start somewhere."""
        self.seconds = 1_000.0

    def now_ms(self) -> int:
        """Milliseconds since 1970 UTC."""
        return 1_800_000_000_000 + int(self.seconds * 1000)

    def monotonic(self) -> float:
        """Seconds."""
        return self.seconds


@dataclass
class Rows:
    """What a database would hold."""

    entries: dict[str, Entry] = field(default_factory=dict)
    history: list[Entry] = field(default_factory=list)
    instances: dict[Name, str] = field(default_factory=dict)


class _FakeTransaction:
    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._steps: list[Callable[[], object]] = []

    def entries(self, keys: Iterable[str]) -> dict[str, Entry]:
        return {key: self._rows.entries[key] for key in keys if key in self._rows.entries}

    def save_entries(self, changes: Sequence[Entry]) -> None:
        self._steps.append(lambda: self._rows.entries.update({entry.key: entry for entry in changes}))
        self._steps.append(lambda: self._rows.history.extend(changes))

    def instances(self) -> dict[Name, str]:
        return dict(self._rows.instances)

    def keep_instances(self, addresses: Mapping[Name, str]) -> None:
        self._steps.append(lambda: self._rows.instances.update(addresses))

    def forget_instances(self, names: Iterable[Name]) -> None:
        gone = list(names)
        self._steps.append(lambda: [self._rows.instances.pop(name, None) for name in gone])

    def commit(self) -> None:
        for step in self._steps:
            step()
        self._steps.clear()


class FakeStore:
    """The port Store."""

    def __init__(self) -> None:
        """Begin empty."""
        self.rows = Rows()
        self.writes = 0

    @contextlib.contextmanager
    def write(self) -> Iterator[Transaction]:
        """Begin a change; what is not committed is not there."""
        self.writes += 1
        yield _FakeTransaction(self.rows)

    def entry(self, key: str) -> Entry | None:
        """Read an entry."""
        return self.rows.entries.get(key)

    def list_entries(self, prefix: str, page: Page) -> Sequence[Entry]:
        """Read ``page.limit`` entries by key after ``page.after``."""
        found = sorted(k for k in self.rows.entries if k.startswith(prefix) and k > page.after)
        return [self.rows.entries[key] for key in found[: page.limit]]


class FakeCache:
    """The port EntryCache."""

    def __init__(self) -> None:
        """Begin empty."""
        self.held: dict[str, Entry] = {}
        self.asked = 0

    def get(self, key: str) -> Entry | None:
        """Return an entry."""
        self.asked += 1
        return self.held.get(key)

    def put(self, entries: Iterable[Entry]) -> None:
        """Remember entries, unless newer versions are known."""
        for entry in entries:
            if self.held.get(entry.key, entry).version <= entry.version:
                self.held[entry.key] = entry


class FakeMesh:
    """The port Mesh: remembers what it was shown."""

    def __init__(self) -> None:
        """Begin with nothing shown."""
        self.endpoints: dict[str, list[str]] = {}
        self.weights: dict[str, dict[str, int]] = {}
        self.keys: list[str] = []
        self.api_keys: list[tuple[str, frozenset[str]]] = []
        self.identities = 0
        self.revoked: list[frozenset[str]] = []

    def show_endpoints(self, endpoints: Mapping[str, Sequence[Endpoint]]) -> None:
        """Remember the instances that get calls."""
        self.endpoints = {service: [e.instance for e in found] for service, found in endpoints.items()}

    def show_weights(self, service: str, weights: Mapping[str, int]) -> None:
        """Remember."""
        self.weights[service] = dict(weights)

    def show_keys(self, jwks: str) -> None:
        """Remember."""
        self.keys.append(jwks)

    def show_api_keys(self, jwks: str, revoked: Collection[str]) -> None:
        """Remember."""
        self.api_keys.append((jwks, frozenset(revoked)))

    def show_identities(self) -> None:
        """Count."""
        self.identities += 1

    def show_revoked(self, names: frozenset[str]) -> None:
        """Remember."""
        self.revoked.append(names)


class FakeNodes:
    """The port Nodes: says of each Envoy what a test sets."""

    def __init__(self, *nodes: NodeState) -> None:
        """Have these."""
        self.nodes = list(nodes)

    def states(self) -> Sequence[NodeState]:
        """Return them by id."""
        return sorted(self.nodes, key=lambda node: node.id)


class FakeAuthorities:
    """The port Authorities: CAs that are names."""

    def __init__(self) -> None:
        """One CA."""
        self.phase = Phase.STABLE

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """Return the name of the CA that signs, then the other that is trusted."""
        named = {Phase.STABLE: ("a",), Phase.TRUSTING_BOTH: ("a", "b"), Phase.ISSUING_NEW: ("b", "a")}
        return named[self.phase]

    def advance(self) -> None:
        """Take the next step."""
        self.phase = self.phase.following


class FakeCertificates:
    """The port Certificates: nobody has one."""

    def renew(self) -> bool:
        """Nothing to renew."""
        return False

    def ends_ms(self, node_id: str) -> int:
        """Return that there is none."""
        del node_id
        return 0


class FakeProbe:
    """The port HealthProbe: answers for each address what a test wants."""

    def __init__(self) -> None:
        """Everybody serves."""
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []

    async def ask(self, name: Name, address: str) -> Answer:
        """Answer what was set for ``address``."""
        self.asked.append(name.instance)
        return self.answers.get(address, Answer.SERVES)

    async def forget_all_but(self, present: Collection[str]) -> None:
        """Nothing is kept."""


class FakeChecks:
    """The port HealthChecks: counts how often it was hurried."""

    def __init__(self) -> None:
        """Begin."""
        self.hurried = 0

    def soon(self) -> None:
        """Count."""
        self.hurried += 1


class FakeKeys:
    """The ports TokenKeys and ApiKeyTrust."""

    def __init__(self) -> None:
        """Nobody answers yet."""
        self.answer = ""

    def jwks(self) -> str:
        """Return what was set. Raises UNAVAILABLE before."""
        if not self.answer:
            raise DomainError("UNAVAILABLE")
        return self.answer

    def api_keys(self) -> tuple[str, frozenset[str]]:
        """Return what was set, with the key 7 revoked. Raises UNAVAILABLE before."""
        return self.jwks(), frozenset({"7"})
