"""Reviews: each way into one, each decision, and where the money is then; tests/integration runs the same over SQL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from services.kernel.caller import Caller
from services.kernel.errors import DomainError
from services.kernel.idempotency import Answer, IdempotencyKey, InFlight, Scope
from services.kernel.money import Money
from services.kernel.pages import Page
from services.payment import states, usecases
from services.payment.domain import AccountKey, Attempt, Decision, KnownOrder, Method, Payment, Reason, Refund, Review
from services.payment.domain.ledger import MERCHANT_SETTLEMENT, REFUNDS_PAYABLE
from services.payment.ports import Change, Deed, Ports
from services.payment.ports.provider import Charged, Phase, Refunded, Verdict
from tests.fakes.payment import World
from tests.fakes.provider import FakeProvider

USER, ANNE, BOB = 7, 101, 102
FIRST = Page(50, "")
ACCEPT, REFUSE, GIVE_BACK = Decision.ACCEPT, Decision.REFUSE, Decision.GIVE_BACK
DECLINED = Charged(Verdict.REFUSED, Phase.FAILED, code="declined")
EXPIRED = Charged(Verdict.DONE, Phase.CLOSED)
DONE, REFUSED = Refunded(Verdict.DONE), Refunded(Verdict.REFUSED, code="no_way")


def taken(amount: int | None = None, currency: str = "CNY") -> Charged:
    """What a provider says that took money."""
    said = None if amount is None else Money(currency, amount)
    return Charged(Verdict.DONE, Phase.CAPTURED, "trade-1", amount=said)


class Room:
    """A payment room whose provider says what the test wants."""

    def __init__(
        self,
        world: World,
        ports: Ports,
        events: Callable[[], list[tuple[str, int, int]]],
        deeds: Callable[[], list[Deed]],
    ) -> None:
        """Work with ``ports``, and look at what no port shows."""
        self.world, self.ports, self.events, self.deeds = world, ports, events, deeds
        world.providers[Method.ALIPAY] = FakeProvider(Method.ALIPAY, world.clock)  # there, and never asked
        self._keys = 0

    def key(self, subject: int, method: str) -> IdempotencyKey:
        """A key that nobody used."""
        self._keys += 1
        return IdempotencyKey(Scope(subject, method, f"key-{self._keys:06}"), b"f" * 32)

    def begin(self, order_id: int = 11, amount: int = 100) -> Payment:
        """A payment that a provider was asked for."""
        order = KnownOrder(order_id, USER, Money("CNY", amount), "pending", self.world.clock.ms + 60_000, 1)
        event = usecases.OrderKnown(f"order-{order_id}", "order.created", order)
        usecases.know_orders(self.ports, [event])
        who, number = caller(USER), self.world.ids.next(0)
        key = self.key(USER, "CreatePayment")
        command = usecases.CreatePayment(who, key, order_id, Method.ALIPAY, None, number)
        [begun] = usecases.create_payments(self.ports, [command])
        assert isinstance(begun, InFlight), begun
        return self.payment(number)

    def say(self, payment: Payment, charged: Charged) -> Payment:
        """Let the provider say something of a charge."""
        attempt = self.attempts(payment.id)[payment.id]
        usecases.settle(self.ports, [usecases.Said(attempt, charged)])
        return self.payment(payment.id)

    def late(
        self, order_id: int = 11, ended: Charged = DECLINED, said: Charged | None = None
    ) -> tuple[Payment, Review]:
        """A payment that ended, and whose money came after."""
        payment = self.say(self.begin(order_id), ended)
        payment = self.say(payment, said or taken())
        return payment, self.review(payment)

    def paid(self, order_id: int = 11) -> Payment:
        """A payment that took its money."""
        return self.say(self.begin(order_id), taken())

    def refund(self, payment: Payment, amount: int | None = None) -> int:
        """Ask for a refund, and return its id; the provider was not asked yet."""
        money = None if amount is None else Money("CNY", amount)
        command = usecases.RefundPayment(caller(USER), self.key(USER, "RefundPayment"), payment.id, money, "")
        [begun] = usecases.refund_payments(self.ports, [command])
        assert isinstance(begun, InFlight), begun
        return begun.id

    def say_of_refund(self, refund_id: int, *words: Refunded) -> Refund:
        """Let the provider say things of a refund, one after the other."""
        for word in words:
            attempt = self.attempts(self.found(refund_id).payment_id)[refund_id]
            usecases.settle(self.ports, [usecases.Said(attempt, refunded=word)])
        return self.found(refund_id)

    def found(self, refund_id: int) -> Refund:
        """A refund as it is now."""
        refund = self.ports.store.refund(refund_id)
        assert refund is not None
        return refund

    def payment(self, payment_id: int) -> Payment:
        """A payment as it is now; the cache says the same."""
        payment = self.ports.store.payment(payment_id, None)
        assert payment is not None
        shown = usecases.get_payment(self.ports, payment_id, None)
        assert (shown.status, shown.refunded, shown.live) == (payment.status, payment.refunded, payment.live)
        return payment

    def attempts(self, payment_id: int) -> dict[int, Attempt]:
        """What was asked of the provider about a payment."""
        with self.ports.store.transaction() as tx:
            return tx.attempts([payment_id])

    def review(self, payment: Payment, refund_id: int = 0) -> Review:
        """The one review that waits for a decision."""
        waiting = self.ports.store.reviews_from(FIRST, decided=False)
        [found] = [r for r in waiting if (r.payment_id, r.refund_id) == (payment.id, refund_id)]
        return found

    def propose(self, review: Review, decision: Decision, actor: int = ANNE, note: str = "so it is") -> str:
        """Propose; returns the reason of a refusal."""
        item = usecases.ProposeReview(caller(actor), review.id, decision, note)
        [outcome] = usecases.propose_reviews(self.ports, [item])
        return outcome.reason if isinstance(outcome, DomainError) else ""

    def decide(self, review: Review, actor: int = BOB, *, agree: bool = True) -> str:
        """Decide; returns the reason of a refusal."""
        return why(self.decided(review, actor, agree=agree))

    def decided(self, review: Review, actor: int = BOB, *, agree: bool = True) -> Answer:
        """Decide; returns the answer."""
        [answer] = usecases.decide_reviews(self.ports, [self.decision(review, actor, agree=agree)])
        return answer

    def decision(self, review: Review, actor: int = BOB, *, agree: bool = True) -> usecases.DecideReview:
        """What decides, about what is proposed now."""
        [now] = [r for r in self.ports.store.reviews_from(FIRST, decided=True) if r.id == review.id] or [review]
        key = self.key(actor, "DecideReview")
        return usecases.DecideReview(caller(actor), key, review.id, now.decision or ACCEPT, agree, "I looked")

    def resolve(self, review: Review, decision: Decision) -> str:
        """Anne proposes and Bob agrees; returns the reason of the first refusal."""
        return self.propose(review, decision) or self.decide(review)

    def money(self) -> tuple[int, int, int]:
        """What Alipay owes, what the merchant has, what is on its way back to payers."""
        kinds = ("clearing_alipay", MERCHANT_SETTLEMENT, REFUNDS_PAYABLE)
        clearing, merchant, payable = (self.ports.store.balance(AccountKey(kind, 1, "CNY"))[0] for kind in kinds)
        assert clearing + merchant + payable == 0
        return -clearing, merchant, payable

    def told(self, payment: Payment) -> list[str]:
        """The topics of a payment's events, whose versions ascend without a gap."""
        ours = [(topic, version) for topic, payment_id, version in self.events() if payment_id == payment.id]
        assert [version for _, version in ours] == list(range(1, len(ours) + 1))
        return [topic.removeprefix("payment.") for topic, _ in ours]


