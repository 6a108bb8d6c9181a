"""Kill points that use cases reach: named once for each method of a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.payment import states

if TYPE_CHECKING:
    from collections.abc import Iterable

    from services.payment.domain import Attempt, Payment
    from services.payment.ports import Change, Ports


def reach(ports: Ports, point: str, things: Iterable[Payment | Attempt]) -> None:
    """Say that a kill point is reached, once for each method among ``things``."""
    for method in dict.fromkeys(thing.method for thing in things):
        ports.reach(point, method)


def reach_moved(ports: Ports, change: Change) -> None:
    """Say that success, and a refund that was done, are committed with their ledger entries and events."""
    reach(ports, "P10", [moved.payment for moved in change.moved if moved.step.status == states.SUCCESS])
    reach(ports, "P18", [moved.payment for moved in change.moved if moved.refund is not None])
