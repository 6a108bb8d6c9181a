"""How many runs: `tox -e simulation -- --seeds 5000`, from another one on with `--first-seed`."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seeds", type=int, default=300, help="runs of the simulation")
    parser.addoption("--first-seed", type=int, default=0, help="seed of its first run")


@pytest.fixture
def seeds(request: pytest.FixtureRequest) -> range:
    """The seeds to run; the options are unknown where pytest was started above this folder."""
    first = int(request.config.getoption("--first-seed", 0))
    return range(first, first + int(request.config.getoption("--seeds", 300)))