def caller(subject: int) -> Caller:
    """Somebody."""
    return Caller(subject, frozenset(), "s1", 100.0)


def why(answer: Answer) -> str:
    """The reason of a refusal."""
    return answer.reason if isinstance(answer, DomainError) else ""


@pytest.fixture
def room() -> Room:
    """An empty room in memory."""
    world = World()
    return Room(world, world.ports, lambda: world.store.rows.events, lambda: world.store.rows.audit)


class TestPaymentInReview:
    """Money that came late, or otherwise than asked for."""

    @pytest.mark.parametrize(("ended", "status"), [(DECLINED, states.FAILED), (EXPIRED, states.CLOSED)])
    def test_late_money_that_is_accepted_pays_the_order(self, room: Room, ended: Charged, status: str) -> None:
        """Success with what the provider says; the order is held again; why it failed is forgotten."""
        payment, review = room.late(ended=ended)
        assert (payment.status, payment.live, review.reason, review.amount) == (
            states.REVIEW, False, Reason.LATE_SUCCESS, 100,
        )  # fmt: skip
        assert status in review.detail
        assert room.resolve(review, ACCEPT) == ""
        payment = room.payment(payment.id)
        assert (payment.status, payment.live, payment.captured, payment.failure_reason) == (
            states.SUCCESS, True, 100, "",
        )  # fmt: skip
        assert room.money() == (100, 100, 0)
        assert room.told(payment) == ["initiated", "failed", "success"]
        assert room.say_of_refund(room.refund(payment), DONE).status == states.REFUND_SUCCESS

    @pytest.mark.parametrize(("ended", "status"), [(DECLINED, states.FAILED), (EXPIRED, states.CLOSED)])
    def test_late_money_that_is_refused_leaves_the_payment_as_it_had_ended(
        self, room: Room, ended: Charged, status: str
    ) -> None:
        """Failed is failed and closed is closed, for the same reason as before; nothing is booked."""
        before = room.say(room.begin(), ended)
        payment = room.say(before, taken())
        assert room.resolve(room.review(payment), REFUSE) == ""
        payment = room.payment(payment.id)
        assert (payment.status, payment.failure_reason, payment.live) == (status, before.failure_reason, False)
        assert room.money() == (0, 0, 0)
        assert room.say(payment, taken()).status == states.REVIEW  # said again, it is looked at again

    def test_late_money_that_is_given_back_never_touches_the_order(self, room: Room) -> None:
        """It is booked and set aside at once, the completer asks, and the payment is refunded beside its order."""
        payment, review = room.late()
        assert room.resolve(review, GIVE_BACK) == ""
        payment = room.payment(payment.id)
        assert (payment.status, payment.captured, payment.refunding, payment.live) == (states.REVIEW, 100, 100, False)
        assert room.money() == (100, 0, 100)
        [attempt] = usecases.take_up(room.ports, [usecases.TakeUp(5)])[0]
        assert (attempt.scope, attempt.amount) == (None, Money("CNY", 100))
        assert room.found(attempt.id).note == "late_success"  # what an operator noted is not for the payer
        room.say_of_refund(attempt.id, Refunded(Verdict.PENDING), DONE)
        payment = room.payment(payment.id)
        assert (payment.status, payment.refunded, payment.refunding, payment.live) == (states.REFUNDED, 100, 0, False)
        assert room.money() == (0, 0, 0)
        assert room.told(payment) == ["initiated", "failed", "refunded"]

    def test_order_that_another_payment_holds_lets_late_money_only_go_back(self, room: Room) -> None:
        """Accepting is refused and changes nothing; giving back leaves the other payment alone."""
        late, review = room.late()
        other = room.paid()
        assert room.propose(review, ACCEPT) == ""
        refusal = room.decided(review)
        assert isinstance(refusal, DomainError)
        assert (refusal.reason, refusal.metadata["payment_id"]) == ("ORDER_HAS_LIVE_PAYMENT", str(other.id))
        assert room.payment(late.id) == late
        assert (room.review(late).status, room.money()) == (states.REVIEW_PROPOSED, (100, 100, 0))
        assert room.resolve(review, GIVE_BACK) == ""
        [refund_id] = room.attempts(late.id).keys() - {late.id}
        room.say_of_refund(refund_id, DONE)
        assert room.payment(late.id).status == states.REFUNDED
        assert room.payment(other.id) == other
        assert room.money() == (100, 100, 0)

    def test_of_two_late_payments_of_an_order_one_is_accepted(self, room: Room) -> None:
        """In one batch, whichever comes first; the other one is told."""
        made = [room.late(), room.late()]
        for _, review in made:
            assert room.propose(review, ACCEPT) == ""
        items = [room.decision(review) for _, review in made]
        assert [why(answer) for answer in usecases.decide_reviews(room.ports, items)] == ["", "ORDER_HAS_LIVE_PAYMENT"]
        assert [room.payment(payment.id).status for payment, _ in made] == [states.SUCCESS, states.REVIEW]

    def test_money_that_cannot_be_given_back_comes_before_people_again(self, room: Room) -> None:
        """The provider refuses: a new review, in which it is booked already; given back again, or accepted once booked."""
        payment, review = room.late()
        for _ in range(2):
            assert room.resolve(review, GIVE_BACK) == ""
            [refund_id] = [i for i, a in room.attempts(payment.id).items() if i != payment.id and not a.settled]
            assert room.say_of_refund(refund_id, REFUSED).status == states.REFUND_FAILED
            assert room.money() == (100, 100, 0)
            again = room.review(payment)
            assert again.id != review.id
            assert (again.reason, again.amount, again.status) == (Reason.LATE_SUCCESS, 100, states.REVIEW_OPEN)
            assert f"R{refund_id}" in again.detail
            assert room.propose(again, REFUSE) == "REVIEW_STATUS_CONFLICT"
            review = again
        assert room.resolve(review, ACCEPT) == ""
        payment = room.payment(payment.id)
        assert (payment.status, payment.live, payment.captured) == (states.SUCCESS, True, 100)
        assert room.money() == (100, 100, 0)
        assert room.told(payment) == ["initiated", "failed", "success"]

    def test_less_than_was_asked_for_is_accepted_as_what_it_is(self, room: Room) -> None:
        """80 of 100: the payment is a success of 80, and 80 can be given back."""
        payment = room.say(room.begin(), taken(80))
        review = room.review(payment)
        assert (payment.status, payment.live, review.reason, review.amount) == (
            states.REVIEW, True, Reason.AMOUNT_MISMATCH, 80,
        )  # fmt: skip
        assert room.resolve(review, ACCEPT) == ""
        payment = room.payment(payment.id)
        assert (payment.status, payment.captured, payment.refundable) == (states.SUCCESS, 80, 80)
        assert room.money() == (80, 80, 0)

    @pytest.mark.parametrize("said", [taken(120), taken(100, "USD"), taken(0)])
    def test_what_cannot_be_booked_can_only_be_refused(self, room: Room, said: Charged) -> None:
        """More than was asked for, another currency, nothing: neither accepted nor given back; refused it is declined."""
        payment = room.say(room.begin(), said)
        review = room.review(payment)
        assert [room.propose(review, d) for d in (ACCEPT, GIVE_BACK)] == ["REVIEW_STATUS_CONFLICT"] * 2
        assert room.review(payment) == review
        assert room.resolve(review, REFUSE) == ""
        payment = room.payment(payment.id)
        assert (payment.status, payment.failure_reason, payment.live) == (states.FAILED, "PAYMENT_DECLINED", False)
        assert room.money() == (0, 0, 0)
        assert room.paid().status == states.SUCCESS  # the order is free again

    def test_refused_payment_makes_room_for_one_that_is_accepted_in_the_same_batch(self, room: Room) -> None:
        """First the one that holds the order is refused, then the late one takes it."""
        late, of_late = room.late()
        holds = room.say(room.begin(), taken(80))
        of_holds = room.review(holds)
        assert (room.propose(of_holds, REFUSE), room.propose(of_late, ACCEPT)) == ("", "")
        items = [room.decision(review) for review in (of_holds, of_late)]
        assert [why(answer) for answer in usecases.decide_reviews(room.ports, items)] == ["", ""]
        assert [room.payment(p.id).status for p in (holds, late)] == [states.FAILED, states.SUCCESS]

    def test_payment_that_holds_its_order_is_given_back_as_the_orders(self, room: Room) -> None:
        """80 of 100 are given back: the event says that it was the order's payment."""
        payment = room.say(room.begin(), taken(80))
        assert room.resolve(room.review(payment), GIVE_BACK) == ""
        [refund_id] = room.attempts(payment.id).keys() - {payment.id}
        assert room.attempts(payment.id)[refund_id].payer["charged"] == "80"
        room.say_of_refund(refund_id, DONE)
        payment = room.payment(payment.id)
        assert (payment.status, payment.live, room.money()) == (states.REFUNDED, True, (0, 0, 0))


