"""Timed work: the completer takes up what is due, the sweeper forgets what is old, bills are imported day by day."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from services.kernel.errors import DomainError
from services.kernel.idempotency import InFlight
from services.payment import usecases
from services.platform import telemetry
from services.platform.database import failure_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.payment.ports import Ports
    from services.platform.batcher import Batcher
    from services.platform.pipeline import Pipeline

TICK_S = 0.25
AT_ONCE_MAX = 50
"""Attempts taken up in one turn: half of what the pipeline holds, so that callers always find room."""
SWEEP_S = 60.0
KEYS_KEPT_MS = 7 * 86_400_000
"""How long an idempotency key gets the same answer at least."""
CALLBACKS_KEPT_MS = 30 * 86_400_000
"""How long a callback is known again: longer than any provider repeats it."""
_SWEPT_MAX = 1_000
BILLS_S = 60.0
BILL_RETRY_MS = 3_600_000
"""How long a bill that is not there yet is not asked for again."""


class _Timed:
    """Does something again and again in a thread of its own; whatever it meets, the next turn comes."""

    def __init__(self, name: str, every_s: float, turn: Callable[[], None]) -> None:
        """Do ``turn`` every ``every_s`` seconds."""
        self._every_s, self._turn, self._name = every_s, turn, name
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the turn that it is at."""
        self._stopping.set()
        self._thread.join(timeout=10)

    def _work(self) -> None:
        while not self._stopping.wait(self._every_s):
            try:
                self._turn()
            except Exception as error:  # noqa: BLE001 - the next turn comes, and what is due stays due
                known = isinstance(error, DomainError) or failure_of(error) is not None
                log = telemetry.log.warning if known else telemetry.log.exception
                log("job.failed", job=self._name, error=str(error))


def completer(ports: Ports, batcher: Batcher, pipeline: Pipeline) -> _Timed:
    """Take up attempts that are due: what a crash left, what providers left open, what expired."""

    def turn() -> None:
        room = min(AT_ONCE_MAX, pipeline.free // 2)
        if not room or not ports.store.has_due(ports.clock.now_ms()):
            return
        (taken,) = batcher.submit_all("take_up", [usecases.TakeUp(room)])
        if isinstance(taken, Exception):
            raise taken
        pipeline.resume_soon([InFlight(attempt.id, attempt) for attempt in taken])

    return _Timed("completer", TICK_S, turn)


def sweeper(ports: Ports) -> _Timed:
    """Forget verification values that nobody took, and keys and callbacks that nobody repeats any more."""

    def turn() -> None:
        now = ports.clock.now_ms()
        ports.outside.cvvs.sweep()
        ports.store.forget({"idempotency_keys": now - KEYS_KEPT_MS, "callbacks": now - CALLBACKS_KEPT_MS}, _SWEPT_MAX)

    return _Timed("sweeper", SWEEP_S, turn)


def bill_importer(ports: Ports, batcher: Batcher) -> _Timed:
    """Import yesterday's bill of every provider once it is ready, and those that were not there before."""
    asked: dict[usecases.ImportBill, int] = {}

    def turn() -> None:
        now = ports.clock.now_ms()
        due = usecases.due_bills(ports)
        for gone in asked.keys() - set(due):
            del asked[gone]
        for command in due:
            if command not in asked or now - asked[command] >= BILL_RETRY_MS:
                asked[command] = now
                _import(ports, batcher, command)

    return _Timed("bills", BILLS_S, turn)


def _import(ports: Ports, batcher: Batcher, command: usecases.ImportBill) -> None:
    """Import a bill; one that fails does not keep the others from their turn."""
    try:
        bill = usecases.import_due(ports, batcher.submit_all, command)
    except DomainError as error:
        telemetry.log.warning("bill.not_imported", method=str(command.method), day=command.day, error=str(error))
        return
    if bill is not None:
        telemetry.log.info("bill.imported", method=str(bill.method), day=bill.day, lines=bill.lines,
                           differences=bill.differences)  # fmt: skip
