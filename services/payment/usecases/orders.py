"""What payment learns of orders from their events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.payment.ports import Change

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.payment.domain import KnownOrder
    from services.payment.ports import Ports


@dataclass(frozen=True, slots=True)
class OrderKnown:
    """An order was made (event order.created)."""

    event_id: str
    topic: str
    order: KnownOrder


@dataclass(frozen=True, slots=True)
class OrderCancelled:
    """An order was cancelled (event order.cancelled); payments of it are refused from now on."""

    event_id: str
    topic: str
    order_id: int
    user_id: int
    version: int


def know_orders(ports: Ports, items: Sequence[OrderKnown | OrderCancelled]) -> list[None]:
    """Keep what the events tell, once per event, in any order of arrival."""
    with ports.store.transaction() as tx:
        unseen = tx.unseen([item.event_id for item in items])
        fresh = [item for item in items if item.event_id in unseen]
        tx.know_orders([item.order for item in fresh if isinstance(item, OrderKnown)])
        tx.cancel_orders([item for item in fresh if isinstance(item, OrderCancelled)])
        tx.write(Change(ports.clock.now_ms(), taken=[(item.event_id, item.topic) for item in fresh]))
        tx.commit()
    return [None] * len(items)
