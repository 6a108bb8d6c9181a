"""The log level that a process follows."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
import structlog

from services.platform import telemetry
from services.platform.follow import LogLevel

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def level() -> Iterator[None]:
    """Begin at info, and leave it so."""
    telemetry.set_level("info")
    yield
    telemetry.set_level("info")


def test_a_services_own_level_goes_before_that_of_all() -> None:
    """In whatever order they come, and whatever came before."""
    follower = LogLevel("payment")
    assert follower.known == {"log.level.payment": 0, "log.level": 0}
    follower.take("log.level", "error", 3)
    assert telemetry.LEVEL.lowest == logging.ERROR
    follower.take("log.level.payment", "debug", 1)
    assert telemetry.LEVEL.lowest == logging.DEBUG
    follower.take("log.level", "warning", 4)
    assert telemetry.LEVEL.lowest == logging.DEBUG
    assert follower.known == {"log.level.payment": 1, "log.level": 4}


@pytest.mark.parametrize(("lowest", "dropped"), [("debug", 0), ("info", 1), ("warning", 2), ("error", 3)])
def test_what_is_lower_than_the_level_is_not_logged(lowest: str, dropped: int) -> None:
    """Also of a logger that logged before the level changed."""
    telemetry.set_level(lowest)
    kept = 0
    for name in ("debug", "info", "warning", "error"):
        try:
            telemetry.LEVEL.drop_lower(None, name, {"level": name})
        except structlog.DropEvent:
            continue
        kept += 1
    assert kept == 4 - dropped


def test_word_that_is_no_level_changes_nothing() -> None:
    """Config refuses it; should it come nevertheless, the process logs as before."""
    assert not telemetry.set_level("loud")
    assert telemetry.LEVEL.lowest == logging.INFO
