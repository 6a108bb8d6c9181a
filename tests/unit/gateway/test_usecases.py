"""What the gateway answers about the mesh and its routes."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from services.gateway import usecases
from services.gateway.adapters.routes import ContractRoutes
from services.gateway.domain import MeshHealth, ServiceHealth
from services.kernel import pages
from services.kernel.caller import Caller
from services.kernel.errors import DomainError

CALLER = Caller(0, frozenset(), "", deadline=2.0)
GOOD = MeshHealth((ServiceHealth("payment", 2, 2), ServiceHealth("user", 1, 1)))
BAD = MeshHealth((ServiceHealth("payment", 0, 2), ServiceHealth("user", 1, 1)))


@dataclass
class FakeMesh:
    """The port Mesh: answers with what is set, or fails with a reason."""

    answer: MeshHealth | str = GOOD
    asked: list[Caller] = field(default_factory=list)

    def health(self, caller: Caller) -> MeshHealth:
        """Answer or fail."""
        self.asked.append(caller)
        if isinstance(self.answer, str):
            raise DomainError(self.answer)
        return self.answer


@dataclass
class FakeClock:
    """A clock that is set by hand."""

    at: float = 100.0

    def now_ms(self) -> int:
        """Milliseconds of the same time."""
        return int(self.at * 1000)

    def monotonic(self) -> float:
        """The time that was set."""
        return self.at


def test_get_health_is_serving_when_each_service_has_an_instance() -> None:
    """Config's answer is given as it is, and config was asked within the caller's context."""
    mesh = FakeMesh()
    found = usecases.Health(mesh, FakeClock(), 5.0).get_health(CALLER)
    assert found == GOOD
    assert found.serving
    assert mesh.asked == [CALLER]


def test_get_health_is_degraded_when_a_service_has_no_healthy_instance() -> None:
    """Registered instances that do not serve do not count."""
    assert not usecases.Health(FakeMesh(BAD), FakeClock(), 5.0).get_health(CALLER).serving


@pytest.mark.parametrize("reason", ["UNAVAILABLE", "DEADLINE_EXCEEDED", "OVERLOADED"])
def test_get_health_gives_last_answer_when_config_is_silent(reason: str) -> None:
    """An answer of at most 5 s is given again; a moment later nothing is known."""
    mesh, clock = FakeMesh(BAD), FakeClock()
    health = usecases.Health(mesh, clock, 5.0)
    health.get_health(CALLER)
    mesh.answer = reason
    clock.at += 5.0
    assert health.get_health(CALLER) == BAD
    clock.at += 0.001
    with pytest.raises(DomainError) as refused:
        health.get_health(CALLER)
    assert refused.value.reason == "UNAVAILABLE"


def test_get_health_asks_again_when_config_is_back() -> None:
    """The older answer is a stopgap, never preferred to a new one."""
    mesh, clock = FakeMesh(GOOD), FakeClock()
    health = usecases.Health(mesh, clock, 5.0)
    health.get_health(CALLER)
    mesh.answer = BAD
    assert health.get_health(CALLER) == BAD


@pytest.mark.parametrize("answer", ["UNAVAILABLE", MeshHealth(())])
def test_get_health_is_unavailable_when_nothing_is_known(answer: MeshHealth | str) -> None:
    """No answer ever, or one without services: whoever asks must take the mesh for down."""
    with pytest.raises(DomainError) as refused:
        usecases.Health(FakeMesh(answer), FakeClock(), 5.0).get_health(CALLER)
    assert refused.value.reason == "UNAVAILABLE"


@pytest.mark.parametrize("size", [1, 7, 20, 100])
def test_list_routes_gives_each_method_once_when_pages_are_followed(size: int) -> None:
    """Following the tokens gives every method of the contract once, by full name, and then ends."""
    routes, token, seen = ContractRoutes(), "", list[str]()
    while True:
        found, token = usecases.list_routes(routes, pages.page(size, token))
        assert len(found) <= size
        seen += [route.method for route in found]
        if not token:
            break
    assert seen == [route.method for route in routes.all()]
    assert seen == sorted(set(seen))


def test_list_routes_refuses_token_when_it_gave_none_such() -> None:
    """A token that is no token is a refusal, not an empty page."""
    with pytest.raises(DomainError) as refused:
        usecases.list_routes(ContractRoutes(), pages.page(20, "§"))
    assert refused.value.reason == "PAGE_TOKEN_INVALID"
