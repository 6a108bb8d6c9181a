"""Bills: what a provider says that it charged and gave back on a day, held against the books. Pure.

Lines are taken by number: ours for a charge or refund, in one currency. Several lines that sum up to what the books say
are one charge in parts; what lies beyond it is there twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, timezone
from enum import StrEnum
from typing import NamedTuple

from services.kernel.money import Money
from services.payment.domain.payment import Method, our_number

ZONES: Mapping[Method, timezone] = {
    Method.ALIPAY: timezone(timedelta(hours=8), "Asia/Shanghai"),
    Method.WECHAT: timezone(timedelta(hours=8), "Asia/Shanghai"),
    Method.BANK_CARD: UTC,
}
"""Method -> the zone of its provider's days. China has had no summer time since 1991."""
MIDNIGHT_MS = 600_000
"""How far a provider's clock and ours may lie apart: so near to midnight an entry may be in the bill of either day."""
READY_HOUR = 10
"""When yesterday's bill is ready, by the provider's clock."""
DAYS_DUE = 7
"""How many days' bills are looked for: so long nobody may have been there to fetch them."""
NUMBER_MAX = 64
"""Characters of a number that are kept; ours and those that providers take are shorter."""
_PARTS_MAX = 12
"""Lines of one number of which every sum is tried."""


class Mismatch(StrEnum):
    """What a bill and the books do not agree about; SQL stores these words."""

    MISSING_HERE = "missing_here"
    MISSING_AT_PROVIDER = "missing_at_provider"
    AMOUNT = "amount"
    DUPLICATE = "duplicate"


class Number(NamedTuple):
    """What lines of a bill are about. ``kind``: charge or refund."""

    kind: str
    request_id: str
    currency_code: str

    @property
    def sign(self) -> int:
        """1: the provider pays us; -1: we pay the provider."""
        return -1 if self.kind == "refund" else 1

    @property
    def reference_id(self) -> int:
        """The id of our payment (charge) or refund that the number is made of; 0: it is none of ours."""
        letter, found = our_number(self.request_id)
        return found if letter == ("R" if self.kind == "refund" else "P") else 0


@dataclass(slots=True)
class Billed:
    """What a bill says of a number: the amounts of its lines, and the fees that the provider kept (or gave back: < 0)."""

    amounts: list[int] = field(default_factory=list)
    fees: int = 0


@dataclass(frozen=True, slots=True)
class Booked:
    """What the ledger says of a number of ours. ``settled_by``: the bill that settled it, 0: none has."""

    number: Number
    amount: int
    settled_by: int = 0


@dataclass(frozen=True, slots=True)
class Settled:
    """How a number stands by a bill: its lines, what they sum up to, fees, what of it left the clearing account.

    ``settles``: the id of our payment or refund that this bill settled, None: it was before, or is not ours.
    """

    number: Number
    lines: int
    billed: int
    fees: int
    cleared: int
    settles: int | None = None

    @property
    def suspense(self) -> int:
        """What reached the bank (< 0: left it) and belongs to nothing in the books."""
        return self.number.sign * (self.billed - self.cleared)

    def says_same(self, other: Settled | None) -> bool:
        """Whether nothing changed since ``other``."""
        before = other and (other.lines, other.billed, other.fees, other.cleared)
        return before == (self.lines, self.billed, self.fees, self.cleared)


@dataclass(frozen=True, slots=True)
class Judged:
    """A number with how it now stands, how many of its lines agree with the books, and what does not, if anything.

    ``difference`` is what the lines say that do not agree.
    """

    settled: Settled
    matched: int
    mismatch: Mismatch | None = None
    booked: int | None = None
    difference: int = 0


