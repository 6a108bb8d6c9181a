"""What the providers of payments have in common: a book, a script, callbacks, charges that end in time."""

from __future__ import annotations

import asyncio
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import BaseRoute

from services.kernel.clock import Clock, SystemClock
from services.sandbox.book import UNPAID, Book, Charge, Refund, State
from services.sandbox.notifier import Notice, Notifier
from services.sandbox.rules import IN_GENERAL, REFUSALS, Rules
from services.sandbox.sockets import Dropped, Hanging
from services.sandbox.trust import FollowedTrust

if TYPE_CHECKING:
    import httpx
    from starlette.requests import Request

T = TypeVar("T")

BODY_MAX = 256 * 1024
"""Bytes of a request; no real one comes near."""
FAIL_THEN_SUCCESS_S = 0.3
"""How long the success is called back after the failure was answered."""
_EXPIRY_MAX_S = 86_400.0
"""Charges that expire later than this are found expired when somebody looks."""


class PayerRefused(Exception):
    """The payment did not happen. ``code`` says why; ``status`` is the one of HTTP."""

    def __init__(self, code: str, status: int = 409) -> None:
        """Refuse with ``code``."""
        self.code, self.status = code, status
        super().__init__(code)


@dataclass(frozen=True, slots=True)
class House:
    """Where the providers stand: folder of keys and books, time, and the way to merchants."""

    folder: Path
    clock: Clock
    time_scale: float = 1.0
    trust: ssl.SSLContext | bool = True
    transport: httpx.AsyncBaseTransport | None = None

    @classmethod
    def at(cls, folder: Path, *, time_scale: float, ca_file: str) -> House:
        """Stand in ``folder``; merchants' certificates come from ``ca_file``, or the public ones if it is empty."""
        trust = FollowedTrust.of(ca_file) if ca_file else True
        return cls(folder, SystemClock(), time_scale, trust)


@dataclass(frozen=True, slots=True)
class Deed(Generic[T]):
    """A request that is understood: how it is done, and how it is answered where the script refuses it.

    ``do`` and ``refuse`` return the provider's answer, errors of the request included. ``pretend`` is a refusal that
    leaves no trace, of what was done nevertheless. ``settle`` lets the payer of a wallet pay.
    """

    do: Callable[[], T]
    refuse: Callable[[str], T]
    pretend: Callable[[str], T]
    settle: Callable[[], None] = lambda: None


