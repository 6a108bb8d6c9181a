"""Timed work: orders whose time is over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.order.usecases import ExpireOrder
from services.platform.telemetry import log

if TYPE_CHECKING:
    from services.kernel.clock import Clock
    from services.order.ports import Store
    from services.platform.batcher import Batcher

AT_ONCE = 200
"""Orders expired in one go: a batch of the Batcher, so that callers wait for one transaction at most."""


class Expiry:
    """Cancels pending orders whose time is over, through the Batcher, where they stand in line with callers."""

    def __init__(self, store: Store, batcher: Batcher, clock: Clock) -> None:
        """Read what is due from ``store``."""
        self._store, self._batcher, self._clock = store, batcher, clock

    def run(self) -> int:
        """Expire all that is due; returns how many were. What a batch could not expire comes again at the next run."""
        expired = 0
        while due := self._store.expired(self._clock.now_ms(), AT_ONCE):
            outcomes = self._batcher.submit_all("expire_orders", [ExpireOrder(order_id) for order_id in due])
            done = sum(outcome is True for outcome in outcomes)
            expired += done
            if not done:
                break
        if expired:
            log.info("orders.expired", orders=expired)
        return expired
