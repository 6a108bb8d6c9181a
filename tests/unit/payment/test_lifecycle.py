"""The life of payments through providers, over fakes: what is asked, what it comes to, what whoever waits is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from services.kernel.caller import Caller
from services.kernel.errors import DomainError
from services.kernel.idempotency import Answer, IdempotencyKey, InFlight, Outcome, Scope
from services.kernel.money import Money
from services.payment import states, usecases
from services.payment.domain import AccountKey, Attempt, Kind, KnownOrder, Method, Payment, Point, Scene
from services.payment.domain.attempt import CLOSE_GRACE_MS, LEASE_MS
from services.payment.domain.card import Brand, Card, Expiry
from services.payment.domain.ledger import CLEARING, MERCHANT_SETTLEMENT, REFUNDS_PAYABLE
from services.payment.ports.provider import Callback, Charged, Phase, Verdict
from services.payment.usecases.take_up import ALERT_MS
from tests.fakes.payment import World
from tests.fakes.provider import FakeProvider, Play

USER = 7
CARD = Card("tok_1", 1, Brand.VISA, "424242", "4242", Expiry(2030, 12))


class Shop(World):
    """A world with three providers, and what the pipeline does with it, step by step."""

    def __init__(self) -> None:
        """The user may pay orders 11 to 20 of 100 each, and has a card."""
        super().__init__()
        self.wallet = FakeProvider(Method.WECHAT, self.clock)
        self.alipay = FakeProvider(Method.ALIPAY, self.clock)
        self.bank = FakeProvider(Method.BANK_CARD, self.clock)
        self.providers |= {each.method: each for each in (self.wallet, self.alipay, self.bank)}
        self.cards.saved[USER, None] = CARD
        for n in range(11, 21):
            order = KnownOrder(n, USER, Money("CNY", 100), "pending", self.clock.ms + 1_800_000, 1)
            usecases.know_orders(self.ports, [usecases.OrderKnown(f"order-{n}", "order.created", order)])

    def begin(self, order_id: int, method: Method, how: usecases.How | None = None, key: str = "") -> Outcome:
        """The first phase of a payment."""
        stated = IdempotencyKey(Scope(USER, "CreatePayment", key or f"pay-{order_id}"), b"f" * 32)
        command = usecases.CreatePayment(caller(), stated, order_id, method, None, self.ids.next(0), how)
        [outcome] = usecases.create_payments(self.ports, [command])
        return outcome

    def ask(self, work: Outcome) -> usecases.Said:
        """The second phase."""
        return usecases.ask(self.ports, attempt_of(work))

    def settle(self, *said: usecases.Said) -> list[Answer | None]:
        """The third phase."""
        return usecases.settle(self.ports, said)

    def see_through(self, outcome: Outcome) -> Answer:
        """Every phase; what whoever waits is told."""
        if not isinstance(outcome, InFlight):
            return outcome
        [answer] = self.settle(self.ask(outcome))
        assert answer is not None
        return answer

    def pay(self, order_id: int, method: Method, how: usecases.How | None = None) -> Payment:
        """A payment as its caller is told of it."""
        answer = self.see_through(self.begin(order_id, method, how))
        assert isinstance(answer, bytes), answer
        return self.of(order_id)

    def of(self, order_id: int) -> Payment:
        """The newest payment of an order."""
        newest = max(p.id for p in self.store.rows.payments.values() if p.order_id == order_id)
        found = self.store.payment(newest, None)
        assert found is not None
        return found

    def change(self, what: str, payment: Payment, amount: int | None = None, key: str = "k") -> Outcome:
        """Begin a capture, void, close or refund."""
        name = {"capture": "Capture", "void": "Void", "close": "Close", "refund": "Refund"}[what] + "Payment"
        stated = IdempotencyKey(Scope(USER, name, key), str((payment.id, amount)).encode())
        who, wanted = caller("payments:capture"), None if amount is None else Money("CNY", amount)
        match what:
            case "capture":
                command = usecases.CapturePayment(who, stated, payment.id, wanted)
                return usecases.capture_payments(self.ports, [command])[0]
            case "void":
                return usecases.void_payments(self.ports, [usecases.VoidPayment(who, stated, payment.id)])[0]
            case "close":
                return usecases.close_payments(self.ports, [usecases.ClosePayment(who, stated, payment.id)])[0]
        return usecases.refund_payments(
            self.ports, [usecases.RefundPayment(who, stated, payment.id, wanted, "because")]
        )[0]

    def complete(self, *, until_ms: int = 0) -> int:
        """Let the completer work off what is due, and the clock go on until nothing is, or until then."""
        turns = 0
        while turns < 200:
            [taken] = usecases.take_up(self.ports, [usecases.TakeUp(50)])
            if taken:
                self.settle(*[usecases.ask(self.ports, attempt) for attempt in taken])
                turns += 1
                continue
            due = [a.next_ms for a in self.store.rows.attempts.values() if not a.settled]
            if not due or (until_ms and min(due) > until_ms):
                return turns
            self.clock.ms = max(self.clock.ms, min(due))
        raise AssertionError("the completer comes to no end")

    def hear(self, provider: FakeProvider, *calls: Callback) -> list[DomainError | None]:
        """Callbacks come in, those given or all that the provider has."""
        coming = calls or tuple(provider.calls)
        told = [usecases.read_callback(self.ports, provider.method, each) for each in coming]
        return usecases.take_notices(self.ports, told)

    def balance(self, kind: str) -> int:
        """What an account of the merchant holds."""
        return self.store.balance(AccountKey(kind, 1, "CNY"))[0]

    def history(self, payment: Payment) -> list[str]:
        """The states that a payment went through."""
        return [step.status for step in self.store.rows.history if step.payment_id == payment.id]

    def reviews(self) -> list[tuple[int, str]]:
        """The payments in question, and why."""
        return [(r.payment_id, str(r.reason)) for r in self.store.rows.reviews.values()]


@pytest.fixture
def shop() -> Shop:
    """Everything in memory."""
    return Shop()


def caller(*scopes: str) -> Caller:
    """Somebody."""
    return Caller(USER, frozenset(scopes), "s1", 100.0)


def attempt_of(work: Outcome) -> Attempt:
    """What a first phase left to be asked."""
    assert isinstance(work, InFlight)
    assert isinstance(work.work, Attempt)
    return work.work


def reason(answer: object) -> str:
    """The reason of a refusal, "" for an answer."""
    return answer.reason if isinstance(answer, DomainError) else ""


def reasons(answers: Sequence[object]) -> list[str]:
    """The reasons of refusals."""
    return [reason(answer) for answer in answers]


AUTHORIZE = usecases.How(capture=False)


# -- charges


@pytest.mark.parametrize("method", [Method.WECHAT, Method.ALIPAY])
def test_wallet_waits_for_its_payer_and_his_money_is_booked_once(shop: Shop, method: Method) -> None:
    """The caller gets a QR code; the payer pays, the callback says so, and the completer finds nothing left."""
    provider = shop.wallet if method is Method.WECHAT else shop.alipay
    made = shop.pay(11, method)
    assert (made.status, made.charge and made.charge.action) == (
        states.PROCESSING,
        {"qr_code": f"pay:{made.payment_no}"},
    )
    shop.complete(until_ms=shop.clock.ms + 60_000)
    assert shop.of(11).status == states.PROCESSING
    assert provider.pay(made.payment_no)
    assert shop.hear(provider) == [None]
    assert shop.complete() == 0
    paid = shop.of(11)
    assert (paid.status, paid.captured, shop.history(paid)) == (
        states.SUCCESS,
        100,
        ["pending", "processing", "success"],
    )
    assert (shop.balance(CLEARING[method]), shop.balance(MERCHANT_SETTLEMENT)) == (-100, 100)
    assert shop.store.rows.events == [("payment.initiated", paid.id, 1), ("payment.success", paid.id, 2)]


def test_wallet_is_found_paid_by_a_query_when_no_callback_comes(shop: Shop) -> None:
    """A lost callback costs time alone."""
    made = shop.pay(11, Method.WECHAT)
    shop.wallet.pay(made.payment_no)
    shop.complete()
    assert shop.of(11).status == states.SUCCESS
    assert ("charge", made.payment_no) in shop.wallet.asked
    assert shop.wallet.asked.count(("charge", made.payment_no)) == 1


def test_card_is_charged_at_once(shop: Shop) -> None:
    """The answer shows success; a repeat gets the same bytes and asks nobody."""
    first = shop.see_through(shop.begin(11, Method.BANK_CARD))
    assert isinstance(first, bytes)
    assert b"success 100 0" in first
    assert shop.begin(11, Method.BANK_CARD) == first
    assert shop.bank.asked == [("charge", shop.of(11).payment_no)]
    assert shop.balance(CLEARING[Method.BANK_CARD]) == -100


@pytest.mark.parametrize(("play", "code"), [(Play.DECLINED, "DECLINED"), (Play.INSUFFICIENT, "INSUFFICIENT")])
@pytest.mark.parametrize("method", [Method.BANK_CARD, Method.WECHAT])
def test_declined_payment_is_failed_and_leaves_its_order_free(
    shop: Shop, method: Method, play: Play, code: str
) -> None:
    """The refusal names the provider's word and is replayed; another try of the order may succeed."""
    provider = shop.bank if method is Method.BANK_CARD else shop.wallet
    provider.plays["charge"].append(play)
    refusal = shop.see_through(shop.begin(11, method))
    assert isinstance(refusal, DomainError)
    assert (refusal.reason, refusal.metadata["code"]) == ("PAYMENT_DECLINED", code)
    assert str(shop.begin(11, method)) == str(refusal)
    failed = shop.of(11)
    assert (failed.status, failed.failure_reason, failed.live) == (states.FAILED, "PAYMENT_DECLINED", False)
    assert isinstance(shop.see_through(shop.begin(11, Method.BANK_CARD, key="again")), bytes)
    assert shop.of(11).status == states.SUCCESS
    assert shop.complete() == 0


