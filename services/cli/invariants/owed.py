"""What must have been looked at: a check that looked at nothing proves nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from services.cli.invariants.orders import GAVE_BACK, TOOK
from services.contract.load import contract

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from services.cli.invariants.found import RoomFinding

Key = tuple[str, str, str]
"""Room, invariant, and what is looked at."""


class _Owed(NamedTuple):
    """What must have been looked at once the finding ``because`` has rows: ``checks``, and effects of ``topics``."""

    because: Key
    checks: tuple[Key, ...]
    topics: tuple[str, ...] = ()


def _of(room: str, *checks: tuple[str, str]) -> tuple[Key, ...]:
    return tuple((room, invariant, what) for invariant, what in checks)


PAYMENTS: Key = ("payment", "I4", "payments at rest")
_OWED = (
    _Owed(
        PAYMENTS,
        (
            *_of("payment", ("I6", "idempotency keys"), ("I7", "events published"), ("I8", "versions of each payment"),
                 ("I11", "text in the database"), ("I12", "steps of payments")),
            *_of("order", ("I7", "events published"), ("I8", "orders and their events"),
                 ("I12", "states of orders")),
            *_of("user", ("I7", "events published"), ("I8", "versions of each user"), ("I8", "accounts and their events")),
        ),
    ),
    _Owed(
        ("order+payment", "I9", TOOK),
        _of("payment", ("I1", "ledger transactions"), ("I2", "account balances"), ("I2", "accounts by kind and currency"),
            ("I3", "one payment per order"), ("I3", "payments and ledger agree"), ("I10", "links of the ledger chain")),
        ("payment.success",),
    ),
    _Owed(
        ("order+payment", "I9", GAVE_BACK),
        _of("payment", ("I3", "refunds and ledger agree"), ("I4", "refunds at rest"), ("I5", "refunds")),
        ("payment.refunded",),
    ),
    _Owed(
        ("payment+provider", "I3", "captured payments in the books"),
        (
            ("payment+provider", "I3", "captured charges of the books"),
            ("payment", "I12", "charges of payments"),
        ),
    ),
    _Owed(("payment", "I12", "states of refunds"), (("payment", "I3", "refunds and ledger agree"),)),
    _Owed(("order", "I8", "orders and their events"), (), ("order.created",)),
    _Owed(("user", "I8", "accounts and their events"), (), ("user.created",)),
)  # fmt: skip
"""Only what is written in the same transaction as its cause is owed: it cannot be on its way."""


def examined(found: Sequence[RoomFinding]) -> dict[Key, int]:
    """Return how many rows each check looked at."""
    return {(room, f.invariant, f.what): f.examined for room, f in found}


def lacking(found: Sequence[RoomFinding], before: Collection[Key] = ()) -> list[str]:
    """Say which checks looked at nothing although there was something: a check that looked at nothing proves nothing.

    ``before`` are those that have had rows in the runs that this one goes on from: it need not have new ones.
    """
    rows = {key: n or int(key in before) for key, n in examined(found).items()}
    absent = {(room, f.invariant, f.what) for room, f in found if f.absent}
    effects_of = {
        event.topic: [(f"{event.service}+{each}", "I7", f"{event.topic} handled by {each}") for each in event.consumers]
        for event in contract().events.values()
    }
    said = [f"{name} {room}: {what!r} was not checked" for room, name, what in _unseen(rows, effects_of)]
    for owed in _OWED:
        if not rows.get(owed.because):
            continue
        needed = [*owed.checks, *(key for topic in owed.topics for key in effects_of[topic])]
        reason = (
            f"although {owed.because[0]} has rows under {owed.because[1]} {owed.because[2]!r}: {rows[owed.because]}"
        )
        said += [
            f"{name} {room}: {what!r} examined no row, {reason}"
            for room, name, what in needed
            if rows.get((room, name, what)) == 0 and (room, name, what) not in absent
        ]
    return said


def _unseen(rows: Mapping[Key, int], effects_of: Mapping[str, list[Key]]) -> list[Key]:
    """Return the effects that the contract promises, and the checks that are owed or owe others, that nobody looked at."""
    wanted = [key for keys in effects_of.values() for key in keys]
    wanted += [key for owed in _OWED for key in (owed.because, *owed.checks)]
    return [key for key in dict.fromkeys(wanted) if key not in rows]
