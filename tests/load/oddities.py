"""One payment in every state that a payment can be in, made by the use cases, for whoever checks that checks hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import sqlalchemy as sa

from services.kernel.money import Money
from services.order import store as order_store
from services.order import usecases as orders
from services.payment import usecases as payments
from services.payment.domain import Attempt, Decision, Method
from services.payment.ports import Change, Deed
from services.payment.ports.provider import Charged, Phase, Refunded, Verdict
from services.payment.usecases.refund import give_back
from services.payment.usecases.settling import Settling
from services.sandbox.book import Charge, Refund, State
from tests.load.fill import Fill, caller

CARD, WALLET = Method.BANK_CARD, Method.ALIPAY
CLERK = caller(1)
AUTHORIZE = payments.How(capture=False)


class Oddities:
    """What a fill leaves out, because it does not last: times are close to the fill's."""

    def __init__(self, fill: Fill) -> None:
        """Make everything; ``ids`` says which payment or refund is which."""
        self.fill, self.mesh, self.ports = fill, fill.mesh, fill.mesh.payment
        self.ids: dict[str, int] = {}
        self._charges()
        self._cards()
        self._late()
        self._refunds()
        self._rejected()
        self._operators()
        fill.spread()
        fill.publish()

    def _begin(self, name: str, method: Method = WALLET, how: payments.How | None = None) -> Attempt:
        (attempt,) = self.fill.begin(self.fill.order(1), method, how)
        self.ids[name] = attempt.payment_id
        self.mesh.clock.ms += 5
        return attempt

    def _say(self, attempt: Attempt, verdict: Verdict, phase: Phase | None = None, **more: object) -> None:
        said = Charged(verdict, phase, f"no-{attempt.payment_id}", **more)  # type: ignore[arg-type]
        payments.settle(self.ports, [payments.Said(attempt, charged=said)])
        self.mesh.clock.ms += 5

    def _note(self, attempt: Attempt, state: State, captured: int = 0, refunds: Sequence[Refund] = ()) -> None:
        """Write into the provider's book that it holds or took money."""
        charge: Charge = self.fill.charge(attempt)
        charge.state, charge.captured, charge.charged, charge.times_charged = state, captured, captured, 1
        charge.refunds = {refund.request_id: refund for refund in refunds}
        self.fill.write({attempt.method: [self.fill.line(str(state), charge)]})

    def _take(self, name: str, method: Method = WALLET) -> Attempt:
        attempt = self._begin(name, method)
        self._note(attempt, State.CAPTURED, attempt.amount.minor_units)
        self._say(attempt, Verdict.DONE, Phase.CAPTURED)
        return attempt

    def _charges(self) -> None:
        self._say(self._begin("waiting"), Verdict.PENDING, Phase.WAITING, action={"qr_code": "https://qr.example/1"})
        self._say(self._begin("unknown"), Verdict.UNKNOWN)
        self._say(self._begin("refused"), Verdict.REFUSED, Phase.FAILED, code="declined")
        wrong = self._begin("mismatch")
        amount = Money("CNY", wrong.amount.minor_units + 1)
        self._note(wrong, State.CAPTURED, amount.minor_units)
        self._say(wrong, Verdict.DONE, Phase.CAPTURED, amount=amount)

    def _authorized(self, name: str) -> Attempt:
        attempt = self._begin(name, CARD, AUTHORIZE)
        self._note(attempt, State.AUTHORIZED)
        self._say(attempt, Verdict.DONE, Phase.AUTHORIZED)
        return attempt

    def _cards(self) -> None:
        self._authorized("held")
        part = self._authorized("part")
        amount = Money("CNY", 50)
        item = payments.CapturePayment(CLERK, self.mesh.key(1, "CapturePayment"), part.payment_id, amount)
        self._note(part, State.CAPTURED, 50)
        self._say(_work(payments.capture_payments(self.ports, [item])), Verdict.DONE, Phase.CAPTURED)
        voided = self._authorized("voided")
        void = payments.VoidPayment(CLERK, self.mesh.key(1, "VoidPayment"), voided.payment_id)
        self._note(voided, State.VOIDED)
        self._say(_work(payments.void_payments(self.ports, [void])), Verdict.DONE, Phase.CLOSED)
        late = self._begin("held_late", CARD)
        self._say(late, Verdict.REFUSED, Phase.FAILED, code="declined")
        self._say(late, Verdict.DONE, Phase.AUTHORIZED)

    def _late(self) -> None:
        """Closed, and paid nevertheless: one waits for its review, the other is given back beside its order."""
        for name in ("late", "beside"):
            self.late = attempt = self._begin(name)
            self._say(attempt, Verdict.DONE, Phase.CLOSED)
            self._note(attempt, State.CAPTURED, attempt.amount.minor_units)
            self._say(attempt, Verdict.DONE, Phase.CAPTURED)
        with self.ports.store.transaction() as tx:
            settling = Settling(self.ports, tx, [self.ids["beside"]])
            payment = settling.payments[self.ids["beside"]]
            (review,) = tx.reviews([payment.id])
            review.propose(Decision.GIVE_BACK, 1, "it is not ours", settling.now_ms)
            review.decide(Decision.GIVE_BACK, 2, "so it is", settling.now_ms, agree=True)
            settling.change.changed_reviews[review.id] = review
            settling.book_beside(payment, payment.amount.minor_units)
            _, back = give_back(self.ports, settling.change, payment, payment.captured, "late", None)
            tx.write(settling.change)
            tx.commit()
        assert back is not None
        self._given(self.late, back)
        payments.settle(self.ports, [payments.Said(back, refunded=Refunded(Verdict.DONE))])

    def _refund(self, name: str) -> tuple[Attempt, Attempt]:
        charge = self._take(f"payment of {name}")
        key = self.mesh.key(1, "RefundPayment")
        item = payments.RefundPayment(CLERK, key, charge.payment_id, Money("CNY", 30), "a scratch")
        attempt = _work(payments.refund_payments(self.ports, [item]))
        self.ids[name] = attempt.refund_id
        return charge, attempt

    def _given(self, charge: Attempt, refund: Attempt) -> None:
        given = Refund(refund.request_id, "re", refund.amount.minor_units, self.mesh.clock.now_ms())
        self._note(charge, State.CAPTURED, charge.amount.minor_units, [given])

    def _refunds(self) -> None:
        done, refused = Refunded(Verdict.DONE), Refunded(Verdict.REFUSED, code="not_enough")
        for name, given, answers in (
            ("refund pending", False, [Refunded(Verdict.PENDING)]),
            ("refund unknown", False, [Refunded(Verdict.UNKNOWN)]),
            ("refund failed", False, [refused]),
            ("refund doubted", False, [replace(done, amount=Money("CNY", 29))]),
            ("refund taken back", True, [done, refused]),
        ):
            charge, attempt = self._refund(name)
            if given:
                self._given(charge, attempt)
            for answer in answers:
                payments.settle(self.ports, [payments.Said(attempt, refunded=answer)])
                self.mesh.clock.ms += 5

    def _rejected(self) -> None:
        """A payment whose order was cancelled meanwhile: given back whole, and the order stays as it is."""
        (order,) = self.fill.order(1)
        self.fill.begin([order], Method.BALANCE)
        cancel = orders.SetOrderStatus(caller(order.user_id), order.id, "cancelled")
        orders.set_order_statuses(self.mesh.order, [cancel])
        self.fill.spread()
        events = self._events_of(order.id)
        for number, topic, payment_id in events:
            if topic == "order.cancelled":
                known = payments.OrderCancelled(f"order-{number}", topic, order.id, order.user_id, 2)
                payments.know_orders(self.ports, [known])
            elif topic == "order.payment_rejected":
                owed = payments.RefundRejected(f"order-{number}", topic, payment_id, "order_cancelled")
                assert payments.refund_rejected(self.ports, [owed]) == [None]
        self.ids["rejected"] = events[-1][2]

    def _events_of(self, order_id: int) -> list[tuple[int, str, int]]:
        o, r = order_store.outbox.c, order_store.rejected_payments.c
        with self.mesh.databases["order"].read() as connection:
            rejected = connection.execute(sa.select(r.payment_id).where(r.order_id == order_id)).scalar_one()
            events = sa.select(o.id, o.topic).where(o.event_key == str(order_id)).order_by(o.version)
            return [(number, topic, rejected) for number, topic in connection.execute(events)]

    def _operators(self) -> None:
        user_id = self.fill.users[0]
        paid_out = payments.WithdrawBalance(CLERK, self.mesh.key(1, "WithdrawBalance"), user_id, Money("CNY", 70))
        payments.withdraw_balances(self.ports, [paid_out])
        for deed in (Deed(1, "review.propose", 5, "give back"), Deed(2, "review.decide", 5, "agreed")):
            with self.ports.store.transaction() as tx:
                tx.write(Change(self.mesh.clock.now_ms(), audit=[deed]))
                tx.commit()


def _work(outcomes: Sequence[object]) -> Attempt:
    (outcome,) = outcomes
    attempt = getattr(outcome, "work", None)
    assert isinstance(attempt, Attempt), outcome
    return attempt