@dataclass(slots=True)
class Tally:
    """What a bill says of one currency, and what of that is to be booked: the rest was, by earlier bills of its day."""

    charged: int = 0
    refunded: int = 0
    fees: int = 0
    fees_returned: int = 0
    cleared: int = 0
    kept: int = 0
    put_right: int = 0
    """What had gone to suspense of numbers that agree by now."""

    def add(self, judged: Judged, before: Settled | None) -> None:
        """Count a number, which stood as ``before`` by earlier bills of the day."""
        now = judged.settled
        if now.number.kind == "refund":
            self.refunded += now.billed
            self.fees_returned -= now.fees
        else:
            self.charged += now.billed
            self.fees += now.fees
        self.cleared += now.number.sign * (now.cleared - (before.cleared if before else 0))
        self.kept += now.fees - (before.fees if before else 0)
        if before and judged.mismatch is None:
            self.put_right -= before.suspense


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a bill says of one currency. ``id`` is what the ledger's transactions refer to.

    ``charged`` less ``refunded`` less ``fees`` and with ``fees_returned`` is what the provider paid out. ``cleared`` is
    what the bill took out of the clearing account (< 0: put into it).
    """

    id: int
    currency_code: str
    charged: int
    refunded: int
    fees: int
    fees_returned: int
    cleared: int


@dataclass(frozen=True, slots=True)
class Bill:
    """A provider's bill that was imported. ``matched`` lines agree with the books."""

    id: int
    method: Method
    day: str
    sha256: str
    lines: int
    matched: int
    differences: int
    create_ms: int
    settlements: tuple[Settlement, ...] = ()


@dataclass(frozen=True, slots=True)
class Difference:
    """What a bill and the books do not agree about. ``correction`` is what of it went to suspense (< 0: came out).

    ``awaits``: our payment or refund that the bill has and the books do not have yet; once they do, it is settled.
    """

    id: int
    bill_id: int
    mismatch: Mismatch
    number: Number
    payment_id: int
    refund_id: int
    booked: Money | None
    billed: Money | None
    correction: int
    review_id: int
    create_ms: int
    awaits: int | None = None


@dataclass(frozen=True, slots=True)
class Late:
    """A difference whose entry came into the books after its bill, in which the number was the ``line``-th."""

    difference_id: int
    bill_id: int
    line: int
    booked: Booked


def judge(number: Number, said: Billed, booked: Booked | None, day: frozenset[int]) -> Judged:
    """Hold what a bill says of a number against the books; ``day`` are the ids of the same day's bills before this one."""
    total, count = sum(said.amounts), len(said.amounts)
    if booked is None:
        return Judged(Settled(number, count, total, said.fees, 0), 0, Mismatch.MISSING_HERE, None, total)
    if booked.settled_by and booked.settled_by not in day:
        return Judged(Settled(number, count, total, said.fees, 0), 0, Mismatch.DUPLICATE, booked.amount, total)
    settles = None if booked.settled_by else number.reference_id
    settled = Settled(number, count, total, said.fees, booked.amount, settles)
    matched = count if total == booked.amount else _parts(said.amounts, booked.amount)
    if matched == count:
        return Judged(settled, matched, None, booked.amount)
    if not matched:
        return Judged(settled, 0, Mismatch.AMOUNT, booked.amount, total)
    return Judged(settled, matched, Mismatch.DUPLICATE, booked.amount, total - booked.amount)


def _parts(amounts: Sequence[int], whole: int) -> int:
    """Return how many of ``amounts``, which do not all together, sum up to ``whole``; 0: none do."""
    if whole in amounts:
        return 1
    sums = {0: 0}
    for amount in amounts[:_PARTS_MAX]:
        sums = {total + amount: count + 1 for total, count in sums.items() if total + amount <= whole} | sums
    return sums.get(whole, 0)


def day_ms(day: str, method: Method) -> tuple[int, int]:
    """Return when a day (YYYY-MM-DD) of the provider begins, and when the next does. Raises ValueError."""
    begins = datetime.combine(date.fromisoformat(day), datetime.min.time(), ZONES[method])
    return _ms(begins), _ms(begins + timedelta(days=1))


def due_ms(day: str, method: Method) -> tuple[int, int]:
    """Return from when until when an entry of the books is missed that is in no bill up to this day's. Raises ValueError.

    What is near to the day's end may be in the next bill, with which it is looked for again.
    """
    begins, ends = day_ms(day, method)
    return begins - MIDNIGHT_MS, ends - MIDNIGHT_MS


def days_due(method: Method, now_ms: int) -> list[str]:
    """Return the days, oldest first, whose bills a provider has ready: from a week ago to yesterday, after ten o'clock."""
    at = datetime.fromtimestamp(now_ms / 1000, ZONES[method])
    latest = at.date() - timedelta(days=1 if at.hour >= READY_HOUR else 2)
    return [(latest - timedelta(days=back)).isoformat() for back in reversed(range(DAYS_DUE))]


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)
