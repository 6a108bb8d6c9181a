"""Entries and instances, over ports in memory."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from services.config.adapters.registry import LeaseRegistry
from services.config.domain import (
    LEASE_S,
    REVOKED,
    Answer,
    Authority,
    Deregister,
    Entry,
    Health,
    Name,
    NodeState,
    Phase,
    Register,
    RotateAuthority,
    SetConfig,
    own,
)
from services.config.usecases import Configuration, Discovery, Trust, note_check
from services.kernel import pages
from services.kernel.errors import DomainError
from tests.fakes.config import (
    FakeAuthorities,
    FakeCache,
    FakeCertificates,
    FakeChecks,
    FakeClock,
    FakeMesh,
    FakeNodes,
    FakeStore,
)

P1, P2 = Name("payment", "payment-1"), Name("payment", "payment-2")


@dataclass
class Room:
    """The use cases and everything around them."""

    store: FakeStore = field(default_factory=FakeStore)
    cache: FakeCache = field(default_factory=FakeCache)
    clock: FakeClock = field(default_factory=FakeClock)
    mesh: FakeMesh = field(default_factory=FakeMesh)
    checks: FakeChecks = field(default_factory=FakeChecks)
    committed: list[bool] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.registry = LeaseRegistry(self.mesh, self.clock)
        self.configuration = Configuration(
            self.store, self.cache, self.clock, lambda: self.committed.append(True), self.mesh, {"payment", "config"}
        )
        self.discovery = Discovery(self.store, self.registry, self.checks, self.clock, ("payment", "order", "config"))

    def register(self, *names: Name, caller: str = "payment", address: str = "h:1") -> list[object]:
        """Register instances."""
        return list(self.discovery.register_instances([Register(name, address, caller, "m") for name in names]))

    def check(self, name: Name, answer: Answer, address: str = "h:1") -> None:
        """Note a health check."""
        note_check(self.registry, name, address, answer)


@pytest.fixture
def room() -> Room:
    """A new room."""
    return Room()


def test_entries_of_a_batch_are_set_in_order_and_fail_alone(room: Room) -> None:
    """Two changes of one key are two versions; a conflict between them refuses itself, not its neighbours."""
    outcomes = room.configuration.set_configs(
        [
            SetConfig("a.b", "1", 0, 7),
            SetConfig("a.b", "x", 9, 7),
            SetConfig("a.b", "2", 1, 7),
            SetConfig("c.d", "1", 0, 7),
        ]
    )
    assert [o.version if isinstance(o, Entry) else str(o) for o in outcomes] == [
        1,
        "CONFIG_VERSION_CONFLICT key=a.b version=1",
        2,
        1,
    ]
    assert [(e.key, e.version) for e in room.store.rows.history] == [("a.b", 1), ("a.b", 2), ("c.d", 1)]
    assert room.store.rows.entries["a.b"].value == "2"
    assert room.committed == [True]


def test_equal_value_changes_nothing(room: Room) -> None:
    """No version, no history, no event, nothing to publish."""
    room.configuration.set_configs([SetConfig("a.b", "1", 0, 7)])
    (again,) = room.configuration.set_configs([SetConfig("a.b", "1", 0, 8)])
    assert isinstance(again, Entry)
    assert (again.version, again.updated_by) == (1, 7)
    assert len(room.store.rows.history) == 1
    assert room.committed == [True]


def test_entry_is_read_from_the_cache_which_may_lose_it(room: Room) -> None:
    """What the cache lost comes from the store and is at hand again; what nobody has is CONFIG_NOT_FOUND."""
    room.configuration.set_configs([SetConfig("a.b", "1", 0, 7)])
    assert room.cache.held["a.b"].value == "1"
    room.cache.held.clear()
    assert room.configuration.get_config("a.b").value == "1"
    assert "a.b" in room.cache.held
    with pytest.raises(DomainError, match="CONFIG_NOT_FOUND"):
        room.configuration.get_config("no.such")


def test_entries_are_listed_by_page(room: Room) -> None:
    """By key, with a prefix, each once over all pages."""
    room.configuration.set_configs([SetConfig(f"a.k{n}", "1", 0, 7) for n in range(5)] + [SetConfig("b.k", "1", 0, 7)])
    seen, token = list[str](), ""
    for _ in range(3):
        found, token = room.configuration.list_configs("a.", pages.page(2, token))
        seen += [entry.key for entry in found]
    assert seen == [f"a.k{n}" for n in range(5)]
    assert not token


def test_instance_gets_calls_from_its_first_passed_check(room: Room) -> None:
    """Registered, hurriedly checked, shown to the Envoys; unhealthy, it is shown no more."""
    room.register(P1, P2)
    assert room.mesh.endpoints == {}
    assert room.checks.hurried == 2
    room.check(P1, Answer.SERVES)
    assert room.mesh.endpoints == {"payment": ["payment-1"]}
    room.check(P1, Answer.REFUSES)
    room.check(P1, Answer.REFUSES)
    assert room.mesh.endpoints == {}


def test_renewal_writes_nothing(room: Room) -> None:
    """Only what is new or has moved is kept in the database."""
    room.register(P1)
    room.check(P1, Answer.SERVES)
    writes = room.store.writes
    room.register(P1)
    assert room.store.writes == writes
    room.register(P1, address="h:2")
    assert room.store.rows.instances == {P1: "h:2"}
    assert room.mesh.endpoints == {}


def test_check_of_an_address_that_was_left_is_ignored(room: Room) -> None:
    """A slow answer about the old address says nothing about the new one."""
    room.register(P1)
    room.register(P1, address="h:2")
    room.check(P1, Answer.SERVES, address="h:1")
    assert room.mesh.endpoints == {}


def test_other_service_can_neither_register_nor_take_out(room: Room) -> None:
    """Refused by name, and nothing is kept."""
    (refused,) = room.register(P1, caller="order")
    assert isinstance(refused, DomainError)
    assert refused.reason == "CALLER_NOT_ALLOWED"
    assert not room.store.rows.instances
    room.register(P1)
    (refused,) = room.discovery.deregister_instances([Deregister(P1, "order", "m")])
    assert isinstance(refused, DomainError)
    assert room.registry.all()[0].health is not Health.DRAINING


def test_instance_taken_out_leaves_at_once_and_is_forgotten_later(room: Room) -> None:
    """Draining is listed, then gone; one that is not known is LEASE_NOT_FOUND."""
    room.register(P1)
    room.check(P1, Answer.SERVES)
    room.discovery.deregister_instances([Deregister(P1, "payment", "m")])
    assert room.mesh.endpoints == {}
    assert not room.store.rows.instances
    assert [lease.health for lease in room.registry.all()] == [Health.DRAINING]
    room.clock.seconds += 60
    assert room.discovery.expired() == [P1]
    room.discovery.expire_leases([P1])
    (refused,) = room.discovery.deregister_instances([Deregister(P1, "payment", "m")])
    assert isinstance(refused, DomainError)
    assert refused.reason == "LEASE_NOT_FOUND"


def test_lease_that_was_renewed_meanwhile_does_not_end(room: Room) -> None:
    """Found ended, renewed before its turn came: it stays."""
    room.register(P1, P2)
    room.clock.seconds += LEASE_S
    ended = room.discovery.expired()
    room.register(P1)
    room.discovery.expire_leases(ended)
    assert [lease.name for lease in room.registry.all()] == [P1]
    assert room.store.rows.instances == {P1: "h:1"}


def test_restart_does_not_empty_the_mesh(room: Room) -> None:
    """A new config knows the instances again, and its own; those that do not renew are forgotten after a lease."""
    room.register(P1)
    restarted = Room(store=room.store)
    restarted.discovery.recover(own(Name("config", "config-1"), "h:9"))
    assert restarted.mesh.endpoints == {"config": ["config-1"], "payment": ["payment-1"]}
    restarted.clock.seconds += LEASE_S
    restarted.discovery.expire_leases(restarted.discovery.expired())
    assert restarted.mesh.endpoints == {"config": ["config-1"]}
    assert not restarted.store.rows.instances


def test_mesh_health_counts_each_service_of_the_contract(room: Room) -> None:
    """Healthy of registered; a service without instances is there with zeros."""
    room.register(P1, P2)
    room.check(P1, Answer.SERVES)
    found = {h.service: (h.healthy, h.registered) for h in room.discovery.get_mesh_health()}
    assert found == {"payment": (1, 2), "order": (0, 0), "config": (0, 0)}


def test_instances_are_listed_by_page(room: Room) -> None:
    """By service and name, narrowed to one service if asked; a foreign token is refused."""
    room.register(P1, P2)
    room.register(Name("order", "order-1"), caller="order")
    seen, token = list[str](), ""
    for _ in range(3):
        found, token = room.discovery.list_instances("", pages.page(1, token))
        seen += [lease.name.instance for lease in found]
    assert seen == ["order-1", "payment-1", "payment-2"]
    only, _ = room.discovery.list_instances("payment", pages.page(10, ""))
    assert [lease.name for lease in only] == [P1, P2]
    with pytest.raises(DomainError, match="PAGE_TOKEN_INVALID"):
        room.discovery.list_instances("", pages.Page(1, "nonsense"))


def test_rollout_is_shown_to_the_mesh_when_it_is_set_and_after_a_restart(room: Room) -> None:
    """The entry decides how calls are shared, for whoever comes back too; other entries share nothing."""
    entry = SetConfig("mesh.rollout.payment", '{"weights": {"payment-1": 9, "payment-3": 1}, "to": "v2"}', 0, 7)
    room.configuration.set_configs([SetConfig("mesh.rollouts", "many", 0, 7), entry])
    assert room.mesh.weights == {"payment": {"payment-1": 9, "payment-3": 1}}
    room.mesh.weights.clear()
    room.store.rows.entries["mesh.rollout.order"] = Entry("mesh.rollout.order", "unread", 1, 7, 0)
    room.configuration.recover()
    assert room.mesh.weights == {"payment": {"payment-1": 9, "payment-3": 1}}


def test_rollout_that_cannot_be_read_is_refused_and_changes_nothing(room: Room) -> None:
    """What would poison the mesh is not stored: the weights before it hold."""
    room.configuration.set_configs([SetConfig("mesh.rollout.payment", '{"weights": {"payment-1": 1}}', 0, 7)])
    for poison in ("", "[]", "{}", '{"weights": {"payment-1": -1}}', '{"weights": {"payment-1": true}}'):
        (refused,) = room.configuration.set_configs([SetConfig("mesh.rollout.payment", poison, 0, 7)])
        assert isinstance(refused, DomainError)
        assert refused.reason == "INVALID_ARGUMENT"
    assert room.mesh.weights == {"payment": {"payment-1": 1}}
    assert room.configuration.get_config("mesh.rollout.payment").version == 1


def test_who_is_shut_out_is_shown_to_the_mesh_and_again_after_a_restart(room: Room) -> None:
    """The last of a batch counts; other entries tell the mesh nothing."""
    commands = [SetConfig(REVOKED, "payment-2", 0, 7), SetConfig(REVOKED, "payment-2 payment", 0, 7)]
    room.configuration.set_configs([*commands, SetConfig("a.b", "payment", 0, 7)])
    room.configuration.recover()
    assert room.mesh.revoked == [{"payment-2", "payment"}] * 2
    room.configuration.set_configs([SetConfig(REVOKED, "", 0, 7)])
    assert room.mesh.revoked[-1] == frozenset()


@pytest.mark.parametrize("value", ["nobody", "payment-x", "payment_1", "config", "config-1", "payment-1 " * 101])
def test_nobody_is_shut_out_by_a_name_that_is_none_or_is_config(room: Room, value: str) -> None:
    """A slip of the pen is refused: who wrote it would believe that somebody is shut out."""
    (refused,) = room.configuration.set_configs([SetConfig(REVOKED, value, 0, 7)])
    assert isinstance(refused, DomainError)
    assert refused.reason == "CONFIG_VALUE_INVALID"
    assert room.mesh.revoked == []


def _node(number: int, *, settled: bool = True, revoked: bool = False) -> NodeState:
    return NodeState(f"payment-{number}", connected=True, settled=settled, refusals={}, revoked=revoked)


def test_change_of_ca_waits_at_every_step_for_every_envoy() -> None:
    """Refused with the names of those that lack something, taken once they do not; a repeat changes nothing."""
    nodes, mesh = FakeNodes(_node(1), _node(2, settled=False), _node(3, settled=False, revoked=True)), FakeMesh()
    trust = Trust(FakeAuthorities(), FakeCertificates(), nodes, mesh)
    for count, phase in enumerate((Phase.TRUSTING_BOTH, Phase.ISSUING_NEW, Phase.STABLE), 1):
        nodes.nodes[1] = _node(2, settled=False)
        (refused,) = trust.rotate_authorities([RotateAuthority(phase)])
        assert isinstance(refused, DomainError)
        assert (refused.reason, refused.metadata) == ("MESH_NOT_SETTLED", {"nodes": "payment-2"})
        nodes.nodes[1] = _node(2)
        taken, repeated = trust.rotate_authorities([RotateAuthority(phase)] * 2)
        assert isinstance(taken, Authority)
        assert taken == repeated
        assert taken.phase is phase
        assert mesh.identities == count


def test_step_that_does_not_follow_is_refused() -> None:
    """Nothing is skipped: what is not trusted everywhere yet may not sign."""
    trust = Trust(FakeAuthorities(), FakeCertificates(), FakeNodes(), FakeMesh())
    (refused,) = trust.rotate_authorities([RotateAuthority(Phase.ISSUING_NEW)])
    assert isinstance(refused, DomainError)
    assert refused.reason == "AUTHORITY_PHASE_CONFLICT"
    (elsewhere,) = Trust(None, FakeCertificates(), FakeNodes(), FakeMesh()).rotate_authorities(
        [RotateAuthority(Phase.TRUSTING_BOTH)]
    )
    assert isinstance(elsewhere, DomainError)
    assert elsewhere.reason == "UNAVAILABLE"


def test_nodes_are_listed_in_pages() -> None:
    """By id, each page after the one before."""
    trust = Trust(FakeAuthorities(), FakeCertificates(), FakeNodes(*map(_node, (1, 2, 3))), FakeMesh())
    first, token = trust.list_nodes(pages.page(2, ""))
    rest, end = trust.list_nodes(pages.page(2, token))
    assert [node.id for node in (*first, *rest)] == ["payment-1", "payment-2", "payment-3"]
    assert end == ""


def test_newer_entries_are_those_that_the_caller_does_not_have(room: Room) -> None:
    """By version, from the cache or the store; one that is not there is no news."""
    room.configuration.set_configs([SetConfig("a.b", "1", 0, 7), SetConfig("a.b", "2", 0, 7)])
    assert [e.value for e in room.configuration.newer({"a.b": 1, "c.d": 0})] == ["2"]
    room.cache.held.clear()
    assert [e.version for e in room.configuration.newer({"a.b": 0})] == [2]
    assert room.configuration.newer({"a.b": 2}) == []


@pytest.mark.parametrize("key", ["log.level", "log.level.payment"])
def test_log_level_is_one_that_there_is(room: Room, key: str) -> None:
    """Every service would have to make something of another word."""
    good, bad = room.configuration.set_configs([SetConfig(key, "debug", 0, 7), SetConfig(key, "loud", 0, 7)])
    assert isinstance(good, Entry)
    assert isinstance(bad, DomainError)
    assert bad.reason == "CONFIG_VALUE_INVALID"
