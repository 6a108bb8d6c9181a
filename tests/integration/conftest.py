"""Databases of each engine, and processes that meet in them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.engines import ENGINES, Engines
from tests.integration.processes import Processes, start_processes


@pytest.fixture(scope="session")
def engines() -> Iterator[Engines]:
    """Servers that live as long as the test run."""
    made = Engines()
    yield made
    made.stop()
    assert not made.folder.exists()


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """The name of each engine in turn."""
    return str(request.param)


@pytest.fixture(scope="session")
def processes() -> Iterator[Processes]:
    """Two processes that live as long as the test run."""
    with start_processes() as made:
        yield made