class TestPaymentThatKeptItsState:
    """A provider that says that money which is booked was never taken."""

    def doubted(self, room: Room, *, refunded: int = 0) -> tuple[Payment, Review]:
        """A success that the provider denies."""
        payment = room.paid()
        if refunded:
            room.say_of_refund(room.refund(payment, refunded), DONE)
        payment = room.say(payment, EXPIRED)
        review = room.review(payment)
        assert review.reason is Reason.LATE_FAILURE
        return payment, review

    def test_accepted_it_stands_as_it_is_booked(self, room: Room) -> None:
        """Nothing of the payment changes; refusing does not fit it."""
        payment, review = self.doubted(room)
        assert room.propose(review, REFUSE) == "REVIEW_STATUS_CONFLICT"
        assert room.resolve(review, ACCEPT) == ""
        assert room.payment(payment.id) == payment
        assert room.money() == (100, 100, 0)

    def test_given_back_the_rest_of_it_is_refunded(self, room: Room) -> None:
        """30 went before, 70 go now; once nothing is left, that does not fit any more."""
        payment, review = self.doubted(room, refunded=30)
        assert room.resolve(review, GIVE_BACK) == ""
        assert room.payment(payment.id).refunding == 70
        [refund_id] = [i for i, a in room.attempts(payment.id).items() if not a.settled]
        room.say_of_refund(refund_id, DONE)
        assert room.payment(payment.id).status == states.REFUNDED
        assert room.money() == (0, 0, 0)

    def test_what_does_not_fit_any_more_when_it_is_decided_is_refused(self, room: Room) -> None:
        """Proposed when there was something to give back, decided when there is not; another decision still fits."""
        payment, review = self.doubted(room)
        assert room.propose(review, GIVE_BACK) == ""
        room.say_of_refund(room.refund(payment), DONE)
        assert room.decide(review) == "REVIEW_STATUS_CONFLICT"
        assert room.resolve(review, ACCEPT) == ""
        assert room.payment(payment.id).status == states.REFUNDED


