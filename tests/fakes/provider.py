"""A provider of payments in memory, with a book of its own: it does what it is asked for, or what its script says."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from typing import Any

from services.kernel.money import Money
from services.payment.adapters.outcome import ABSENT_REFUND, VERDICTS, unknown, unknown_refund, unsupported
from services.payment.domain import Method
from services.payment.ports import Clock
from services.payment.ports.provider import (
    Acknowledgement,
    Bill,
    BillLine,
    Callback,
    CallbackForged,
    Charge,
    Charged,
    Notice,
    Phase,
    Refunded,
    Refunding,
    Verdict,
)

_SECRET = b"the provider's own"
_OPEN = frozenset({Phase.WAITING, Phase.AUTHORIZED})


class Play(StrEnum):
    """How a provider takes one request."""

    FINE = "fine"
    """As it is meant: a card is charged or authorized, a wallet waits for its payer, a refund is made."""
    DECLINED = "declined"
    INSUFFICIENT = "insufficient"
    WAITS = "waits"
    """For the payer of a card; a refund is worked on."""
    WORKS = "works"
    """The outcome comes later, and nobody can hurry it."""
    LOST_BEFORE = "lost_before"
    """The request never arrives."""
    LOST_AFTER = "lost_after"
    """It is done, the answer is lost."""
    LATE = "late"
    """It arrives when the caller has long given up: at `arrive`."""
    FAILS_FIRST = "fails_first"
    """It is refused, and done nevertheless."""
    OTHER_AMOUNT = "other_amount"
    """It is done with one unit less than was asked for, where that is an amount."""


@dataclass
class Trade:
    """A charge in the provider's book; amounts are minor units."""

    charge: Charge
    provider_id: str
    phase: Phase
    captured: int = 0
    refunded: int = 0
    code: str = ""
    hidden: bool = False
    """Nobody scanned yet, so that the provider knows of no trade."""
    works: bool = False


@dataclass
class Return:
    """A refund in the provider's book."""

    refunding: Refunding
    provider_id: str
    verdict: Verdict
    code: str = ""


