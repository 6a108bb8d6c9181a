"""Two operators who decide reviews: they look into the provider's book, and agree mostly."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from services.kernel.idempotency import IdempotencyKey, Scope
from services.kernel.pages import Page
from services.payment import states, usecases
from services.payment.domain import Decision, Method, Review
from services.payment.ports.provider import Phase, Verdict
from tests.simulation.clients import PATIENCE_MS, Request, caller

if TYPE_CHECKING:
    from tests.simulation.processes import Reply
    from tests.simulation.world import Sim

ONE, OTHER = 901, 902
LOOKS_MAX = 12
"""How often they look again when everything settles: what then is open still stays so."""


class Operators:
    """They decide in three runs of four; in the others reviews stay open, which is rest, too."""

    def __init__(self, sim: Sim) -> None:
        """Nothing was looked at yet."""
        self._sim, self._rng = sim, sim.plan.noise("operators")
        self._at_work, self._looks = self._rng.random() < 0.75, 0

    def look(self) -> str:
        """Propose and decide what is open; says how much that is."""
        process = self._rng.choice(self._sim.payments)
        if not self._at_work or not process.up:
            return ""
        found, _ = usecases.list_reviews(process.ports, Page(50, ""), decided=False)
        for review in found:
            self._take(review)
        return str(len(found) or "")

    def look_again(self) -> bool:
        """Look when nothing else is left to do; whether there was something."""
        self._looks += 1
        return self._looks <= LOOKS_MAX and bool(self.look())

    def _take(self, review: Review) -> None:
        if review.status == states.REVIEW_OPEN:
            true = self._truth(review)
            if not true:
                return  # nobody can tell yet
            command = usecases.ProposeReview(caller(ONE), review.id, self._rng.choice(true), "as its book says")
            self._send(None, "propose_reviews", command)
        else:
            agree = self._rng.random() < 0.9
            self._sim.keys += 1
            name = f"decides-{review.id}-{self._sim.keys}"
            key = IdempotencyKey(Scope(OTHER, "DecideReview", name), hashlib.sha256(str(agree).encode()).digest())
            assert review.decision is not None
            decides = usecases.DecideReview(caller(OTHER), key, review.id, review.decision, agree, "so it is")
            self._send(key, "decide_reviews", decides)

    def _truth(self, review: Review) -> list[Decision]:
        """What fits the provider's book."""
        payment = self._sim.payments[0].ports.store.payment(review.payment_id, None)
        assert payment is not None
        provider = self._sim.providers[Method(payment.method)]
        if review.refund_id:
            back = provider.returns.get(f"R{review.refund_id}")
            if back is None or back.verdict not in {Verdict.DONE, Verdict.REFUSED}:
                return []
            return [Decision.ACCEPT if back.verdict is Verdict.DONE else Decision.REFUSE]
        trade = provider.trades.get(payment.payment_no)
        if (
            trade is None
            or trade.phase in {Phase.WAITING, Phase.AUTHORIZED}
            or trade.captured != (review.amount or trade.captured)
        ):
            return []
        return [Decision.ACCEPT, Decision.GIVE_BACK] if trade.captured else [Decision.REFUSE]

    def _send(self, key: IdempotencyKey | None, kind: str, command: object) -> None:
        def call(reply: Reply) -> None:
            self._rng.choice(self._sim.payments).call(kind, command, PATIENCE_MS, reply)

        Request(self._sim, self._rng, key, call, lambda _: None).send()
