"""The invariants across rooms: each room's own audit, effects of events in their consumers, orders against payments."""

from __future__ import annotations

import importlib
import importlib.util
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

from services.contract.load import contract
from services.order import audit as order_audit
from services.payment import audit as payment_audit
from services.platform.audit import PENDING_MS, Finding, effects, taken, told
from services.platform.database import Database

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_SHOWN = 20
_EXPECTED = {"paid": ("success", "partially_refunded"), "refunded": ("refunded",)}


class RoomFinding(NamedTuple):
    """A finding and the room, or the pair of rooms, that it is about."""

    room: str
    finding: Finding


def findings(databases: Mapping[str, str], now_ms: int, *, settled: bool) -> Iterator[RoomFinding]:
    """Check everything that ``databases`` (room -> URL) allow; reads alone, and asks no running service."""
    with ExitStack() as stack:
        opened = {room: Database(url, readers=1) for room, url in databases.items()}
        for database in opened.values():
            stack.callback(database.stop)
        for room, database in opened.items():
            if importlib.util.find_spec(f"services.{room}.audit"):
                audit = importlib.import_module(f"services.{room}.audit")
                with database.read() as connection:
                    for finding in audit.invariants(connection, now_ms=now_ms, settled=settled):
                        yield RoomFinding(room, finding)
        yield from _effects(opened, now_ms, settled=settled)
        if {"order", "payment"} <= opened.keys():
            yield RoomFinding("order+payment", _orders_and_payments(opened, now_ms, settled=settled))


def _effects(opened: Mapping[str, Database], now_ms: int, *, settled: bool) -> Iterator[RoomFinding]:
    for event in contract().events.values():
        if event.service not in opened:
            continue
        for consumer in event.consumers:
            # The consumer is read first: what it handled was told before.
            with opened[consumer].read() as connection:
                seen = taken(connection, event.topic)
            with opened[event.service].read() as connection:
                out = told(connection, event.service, event.topic)
            finding = effects(event.topic, consumer, out, seen, now_ms, settled=settled)
            yield RoomFinding(f"{event.service}+{consumer}", finding)


def _orders_and_payments(opened: Mapping[str, Database], now_ms: int, *, settled: bool) -> Finding:
    """I9: order paid <=> its one payment took money and kept some; refunded <=> given back; cancelled => nothing kept."""
    payments: dict[int, list[tuple[int, str, int, int]]] = {}
    with opened["payment"].read() as connection:
        for order_id, payment_id, status, captured, refunded, update_ms in payment_audit.payments_by_order(connection):
            payments.setdefault(order_id, []).append((payment_id, status, captured - refunded, update_ms))
    breaches, pending, examined = [], 0, 0
    with opened["order"].read() as connection:
        for fact in order_audit.order_facts(connection):
            examined += 1
            of_order = payments.pop(fact.order_id, [])
            fault = _fault(fact.status, fact.payment_id, of_order)
            if fault is None:
                continue
            latest = max([fact.update_ms, *(p[3] for p in of_order)])
            if not settled and now_ms - latest <= PENDING_MS:
                pending += 1
            else:
                breaches.append(f"order {fact.order_id} is {fact.status}: {fault}")
    breaches += [
        f"payments {[p[0] for p in rest]} took money for the unknown order {order_id}"
        for order_id, rest in payments.items()
    ]
    return Finding("I9", "orders and their payments", examined, breaches[:_SHOWN], pending)


def _fault(status: str, payment_id: int, payments: list[tuple[int, str, int, int]]) -> str | None:
    """Say what does not fit between an order's status and its payments (id, status, money kept, time)."""
    kept = [p for p in payments if p[2]]
    if status in _EXPECTED:
        if [p[0] for p in payments if p[1] in _EXPECTED[status]] != [payment_id]:
            return f"payment {payment_id} is not the one that is {' or '.join(_EXPECTED[status])}: {payments}"
        kept = [p for p in kept if p[0] != payment_id]
    return f"money of {[p[0] for p in kept]} is kept" if kept else None