def test_challenge_is_shown_and_ends_as_the_payer_does(shop: Shop) -> None:
    """One passes it, one fails it; the order of the second is free again."""
    shop.bank.plays["charge"] += [Play.WAITS, Play.WAITS]
    one, two = shop.pay(11, Method.BANK_CARD), shop.pay(12, Method.BANK_CARD)
    assert one.charge is not None
    assert one.charge.action == {"challenge_url": f"pay:{one.payment_no}"}
    assert shop.bank.pay(one.payment_no)
    assert shop.bank.refuse(two.payment_no)
    assert shop.hear(shop.bank) == [None, None]
    assert (shop.of(11).status, shop.of(12).status) == (states.SUCCESS, states.FAILED)
    assert shop.balance(MERCHANT_SETTLEMENT) == 100


@pytest.mark.parametrize("play", [Play.LOST_BEFORE, Play.LOST_AFTER, Play.LATE])
@pytest.mark.parametrize("method", [Method.BANK_CARD, Method.WECHAT, Method.ALIPAY])
def test_lost_answer_is_unknown_and_a_query_tells(shop: Shop, method: Method, play: Play) -> None:
    """Never failed, never a second trade: the completer asks, and sends the same number again where nothing arrived."""
    provider = {p.method: p for p in (shop.bank, shop.wallet, shop.alipay)}[method]
    provider.plays["charge"].append(play)
    made = shop.pay(11, method)
    assert (made.status, made.live) == (states.UNKNOWN, True)
    assert reason(shop.begin(11, method, key="other")) == "ORDER_HAS_LIVE_PAYMENT"
    shop.complete(until_ms=shop.clock.ms + 30_000)
    if play is Play.LATE:
        provider.arrive()
    if method is not Method.BANK_CARD:
        assert shop.of(11).status == states.PROCESSING
        found = shop.of(11).charge
        assert found is not None
        assert found.action, "the payer was never shown how to pay"
        assert provider.pay(made.payment_no)
    shop.complete()
    assert (shop.of(11).status, len(provider.trades)) == (states.SUCCESS, 1)
    charge = shop.of(11).charge
    assert charge is not None
    assert charge.provider_code == "", "a refusal's word, and there was none"
    assert shop.balance(MERCHANT_SETTLEMENT) == 100