class TestRefundInReview:
    """The table of usecases/reviews.py: three places of the money, two decisions."""

    def test_set_aside_and_accepted_it_is_given_back(self, room: Room) -> None:
        """The provider says another amount: what was asked for is booked."""
        payment = room.paid()
        refund_id = room.refund(payment, 30)
        room.say_of_refund(refund_id, Refunded(Verdict.DONE, amount=Money("CNY", 29)))
        assert (room.found(refund_id).status, room.money()) == (states.REFUND_REVIEW, (100, 70, 30))
        review = room.review(payment, refund_id)
        assert room.propose(review, GIVE_BACK) == "REVIEW_STATUS_CONFLICT"
        assert room.resolve(review, ACCEPT) == ""
        payment = room.payment(payment.id)
        assert (payment.status, payment.refunded, payment.refunding) == (states.PARTIALLY_REFUNDED, 30, 0)
        assert (room.found(refund_id).status, room.money()) == (states.REFUND_SUCCESS, (70, 70, 0))

    def test_set_aside_and_refused_it_is_let_go_of(self, room: Room) -> None:
        """The amount can be refunded again."""
        payment = room.paid()
        refund_id = room.refund(payment)
        room.say_of_refund(refund_id, Refunded(Verdict.DONE, amount=Money("CNY", 29)))
        assert room.resolve(room.review(payment, refund_id), REFUSE) == ""
        payment = room.payment(payment.id)
        assert (payment.status, payment.refunded, payment.refundable) == (states.SUCCESS, 0, 100)
        assert (room.found(refund_id).status, room.money()) == (states.REFUND_FAILED, (100, 100, 0))
        assert room.say_of_refund(room.refund(payment), DONE).status == states.REFUND_SUCCESS

    @pytest.mark.parametrize("words", [(REFUSED,), (DONE, REFUSED)])
    def test_owed_money_goes_back_in_the_end(self, room: Room, words: tuple[Refunded, ...]) -> None:
        """Its order could not take the payment: a refund that is refused, or undone, is followed by another one."""
        payment = room.paid()
        rejected = usecases.RefundRejected("e1", "order.payment_rejected", payment.id, "order_cancelled")
        assert usecases.refund_rejected(room.ports, [rejected]) == [None]
        [first] = room.attempts(payment.id).keys() - {payment.id}
        room.say_of_refund(first, *words)
        assert room.found(first).status == states.REFUND_REVIEW
        assert room.resolve(room.review(payment, first), REFUSE) == ""
        assert (room.found(first).status, room.money()) == (states.REFUND_FAILED, (100, 0, 100))
        [second] = room.attempts(payment.id).keys() - {payment.id, first}
        assert room.found(second).note == "order_cancelled"
        room.say_of_refund(second, REFUSED)
        assert room.resolve(room.review(payment, second), ACCEPT) == ""
        assert (room.payment(payment.id).status, room.money()) == (states.REFUNDED, (0, 0, 0))
        assert set(room.attempts(payment.id)) == {payment.id, first, second}

    def test_let_go_of_and_accepted_it_is_booked_after_all(self, room: Room) -> None:
        """It had failed, yet it was done: from the merchant to the provider, without a set-aside."""
        payment = room.paid()
        refund_id = room.refund(payment)
        room.say_of_refund(refund_id, REFUSED, DONE)
        assert (room.found(refund_id).status, room.money()) == (states.REFUND_REVIEW, (100, 100, 0))
        assert room.resolve(room.review(payment, refund_id), ACCEPT) == ""
        payment = room.payment(payment.id)
        assert (payment.status, payment.refunded, payment.refundable) == (states.REFUNDED, 100, 0)
        assert (room.found(refund_id).status, room.money()) == (states.REFUND_SUCCESS, (0, 0, 0))
        assert room.told(payment) == ["initiated", "success", "refunded"]

    def test_let_go_of_and_accepted_only_as_long_as_so_much_is_left(self, room: Room) -> None:
        """Another refund took the money since: there is nothing to book it from. It can only be refused."""
        payment = room.paid()
        refund_id = room.refund(payment, 60)
        room.say_of_refund(refund_id, REFUSED, DONE)
        review = room.review(payment, refund_id)
        assert room.propose(review, ACCEPT) == ""
        room.say_of_refund(room.refund(payment, 50), DONE)
        assert room.decide(review) == "REVIEW_STATUS_CONFLICT"
        assert room.resolve(review, REFUSE) == ""
        assert (room.payment(payment.id).refunded, room.money()) == (50, (50, 50, 0))

    def test_let_go_of_and_refused_it_is_failed_as_it_was(self, room: Room) -> None:
        """Nothing moves."""
        payment = room.paid()
        refund_id = room.refund(payment)
        room.say_of_refund(refund_id, REFUSED, DONE)
        assert room.resolve(room.review(payment, refund_id), REFUSE) == ""
        assert (room.found(refund_id).status, room.money()) == (states.REFUND_FAILED, (100, 100, 0))
        assert room.payment(payment.id).refundable == 100

    def test_given_back_and_accepted_it_is_done_as_it_was(self, room: Room) -> None:
        """Nothing moves."""
        payment = room.paid()
        refund_id = room.refund(payment)
        room.say_of_refund(refund_id, DONE, REFUSED)
        assert (room.found(refund_id).status, room.money()) == (states.REFUND_REVIEW, (0, 0, 0))
        assert room.resolve(room.review(payment, refund_id), ACCEPT) == ""
        assert (room.found(refund_id).status, room.money()) == (states.REFUND_SUCCESS, (0, 0, 0))
        assert room.payment(payment.id).status == states.REFUNDED

    def test_given_back_and_refused_the_booking_is_undone(self, room: Room) -> None:
        """A part: the payment is what it was before, its money can be given back again, and people are told."""
        payment = room.paid()
        refund_id = room.refund(payment, 30)
        room.say_of_refund(refund_id, DONE, REFUSED)
        assert room.resolve(room.review(payment, refund_id), REFUSE) == ""
        payment = room.payment(payment.id)
        assert (payment.status, payment.refunded, payment.refundable) == (states.SUCCESS, 0, 100)
        assert (room.found(refund_id).status, room.money()) == (states.REFUND_FAILED, (100, 100, 0))
        assert room.told(payment) == ["initiated", "success", "refunded", "success"]
        assert ("alert", "payment.refund_undone") in room.world.alarm.told
        assert room.say_of_refund(room.refund(payment), DONE).status == states.REFUND_SUCCESS

    def test_one_of_two_that_is_undone_leaves_the_other(self, room: Room) -> None:
        """20 were given back and 30 were not: a part is given back, and the event tells the sum."""
        payment = room.paid()
        kept = room.refund(payment, 20)
        room.say_of_refund(kept, DONE)
        undone = room.refund(payment, 30)
        room.say_of_refund(undone, DONE, REFUSED)
        assert room.resolve(room.review(payment, undone), REFUSE) == ""
        payment = room.payment(payment.id)
        assert (payment.status, payment.refunded, payment.refundable) == (states.PARTIALLY_REFUNDED, 20, 80)
        assert (room.found(kept).status, room.money()) == (states.REFUND_SUCCESS, (80, 80, 0))
        assert room.told(payment) == ["initiated", "success", "refunded", "refunded", "refunded"]

    @pytest.mark.parametrize("before", [0, 70])
    def test_refund_that_ended_the_order_and_is_undone_is_followed_by_another(self, room: Room, before: int) -> None:
        """All was given back, so the order is refunded: what was not is owed, and begun again at once."""
        payment = room.paid()
        if before:
            room.say_of_refund(room.refund(payment, before), DONE)
        undone = room.refund(payment)
        room.say_of_refund(undone, DONE, REFUSED)
        assert room.resolve(room.review(payment, undone), REFUSE) == ""
        payment = room.payment(payment.id)
        assert (payment.refunded, payment.refunding, payment.refundable) == (before, 100 - before, 0)
        assert payment.status == (states.PARTIALLY_REFUNDED if before else states.SUCCESS)
        assert room.money() == (100 - before, 0, 100 - before)
        [again] = [i for i, a in room.attempts(payment.id).items() if not a.settled]
        room.say_of_refund(again, DONE)
        assert (room.payment(payment.id).status, room.money()) == (states.REFUNDED, (0, 0, 0))

    def test_money_beside_its_order_comes_back_to_review(self, room: Room) -> None:
        """Late money was given back and was not: it never pays the order by itself."""
        payment, review = room.late()
        assert room.resolve(review, GIVE_BACK) == ""
        [refund_id] = room.attempts(payment.id).keys() - {payment.id}
        room.say_of_refund(refund_id, DONE, REFUSED)
        assert room.payment(payment.id).status == states.REFUNDED
        assert room.resolve(room.review(payment, refund_id), REFUSE) == ""
        payment = room.payment(payment.id)
        assert (payment.status, payment.live, payment.refunded, room.money()) == (
            states.REVIEW, False, 0, (100, 100, 0),
        )  # fmt: skip
        assert room.resolve(room.review(payment), GIVE_BACK) == ""
        [again] = [i for i, a in room.attempts(payment.id).items() if not a.settled]
        room.say_of_refund(again, DONE)
        assert (room.payment(payment.id).status, room.money()) == (states.REFUNDED, (0, 0, 0))

    def test_failed_give_back_that_was_done_after_all_ends_the_payments_review_too(self, room: Room) -> None:
        """Refused, so the payment is looked at again; then done: accepted, the payment is refunded and both reviews end."""
        payment, review = room.late()
        assert room.resolve(review, GIVE_BACK) == ""
        [refund_id] = room.attempts(payment.id).keys() - {payment.id}
        room.say_of_refund(refund_id, REFUSED, DONE)
        assert room.resolve(room.review(payment, refund_id), ACCEPT) == ""
        assert (room.payment(payment.id).status, room.money()) == (states.REFUNDED, (0, 0, 0))
        assert room.propose(room.review(payment), GIVE_BACK) == "REVIEW_STATUS_CONFLICT"
        assert room.resolve(room.review(payment), ACCEPT) == ""
        assert room.payment(payment.id).status == states.REFUNDED

    @pytest.mark.parametrize("words", [(DONE, REFUSED), (REFUSED, DONE)])
    @pytest.mark.parametrize("decision", [ACCEPT, REFUSE])
    def test_what_two_people_decided_stands(
        self, room: Room, words: tuple[Refunded, Refunded], decision: Decision
    ) -> None:
        """The provider goes on saying both: no further review, an alert, and nothing moves."""
        payment = room.paid()
        refund_id = room.refund(payment)
        room.say_of_refund(refund_id, *words)
        assert room.resolve(room.review(payment, refund_id), decision) == ""
        before, money = room.payment(payment.id), room.money()
        room.say_of_refund(refund_id, *words, *words)
        assert (room.payment(payment.id), room.money()) == (before, money)
        assert room.ports.store.reviews_from(FIRST, decided=False) == []
        assert ("alert", "refund.decided_otherwise") in room.world.alarm.told

    def test_refund_that_a_provider_is_being_asked_for_is_not_refused(self, room: Room) -> None:
        """A bill doubts it while it is under way: that it was done may be booked, that it was not nobody knows yet."""
        payment = room.paid()
        refund_id = room.refund(payment)
        review = Review(room.world.ids.next(0), payment.id, refund_id, Reason.BILL_MISMATCH, "", 100, "open", 1, 1)
        with room.ports.store.transaction() as tx:
            tx.write(Change(room.world.clock.ms, new_reviews=[review]))
            tx.commit()
        assert room.propose(review, REFUSE) == "REVIEW_STATUS_CONFLICT"
        assert room.resolve(review, ACCEPT) == ""
        assert (room.say_of_refund(refund_id, DONE).status, room.money()) == (states.REFUND_SUCCESS, (0, 0, 0))


