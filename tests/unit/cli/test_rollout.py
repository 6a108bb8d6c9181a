"""A rollout step by step: who is there, who gets how much, and the way back from every step."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from services.cli.delivery.judgement import Limits
from services.cli.delivery.plan import most, steps
from services.cli.delivery.rollout import Order, Rollout
from services.cli.releases import BASE, Release, Releases
from tests.fakes.fleet import FakeFleet, FakeShares

if TYPE_CHECKING:
    from pathlib import Path

NEW = Release("v2")


class Stage:
    """A rollout of two instances of payment to NEW, judged by nothing, and what is told of it."""

    def __init__(self, folder: Path, strategy: str, *, away_from: int = 1_000, calls_min: int = 0) -> None:
        """Prepare."""
        self.fleet, self.shares = FakeFleet(2, BASE), FakeShares(away_from)
        self.path = folder / "releases.json"
        self.events: list[str] = []
        limits = Limits(calls_min=calls_min)
        self.order = Order("payment", strategy, NEW, window_s=0.01, limits=limits, shares=(10,), warm_s=0.0)

    def run(self) -> bool:
        """Roll out; whether it is deployed."""
        rollout = Rollout(self.order, self.fleet, Releases(self.path), self.shares, self._tell)
        return asyncio.run(rollout.run())

    def _tell(self, event: str, _text: str | None, **_fields: object) -> None:
        self.events.append(event)

    @property
    def running(self) -> dict[str, str]:
        """Release by instance."""
        return {each.name: each.release.name for each in self.fleet.of("payment")}


@pytest.mark.parametrize(
    ("strategy", "weights", "names"),
    [
        (
            "rolling",
            [
                {"payment-1": 100, "payment-2": 100},
                {"payment-1": 50, "payment-2": 50, "payment-3": 100},
                {"payment-2": 0, "payment-1": 100, "payment-3": 100},
                {},
            ],
            ["payment-1", "payment-3"],
        ),
        (
            "canary",
            [
                {"payment-1": 100, "payment-2": 100},
                {"payment-1": 90, "payment-2": 90, "payment-3": 20},
                {"payment-1": 0, "payment-2": 0, "payment-3": 200, "payment-4": 200},
                {},
            ],
            ["payment-3", "payment-4"],
        ),
        (
            "blue-green",
            [
                {"payment-1": 100, "payment-2": 100},
                {"payment-1": 200, "payment-2": 200, "payment-3": 0, "payment-4": 0},
                {"payment-1": 0, "payment-2": 0, "payment-3": 200, "payment-4": 200},
                {},
            ],
            ["payment-3", "payment-4"],
        ),
    ],
)
def test_weights_of_a_rollout_step_by_step(
    tmp_path: Path, strategy: str, weights: list[dict[str, int]], names: list[str]
) -> None:
    """New ones wait outside until they are let in; at the end all are alike; never fewer than before, nor more than planned."""
    stage = Stage(tmp_path, strategy)
    assert stage.run()
    assert stage.shares.told == weights
    assert stage.running == dict.fromkeys(names, "v2")
    assert (stage.fleet.least, stage.fleet.most) == (2, most(steps(strategy, 2, (10,))))
    assert (Releases(stage.path).of("payment"), Releases(stage.path).unfinished) == (NEW, frozenset())
    assert stage.events[-1] == "deployed"


@pytest.mark.parametrize("strategy", ["rolling", "canary", "blue-green"])
def test_way_back(tmp_path: Path, strategy: str) -> None:
    """What does not serve, dies, or proves nothing is taken back: the old release is as many as before, and all alike."""
    stages = [Stage(tmp_path / str(number), strategy, calls_min=5 * (number == 2)) for number in range(3)]
    stages[0].fleet.stillborn.add("v2")
    stages[1].fleet.dying.add("v2")
    for stage in stages:
        stage.path.parent.mkdir()
        assert not stage.run()
        assert list(stage.running.values()) == ["base"] * 2
        assert stage.shares.told[-1] == {}
        assert not any(name in stage.shares.told[-2] for name in set(stage.running) - {"payment-1", "payment-2"})
        assert (Releases(stage.path).of("payment"), Releases(stage.path).unfinished) == (BASE, frozenset())
        assert stage.events[-1] == "rolled_back"


@pytest.mark.parametrize("away_from", [1, 2, 3])
def test_way_back_when_config_cannot_be_told(tmp_path: Path, away_from: int) -> None:
    """Whenever it goes away, the old release is what runs; what could not be told is said, and keeps nobody waiting."""
    stage = Stage(tmp_path, "rolling", away_from=away_from)
    assert not stage.run()
    assert list(stage.running.values()) == ["base"] * 2
    assert "trouble" in stage.events
    assert stage.events[-1] == "rolled_back"