def test_processing_card_is_unknown_until_the_network_knows(shop: Shop) -> None:
    """Works for minutes, alarms nobody, then is declined; or for too long, and someone is called."""
    shop.bank.plays["charge"] += [Play.WORKS, Play.WORKS]
    one, two = shop.pay(11, Method.BANK_CARD), shop.pay(12, Method.BANK_CARD)
    assert {one.status, two.status} <= {states.UNKNOWN, states.PROCESSING}
    shop.complete(until_ms=shop.clock.ms + 100_000)
    shop.bank.refuse(one.payment_no)
    shop.hear(shop.bank)
    assert shop.of(11).status == states.FAILED
    shop.complete(until_ms=shop.clock.ms + ALERT_MS * 3)
    assert shop.of(12).status in {states.UNKNOWN, states.PROCESSING}
    shop.bank.pay(two.payment_no)
    shop.complete()
    assert shop.of(12).status == states.SUCCESS


@pytest.mark.parametrize("method", [Method.WECHAT, Method.ALIPAY])
def test_unpaid_wallet_is_closed_when_its_time_is_over(shop: Shop, method: Method) -> None:
    """The payer did nothing: closed as expired, its order free; a payment that comes later goes to review."""
    provider = shop.wallet if method is Method.WECHAT else shop.alipay
    made = shop.pay(11, method)
    assert made.charge is not None
    shop.complete()
    ended = shop.of(11)
    assert (ended.status, ended.failure_reason, ended.live) == (states.CLOSED, "PAYMENT_EXPIRED", False)
    assert made.charge.expire_ms <= shop.clock.ms <= made.charge.expire_ms + CLOSE_GRACE_MS + 1000
    assert not provider.pay(made.payment_no)


def test_read_asks_the_provider_and_not_twice_within_a_second(shop: Shop) -> None:
    """A reader is worth a question only of what waits, and what was asked lately is not asked again."""
    made = shop.pay(11, Method.WECHAT)
    shop.wallet.pay(made.payment_no)
    assert not usecases.worth_asking(made, shop.clock.ms)
    shop.clock.ms += 1_500
    assert usecases.worth_asking(shop.of(11), shop.clock.ms)
    taken, again = usecases.take_up(shop.ports, [usecases.TakeUp(4, made.id)] * 2)
    assert (len(taken), again) == (1, [])
    assert usecases.take_up(shop.ports, [usecases.TakeUp(4, made.id)]) == [[]]
    shop.settle(usecases.ask(shop.ports, taken[0]))
    assert shop.of(11).status == states.SUCCESS
    assert not usecases.worth_asking(shop.of(11), shop.clock.ms + 5_000)


# -- authorizations


def test_authorization_is_captured_whole_or_in_part_once(shop: Shop) -> None:
    """The part is what is booked and can be refunded; a second capture is refused, a repeat replayed."""
    whole, part = shop.pay(11, Method.BANK_CARD, AUTHORIZE), shop.pay(12, Method.BANK_CARD, AUTHORIZE)
    assert (whole.status, shop.balance(MERCHANT_SETTLEMENT)) == (states.AUTHORIZED, 0)
    first = shop.see_through(shop.change("capture", whole, key="w"))
    assert isinstance(first, bytes)
    assert shop.change("capture", whole, key="w") == first
    assert isinstance(shop.see_through(shop.change("capture", part, 40, key="p")), bytes)
    assert [shop.of(n).captured for n in (11, 12)] == [100, 40]
    assert reason(shop.change("capture", part, 40, key="p2")) == "PAYMENT_STATUS_CONFLICT"
    assert reason(shop.change("refund", part, 41)) == "REFUND_EXCEEDS_CAPTURED"
    assert shop.hear(shop.bank) == [None] * 4, "the network tells of all four, late"
    assert shop.complete() == 0
    assert shop.balance(MERCHANT_SETTLEMENT) == 140
    assert (shop.reviews(), shop.alarm.told) == ([], [])


def test_more_than_is_held_is_not_captured(shop: Shop) -> None:
    """Refused before anybody is asked."""
    made = shop.pay(11, Method.BANK_CARD, AUTHORIZE)
    assert reason(shop.change("capture", made, 101)) == "CAPTURE_EXCEEDS_AUTHORIZED"
    assert reason(shop.change("capture", made, 0, key="0")) == "CAPTURE_EXCEEDS_AUTHORIZED"
    assert shop.of(11).status == states.AUTHORIZED


def test_refused_capture_leaves_the_authorization(shop: Shop) -> None:
    """The refusal names the word; another capture of it may succeed."""
    made = shop.pay(11, Method.BANK_CARD, AUTHORIZE)
    shop.bank.plays["capture"].append(Play.DECLINED)
    refusal = shop.see_through(shop.change("capture", made))
    assert isinstance(refusal, DomainError)
    assert (refusal.reason, refusal.metadata["code"]) == ("PROVIDER_REFUSED", "DECLINED")
    assert shop.of(11).status == states.AUTHORIZED
    assert isinstance(shop.see_through(shop.change("capture", made, 40, key="again")), bytes)
    assert (shop.of(11).status, shop.of(11).captured) == (states.SUCCESS, 40)


