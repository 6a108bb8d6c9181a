"""A provider's own book: what it charged and gave back, by the merchant's request id. `paymesh verify` holds it against ours.

In memory, and in a file of JSON lines, DIR/providers/book/{provider}.jsonl: each line is a charge as it stands after an
event, {"event", "at_ms", "charge"}; the last line of a request id counts. A line is written before the provider answers,
so that what was charged is in the book whatever happens to the answer. A torn last line (the process was killed) is dropped.

``times_charged`` is how often money was held or taken from the payer: more than one is a double charge. ``asked`` is how
often the merchant asked for the charge; repeats with the same request id raise it and nothing else.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from services.kernel.clock import Clock


class State(StrEnum):
    """Where a charge stands. Refunds do not change it; they are counted beside."""

    OFFERED = "offered"
    """A code or page that no payer opened yet: at Alipay no trade exists before."""
    WAITING = "waiting"
    CHALLENGE = "challenge"
    PROCESSING = "processing"
    AUTHORIZED = "authorized"
    CAPTURED = "captured"
    CLOSED = "closed"
    VOIDED = "voided"
    FAILED = "failed"


UNPAID = frozenset({State.OFFERED, State.WAITING, State.CHALLENGE})


@dataclass(slots=True)
class Refund:
    """Money given back. ``state``: processing, succeeded, abnormal or closed."""

    request_id: str
    provider_id: str
    amount: int
    at_ms: int
    state: str = "succeeded"
    asked: int = 1
    reason: str = ""
    notify_url: str = ""
    done_ms: int = 0


@dataclass(slots=True)
class Charge:
    """A charge; amounts in minor units. ``details``: what the provider keeps besides (scene, subject, notify_url, …)."""

    provider: str
    request_id: str
    provider_id: str
    amount: int
    currency: str
    state: State
    created_ms: int
    charged: int = 0
    captured: int = 0
    times_charged: int = 0
    asked: int = 1
    code: str = ""
    expire_ms: int = 0
    paid_ms: int = 0
    ended_ms: int = 0
    details: dict[str, str] = field(default_factory=dict)
    refunds: dict[str, Refund] = field(default_factory=dict)

    @property
    def refunded(self) -> int:
        """What was given back or is on its way."""
        return sum(each.amount for each in self.refunds.values() if each.state in {"succeeded", "processing"})

    def shown(self) -> dict[str, Any]:
        """Return it for readers, with the sum of its refunds."""
        return {**dataclasses.asdict(self), "refunded": self.refunded, "refunds": [*map(dataclasses.asdict, self.refunds.values())]}  # fmt: skip  # noqa: E501


class Book:
    """The charges of one provider. All changes of money go through it."""

    def __init__(self, provider: str, path: Path | None, clock: Clock) -> None:
        """Keep the book of ``provider`` in the file at ``path``; None: in memory alone."""
        self._provider, self._clock = provider, clock
        self._charges: dict[str, Charge] = {}
        self._by_provider_id: dict[str, Charge] = {}
        self._refunds: dict[str, Charge] = {}
        self._file = None
        if path:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            end = 0
            if path.exists():
                found, end = read(path)
                for each in found.values():
                    self._index(each)
            self._file = path.open("ab", buffering=0)
            self._file.truncate(end)

    def close(self) -> None:
        """Close the file."""
        if self._file:
            self._file.close()

    def __iter__(self) -> Iterator[Charge]:
        """Every charge, oldest first."""
        return iter(tuple(self._charges.values()))

    def get(self, request_id: str) -> Charge | None:
        """Return the charge of a request id of the merchant."""
        return self._charges.get(request_id)

    def by_provider_id(self, provider_id: str) -> Charge | None:
        """Return the charge of the provider's own number."""
        return self._by_provider_id.get(provider_id)

    def of_refund(self, request_id: str) -> tuple[Charge, Refund] | None:
        """Return a refund by its request id, and its charge; of the latest charge, where ids count per charge."""
        charge = self._refunds.get(request_id)
        return (charge, charge.refunds[request_id]) if charge else None

    def open(self, charge: Charge) -> Charge:
        """Begin a charge."""
        if charge.request_id in self._charges:
            raise ValueError(f"{charge.request_id} is in the book")
        self._index(charge)
        self.note(charge, "opened")
        return charge

    def ask(self, charge: Charge) -> None:
        """Count a repeat of its request."""
        charge.asked += 1
        self.note(charge, "asked")

    def hold(self, charge: Charge) -> None:
        """Hold the amount for the merchant (authorize)."""
        charge.times_charged += 1
        charge.charged += charge.amount
        charge.state, charge.paid_ms = State.AUTHORIZED, self._clock.now_ms()
        self.note(charge, "authorized")

    def take(self, charge: Charge, amount: int) -> None:
        """Take money from the payer: at once, or of what is held."""
        if charge.state is not State.AUTHORIZED:
            charge.times_charged += 1
            charge.charged += amount
        charge.captured += amount
        charge.state, charge.paid_ms = State.CAPTURED, self._clock.now_ms()
        self.note(charge, "captured")

    def end(self, charge: Charge, state: State, code: str = "") -> None:
        """End a charge without money: closed, voided, failed."""
        if state is State.VOIDED:
            charge.charged = 0
        charge.state, charge.code, charge.ended_ms = state, code, self._clock.now_ms()
        self.note(charge, state.value)

    def move(self, charge: Charge, state: State) -> None:
        """Let an unpaid charge go on to another state before payment."""
        charge.state = state
        self.note(charge, state.value)

    def give_back(self, charge: Charge, refund: Refund) -> None:
        """Refund; never more than was captured."""
        if charge.refunded + refund.amount > charge.captured or refund.request_id in charge.refunds:
            raise ValueError(f"{refund.request_id} cannot be refunded")
        charge.refunds[refund.request_id] = refund
        self._refunds[refund.request_id] = charge
        self.note(charge, "refunded")

    def note(self, charge: Charge, event: str) -> None:
        """Write how ``charge`` stands after ``event``."""
        if self._file:
            line = {"event": event, "at_ms": self._clock.now_ms(), "charge": charge}
            self._file.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))

    def _index(self, charge: Charge) -> None:
        self._charges[charge.request_id] = charge
        self._by_provider_id[charge.provider_id] = charge
        for request_id in charge.refunds:
            self._refunds[request_id] = charge


def read(path: Path, offset: int = 0) -> tuple[dict[str, Charge], int]:
    """Read a book from ``offset``: charges by request id as they stand at its end, and where to go on next time."""
    found: dict[str, Charge] = {}
    for line, end in lines(path, offset):
        charge = _charge(orjson.loads(line)["charge"])
        found[charge.request_id], offset = charge, end
    return found, offset


def lines(path: Path, offset: int = 0) -> Iterator[tuple[bytes, int]]:
    """Yield each whole line from ``offset``, and where it ends."""
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                break
            offset += len(line)
            yield line, offset


_UNMOVED = b'"captured":0,"times_charged":0,'
"""What a charge says, in the order of its fields, before any money is held or taken."""


def moved(line: bytes) -> dict[str, Any] | None:
    """Read a line as it is written, {"event", "at_ms", "charge"}; None, quickly: no money was ever held or taken for it."""
    if _UNMOVED in line:
        return None
    found: dict[str, Any] = orjson.loads(line)
    return found


def _charge(found: dict[str, Any]) -> Charge:
    refunds = {key: Refund(**each) for key, each in found["refunds"].items()}
    return Charge(**{**found, "state": State(found["state"]), "refunds": refunds})
