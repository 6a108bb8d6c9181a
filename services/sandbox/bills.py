"""The bill of a day, before it takes a provider's shape; with the faults that a script wants in it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta, timezone
from typing import TYPE_CHECKING

from services.sandbox.book import Charge, Refund

if TYPE_CHECKING:
    from services.sandbox.book import Book
    from services.sandbox.rules import Rules


@dataclass(frozen=True, slots=True)
class Line:
    """A charge (``refund`` None) or a refund; ``amount`` and ``fee`` positive, minor units."""

    charge: Charge
    refund: Refund | None
    amount: int
    fee: int
    at_ms: int

    @property
    def request_id(self) -> str:
        """The merchant's number."""
        return self.refund.request_id if self.refund else self.charge.request_id


def fee_of(amount: int, per_mille: int) -> int:
    """Return the provider's fee, rounded half up to a minor unit."""
    return (amount * per_mille + 500) // 1000


def day_of(text: str, zone: timezone, now_ms: int, *, today: bool) -> date | None:
    """Read YYYY-MM-DD; None: no day, or (unless ``today``) one that is not over."""
    try:
        found = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=zone).date()
    except ValueError:
        return None
    now = datetime.fromtimestamp(now_ms / 1000, zone).date()
    return found if found.isoformat() == text and found < now + timedelta(days=today) else None


def lines(book: Book, day: date, zone: timezone, *, per_mille: int, script: Rules) -> list[Line]:
    """Return what was captured and refunded on ``day``, by time, as the script lets the bill say it."""
    found: list[Line] = []
    for charge in book:
        if charge.captured and _on(charge.paid_ms, zone) == day:
            found.append(Line(charge, None, charge.captured, fee_of(charge.captured, per_mille), charge.paid_ms))
        for refund in charge.refunds.values():
            done_ms = refund.done_ms or refund.at_ms
            if refund.state == "succeeded" and _on(done_ms, zone) == day:
                found.append(Line(charge, refund, refund.amount, fee_of(refund.amount, per_mille), done_ms))
    return _spoiled(sorted(found, key=lambda line: line.at_ms), script)


def written(rows: Iterable[Sequence[str]]) -> str:
    r"""Write CSV with \r\n, quoting only what needs it."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerows(rows)
    return out.getvalue()


def _spoiled(found: list[Line], script: Rules) -> list[Line]:
    made: list[Line] = []
    for line in found:
        rule = script.take("bill", (line.request_id,), only={"omit", "drift", "repeat"})
        do = rule.do if rule else ""
        if do != "omit":
            made.append(replace(line, amount=line.amount + 1) if do == "drift" else line)
        if do == "repeat":
            made.append(line)
    if found and script.take("bill", (), only={"stray"}):
        charge = replace(found[0].charge, request_id="STRAY" + found[0].charge.request_id[-16:], provider_id="9" * 28)
        made.append(Line(charge, None, found[0].amount, found[0].fee, found[0].at_ms))
    return made


def _on(ms: int, zone: timezone) -> date:
    return datetime.fromtimestamp(ms / 1000, zone).date()