class FakeProvider:
    """The provider of ``method``. ``plan`` says how it takes a request (operation, number of ours).

    Without a plan it plays what is queued in ``plays`` by operation, and is fine else. Callbacks that it would send are
    in ``calls``, one per change; ``asked`` has every request that arrived.
    """

    def __init__(self, method: Method, clock: Clock, plan: Callable[[str, str], Play] | None = None) -> None:
        """Open an empty book."""
        self.method, self._clock = method, clock
        self.plan = plan or self._queued
        self.plays: defaultdict[str, deque[Play]] = defaultdict(deque)
        self.trades: dict[str, Trade] = {}
        self.returns: dict[str, Return] = {}
        self.calls: list[Callback] = []
        self.asked: list[tuple[str, str]] = []
        self.underway: list[Callable[[], object]] = []
        """Requests that are still on the wire."""
        self._made = 0

    def _queued(self, operation: str, request_id: str) -> Play:
        del request_id
        return self.plays[operation].popleft() if self.plays[operation] else Play.FINE

    # -- the port

    def charge(self, charge: Charge) -> Charged:
        """Ask for money."""
        return self._take("charge", charge.request_id, partial(self._charge, charge))

    def query(self, request_id: str) -> Charged:
        """Ask what became of a charge."""
        return self._take("query", request_id, lambda _: self._standing(request_id))

    def capture(self, request_id: str, provider_id: str, amount: Money) -> Charged:
        """Take what was authorized, once."""
        return self._take("capture", request_id, partial(self._capture, request_id, amount))

    def void(self, request_id: str, provider_id: str) -> Charged:
        """Let go of what was authorized, or waits for its payer."""
        return self._take("void", request_id, partial(self._void, request_id))

    def close(self, request_id: str) -> Charged:
        """End a charge that nobody paid."""
        return self._take("close", request_id, lambda _: self._close(request_id))

    def refund(self, refunding: Refunding) -> Refunded:
        """Give money back."""
        play = self.plan("refund", refunding.request_id)
        self.asked.append(("refund", refunding.request_id))
        if play is Play.LATE:
            self.underway.append(lambda: self._refund(refunding, Play.FINE))
        elif play is not Play.LOST_BEFORE:
            made = self._refund(refunding, play)
            return unknown_refund("timeout") if play is Play.LOST_AFTER else made
        return unknown_refund("timeout")

    def query_refund(self, refunding: Refunding) -> Refunded:
        """Ask what became of a refund."""
        self.asked.append(("query_refund", refunding.request_id))
        if self.plan("query_refund", refunding.request_id) is not Play.FINE:
            return unknown_refund("timeout")
        known = self.returns.get(refunding.request_id)
        return unknown_refund(ABSENT_REFUND) if known is None else self._returned(known)

    def parse(self, callback: Callback, now_ms: int) -> Notice:
        """Verify a callback on its exact bytes, then read it."""
        if callback.headers.get("fake-signature") != _signature(callback.body):
            raise CallbackForged("the signature does not verify")
        told = json.loads(callback.body)
        amount = Money(told["currency"], told["minor_units"])
        verdict, provider_id, code = Verdict(told["verdict"]), told["provider_id"], told["code"]
        if told["phase"]:
            charged = Charged(verdict, Phase(told["phase"]), provider_id, code, amount)
            return Notice(told["id"], told["request_id"], charged=charged)
        return Notice(told["id"], told["request_id"], refunded=Refunded(verdict, provider_id, code, amount))

    def acknowledge(self, *, taken: bool) -> Acknowledgement:
        """Answer a callback."""
        return Acknowledgement(200 if taken else 500, "text/plain", b"taken" if taken else b"again")

    def fetch_bill(self, day: str) -> Bill | None:
        """Give everything that is in the book, whatever the day."""
        lines = [
            BillLine("charge", each.charge.request_id, each.charge.request_id, each.provider_id,
                     _money(each, each.captured), 0, self._clock.now_ms())
            for each in self.trades.values()
            if each.captured
        ]  # fmt: skip
        lines += [
            BillLine("refund", each.refunding.request_id, each.refunding.charge_request_id, each.provider_id,
                     each.refunding.amount, 0, self._clock.now_ms())
            for each in self.returns.values()
            if each.verdict is Verdict.DONE
        ]  # fmt: skip
        return Bill(repr((day, lines)).encode(), tuple(lines))

    def stop(self) -> None:
        """Nothing is open."""

    # -- what payers, time and the wire do

    def pay(self, request_id: str) -> bool:
        """The payer pays, or passes the challenge; False: he cannot any more."""
        trade = self.trades[request_id]
        self._lapse(trade)
        if trade.phase is not Phase.WAITING:
            return False
        self._success(trade)
        return True

    def refuse(self, request_id: str) -> bool:
        """The payer of a card fails the challenge, or what was worked on is declined; a wallet's payer just does nothing."""
        trade = self.trades[request_id]
        if trade.phase is Phase.WAITING and self.method is Method.BANK_CARD:
            self._end(trade, Phase.FAILED, "AUTHENTICATION_FAILED")
            return True
        return False

    def finish_refund(self, request_id: str, *, done: bool) -> None:
        """What was worked on, or abnormal, or done, is settled otherwise."""
        known = self.returns[request_id]
        verdict = Verdict.DONE if done else Verdict.REFUSED
        if known.verdict is not verdict:
            amount = known.refunding.amount.minor_units
            before, after = (self._back(known.verdict, amount), self._back(verdict, amount))
            self.trades[known.refunding.charge_request_id].refunded += after - before
            known.verdict, known.code = verdict, "" if done else "CLOSED"
            self._tell(known)

    def arrive(self, place: int = 0) -> None:
        """A request that was on the wire arrives."""
        self.underway.pop(place)()

    def callback(self, request_id: str, forge: str = "") -> Callback:
        """Make a callback about how a charge or refund stands; ``forge``: signature, amount, currency or order."""
        known: Trade | Return = self.trades.get(request_id) or self.returns[request_id]
        said = self._said(known) if isinstance(known, Trade) else self._returned(known)
        amount = said.amount or Money("CNY", 0)
        self._made += 1
        told: dict[str, Any] = {
            "id": f"{self.method}-{self._made}",
            "request_id": request_id if forge != "order" else f"{request_id[:1]}999",
            "phase": said.phase if isinstance(said, Charged) else "",
            "verdict": said.verdict,
            "provider_id": said.provider_id,
            "code": said.code,
            "currency": "JPY" if forge == "currency" else amount.currency_code,
            "minor_units": amount.minor_units + (forge == "amount"),
        }
        body = json.dumps(told).encode()
        return Callback({"fake-signature": "none" if forge == "signature" else _signature(body)}, body)

    # -- how it takes requests

    def _take(self, operation: str, request_id: str, act: Callable[[Play], Charged]) -> Charged:
        play = self.plan(operation, request_id)
        self.asked.append((operation, request_id))
        if play is Play.LATE:
            self.underway.append(lambda: act(Play.FINE))
        elif play is not Play.LOST_BEFORE:
            made = act(play)
            return unknown("timeout") if play is Play.LOST_AFTER else made
        return unknown("timeout")

    def _charge(self, charge: Charge, play: Play) -> Charged:
        known = self.trades.get(charge.request_id)
        if known is not None:
            return self._said(known, acts=True) if known.charge.amount == charge.amount else unknown("REQUEST_CONFLICT")
        if self.method is not Method.BANK_CARD and (not charge.capture or charge.amount.currency_code != "CNY"):
            return unsupported()
        if play in {Play.DECLINED, Play.INSUFFICIENT} and self.method is not Method.BANK_CARD:
            return Charged(Verdict.REFUSED, code=play.upper())  # a wallet opens no trade then
        self._made += 1
        trade = self.trades[charge.request_id] = Trade(charge, f"{self.method}-t{self._made}", Phase.WAITING)
        trade.hidden = self.method is Method.ALIPAY
        trade.works = play is Play.WORKS
        if play in {Play.DECLINED, Play.INSUFFICIENT}:
            self._end(trade, Phase.FAILED, play.upper())
        elif play is Play.OTHER_AMOUNT:
            self._success(trade, charge.amount.minor_units - 1 or 1)
        elif play is Play.FAILS_FIRST:
            self._success(trade)
            return Charged(Verdict.REFUSED, Phase.FAILED, trade.provider_id, "PROCESSING_ERROR")
        elif self.method is Method.BANK_CARD and play not in {Play.WAITS, Play.WORKS}:
            self._success(trade)
        return self._said(trade, acts=True)

    def _capture(self, request_id: str, amount: Money, play: Play) -> Charged:
        trade = self.trades.get(request_id)
        if trade is None or self.method is not Method.BANK_CARD:
            return unsupported()
        asked = amount.minor_units - (play is Play.OTHER_AMOUNT) or 1
        if trade.captured == asked:
            return self._said(trade)
        if trade.phase is not Phase.AUTHORIZED or play in {Play.DECLINED, Play.INSUFFICIENT}:
            return replace(self._said(trade), verdict=Verdict.REFUSED, code=play.upper())
        self._captured(trade, asked)
        return self._said(trade)

    def _void(self, request_id: str, play: Play) -> Charged:
        trade = self.trades.get(request_id)
        if trade is None or self.method is not Method.BANK_CARD:
            return unsupported()
        if trade.phase in _OPEN and play is not Play.DECLINED:
            self._end(trade, Phase.CLOSED)
        done = trade.phase in {Phase.CLOSED, Phase.FAILED}
        return replace(self._said(trade), verdict=Verdict.DONE if done else Verdict.REFUSED)

    def _close(self, request_id: str) -> Charged:
        trade = self.trades.get(request_id)
        if trade is None or trade.hidden:
            return Charged(Verdict.DONE, Phase.ABSENT)
        self._lapse(trade)
        if trade.phase is Phase.WAITING and not trade.works:
            self._end(trade, Phase.CLOSED)
        if trade.phase in {Phase.CLOSED, Phase.FAILED}:
            return Charged(Verdict.DONE, trade.phase, trade.provider_id)
        if self.method is Method.BANK_CARD:
            return replace(self._said(trade), verdict=Verdict.UNKNOWN if trade.works else Verdict.REFUSED)
        return Charged(Verdict.REFUSED, code="PAID")

    def _refund(self, refunding: Refunding, play: Play) -> Refunded:
        known = self.returns.get(refunding.request_id)
        if known is not None:
            return self._returned(known)
        trade = self.trades.get(refunding.charge_request_id)
        if trade is None or trade.refunded + refunding.amount.minor_units > trade.captured:
            return Refunded(Verdict.REFUSED, code="NOT_ENOUGH")
        self._made += 1
        verdict = {Play.DECLINED: Verdict.REFUSED, Play.WAITS: Verdict.PENDING, Play.WORKS: Verdict.UNKNOWN}
        made = Return(refunding, f"{self.method}-r{self._made}", verdict.get(play, Verdict.DONE))
        made.code = {Play.DECLINED: "DECLINED", Play.WORKS: "ABNORMAL"}.get(play, "")
        self.returns[refunding.request_id] = made
        trade.refunded += self._back(made.verdict, refunding.amount.minor_units)
        self._tell(made)
        return Refunded(Verdict.REFUSED, code="ERROR") if play is Play.FAILS_FIRST else self._returned(made)

    # -- the book

    def _standing(self, request_id: str) -> Charged:
        trade = self.trades.get(request_id)
        if trade is None or trade.hidden:
            return Charged(VERDICTS[Phase.ABSENT], Phase.ABSENT, code="ABSENT")
        self._lapse(trade)
        return self._said(trade)

    def _said(self, trade: Trade, *, acts: bool = False) -> Charged:
        phase, amount = trade.phase, _money(trade, trade.captured or trade.charge.amount.minor_units)
        if trade.refunded and self.method is Method.WECHAT:
            phase = Phase.REFUNDED  # in whole or in part
        elif trade.refunded and trade.refunded == trade.captured:
            phase = Phase.CLOSED if self.method is Method.ALIPAY else Phase.REFUNDED
        verdict = Verdict.UNKNOWN if trade.works and phase is Phase.WAITING else VERDICTS[phase]
        card = self.method is Method.BANK_CARD
        waits = verdict is Verdict.PENDING and (acts or card)  # a wallet shows it once
        action = {("challenge_url" if card else "qr_code"): f"pay:{trade.charge.request_id}"} if waits else {}
        return Charged(verdict, phase, trade.provider_id, trade.code, amount, action)

    def _returned(self, known: Return) -> Refunded:
        return Refunded(known.verdict, known.provider_id, known.code, known.refunding.amount)

    def _success(self, trade: Trade, amount: int | None = None) -> None:
        trade.hidden = trade.works = False
        if trade.charge.capture:
            self._captured(trade, trade.charge.amount.minor_units if amount is None else amount)
        else:
            trade.phase = Phase.AUTHORIZED
            self._tell(trade)

    def _captured(self, trade: Trade, amount: int) -> None:
        assert (trade.phase in _OPEN, trade.captured) == (True, 0), "money is taken once"
        trade.phase, trade.captured = Phase.CAPTURED, amount
        self._tell(trade)

    def _end(self, trade: Trade, phase: Phase, code: str = "") -> None:
        trade.phase, trade.code, trade.hidden, trade.works = phase, code, False, False
        self._tell(trade)

    def _lapse(self, trade: Trade) -> None:
        if trade.phase is not Phase.WAITING or trade.works or self._clock.now_ms() < trade.charge.expire_ms:
            return
        if trade.hidden:
            trade.phase = Phase.CLOSED  # nobody ever hears of it
        else:
            self._end(trade, Phase.CLOSED)

    def _tell(self, known: Trade | Return) -> None:
        about = known.charge if isinstance(known, Trade) else known.refunding
        self.calls.append(self.callback(about.request_id))

    @staticmethod
    def _back(verdict: Verdict, amount: int) -> int:
        """What a refund takes of what is left: also while it is worked on."""
        return 0 if verdict is Verdict.REFUSED else amount


def _money(trade: Trade, minor_units: int) -> Money:
    return Money(trade.charge.amount.currency_code, minor_units)


def _signature(body: bytes) -> str:
    return hashlib.sha256(_SECRET + body).hexdigest()
