"""Providers of a run: as the fake, and what they said of each charge is remembered, for a word must have a reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from services.payment.domain import Method
from services.payment.ports.provider import Callback, Charged, Phase, Refunded, Refunding, Verdict
from tests.fakes.provider import FakeProvider, Play

if TYPE_CHECKING:
    from tests.simulation.world import Sim

PAN = "4539578763621486"
"""The number of the card that users keep; only the vault and the card network have it."""

_CHARGE = {
    Play.FINE: 50, Play.DECLINED: 5, Play.INSUFFICIENT: 4, Play.WAITS: 10, Play.WORKS: 4, Play.LOST_BEFORE: 7,
    Play.LOST_AFTER: 9, Play.LATE: 6, Play.FAILS_FIRST: 2, Play.OTHER_AMOUNT: 2,
}  # fmt: skip
_CHANGE = {
    Play.FINE: 60, Play.DECLINED: 8, Play.LOST_BEFORE: 9, Play.LOST_AFTER: 12, Play.LATE: 9, Play.OTHER_AMOUNT: 2,
}  # fmt: skip
_REFUND = {
    Play.FINE: 52, Play.DECLINED: 7, Play.WAITS: 8, Play.WORKS: 6, Play.LOST_BEFORE: 8, Play.LOST_AFTER: 10,
    Play.LATE: 7, Play.FAILS_FIRST: 2,
}  # fmt: skip
_QUERY = {Play.FINE: 88, Play.LOST_BEFORE: 12}
_PLAYS = {
    "charge": _CHARGE, "capture": _CHANGE, "void": _CHANGE, "refund": _REFUND, "query": _QUERY, "query_refund": _QUERY,
    "close": {Play.FINE: 70, Play.LOST_BEFORE: 15, Play.LOST_AFTER: 15},
}  # fmt: skip
_ENDED = frozenset({Phase.CLOSED, Phase.FAILED})


class SimProvider(FakeProvider):
    """A provider whose moods follow from the seed."""

    def __init__(self, sim: Sim, method: Method) -> None:
        """Be as moody as the plan's seed says, and in a good mood when everything settles."""
        super().__init__(method, sim.clock, self._mood)
        self._sim, self._nth = sim, Counter[tuple[str, str]]()
        self.rng = sim.plan.noise("provider", method)
        self.odd: set[str] = set()
        """Numbers of ours about which it contradicted itself, or us."""
        self._late: set[tuple[str, str]] = set()
        self.ended: set[str] = set()
        """Charges that it said had ended without money."""
        self.refused: set[str] = set()
        """Refunds that it refused."""

    def _mood(self, operation: str, request_id: str) -> Play:
        if self._sim.calm:
            return Play.FINE
        self._nth[operation, request_id] += 1
        rng = self._sim.plan.noise(self.method, operation, request_id, self._nth[operation, request_id])
        play = rng.choices(list(_PLAYS[operation]), list(_PLAYS[operation].values()))[0]
        self._sim.met[f"{operation} {play}"] += 1
        if play is Play.LATE:
            self._late.add((operation, request_id))
        if play in {Play.FAILS_FIRST, Play.OTHER_AMOUNT} or (
            play is Play.DECLINED and (operation, request_id) in self._late
        ):
            self.odd.add(request_id)
        return play

    def _take(self, operation: str, request_id: str, act: Callable[[Play], Charged]) -> Charged:
        said = super()._take(operation, request_id, act)
        if said.verdict is Verdict.REFUSED and operation == "charge":
            self.ended.add(request_id)
        if said.phase in _ENDED or (said.phase is Phase.ABSENT and said.verdict is Verdict.DONE):
            self.ended.add(request_id)
        return said

    def refund(self, refunding: Refunding) -> Refunded:
        """Give money back."""
        said = super().refund(refunding)
        if said.verdict is Verdict.REFUSED:
            self.refused.add(refunding.request_id)
        return said

    def callback(self, request_id: str, forge: str = "") -> Callback:
        """Make a callback."""
        made = super().callback(request_id, forge)
        trade, back = self.trades.get(request_id), self.returns.get(request_id)
        if not forge and trade is not None and trade.phase in _ENDED:
            self.ended.add(request_id)
        if not forge and back is not None and back.verdict is Verdict.REFUSED:
            self.refused.add(request_id)
        return made

    def come_to_rest(self) -> None:
        """What is on the wire arrives, what is worked on is decided; payers who have not paid do not pay any more."""
        while self.underway:
            self.arrive()
        for request_id, trade in self.trades.items():
            if trade.works and trade.phase is Phase.WAITING:
                rng = self._sim.plan.noise(self.method, "decides", request_id)
                if not (rng.random() < 0.5 and self.refuse(request_id)):
                    self.pay(request_id)
        for request_id, back in self.returns.items():
            if back.verdict in {Verdict.PENDING, Verdict.UNKNOWN}:
                rng = self._sim.plan.noise(self.method, "decides", request_id)
                self.finish_refund(request_id, done=rng.random() < 0.7)
