"""Health checks at their pace, the keys of tokens, certificates."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from services.config import jobs
from services.config.adapters.registry import LeaseRegistry
from services.config.domain import CHECK_S, Answer, Name, granted, own
from tests.fakes.config import FakeClock, FakeKeys, FakeMesh, FakeProbe

P1 = Name("payment", "payment-1")


class Checked:
    """Running health checks over a registry."""

    def __init__(self) -> None:
        self.clock, self.mesh, self.probe = FakeClock(), FakeMesh(), FakeProbe()
        self.registry = LeaseRegistry(self.mesh, self.clock)
        self.checks = jobs.HealthChecks(self.registry, self.probe, self.clock)

    def add(self, name: Name, address: str) -> None:
        """Register an instance."""
        self.registry.change(name, lambda _: granted(name, address, self.clock.monotonic()))
        self.checks.soon()

    async def pass_s(self, seconds: float) -> None:
        """Let time pass and the checks that are due then happen."""
        self.clock.seconds += seconds
        self.checks.soon()
        for _ in range(10):
            await asyncio.sleep(0)


async def _until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(2):
        while not what():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0)


@pytest.fixture
async def checked() -> AsyncIterator[Checked]:
    """Health checks that run."""
    checked = Checked()
    await checked.checks.start()
    yield checked
    await checked.checks.stop()


async def test_new_instance_is_checked_at_once(checked: Checked) -> None:
    """It is routed to without waiting for a round; config's own is never asked."""
    checked.registry.change(Name("config", "config-1"), lambda _: own(Name("config", "config-1"), "h:9"))
    checked.add(P1, "h:1")
    await _until(lambda: checked.mesh.endpoints.get("payment") == ["payment-1"])
    assert checked.probe.asked == ["payment-1"]


async def test_instance_that_fails_twice_gets_no_calls_until_it_is_back(checked: Checked) -> None:
    """Two failures a quarter of a second apart; one success brings it back."""
    checked.add(P1, "h:1")
    await _until(lambda: "payment" in checked.mesh.endpoints)
    checked.probe.answers["h:1"] = Answer.REFUSES
    await checked.pass_s(CHECK_S)
    assert checked.mesh.endpoints == {"payment": ["payment-1"]}
    await checked.pass_s(0.3)
    assert checked.mesh.endpoints == {}
    checked.probe.answers.clear()
    await checked.pass_s(0.3)
    assert checked.mesh.endpoints == {"payment": ["payment-1"]}


async def test_healthy_instance_is_not_asked_before_its_time(checked: Checked) -> None:
    """Being woken for another one is no reason."""
    checked.add(P1, "h:1")
    await _until(lambda: "payment" in checked.mesh.endpoints)
    await checked.pass_s(CHECK_S / 2)
    assert checked.probe.asked == ["payment-1"]
    await checked.pass_s(CHECK_S / 2)
    assert checked.probe.asked == ["payment-1", "payment-1"]


def test_keys_are_asked_for_until_they_are_known_then_every_minute() -> None:
    """Unavailable changes nothing; once known they are read again after 60 s, and what cannot be read stays."""
    keys, mesh, clock = FakeKeys(), FakeMesh(), FakeClock()
    job = jobs.TokenKeysRefresh(keys, mesh, clock)
    job.refresh()
    assert mesh.keys == []
    keys.answer = "k1"
    job.refresh()
    job.refresh()
    assert mesh.keys == ["k1"]
    keys.answer = "k2"
    clock.seconds += 59
    job.refresh()
    assert mesh.keys == ["k1"]
    clock.seconds += 1
    job.refresh()
    assert mesh.keys == ["k1", "k2"]
    keys.answer = ""
    clock.seconds += 60
    job.refresh()
    assert mesh.keys == ["k1", "k2"]


def test_api_keys_are_read_each_time_and_kept_while_nobody_answers() -> None:
    """What was known stays; whoever starts anew waits for it a while, and then serves the edge without any."""
    keys, mesh, clock = FakeKeys(), FakeMesh(), FakeClock()
    job = jobs.ApiKeysRefresh(keys, mesh, clock)
    job.refresh()
    assert mesh.api_keys == []
    clock.seconds += jobs.API_KEYS_WAIT_S
    job.refresh()
    job.refresh()
    assert mesh.api_keys == [('{"keys":[]}', frozenset())], "said once: it would undo what comes later"
    keys.answer = "k1"
    job.refresh()
    keys.answer = ""
    job.refresh()
    assert mesh.api_keys[1:] == [("k1", frozenset({"7"}))]