@pytest.mark.parametrize("play", [Play.LOST_BEFORE, Play.LOST_AFTER, Play.LATE])
def test_lost_answer_to_a_capture_takes_the_money_once(shop: Shop, play: Play) -> None:
    """Unknown, then found or asked again: what was asked for and no more."""
    made = shop.pay(11, Method.BANK_CARD, AUTHORIZE)
    shop.bank.plays["capture"].append(play)
    assert isinstance(shop.see_through(shop.change("capture", made, 60)), bytes)
    assert shop.of(11).status == states.UNKNOWN
    shop.complete()
    if play is Play.LATE:
        shop.bank.arrive()
    assert (shop.of(11).status, shop.of(11).captured, shop.bank.trades[made.payment_no].captured) == ("success", 60, 60)
    assert shop.hear(shop.bank) == [None] * 2


def test_stale_word_of_an_authorization_does_not_undo_a_capture_under_way(shop: Shop) -> None:
    """The callback of the authorization comes while the capture is asked: nobody may void or capture beside it."""
    made = shop.pay(11, Method.BANK_CARD, AUTHORIZE)
    under_way = shop.change("capture", made, 60)
    assert shop.hear(shop.bank) == [None]
    assert reason(shop.change("void", made)) == "PAYMENT_STATUS_CONFLICT"
    assert reason(shop.change("capture", made, 70, key="other")) == "PAYMENT_STATUS_CONFLICT"
    assert isinstance(shop.see_through(under_way), bytes)
    assert (shop.of(11).status, shop.of(11).captured, shop.reviews()) == (states.SUCCESS, 60, [])
    assert shop.history(made) == ["pending", "processing", "authorized", "processing", "success"]


def test_refused_capture_that_was_done_nevertheless_goes_to_review(shop: Shop) -> None:
    """The first try was on the wire for long, the second was refused: the callback of the first is a contradiction."""
    made = shop.pay(11, Method.BANK_CARD, AUTHORIZE)
    shop.bank.plays["capture"] += [Play.LATE, Play.DECLINED]
    shop.see_through(shop.change("capture", made, 60))
    shop.complete(until_ms=shop.clock.ms + 10_000)
    assert shop.of(11).status == states.AUTHORIZED
    shop.bank.calls.clear()
    shop.bank.arrive()
    assert shop.hear(shop.bank) == [None]
    assert (shop.of(11).status, shop.reviews()) == (states.REVIEW, [(made.id, "amount_mismatch")])
    [review] = shop.store.rows.reviews.values()
    assert review.amount == 60


def test_void_lets_go_and_closes_the_payment(shop: Shop) -> None:
    """No money moved; its order may be paid anew."""
    made = shop.pay(11, Method.BANK_CARD, AUTHORIZE)
    answer = shop.see_through(shop.change("void", made))
    assert isinstance(answer, bytes)
    assert shop.change("void", made) == answer
    ended = shop.of(11)
    assert (ended.status, ended.failure_reason, ended.live) == (states.CLOSED, "PAYMENT_CANCELLED", False)
    assert shop.bank.trades[made.payment_no].phase is Phase.CLOSED
    assert shop.hear(shop.bank) == [None] * 2
    assert shop.complete() == 0


def test_authorization_that_nobody_captures_is_let_go_of(shop: Shop) -> None:
    """After the capture window the completer voids it: expired."""
    made = shop.pay(11, Method.BANK_CARD, AUTHORIZE)
    shop.complete()
    ended = shop.of(11)
    assert (ended.status, ended.failure_reason) == (states.CLOSED, "PAYMENT_EXPIRED")
    assert shop.clock.ms >= made.create_ms + shop.ports.outside.capture_window_ms
    assert shop.bank.trades[made.payment_no].phase is Phase.CLOSED


def test_late_waiting_word_does_not_prolong_an_authorization(shop: Shop) -> None:
    """A query that was slow says that the payer is waited for: the issuer holds the money no longer for it."""
    shop.bank.plays["charge"].append(Play.WAITS)
    made = shop.pay(11, Method.BANK_CARD, AUTHORIZE)
    assert made.charge is not None
    slow = usecases.Said(made.charge, charged=shop.bank.query(made.payment_no))
    shop.bank.pay(made.payment_no)
    shop.hear(shop.bank)
    held = shop.of(11).charge
    assert held is not None
    shop.clock.ms += 20_000
    shop.settle(slow)
    found = shop.of(11).charge
    assert found is not None
    assert (found.point, found.expire_ms, found.next_ms) == (Point.HELD, held.expire_ms, held.next_ms)


def test_authorization_of_a_payment_that_ended_is_let_go_of(shop: Shop) -> None:
    """The challenge was closed, yet the network authorizes: voided again, and someone is told."""
    shop.bank.plays["charge"].append(Play.LATE)
    made = shop.pay(11, Method.BANK_CARD, AUTHORIZE)
    assert isinstance(shop.see_through(shop.change("close", made)), bytes)
    assert shop.of(11).status == states.CLOSED
    shop.bank.arrive()
    assert shop.bank.trades[made.payment_no].phase is Phase.AUTHORIZED
    shop.hear(shop.bank)
    shop.complete()
    assert (shop.of(11).status, shop.bank.trades[made.payment_no].phase) == (states.CLOSED, Phase.CLOSED)
    assert ("alert", "payment.held_late") in shop.alarm.told


# -- closes


def test_close_ends_what_nobody_paid(shop: Shop) -> None:
    """Answered with the closed payment; the payer cannot pay any more."""
    made = shop.pay(11, Method.WECHAT)
    answer = shop.see_through(shop.change("close", made))
    assert isinstance(answer, bytes)
    assert b"closed" in answer
    assert shop.of(11).failure_reason == "PAYMENT_CANCELLED"
    assert not shop.wallet.pay(made.payment_no)
    assert reason(shop.change("close", made, key="again")) == "PAYMENT_STATUS_CONFLICT"
    assert shop.complete() == 0