class Acquirer(ABC):
    """A provider of payments; a subclass speaks its protocol."""

    operations: ClassVar[Mapping[str, frozenset[str]]]
    schedule_s: ClassVar[Sequence[float]]
    callback_forgeries: ClassVar[Collection[str]]
    answer_forgeries: ClassVar[Collection[str]]
    choices: ClassVar[Mapping[str, Sequence[object]]] = {"bill_today": (False, True)}
    deeds: ClassVar[Sequence[str]] = ("pay", "refuse", "open")

    def __init__(self, name: str, house: House) -> None:
        """Open the book."""
        self.name, self.house, self.clock = name, house, house.clock
        self.script = Rules(self.operations, self.callback_forgeries, self.answer_forgeries, self.choices)
        self.book = Book(name, house.folder / "book" / f"{name}.jsonl", house.clock)
        self.notifier = Notifier(
            self.script, house.clock, schedule_s=self.schedule_s, time_scale=house.time_scale, taken=self.taken,
            trust=house.trust, transport=house.transport,
        )  # fmt: skip
        self.tell_after_s = 0.0
        self._timers: dict[str, asyncio.TimerHandle] = {}

    # What each provider says in its own words.

    @abstractmethod
    def routes(self) -> Sequence[BaseRoute]:
        """Return the routes of its protocol."""

    @abstractmethod
    def taken(self, status: int, body: bytes) -> bool:
        """Tell whether an answer to a callback ends its repeats."""

    @abstractmethod
    def notice(self, charge: Charge, refund: Refund | None = None) -> Notice:
        """Return the callback about a charge as it stands, or about a refund of it."""

    @abstractmethod
    def pay(self, charge_id: str, action: Mapping[str, str]) -> Charge:
        """Let the payer pay. Raises PayerRefused."""

    def refuse(self, charge: Charge) -> None:
        """Let the payer walk away; a wallet's charge stays as it was."""
        self.book.note(charge, "refused by the payer")

    # What they share.

    async def start(self) -> None:
        """Take up the charges that expire while it runs."""
        for charge in self.book:
            self.expire_later(charge)

    async def stop(self) -> None:
        """Stop calling back, close the book."""
        for timer in self._timers.values():
            timer.cancel()
        await self.notifier.stop()
        self.book.close()

    async def perform(
        self, on: str, ids: tuple[str, ...], deed: Deed[T], render: Callable[[T, str], Response]
    ) -> Response:
        """Do what is asked, or what the script says instead. ``render(answer, forgery)`` signs the answer."""
        rule = self.script.take(on, ids, only=IN_GENERAL)
        if rule is None:
            return render(deed.do(), "")
        await asyncio.sleep(rule.delay_ms / 1000)
        if rule.do in REFUSALS:
            return render(deed.refuse(rule.do), "")
        if rule.do in {"hang", "drop_before"}:
            return Hanging() if rule.do == "hang" else Dropped()
        self.tell_after_s = FAIL_THEN_SUCCESS_S if rule.do == "fail_then_success" else 0
        answer, forge = deed.do(), rule.forge
        if rule.do in {"drop", "hang_after", "fail_then_success"}:
            deed.settle()
        self.tell_after_s = 0
        if rule.do in {"drop", "hang_after"}:
            return Dropped() if rule.do == "drop" else Hanging()
        if rule.do == "fail_then_success":
            answer = deed.pretend("decline")
        elif rule.do == "error_after":
            answer = deed.pretend("error")
        return render(answer, forge)

    def tell(self, charge: Charge, refund: Refund | None = None) -> None:
        """Call the merchant back."""
        self.notifier.post(self.notice(charge, refund), self.tell_after_s)

    def found(self, charge_id: str) -> Charge:
        """Return the charge that a payer means. Raises PayerRefused."""
        charge = self.book.get(charge_id)
        if charge is None:
            raise PayerRefused("no such charge", 404)
        return charge

    def pay_in_wallet(self, charge: Charge) -> Charge:
        """Take the money of a wallet's charge, once, and call back. Raises PayerRefused."""
        self.lapse(charge)
        if charge.state not in UNPAID:
            raise PayerRefused(f"the charge is {charge.state}")
        if rule := self.script.take("pay", (charge.request_id,), only={"decline", "insufficient_funds"}):
            self.book.note(charge, f"payer refused: {rule.do}")
            raise PayerRefused(rule.do, 402)
        self.book.take(charge, charge.amount)
        self.tell(charge)
        return charge

    def lapse(self, charge: Charge) -> None:
        """End a charge that nobody paid in time."""
        if charge.state in UNPAID and 0 < charge.expire_ms <= self.clock.now_ms():
            self.ended(charge, was=charge.state)

    def ended(self, charge: Charge, was: State) -> None:  # noqa: ARG002 - some providers tell by it
        """Close an expired charge; a provider that calls back then overrides it."""
        self.book.end(charge, State.CLOSED, "expired")

    def expire_later(self, charge: Charge) -> None:
        """Have a charge end in time though nobody looks."""
        wait_s = (charge.expire_ms - self.clock.now_ms()) / 1000
        if charge.state in UNPAID and charge.expire_ms and wait_s <= _EXPIRY_MAX_S:
            # A little late rather than early: lapse() looks at the clock again.
            later = asyncio.get_running_loop().call_later(max(0.0, wait_s) + 0.02, self._expire, charge)
            self._timers[charge.request_id] = later

    def _expire(self, charge: Charge) -> None:
        self._timers.pop(charge.request_id, None)
        self.lapse(charge)

    def act(self, charge_id: str, deed: str, action: Mapping[str, str]) -> Charge:
        """Do what the payer wants. Raises PayerRefused."""
        if deed == "pay":
            return self.pay(charge_id, action)
        charge = self.found(charge_id)
        if deed == "refuse":
            self.refuse(charge)
        return charge

    def return_url(self, charge: Charge) -> str:
        """Return where the payer's browser goes next."""
        return charge.details.get("return_url", "")

    def as_if_paid(self, charge: Charge) -> Charge:
        """Return a copy that says paid, for forgers; the book does not change."""
        return replace(charge, state=State.CAPTURED, captured=charge.amount, paid_ms=self.clock.now_ms())


async def read(request: Request) -> bytes:
    """Return the body's bytes; one that is too large is answered 413."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_MAX:
            raise HTTPException(413)
    return body


def callable_back(url: str) -> bool:
    """Tell whether a notify_url may be called: https, or http on loopback; no fragment, nor whitespace."""
    if len(url) > 256 or any(c.isspace() or c == "#" for c in url):
        return False
    return url.startswith(("https://", "http://127.0.0.1:", "http://localhost:", "http://[::1]:"))
