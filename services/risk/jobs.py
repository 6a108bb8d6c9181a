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
REFILL_S = 0.5
"""How often it is asked whether the velocity series were lost; until they are back each batch puts its own back."""
FORGET_S = 60.0


class Rules:
    """Part of the App: rules are in force before the first call, and newer ones within ``refresh_s``."""

    def __init__(self, ports: Ports, rules: usecases.RulesInForce, refresh_s: float) -> None:
        """Keep ``rules`` new."""
        self._refresh = partial(rules.refresh, ports)
        self._jobs = (
            Every(refresh_s, self._refresh, "refresh-rules"),
            Every(CACHE_S, partial(usecases.keep_cache, ports, rules), "keep-rule-cache"),
            Every(REFILL_S, partial(usecases.refill_series, ports, rules), "refill-series"),
            Every(FORGET_S, partial(usecases.forget_payments, ports, rules), "forget-payments"),
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
