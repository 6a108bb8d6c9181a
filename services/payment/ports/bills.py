"""What reconciliation needs of the world: a place for files, and what the database knows of bills."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from services.kernel.pages import Page
from services.payment.domain import Method
from services.payment.domain.bill import Bill, Booked, Difference, Late, Number, Settled


class Files(Protocol):
    """Keeps files by what is in them."""

    def put(self, content: bytes) -> str:
        """Keep a file for good and return its SHA-256, hexadecimal; the same file again is the same. Raises UNAVAILABLE."""
        ...

    def get(self, sha256: str) -> bytes | None:
        """Return a file exactly as it was put; None: there is none. Raises UNAVAILABLE, also for one that was damaged."""
        ...


@dataclass(frozen=True, slots=True)
class BillBooked:
    """A bill as it is written: the ``serial``-th of its provider. ``settled`` has the numbers that say something new."""

    bill: Bill
    serial: int
    settled: list[Settled]
    differences: list[Difference]


@dataclass(slots=True)
class BillChange:
    """What a transaction writes of bills: one that is imported, and differences whose entries were booked since."""

    booked: BillBooked | None = None
    late: list[Late] = field(default_factory=list)


class BillWrites(Protocol):
    """The part of a transaction that bills have to do with."""

    def bill_turn(self, method: Method) -> tuple[int, int]:
        """Return how many bills of a provider there are, and how many of their differences wait for the books."""
        ...

    def late(self, method: Method) -> list[Late]:
        """Return what earlier bills had and the books did not, and now do; unless another bill settled it."""
        ...


class Bills(Protocol):
    """What the database tells of bills; locks nothing."""

    def find(self, method: Method, day: str, sha256: str) -> Bill | None:
        """Read the bill that was imported from a file."""
        ...

    def latest(self, method: Method, day: str) -> Bill | None:
        """Read the bill of a day that was imported last."""
        ...

    def turn(self, method: Method) -> tuple[int, int]:
        """Return how many bills of a provider there are, and how many of their differences wait for the books."""
        ...

    def has(self, bill_id: int) -> bool:
        """Whether there is a bill of this id."""
        ...

    def days(self, method: Method, since: str) -> set[str]:
        """Return the days from ``since`` on that a bill was imported of."""
        ...

    def newest(self, page: Page) -> list[Bill]:
        """Read a page of bills, newest first, one more than it holds."""
        ...

    def differences(self, bill_id: int, page: Page) -> list[Difference]:
        """Read a page of a bill's differences, newest first, one more than it holds."""
        ...

    def standing(self, method: Method, day: str) -> tuple[frozenset[int], Mapping[Number, Settled], set[str]]:
        """Return what the bills of a day left: their ids, how each number last stood, the numbers that were missed."""
        ...

    def booked(self, method: Method, numbers: Iterable[Number]) -> dict[Number, Booked]:
        """Return those of ``numbers`` that the ledger has in the clearing accounts of a provider."""
        ...

    def unsettled(
        self, method: Method, since_ms: int, until_ms: int, besides: Collection[int] = frozenset()
    ) -> list[Booked]:
        """Return what was charged and given back through a provider in a span of time, and no bill had; oldest first.

        ``besides``: payments and refunds that a bill has which is being matched.
        """
        ...