class TestTwoPeople:
    """Who may say what, how often, and what is written down of it."""

    def test_one_proposes_and_another_decides(self, room: Room) -> None:
        """Who proposed cannot decide; what was turned down is open again; each step is in the audit log."""
        payment, review = room.late()
        assert room.decide(review) == "REVIEW_STATUS_CONFLICT"
        assert room.propose(review, GIVE_BACK) == ""
        assert room.decide(review, ANNE) == "REVIEW_NEEDS_SECOND_PERSON"
        assert room.decide(review, ANNE, agree=False) == "REVIEW_NEEDS_SECOND_PERSON"
        assert room.decide(review, agree=False) == ""
        now = room.review(payment)
        assert (now.status, now.decision, now.decider_id, now.decision_note) == ("open", None, BOB, "I looked")
        assert room.decide(review) == "REVIEW_STATUS_CONFLICT"
        assert room.propose(review, REFUSE, BOB) == ""
        now = room.review(payment)
        assert (now.status, now.decision, now.proposer_id, now.decider_id) == ("proposed", REFUSE, BOB, 0)
        assert room.decide(review, ANNE) == ""
        [now] = room.ports.store.reviews_from(FIRST, decided=True)
        assert (now.status, now.decision, now.proposer_id, now.decider_id) == ("decided", REFUSE, BOB, ANNE)
        assert room.propose(review, ACCEPT) == room.decide(review) == "REVIEW_STATUS_CONFLICT"
        assert room.deeds() == [
            Deed(ANNE, "review.propose", review.id, "give_back: so it is"),
            Deed(BOB, "review.decide", review.id, "no to give_back: I looked"),
            Deed(BOB, "review.propose", review.id, "refuse: so it is"),
            Deed(ANNE, "review.decide", review.id, "agreed to refuse: I looked"),
        ]

    def test_same_proposal_again_changes_nothing_and_another_replaces_it(self, room: Room) -> None:
        """Also by another person, who then cannot decide."""
        payment, review = room.late()
        for _ in range(2):
            assert room.propose(review, REFUSE) == ""
        first = room.review(payment)
        room.world.clock.ms += 1000
        assert room.propose(review, REFUSE) == ""
        assert room.review(payment) == first
        assert room.propose(review, REFUSE, BOB) == ""
        assert room.decide(review, BOB) == "REVIEW_NEEDS_SECOND_PERSON"
        assert [deed.actor_id for deed in room.deeds()] == [ANNE, BOB]
        both = [usecases.ProposeReview(caller(actor), review.id, REFUSE, "x") for actor in (ANNE, BOB)]
        outcomes = usecases.propose_reviews(room.ports, both)
        assert [o.proposer_id for o in outcomes if isinstance(o, Review)] == [ANNE, BOB]

    def test_proposal_that_replaced_the_one_that_was_read_is_not_agreed_to(self, room: Room) -> None:
        """Neither agreed to nor turned down: who decides has to see it first."""
        payment, review = room.late()
        room.propose(review, ACCEPT)
        read = [room.decision(review, agree=agree) for agree in (True, False)]
        room.propose(review, REFUSE)
        answers = usecases.decide_reviews(room.ports, read)
        assert [why(answer) for answer in answers] == ["REVIEW_PROPOSAL_CHANGED"] * 2
        assert room.payment(payment.id).status == states.REVIEW
        assert room.decide(review) == ""
        assert room.payment(payment.id).status == states.FAILED

    def test_review_that_is_not_there_is_not_found(self, room: Room) -> None:
        """Neither to propose nor to decide; its neighbour in the batch is decided."""
        _, review = room.late()
        none = replace(review, id=424242)
        assert room.propose(none, ACCEPT) == "REVIEW_NOT_FOUND"
        assert room.propose(review, ACCEPT) == ""
        items = [room.decision(each) for each in (none, review, review)]
        answers = usecases.decide_reviews(room.ports, items)
        assert [why(answer) for answer in answers] == ["REVIEW_NOT_FOUND", "", "REVIEW_STATUS_CONFLICT"]

    def test_repeat_gets_the_stored_answer_and_carries_nothing_out_twice(self, room: Room) -> None:
        """Later, in the same batch, and with another body; refusals too."""
        payment, review = room.late()
        room.propose(review, ACCEPT)
        item = room.decision(review)
        early = replace(item, key=room.key(ANNE, "DecideReview"), caller=caller(ANNE))
        first = usecases.decide_reviews(room.ports, [early, item, item])
        again = usecases.decide_reviews(room.ports, [early, item])
        assert first[1] == first[2] == again[1]
        assert isinstance(first[1], bytes)
        assert [why(answers[0]) for answers in (first, again)] == ["REVIEW_NEEDS_SECOND_PERSON"] * 2
        other = replace(item, key=IdempotencyKey(item.key.scope, b"g" * 32))
        assert [why(a) for a in usecases.decide_reviews(room.ports, [other])] == ["IDEMPOTENCY_KEY_REUSED"]
        assert (room.money(), len(room.deeds())) == ((100, 100, 0), 2)
        assert room.told(room.payment(payment.id)).count("success") == 1

    def test_reviews_are_listed_oldest_first_in_pages(self, room: Room) -> None:
        """What is decided only where it is asked for."""
        made = [room.late(n)[1] for n in range(11, 16)]
        room.resolve(made[1], REFUSE)
        seen, token = list[int](), ""
        while token or not seen:
            found, token = usecases.list_reviews(room.ports, Page(2, token and str(seen[-1])), decided=False)
            seen += [review.id for review in found]
        assert seen == [made[n].id for n in (0, 2, 3, 4)]
        found, token = usecases.list_reviews(room.ports, FIRST, decided=True)
        assert [review.id for review in found] == [review.id for review in made]
        assert token == ""
