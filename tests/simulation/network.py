"""What is between the processes: a broker that delivers at least once, and providers' callbacks, which may never come."""

from __future__ import annotations

from functools import partial
from random import Random
from typing import TYPE_CHECKING

from paymesh.payment.v1 import payment_event_pb2
from services.contract.load import contract
from services.kernel.errors import DomainError
from services.order import mapping as order_mapping
from services.payment.consumer import SUBSCRIPTIONS
from services.payment.ports.provider import Callback
from services.platform.consumer import TRIES, Subscription

if TYPE_CHECKING:
    from tests.simulation.providers import SimProvider
    from tests.simulation.world import Sim

ORDER_SUBSCRIPTIONS = (
    Subscription(payment_event_pb2.PaymentSuccess, order_mapping.payment_succeeded, "pay_orders"),
    Subscription(payment_event_pb2.PaymentRefunded, order_mapping.payment_refunded, "refund_orders"),
)
CALLS_MAX = 12
LATE_MS = 3_600_000
"""When a provider calls again that was not heard: hours later."""


def reason_of(outcome: object) -> str:
    """The reason of a refusal, "" for all else."""
    return outcome.reason if isinstance(outcome, DomainError) else ""


class Broker:
    """Delivers events late, twice, in any order, and again until their effect is committed."""

    def __init__(self, sim: Sim) -> None:
        """Know who handles what."""
        self._sim, self._rng = sim, sim.plan.noise("broker")
        by_room = {"payment": SUBSCRIPTIONS, "order": ORDER_SUBSCRIPTIONS}
        events = contract().events
        self._handled = {
            (events[s.message.DESCRIPTOR.full_name].topic, room): s for room, some in by_room.items() for s in some
        }

    def publish(self, topic: str, event_id: str, payload: bytes) -> None:
        """Take an event."""
        for (handled, room), subscription in self._handled.items():
            if handled == topic:
                command = subscription.command(subscription.message.FromString(payload), event_id)
                for _ in range(1 + self._sim.unlucky(self._rng, 0.1)):
                    self._deliver(room, subscription.kind, f"{topic} {event_id}", command, 1)

    def _deliver(self, room: str, kind: str, name: str, command: object, tries: int) -> None:
        delay = self._sim.delay(self._rng, slow=0.1) if tries == 1 else 700 * tries
        self._sim.at(delay, f"{name} to {room}", partial(self._hand_over, room, kind, name, command, tries))

    def _hand_over(self, room: str, kind: str, name: str, command: object, tries: int) -> None:
        process = self._rng.choice(self._sim.processes(room))
        again = partial(self._deliver, room, kind, name, command)

        def handled(outcome: object) -> None:
            if not isinstance(outcome, Exception):
                if self._sim.unlucky(self._rng, 0.05):
                    again(1)  # its offset was not committed
            elif reason_of(outcome) == "UNAVAILABLE":
                again(tries)
            elif tries < TRIES:
                again(tries + 1)
            else:
                self._sim.breach("I7", f"{name} is a dead letter: {outcome}")

        process.submit(kind, command, process.promised(handled, partial(again, 1)))


class Calls:
    """Brings providers' callbacks to any payment process: late, several times, or hours later; and forged ones."""

    def __init__(self, sim: Sim) -> None:
        """Nothing is on its way."""
        self._sim = sim
        self._unheard: list[tuple[SimProvider, Callback]] = []
        self.refused = 0
        """Forged ones that were refused."""

    def send(self) -> None:
        """Send what providers have to tell."""
        for provider in self._sim.providers.values():
            while provider.calls:
                call = provider.calls.pop(0)
                if self._sim.unlucky(provider.rng, 0.15):
                    self._unheard.append((provider, call))
                    continue
                for _ in range(provider.rng.choice((1, 1, 1, 2, 3))):
                    self._later(provider, call, self._sim.delay(provider.rng, slow=0.2), 1)

    def send_unheard(self) -> None:
        """Send what was lost, hours later."""
        for provider, call in self._unheard:
            self._later(provider, call, LATE_MS, 1)

    def _later(self, provider: SimProvider, call: Callback, delay_ms: int, tries: int) -> None:
        self._sim.at(delay_ms, f"{provider.method} calls", partial(self._arrive, provider, call, tries))

    def _arrive(self, provider: SimProvider, call: Callback, tries: int) -> str:
        process, notice = provider.rng.choice(self._sim.payments), provider.parse(call, 0)

        def again() -> None:
            if tries < CALLS_MAX:
                self._later(provider, call, 15_000 * tries, tries + 1)

        def taken(outcome: object) -> None:
            reason = reason_of(outcome)
            if reason == "UNAVAILABLE":
                again()
            elif reason == "CALLBACK_REFUSED" and notice.request_id not in provider.odd:
                self._sim.breach("F9", f"a genuine callback was refused: {notice}")

        if not process.up:
            again()
            return "nobody answers"
        reply = process.promised(taken, again)
        outcome = process.guarded(lambda: process.hear(provider.method, call, reply))()
        return outcome or notice.request_id

    def forge(self, rng: Random) -> str:
        """Send one that somebody made up, with or without the provider's signature."""
        provider = self._sim.providers[rng.choice(tuple(self._sim.providers))]
        about, forge = rng.choice([*provider.trades, ""]), rng.choice(("signature", "amount", "currency", "order"))
        if not about or about in provider.odd:
            return "nothing to forge, or its amount is none already"
        forged, process = provider.callback(about, forge), rng.choice(self._sim.payments)

        def taken(outcome: object) -> None:
            self.refused += reason_of(outcome) == "CALLBACK_REFUSED"
            if not isinstance(outcome, DomainError):
                self._sim.breach("F9", f"a callback with a forged {forge} was taken")

        outcome = process.guarded(lambda: process.hear(provider.method, forged, taken))()
        return f"{about} {forge} {outcome}"
