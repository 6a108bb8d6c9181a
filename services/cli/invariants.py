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
    from collections.abc import Iterator, Mapping, Sequence

_SHOWN = 20
_TOOK, _GAVE_BACK = "payments that took money", "payments that gave money back"
_EXPECTED = {"paid": ("success", "partially_refunded"), "refunded": ("refunded",)}


_Payments = dict[int, list[tuple[int, str, int, int]]]
"""Order id -> its payments that took money: id, status, minor units kept, last change in ms."""


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
        # Payments first: what is owed because of them (`lacking`) is in the data once they are, for who reads later.
        crossed = {"order", "payment"} <= opened.keys()
        payments, gave_back = _payments_by_order(opened["payment"]) if crossed else ({}, 0)
        for room, database in sorted(opened.items(), key=lambda each: each[0] != "payment"):
            if importlib.util.find_spec(f"services.{room}.audit"):
                audit = importlib.import_module(f"services.{room}.audit")
                with database.read() as connection:
                    for finding in audit.invariants(connection, now_ms=now_ms, settled=settled):
                        yield RoomFinding(room, finding)
        yield from _effects(opened, now_ms, settled=settled)
        if crossed:
            for finding in _orders_and_payments(opened["order"], payments, gave_back, now_ms, settled=settled):
                yield RoomFinding("order+payment", finding)


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


def _payments_by_order(database: Database) -> tuple[_Payments, int]:
    """Return the payments that took money, and how many of them gave some of it back."""
    payments: _Payments = {}
    gave_back = 0
    with database.read() as connection:
        for order_id, payment_id, status, captured, refunded, update_ms in payment_audit.payments_by_order(connection):
            payments.setdefault(order_id, []).append((payment_id, status, captured - refunded, update_ms))
            gave_back += refunded > 0
    return payments, gave_back


def _orders_and_payments(
    database: Database, payments: _Payments, gave_back: int, now_ms: int, *, settled: bool
) -> Iterator[Finding]:
    """I9: order paid <=> its one payment took money and kept some; refunded <=> given back; cancelled => nothing kept."""
    breaches, pending, examined, took = [], 0, 0, sum(map(len, payments.values()))
    overdrawn = [p[0] for of_order in payments.values() for p in of_order if p[2] < 0]
    with database.read() as connection:
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
    lost = [
        f"payments {[p[0] for p in rest]} took money for the unknown order {order_id}"
        for order_id, rest in payments.items()
    ]
    yield Finding("I9", "orders and their payments", examined, breaches[:_SHOWN], pending)
    yield Finding("I9", _TOOK, took, lost[:_SHOWN])
    yield Finding(
        "I9", _GAVE_BACK, gave_back, [f"payment {each} gave back more than it took" for each in overdrawn[:_SHOWN]]
    )


def _fault(status: str, payment_id: int, payments: list[tuple[int, str, int, int]]) -> str | None:
    """Say what does not fit between an order's status and its payments (id, status, money kept, time)."""
    kept = [p for p in payments if p[2]]
    if status in _EXPECTED:
        if [p[0] for p in payments if p[1] in _EXPECTED[status]] != [payment_id]:
            return f"payment {payment_id} is not the one that is {' or '.join(_EXPECTED[status])}: {payments}"
        kept = [p for p in kept if p[0] != payment_id]
    return f"money of {[p[0] for p in kept]} is kept" if kept else None


class _Owed(NamedTuple):
    """What must have been looked at once the finding ``because`` (room, invariant, what) has rows.

    ``checks`` are (room, invariant), each finding of which must have rows; ``topics``: so must their effects in each consumer.
    """

    because: tuple[str, str, str]
    checks: tuple[tuple[str, str], ...]
    topics: tuple[str, ...]


_OWED = (
    _Owed(
        ("payment", "I4", "payments at rest"),
        (
            *(("payment", name) for name in ("I6", "I7", "I8", "I12")),
            *(("order", name) for name in ("I7", "I8", "I12")),
            ("user", "I7"),
            ("user", "I8"),
        ),
        (),
    ),
    _Owed(
        ("order+payment", "I9", _TOOK),
        tuple(("payment", name) for name in ("I1", "I2", "I3", "I10")),
        ("payment.success",),
    ),
    _Owed(("order+payment", "I9", _GAVE_BACK), (("payment", "I5"),), ("payment.refunded",)),
    _Owed(("order", "I8", "orders and their events"), (), ("order.created",)),
    _Owed(("user", "I8", "accounts and their events"), (), ("user.created",)),
)
"""Only what is written in the same transaction as its cause is owed: it cannot be on its way."""


def lacking(found: Sequence[RoomFinding]) -> list[str]:
    """Say which checks looked at nothing although there was something: a check that looked at nothing proves nothing."""
    rows = {(room, f.invariant, f.what): f.examined for room, f in found}
    events = contract().events.values()
    effects_of = {
        event.topic: [(f"{event.service}+{each}", "I7", f"{event.topic} handled by {each}") for each in event.consumers]
        for event in events
    }
    said = [f"{name} {room}: {what!r} was not checked" for room, name, what in _unseen(rows, effects_of)]
    for owed in _OWED:
        if not rows.get(owed.because):
            continue
        needed = [key for key in rows if key[:2] in owed.checks]
        needed += [key for topic in owed.topics for key in effects_of[topic] if key in rows]
        reason = (
            f"although {owed.because[0]} has rows under {owed.because[1]} {owed.because[2]!r}: {rows[owed.because]}"
        )
        said += [
            f"{name} {room}: {what!r} examined no row, {reason}"
            for room, name, what in needed
            if not rows[room, name, what]
        ]
        said += [
            f"{name} {room}: was not checked"
            for room, name in owed.checks
            if (room, name) not in {key[:2] for key in rows}
        ]
    return said


def _unseen(
    rows: Mapping[tuple[str, str, str], int], effects_of: Mapping[str, list[tuple[str, str, str]]]
) -> list[tuple[str, str, str]]:
    """Return the effects that the contract promises and the causes that others are owed for which nobody looked at."""
    wanted = [*(key for keys in effects_of.values() for key in keys), *(owed.because for owed in _OWED)]
    return [key for key in wanted if key not in rows]
