"""Timed work: the completer takes up what is due, the sweeper forgets what is old, bills are imported day by day."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.kernel.errors import DomainError
from services.kernel.idempotency import InFlight
from services.payment import usecases
from services.platform import telemetry
from services.platform.jobs import Every

if TYPE_CHECKING:
    from services.payment.ports import Ports
    from services.payment.ports.cards import Rotation
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
CARDS_LOOSE_MS = 3_600_000
"""How long the vault has a card that nobody keeps: whoever saves it is done, or died, long before."""
_SWEPT_MAX = 1_000
_RESEALED_MAX = 200
"""Cards that move to a newer data key in one turn."""
BILLS_S = 60.0
BILL_RETRY_MS = 3_600_000
"""How long a bill that is not there yet is not asked for again."""


def completer(ports: Ports, batcher: Batcher, pipeline: Pipeline) -> Every:
    """Take up attempts that are due: what a crash left, what providers left open, what expired."""

    def turn() -> None:
        room = min(AT_ONCE_MAX, pipeline.free // 2)
        if not room or not ports.store.has_due(ports.clock.now_ms()):
            return
        (taken,) = batcher.submit_all("take_up", [usecases.TakeUp(room)])
        if isinstance(taken, Exception):
            raise taken
        pipeline.resume_soon([InFlight(attempt.id, attempt) for attempt in taken])

    return Every(TICK_S, turn, "completer")


def sweeper(ports: Ports) -> Every:
    """Forget verification values that nobody took, cards that nobody keeps, and keys and callbacks that nobody repeats."""
    swept_to = ""

    def turn() -> None:
        nonlocal swept_to
        now = ports.clock.now_ms()
        swept_to = ports.outside.cards.sweep(swept_to, now - CARDS_LOOSE_MS, _SWEPT_MAX)
        ports.outside.cvvs.sweep()
        ports.store.forget({"idempotency_keys": now - KEYS_KEPT_MS, "callbacks": now - CALLBACKS_KEPT_MS}, _SWEPT_MAX)

    return Every(SWEEP_S, turn, "sweeper")


def resealer(rotation: Rotation) -> Every:
    """Move cards to the newest data key, and learn of one that an operator made."""
    return Every(SWEEP_S, lambda: rotation.reseal_some(_RESEALED_MAX), "resealer")


def bill_importer(ports: Ports, batcher: Batcher) -> Every:
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

    return Every(BILLS_S, turn, "bills")


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