def test_close_finds_that_the_payer_was_faster(shop: Shop) -> None:
    """The answer shows the success."""
    made = shop.pay(11, Method.WECHAT)
    shop.wallet.pay(made.payment_no)
    answer = shop.see_through(shop.change("close", made))
    assert isinstance(answer, bytes)
    assert b"success" in answer
    assert shop.balance(MERCHANT_SETTLEMENT) == 100


@pytest.mark.parametrize("play", [Play.LOST_BEFORE, Play.LOST_AFTER])
def test_lost_answer_to_a_close_is_asked_again(shop: Shop, play: Play) -> None:
    """The payment is not shown closed before the provider says so."""
    made = shop.pay(11, Method.WECHAT)
    shop.wallet.plays["close"].append(play)
    answer = shop.see_through(shop.change("close", made))
    assert isinstance(answer, bytes)
    assert shop.of(11).is_open
    shop.complete()
    assert shop.of(11).status == states.CLOSED
    assert shop.wallet.trades[made.payment_no].phase is Phase.CLOSED


# -- what providers tell by themselves


def test_callback_that_comes_before_the_answer_is_the_answer(shop: Shop) -> None:
    """The success is booked once, and whoever waits is told of it, then and later, in the same bytes."""
    outcome = shop.begin(11, Method.BANK_CARD)
    said = shop.ask(outcome)
    assert shop.hear(shop.bank) == [None]
    stored = shop.begin(11, Method.BANK_CARD)
    assert isinstance(stored, bytes)
    assert shop.settle(said) == [stored]
    assert shop.balance(MERCHANT_SETTLEMENT) == 100


def test_fifty_duplicates_have_one_effect(shop: Shop) -> None:
    """In one batch, in many, and after the refund; every one is acknowledged."""
    made = shop.pay(11, Method.WECHAT)
    shop.wallet.pay(made.payment_no)
    call = shop.wallet.calls[0]
    assert shop.hear(shop.wallet, *[call] * 25) == [None] * 25
    for _ in range(25):
        assert shop.hear(shop.wallet, call) == [None]
    fresh = [shop.wallet.callback(made.payment_no) for _ in range(10)]  # told anew, under numbers of their own
    assert shop.hear(shop.wallet, *fresh) == [None] * 10
    assert shop.history(made) == ["pending", "processing", "success"]
    assert shop.balance(MERCHANT_SETTLEMENT) == 100
    assert (shop.reviews(), shop.alarm.told) == ([], [])


@pytest.mark.parametrize("forge", ["signature", "amount", "currency", "order"])
def test_forged_callback_changes_nothing_and_is_a_security_event(shop: Shop, forge: str) -> None:
    """Also a good signature with another amount, currency or order; the true one is taken afterwards."""
    made = shop.pay(11, Method.WECHAT)
    shop.wallet.pay(made.payment_no)
    forged = shop.wallet.callback(made.payment_no, forge)
    if forge == "signature":
        with pytest.raises(DomainError) as caught:
            shop.hear(shop.wallet, forged)
        assert caught.value.reason == "CALLBACK_REFUSED"
    else:
        assert reasons(shop.hear(shop.wallet, forged)) == ["CALLBACK_REFUSED"]
    assert shop.of(11).status == states.PROCESSING
    assert shop.alarm.told == [("security", "callback.refused")]
    assert shop.hear(shop.wallet) == [None]
    assert shop.of(11).status == states.SUCCESS


def test_number_of_another_kind_is_refused(shop: Shop) -> None:
    """A notice of a charge under a refund's number, and the other way round, is about nothing of ours."""
    paid = shop.pay(11, Method.BANK_CARD)
    assert isinstance(shop.see_through(shop.change("refund", paid, 10)), bytes)
    [refund] = shop.store.rows.refunds.values()
    charge, back = shop.bank.callback(paid.payment_no), shop.bank.callback(refund.refund_no)
    told = [usecases.read_callback(shop.ports, Method.BANK_CARD, each).notice for each in (charge, back)]
    swapped = [
        usecases.Told(Method.BANK_CARD, replace(told[0], request_id=refund.refund_no)),
        usecases.Told(Method.BANK_CARD, replace(told[1], request_id=paid.payment_no)),
    ]
    assert reasons(usecases.take_notices(shop.ports, swapped)) == ["CALLBACK_REFUSED"] * 2
    assert shop.of(11).refunded == 10


@pytest.mark.parametrize("play", [Play.FAILS_FIRST, Play.OTHER_AMOUNT])
def test_contradiction_goes_to_review_and_changes_nothing_else(shop: Shop, play: Play) -> None:
    """Failed, yet taken; or another amount than was asked for: one review, one alert, no booking, no second look."""
    shop.bank.plays["charge"].append(play)
    answer = shop.see_through(shop.begin(11, Method.BANK_CARD))
    assert reason(answer) == ("PAYMENT_DECLINED" if play is Play.FAILS_FIRST else "")
    made = shop.of(11)
    if play is Play.FAILS_FIRST:
        assert made.status == states.FAILED
        assert shop.hear(shop.bank) == [None]
        assert shop.hear(shop.bank, shop.bank.callback(made.payment_no)) == [None]
    assert shop.of(11).status == states.REVIEW
    expected = "late_success" if play is Play.FAILS_FIRST else "amount_mismatch"
    assert shop.reviews() == [(made.id, expected)]
    assert shop.alarm.told == [("alert", "payment.review")]
    assert shop.balance(MERCHANT_SETTLEMENT) == 0
    assert shop.complete() == 0
    assert str(shop.begin(11, Method.BANK_CARD)) == str(answer)


