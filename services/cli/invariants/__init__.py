"""The invariants across rooms: each room's own audit, and what no room sees alone."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Self

from services.cli.invariants.books import provider_books
from services.cli.invariants.found import Look, RoomFinding
from services.cli.invariants.leaks import leaks
from services.cli.invariants.orders import orders_and_payments
from services.cli.invariants.owed import lacking
from services.contract.load import contract
from services.payment import audit as payment_audit
from services.platform.audit import Notes, Pair, effects
from services.platform.database import Database

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.cli.folder import Folder
    from services.platform.audit import Connection

__all__ = ["RoomFinding", "findings", "lacking"]


def findings(
    databases: Mapping[str, str],
    now_ms: int,
    *,
    settled: bool,
    since_ms: int = 0,
    notes: Notes | None = None,
    folder: Folder | None = None,
) -> Iterator[RoomFinding]:
    """Check everything that ``databases`` (room -> URL) allow; reads alone, and asks no running service.

    ``since_ms`` and ``notes`` are the last run's, for what changed since; without them everything is looked at.
    ``folder`` is the mesh's, where the providers' books, logs and secrets lie; None: none of these is looked at.
    """
    look = Look(now_ms, settled, since_ms, notes or Notes())
    with ExitStack() as stack:
        opened = {room: Database(url, readers=4) for room, url in databases.items()}
        for database in opened.values():
            stack.callback(database.stop)
        payment = stack.enter_context(opened["payment"].read()) if "payment" in opened else None
        if payment is not None:
            # Payments first: what is owed because of them (`lacking`) is in the data once they are, for who reads later.
            payment_audit.begin(payment)
        besides: Iterable[RoomFinding] = _besides(opened, look, folder)
        if look.full:  # much is done by the databases, so that two threads take half the time
            besides = stack.enter_context(_Aside(besides))
        if payment is not None:
            yield from _audit("payment", payment, look)
            books = folder.providers / "book" if folder else None
            for finding in provider_books(books, payment, look):
                yield RoomFinding("payment+provider", finding)
            if "order" in opened:
                with opened["order"].read() as order:
                    for finding in orders_and_payments(order, payment, look):
                        yield RoomFinding("order+payment", finding)
        yield from besides
        look.save()


def _besides(opened: Mapping[str, Database], look: Look, folder: Folder | None) -> Iterator[RoomFinding]:
    """Check what has not to do with the money itself."""
    for room in sorted(opened.keys() - {"payment"}):
        with opened[room].read() as connection:
            yield from _audit(room, connection, look)
    yield from _effects(opened, look)
    yield from leaks(opened, look, folder)


class _Aside(AbstractContextManager["_Aside"]):
    """Findings that are found in a thread of their own, from now on."""

    def __init__(self, work: Iterable[RoomFinding]) -> None:
        """Begin."""
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="verify")
        self._found = self._pool.submit(list, work)

    def __iter__(self) -> Iterator[RoomFinding]:
        """Wait for them."""
        return iter(self._found.result())

    def __enter__(self) -> Self:
        """Nothing more to do."""
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for the thread's end."""
        self._pool.shutdown(cancel_futures=True)


def _audit(room: str, connection: Connection, look: Look) -> Iterator[RoomFinding]:
    if importlib.util.find_spec(f"services.{room}.audit"):
        audit = importlib.import_module(f"services.{room}.audit")
        for finding in audit.invariants(connection, now_ms=look.now_ms, settled=look.settled, since=look.since(room)):
            yield RoomFinding(room, finding)


def _effects(opened: Mapping[str, Database], look: Look) -> Iterator[RoomFinding]:
    pairs: dict[tuple[str, str], list[str]] = {}
    for event in contract().events.values():
        for consumer in event.consumers:
            if event.service in opened and consumer in opened:
                pairs.setdefault((event.service, consumer), []).append(event.topic)
    for (service, consumer), topics in pairs.items():
        pair = Pair(service, consumer, tuple(topics))
        with opened[consumer].read() as taken, opened[service].read() as told:
            for finding in effects(told, taken, pair, look.now_ms, settled=look.settled, since=look.since(service)):
                yield RoomFinding(f"{service}+{consumer}", finding)
