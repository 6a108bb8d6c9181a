"""Timed work of the risk service."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from services.platform.jobs import Every
from services.risk import usecases

if TYPE_CHECKING:
    from services.risk.ports import Ports

CACHE_S = 5.0
"""How often the copies in Redis are looked after."""


class Rules:
    """Part of the App: rules are in force before the first call, and newer ones within ``refresh_s``."""

    def __init__(self, ports: Ports, rules: usecases.RulesInForce, refresh_s: float) -> None:
        """Keep ``rules`` new."""
        self._refresh = partial(rules.refresh, ports)
        self._jobs = (
            Every(refresh_s, self._refresh, "refresh-rules"),
            Every(CACHE_S, partial(usecases.keep_cache, ports, rules), "keep-rule-cache"),
        )

    def start(self) -> None:
        """Load the rules, or fail: a service without its rules must not say that it is ready."""
        self._refresh()
        for job in self._jobs:
            job.start()

    def stop(self) -> None:
        """End the jobs."""
        for job in reversed(self._jobs):
            job.stop()