def test_money_that_comes_after_the_close_goes_to_review(shop: Shop) -> None:
    """Alipay knows nothing of a code that nobody scanned, so it cannot be closed there: who pays late is not forgotten."""
    made = shop.pay(11, Method.ALIPAY)
    assert isinstance(shop.see_through(shop.change("close", made)), bytes)
    assert shop.of(11).status == states.CLOSED
    second = shop.see_through(shop.begin(11, Method.BANK_CARD, key="again"))
    assert isinstance(second, bytes)
    assert shop.alipay.pay(made.payment_no)
    assert shop.hear(shop.alipay) == [None]
    assert shop.reviews() == [(made.id, "late_success")]
    late = shop.store.payment(made.id, None)
    assert late is not None
    assert (late.status, late.live, shop.of(11).status) == (states.REVIEW, False, states.SUCCESS)


def test_close_that_found_nothing_is_old_news_once_it_is_paid(shop: Shop) -> None:
    """Alipay knew no trade when it was asked to end it; before we heard of that, the payer scanned and paid."""
    made = shop.pay(11, Method.ALIPAY)
    said = shop.ask(shop.change("close", made))
    assert shop.alipay.pay(made.payment_no)
    assert shop.hear(shop.alipay) == [None]
    shop.settle(said)
    assert (shop.of(11).status, shop.reviews()) == (states.SUCCESS, [])


def test_word_that_nobody_may_trust_books_nothing(shop: Shop) -> None:
    """The card network took the money of a payer whom 3-D Secure refused: unknown, until someone looks at it."""
    outcome = shop.begin(11, Method.BANK_CARD)
    doubtful = Charged(Verdict.UNKNOWN, Phase.CAPTURED, "ch_1", "authentication_n", Money("CNY", 100))
    [answer] = shop.settle(usecases.Said(attempt_of(outcome), charged=doubtful))
    assert isinstance(answer, bytes)
    assert shop.of(11).status == states.UNKNOWN
    assert shop.balance(MERCHANT_SETTLEMENT) == 0


# -- refunds


@pytest.mark.parametrize("method", [Method.WECHAT, Method.ALIPAY, Method.BANK_CARD])
def test_refunds_in_parts_until_nothing_is_left(shop: Shop, method: Method) -> None:
    """30, then the rest; each is answered once, and every late word of the provider is taken without harm."""
    provider = {p.method: p for p in (shop.bank, shop.wallet, shop.alipay)}[method]
    paid = shop.pay(11, method)
    if method is not Method.BANK_CARD:
        provider.pay(paid.payment_no)
        shop.hear(provider)
    part = shop.see_through(shop.change("refund", paid, 30, "a"))
    assert isinstance(part, bytes)
    assert shop.change("refund", paid, 30, "a") == part
    assert (shop.of(11).status, shop.of(11).refunded) == (states.PARTIALLY_REFUNDED, 30)
    assert shop.hear(provider, provider.callback(paid.payment_no)) == [None]
    assert reason(shop.change("refund", paid, 71, "b")) == "REFUND_EXCEEDS_CAPTURED"
    assert isinstance(shop.see_through(shop.change("refund", paid, None, "c")), bytes)
    assert (shop.of(11).status, shop.of(11).refunded, shop.of(11).refunding) == (states.REFUNDED, 100, 0)
    assert set(shop.hear(provider)) == {None}
    assert shop.hear(provider, provider.callback(paid.payment_no)) == [None]
    balances = [shop.balance(kind) for kind in (CLEARING[method], MERCHANT_SETTLEMENT, REFUNDS_PAYABLE)]
    assert (balances, shop.reviews(), shop.alarm.told) == ([0, 0, 0], [], [])
    assert [e[0] for e in shop.store.rows.events][-2:] == ["payment.refunded"] * 2


def test_refunds_at_once_never_give_back_more_than_was_taken(shop: Shop) -> None:
    """Of three at once over 60 two fit only if one waits: what is under way is set aside."""
    paid = shop.pay(11, Method.BANK_CARD)
    one = shop.change("refund", paid, 60, "one")
    assert reason(shop.change("refund", paid, 60, "two")) == "REFUND_EXCEEDS_CAPTURED"
    rest = shop.change("refund", paid, 40, "three")
    assert (shop.of(11).refunding, shop.of(11).refunded, shop.balance(REFUNDS_PAYABLE)) == (100, 0, 100)
    for said in [shop.ask(rest), shop.ask(one)]:
        shop.settle(said)
    assert (shop.of(11).status, shop.of(11).refunded) == (states.REFUNDED, 100)
    assert shop.bank.trades[paid.payment_no].refunded == 100


@pytest.mark.parametrize("play", [Play.LOST_BEFORE, Play.LOST_AFTER, Play.LATE])
def test_lost_answer_to_a_refund_gives_back_once(shop: Shop, play: Play) -> None:
    """Unknown, then found or sent again under the same number."""
    paid = shop.pay(11, Method.BANK_CARD)
    shop.bank.plays["refund"].append(play)
    answer = shop.see_through(shop.change("refund", paid, 60))
    assert isinstance(answer, bytes)
    [refund] = shop.store.rows.refunds.values()
    assert refund.status == states.REFUND_UNKNOWN
    if play is Play.LATE:
        shop.bank.arrive()
    shop.complete()
    assert [r.status for r in shop.store.rows.refunds.values()] == [states.REFUND_SUCCESS]
    assert (shop.of(11).refunded, shop.bank.trades[paid.payment_no].refunded) == (60, 60)
    assert shop.change("refund", paid, 60) == answer


def test_refused_refund_sets_free_what_was_set_aside(shop: Shop) -> None:
    """The caller is refused with the provider's word; the money can be refunded another time."""
    paid = shop.pay(11, Method.BANK_CARD)
    shop.bank.plays["refund"].append(Play.DECLINED)
    refusal = shop.see_through(shop.change("refund", paid, 60, "a"))
    assert isinstance(refusal, DomainError)
    assert (refusal.reason, refusal.metadata["code"]) == ("PROVIDER_REFUSED", "DECLINED")
    assert (shop.of(11).status, shop.of(11).refunding, shop.balance(REFUNDS_PAYABLE)) == (states.SUCCESS, 0, 0)
    assert isinstance(shop.see_through(shop.change("refund", paid, 100, "b")), bytes)
    assert shop.of(11).status == states.REFUNDED


@pytest.mark.parametrize("done", [True, False])
@pytest.mark.parametrize("play", [Play.WAITS, Play.WORKS])
def test_refund_that_is_worked_on_ends_as_the_provider_says(shop: Shop, play: Play, *, done: bool) -> None:
    """Pending, or abnormal and so unknown; then done or not, by callback or by query."""
    paid = shop.pay(11, Method.BANK_CARD)
    shop.bank.plays["refund"].append(play)
    assert isinstance(shop.see_through(shop.change("refund", paid, 60)), bytes)
    [refund] = shop.store.rows.refunds.values()
    assert refund.status == (states.REFUND_PENDING if play is Play.WAITS else states.REFUND_UNKNOWN)
    shop.complete(until_ms=shop.clock.ms + 100_000)
    assert shop.of(11).refunding == 60
    shop.bank.finish_refund(refund.refund_no, done=done)
    if play is Play.WAITS:
        shop.hear(shop.bank, shop.bank.calls[-1])
    shop.complete()
    assert (shop.of(11).refunded, shop.of(11).refunding) == (60 if done else 0, 0)
    assert [r.status for r in shop.store.rows.refunds.values()] == ["success" if done else "failed"]


@pytest.mark.parametrize("first", [True, False])
def test_refund_that_turns_out_otherwise_goes_to_review(shop: Shop, *, first: bool) -> None:
    """Done, then not; or refused, then done: someone has to look, and the books stay until then."""
    paid = shop.pay(11, Method.BANK_CARD)
    shop.bank.plays["refund"].append(Play.FINE if first else Play.DECLINED)
    shop.see_through(shop.change("refund", paid, 60))
    [refund] = shop.store.rows.refunds.values()
    shop.bank.finish_refund(refund.refund_no, done=not first)
    assert set(shop.hear(shop.bank)) == {None}
    assert [r.status for r in shop.store.rows.refunds.values()] == [states.REFUND_REVIEW]
    assert shop.reviews() == [(paid.id, "refund_contradiction")]
    assert shop.of(11).refunded == (60 if first else 0)
    shop.hear(shop.bank, shop.bank.callback(refund.refund_no))
    assert len(shop.reviews()) == 1


def test_rejected_payment_is_given_back_through_its_provider(shop: Shop) -> None:
    """The order was cancelled meanwhile: the completer asks for the whole, once, though the event comes twice."""
    paid = shop.pay(11, Method.BANK_CARD)
    events = [usecases.RefundRejected(f"e{n}", "order.payment_rejected", paid.id, "order_cancelled") for n in (1, 2)]
    assert usecases.refund_rejected(shop.ports, events) == [None, None]
    assert usecases.refund_rejected(shop.ports, events[:1]) == [None]
    assert shop.complete() == 1
    assert (shop.of(11).status, shop.of(11).refunded, len(shop.bank.returns)) == (states.REFUNDED, 100, 1)


def test_rejected_payment_whose_refund_is_refused_is_not_forgotten(shop: Shop) -> None:
    """What the merchant owes to a payer stays set aside, and two people are called."""
    paid = shop.pay(11, Method.BANK_CARD)
    shop.bank.plays["refund"].append(Play.DECLINED)
    event = usecases.RefundRejected("e1", "order.payment_rejected", paid.id, "order_cancelled")
    assert usecases.refund_rejected(shop.ports, [event]) == [None]
    shop.complete()
    assert shop.reviews() == [(paid.id, "refund_contradiction")]
    assert (shop.of(11).refunding, shop.balance(REFUNDS_PAYABLE)) == (100, 100)


def test_rejected_payment_with_a_refund_under_way_is_given_back_whole(shop: Shop) -> None:
    """The payer's own refund is under way when the order rejects, and is refused then: the rest is still owed."""
    paid = shop.pay(11, Method.BANK_CARD)
    shop.bank.plays["refund"].append(Play.WAITS)
    assert isinstance(shop.see_through(shop.change("refund", paid, 60)), bytes)
    own = next(iter(shop.store.rows.refunds.values()))
    event = usecases.RefundRejected("e1", "order.payment_rejected", paid.id, "order_cancelled")
    for _ in range(2):
        assert usecases.refund_rejected(shop.ports, [event]) in ([None], [None])
    shop.bank.finish_refund(own.refund_no, done=False)
    shop.complete()
    assert shop.of(11).captured == shop.of(11).refunded + shop.of(11).refunding


# -- who repeats, and who cannot wait


@pytest.mark.parametrize("method", [Method.WECHAT, Method.BANK_CARD])
def test_repeat_while_it_is_in_flight_is_refused_and_then_replayed(shop: Shop, method: Method) -> None:
    """409 between the phases alone; another body is refused at any time."""
    outcome = shop.begin(11, method)
    assert reason(shop.begin(11, method)) == "IDEMPOTENCY_KEY_IN_FLIGHT"
    assert reason(shop.begin(11, method)) == "IDEMPOTENCY_KEY_IN_FLIGHT"
    answer = shop.see_through(outcome)
    assert isinstance(answer, bytes)
    assert shop.begin(11, method) == answer
    other = usecases.CreatePayment(
        caller(), IdempotencyKey(Scope(USER, "CreatePayment", "pay-11"), b"g" * 32), 12, method, None, 1
    )
    assert reasons(usecases.create_payments(shop.ports, [other])) == ["IDEMPOTENCY_KEY_REUSED"]


def test_who_cannot_wait_is_answered_for_good(shop: Shop) -> None:
    """With processing; whatever comes of it later, a repeat gets these bytes, while a read tells the truth."""
    outcome = shop.begin(11, Method.BANK_CARD)
    said = shop.ask(outcome)
    [early] = usecases.answer_open(shop.ports, [attempt_of(outcome)])
    assert isinstance(early, bytes)
    assert b"processing" in early
    assert usecases.answer_open(shop.ports, [attempt_of(outcome)]) == [early]
    assert shop.settle(said) == [early]
    assert shop.begin(11, Method.BANK_CARD) == early
    assert usecases.get_payment(shop.ports, shop.of(11).id, USER).status == states.SUCCESS


@pytest.mark.parametrize("what", ["capture", "void", "close", "refund"])
def test_every_change_is_answered_once_and_repeated_to_the_byte(shop: Shop, what: str) -> None:
    """In flight first; answered early, then settled: the same bytes for the same key, and one thing done."""
    method = Method.WECHAT if what == "close" else Method.BANK_CARD
    made = shop.pay(11, method, None if what in {"close", "refund"} else AUTHORIZE)
    outcome = shop.change(what, made)
    assert reason(shop.change(what, made)) == "IDEMPOTENCY_KEY_IN_FLIGHT"
    said = shop.ask(outcome)
    [early] = usecases.answer_open(shop.ports, [attempt_of(outcome)])
    assert shop.settle(said) == [early]
    assert shop.change(what, made) == early
    kinds = [a.kind for a in shop.store.rows.attempts.values()]
    assert kinds == [Kind.CHARGE, Kind(what)]
    assert shop.of(11).status in {states.SUCCESS, states.CLOSED, states.REFUNDED}
    assert shop.complete() == 0


def test_what_a_crash_left_is_taken_up_and_answers_who_asks_again(shop: Shop) -> None:
    """The process died after the commit, or after the provider was asked: adopted, asked by query, answered."""
    shop.begin(11, Method.BANK_CARD)
    shop.ask(shop.begin(12, Method.BANK_CARD))
    assert usecases.take_up(shop.ports, [usecases.TakeUp(50)]) == [[]]
    assert shop.store.adopt(shop.ports.outside.instance, shop.clock.ms) == 2
    shop.complete()
    assert {shop.of(n).status for n in (11, 12)} == {states.SUCCESS}
    assert len(shop.bank.trades) == 2
    for n in (11, 12):
        answer = shop.begin(n, Method.BANK_CARD)
        assert isinstance(answer, bytes)
        assert b"success" in answer


@pytest.mark.parametrize("what", ["authorization", "refund"])
def test_callback_answers_for_a_process_that_died(shop: Shop, what: str) -> None:
    """The provider did it and told so, but who asked never heard: the key is answered, not in flight for days."""
    paid = shop.pay(12, Method.BANK_CARD)
    shop.bank.calls.clear()

    def begin() -> Outcome:
        return shop.change("refund", paid, 60) if what == "refund" else shop.begin(11, Method.BANK_CARD, AUTHORIZE)

    shop.ask(begin())
    assert shop.hear(shop.bank) == [None]
    assert isinstance(begin(), bytes)


@pytest.mark.parametrize("late", [True, False])
def test_void_that_nobody_asked_for_is_tried_until_it_is_done(shop: Shop, *, late: bool) -> None:
    """The network refuses at first, for a payment that had failed or whose window is over: no issuer keeps the money."""
    shop.bank.plays["charge"].append(Play.FAILS_FIRST if late else Play.FINE)
    shop.bank.plays["void"] += [Play.DECLINED] * 3
    shop.see_through(shop.begin(11, Method.BANK_CARD, AUTHORIZE))
    shop.hear(shop.bank)
    shop.complete()
    made = shop.of(11)
    assert made.status == (states.FAILED if late else states.CLOSED)
    assert shop.bank.trades[made.payment_no].phase is Phase.CLOSED
    assert shop.history(made)[2:] == (["failed"] if late else ["authorized", "processing", "closed"])
    assert sum(a.kind is Kind.VOID for a in shop.store.rows.attempts.values()) == 1


def test_declined_charge_that_is_held_nevertheless_is_let_go_of(shop: Shop) -> None:
    """The callback says authorized, then the answer says failed: failed it is, and nothing stays held."""
    shop.bank.plays["charge"].append(Play.FAILS_FIRST)
    outcome = shop.begin(11, Method.BANK_CARD, AUTHORIZE)
    said = shop.ask(outcome)
    assert shop.hear(shop.bank) == [None]
    shop.settle(said)
    assert shop.of(11).status == states.FAILED
    shop.complete()
    assert shop.bank.trades[shop.of(11).payment_no].phase is Phase.CLOSED


def test_lease_ends_by_itself(shop: Shop) -> None:
    """Another instance's attempt is nobody's for as long as it has, then anybody's."""
    shop.begin(11, Method.BANK_CARD)
    shop.clock.ms += LEASE_MS - 1
    assert usecases.take_up(shop.ports, [usecases.TakeUp(50)]) == [[]]
    shop.clock.ms += 1
    assert [len(taken) for taken in usecases.take_up(shop.ports, [usecases.TakeUp(50)])] == [1]
    assert usecases.take_up(shop.ports, [usecases.TakeUp(50)]) == [[]]


def test_wallets_have_scenes_of_their_own(shop: Shop) -> None:
    """No scene of another wallet, no authorization, no card that is not kept; nothing is stored of it."""
    cases: list[tuple[Method, usecases.How, str]] = [
        (Method.WECHAT, usecases.How(Scene.PAGE), "SCENE_UNSUPPORTED"),
        (Method.WECHAT, usecases.How(Scene.JSAPI), "SCENE_UNSUPPORTED"),
        (Method.ALIPAY, AUTHORIZE, "SCENE_UNSUPPORTED"),
        (Method.BANK_CARD, usecases.How(payment_method_id=5), "PAYMENT_METHOD_NOT_FOUND"),
    ]
    answers = [shop.begin(11, method, how, key=f"k{n}") for n, (method, how, _) in enumerate(cases)]
    assert reasons(answers) == [expected for _, _, expected in cases]
    assert shop.store.rows.payments == {}
