"""What the payment room does, over fakes: payments, refunds, top-ups, orders, reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import pytest

from services.kernel.caller import Caller
from services.kernel.errors import DomainError
from services.kernel.idempotency import Answer, IdempotencyKey, InFlight, Scope
from services.kernel.money import MINOR_UNITS_MAX, Money
from services.kernel.pages import Page
from services.payment import states, usecases
from services.payment.domain import AccountKey, KnownOrder, Method, Payment
from services.payment.domain.ledger import FUNDING_CLEARING, USER_BALANCE
from services.payment.ports import ToAssess
from tests.fakes.payment import FakeCache, FakeRisk, World

USER = 7
FIRST = Page(10, "")


@pytest.fixture
def world() -> World:
    """Everything in memory; the user has 1,000 fen and may pay orders 11 to 20 of 100 each."""
    made = World()
    top_up(made, 1000)
    for n in range(11, 21):
        know(made, n)
    made.commits.clear()
    return made


def caller(user: int = USER, *scopes: str) -> Caller:
    """Somebody."""
    return Caller(user, frozenset(scopes), "s1", 100.0)


def know(world: World, order_id: int, **facts: object) -> None:
    """Let payment know a pending order."""
    order = KnownOrder(order_id, USER, Money("CNY", 100), "pending", world.clock.ms + 1000, 1)
    event = usecases.OrderKnown(f"order-{order_id}", "order.created", replace(order, **facts))  # type: ignore[arg-type]
    usecases.know_orders(world.ports, [event])


def top_up(world: World, amount: int, user: int = USER, key: str = "top-up") -> Answer:
    """Fill a balance."""
    stated = IdempotencyKey(Scope(1, "TopUpBalance", f"{key}-{user}"), b"f" * 32)
    command = usecases.TopUpBalance(caller(1), stated, user, Money("CNY", amount))
    [answer] = usecases.top_up_balances(world.ports, [command])
    return answer


def command(world: World, order_id: int, key: str = "", user: int = USER, **facts: object) -> usecases.CreatePayment:
    """Ask to pay an order; the key is the order's unless one is given."""
    stated = IdempotencyKey(Scope(user, "CreatePayment", key or f"pay-{order_id}"), str(order_id).encode())
    made = usecases.CreatePayment(caller(user), stated, order_id, Method.BALANCE, None, world.ids.next(0))
    return replace(made, **facts)  # type: ignore[arg-type] # fields by name


def pay(world: World, *order_ids: int) -> list[Payment]:
    """Pay orders; returns the payments."""
    answers = usecases.create_payments(world.ports, [command(world, n) for n in order_ids])
    assert all(isinstance(answer, bytes) for answer in answers), answers
    by_order = {p.order_id: p for p in world.store.rows.payments.values() if p.status != states.FAILED}
    return [by_order[n] for n in order_ids]


def refund(
    world: World, payment_id: int, amount: int | None = None, key: str = "r", asked_by: Caller | None = None
) -> Answer:
    """Ask for money back."""
    who = asked_by or caller()
    stated = IdempotencyKey(Scope(who.subject, "RefundPayment", key), str((payment_id, amount)).encode())
    wanted = None if amount is None else Money("CNY", amount)
    [answer] = usecases.refund_payments(world.ports, [usecases.RefundPayment(who, stated, payment_id, wanted, "")])
    assert not isinstance(answer, InFlight)
    return answer


def said(answers: Sequence[object]) -> list[str]:
    """The reasons of refusals, "" for the others."""
    return [answer.reason if isinstance(answer, DomainError) else "" for answer in answers]


def balance(world: World, user: int = USER) -> int:
    """What a user has."""
    return world.store.balance(AccountKey(USER_BALANCE, user, "CNY"))[0]


def test_batch_is_paid_with_one_look_at_risk_and_one_commit(world: World) -> None:
    """Ten payments: one question, one commit, each with its money, its history and its two events."""
    paid = pay(world, *range(11, 21))
    assert [len(asked) for asked in world.risk.asked] == [10]
    assert len(world.commits) == 1
    assert balance(world) == 0
    assert {(p.status, p.version, p.captured) for p in paid} == {(states.SUCCESS, 2, 100)}
    assert world.store.rows.events == [
        event for p in paid for event in (("payment.initiated", p.id, 1), ("payment.success", p.id, 2))
    ]


def test_repeat_gets_the_stored_answer_and_asks_nobody(world: World) -> None:
    """Later, in the same batch, and with another body."""
    [first, twin] = usecases.create_payments(world.ports, [command(world, 11), command(world, 11)])
    asked, commits = len(world.risk.asked), len(world.commits)
    again = usecases.create_payments(world.ports, [command(world, 11), command(world, 11)])
    assert isinstance(first, bytes)
    assert {first, twin, *again} == {first}
    assert (len(world.risk.asked), len(world.commits)) == (asked, commits)
    assert said(usecases.create_payments(world.ports, [command(world, 12, "pay-11")])) == ["IDEMPOTENCY_KEY_REUSED"]
    assert balance(world) == 900


def test_answer_that_another_process_stored_meanwhile_is_given(world: World) -> None:
    """Between the look and the transaction another one paid under the same key: its bytes, no second payment."""
    theirs = command(world, 11)

    class SlowRisk(FakeRisk):
        """While it thinks, the other process pays."""

        def blocked(self, payments: Sequence[ToAssess], cause: Caller) -> list[bool]:
            """Let the other one go first."""
            usecases.create_payments(world.ports, [theirs])
            return super().blocked(payments, cause)

    [ours] = usecases.create_payments(replace(world.ports, risk=SlowRisk()), [command(world, 11)])
    assert ours == world.store.rows.answers[theirs.key.scope].answer
    assert list(world.store.rows.payments) == [theirs.payment_id]
    assert balance(world) == 900


def test_refusal_falls_on_its_item_alone_and_is_replayed(world: World) -> None:
    """Unknown, another's, expired, cancelled, another amount, another method: six refusals beside one payment."""
    know(world, 31, user_id=8)
    know(world, 32, expire_ms=world.clock.ms)
    usecases.know_orders(world.ports, [usecases.OrderCancelled("e", "order.cancelled", 20, USER, 2)])
    items = [
        command(world, 30),
        command(world, 31),
        command(world, 32),
        command(world, 20),
        command(world, 11, shown=Money("CNY", 99)),
        command(world, 12, method=Method.ALIPAY),
        command(world, 13),
    ]
    answers = usecases.create_payments(world.ports, items)
    assert said(answers) == ["ORDER_NOT_FOUND", "ORDER_NOT_FOUND", "ORDER_NOT_PAYABLE", "ORDER_NOT_PAYABLE",
                             "AMOUNT_MISMATCH", "PAYMENT_METHOD_UNAVAILABLE", ""]  # fmt: skip
    world.clock.ms += 5000
    assert list(map(str, usecases.create_payments(world.ports, items))) == list(map(str, answers))
    assert len(world.store.rows.payments) == 1


def test_order_has_one_live_payment_and_may_be_paid_again_after_a_failure(world: World) -> None:
    """Two keys in a batch, one wins and is named; too little money leaves a failed payment and a free order."""
    won, lost = usecases.create_payments(world.ports, [command(world, 11, "one"), command(world, 11, "two")])
    assert isinstance(won, bytes)
    assert isinstance(lost, DomainError)
    assert lost.metadata["payment_id"] == str(next(iter(world.store.rows.payments)))
    know(world, 40, amount=Money("CNY", 5000))
    assert said(usecases.create_payments(world.ports, [command(world, 40)])) == ["BALANCE_INSUFFICIENT"]
    assert said(usecases.create_payments(world.ports, [command(world, 40)])) == ["BALANCE_INSUFFICIENT"]
    top_up(world, 9000, key="more")
    assert said(usecases.create_payments(world.ports, [command(world, 40, "again")])) == [""]
    listed, token = usecases.list_payments(world.ports, FIRST, owner=USER, order_id=40)
    assert [(p.status, p.failure_reason) for p in listed] == [("success", ""), ("failed", "BALANCE_INSUFFICIENT")]
    assert token == ""


def test_money_is_spent_once_within_a_batch(world: World) -> None:
    """Eleven payments of 100 on 1,000: the last one lacks money."""
    know(world, 21)
    answers = usecases.create_payments(world.ports, [command(world, n) for n in range(11, 22)])
    assert said(answers) == [""] * 10 + ["BALANCE_INSUFFICIENT"]
    assert balance(world) == 0


def test_risk_blocks_one_and_lets_the_others_pass(world: World) -> None:
    """A blocked payment is kept as failed, moves no money, and leaves its order free."""
    top_up(world, 100, user=8)
    know(world, 31, user_id=8)
    world.risk.blocks = {8}
    answers = usecases.create_payments(world.ports, [command(world, 31, user=8), command(world, 11)])
    assert said(answers) == ["PAYMENT_BLOCKED", ""]
    assert balance(world, 8) == 100
    assert [p.status for p in world.store.payments_of(user_id=8, order_id=None, page=FIRST)] == [states.FAILED]


def test_nothing_is_kept_while_risk_is_away_and_the_repeat_succeeds(world: World) -> None:
    """UNAVAILABLE is no answer for ever; asked again, risk is asked about the very same payment."""
    item = command(world, 11)
    world.risk.failure = DomainError("UNAVAILABLE")
    assert said(usecases.create_payments(world.ports, [item])) == ["UNAVAILABLE"]
    assert world.store.rows.payments == {}
    world.risk.failure = None
    assert said(usecases.create_payments(world.ports, [item])) == [""]
    assert [[p.payment_id for p in asked] for asked in world.risk.asked] == [[item.payment_id]] * 2


def test_order_service_that_is_away_fails_only_who_needs_it(world: World) -> None:
    """Known orders are paid; the unknown one is UNAVAILABLE, and is paid when the service is back."""
    unknown = KnownOrder(50, USER, Money("CNY", 100), "pending", world.clock.ms + 1000, 1)
    world.orders.orders[50] = unknown
    world.orders.failure = DomainError("UNAVAILABLE")
    items = [command(world, 11), command(world, 50), command(world, 12)]
    assert said(usecases.create_payments(world.ports, items)) == ["", "UNAVAILABLE", ""]
    world.orders.failure = None
    assert said(usecases.create_payments(world.ports, items)) == ["", "", ""]
    assert world.orders.asked == [[50], [50]]
    assert world.store.rows.orders[50] == unknown


def test_refunds_are_whole_or_partial_and_repeats_are_replayed(world: World) -> None:
    """30, then the rest; a repeat gets its bytes; beyond that there is nothing to give."""
    [paid] = pay(world, 11)
    part = refund(world, paid.id, 30)
    assert refund(world, paid.id, 30) == part
    assert said([refund(world, paid.id, 71, "too-much"), refund(world, paid.id, 0, "zero")]) == [
        "REFUND_EXCEEDS_CAPTURED", "REFUND_EXCEEDS_CAPTURED",
    ]  # fmt: skip
    rest = refund(world, paid.id, key="rest")
    assert isinstance(rest, bytes)
    assert b"refunded 100 100" in rest
    assert said([refund(world, paid.id, 1, "late")]) == ["PAYMENT_STATUS_CONFLICT"]
    assert balance(world) == 1000
    listed, _ = usecases.list_refunds(world.ports, paid.id, USER, FIRST)
    assert [r.amount.minor_units for r in listed] == [70, 30]


def test_refund_of_anothers_payment_needs_the_scope(world: World) -> None:
    """For others it does not exist; an operator may."""
    [paid] = pay(world, 11)
    assert said([refund(world, paid.id, asked_by=caller(8)), refund(world, 424242)]) == ["PAYMENT_NOT_FOUND"] * 2
    assert said([refund(world, paid.id, key="operator", asked_by=caller(8, "payments:refund"))]) == [""]


def rejected(event_id: str, payment_id: int) -> usecases.RefundRejected:
    """The event that an order could not take a payment."""
    return usecases.RefundRejected(event_id, "order.payment_rejected", payment_id, "order_cancelled")


def test_rejected_payment_is_refunded_whole_once(world: World) -> None:
    """Told twice or partly refunded before: what is left is given back, once. A payment that is not ours is a failure."""
    one, two = pay(world, 11, 12)
    refund(world, two.id, 40)
    events = [rejected("e1", one.id), rejected("e2", two.id), rejected("e3", 424242)]
    for _ in range(2):
        outcomes = usecases.refund_rejected(world.ports, [*events, rejected("e4", one.id)])
        assert [str(o or "").split(" ")[0] for o in outcomes] == ["", "", "PAYMENT_NOT_FOUND", ""]
    assert balance(world) == 1000
    assert [r.amount.minor_units for r in world.store.refunds_of(two.id, FIRST)] == [60, 40]
    assert {e for e in world.store.rows.taken if e.startswith("e")} == {"e1", "e2", "e4"}


def test_rejected_payment_that_cannot_be_given_back_fails_alone(world: World) -> None:
    """The balance is as full as it may be: that event comes again, its neighbour is done."""
    [full] = pay(world, 11)
    top_up(world, 500, user=8)
    know(world, 31, user_id=8)
    assert said(usecases.create_payments(world.ports, [command(world, 31, user=8)])) == [""]
    [other] = world.store.payments_of(user_id=8, order_id=31, page=FIRST)
    world.store.rows.accounts[AccountKey(USER_BALANCE, USER, "CNY")].balance = MINOR_UNITS_MAX
    events = [rejected("e1", full.id), rejected("e2", other.id)]
    assert said(usecases.refund_rejected(world.ports, events)) == ["BALANCE_LIMIT_EXCEEDED", ""]
    assert world.store.rows.taken.keys() >= {"e2"}
    assert "e1" not in world.store.rows.taken
    assert balance(world, 8) == 500


def test_top_up_is_booked_once_and_refused_beyond_the_limit(world: World) -> None:
    """The answer shows the balance afterwards, and a repeat shows the same."""
    first = top_up(world, 500, key="again")
    assert first == top_up(world, 500, key="again")
    assert balance(world) == 1500
    assert said([top_up(world, MINOR_UNITS_MAX, key="too-much")]) == ["BALANCE_LIMIT_EXCEEDED"]


def test_read_is_never_shown_what_was_before_a_refund(world: World) -> None:
    """Remembered before the refund, read during it, put too late by another process: the newest is shown."""
    [paid] = pay(world, 11)
    assert usecases.get_payment(world.ports, paid.id, USER).status == states.SUCCESS
    before = world.store.payment(paid.id, None)
    assert before is not None
    refund(world, paid.id, 30)
    world.cache.fill(before)  # a reader that saw the database before the commit
    world.cache.put([before])  # another process, late
    seen = usecases.get_payment(world.ports, paid.id, USER)
    assert (seen.status, seen.refunded) == (states.PARTIALLY_REFUNDED, 30)


def test_place_is_held_before_the_commit_so_that_a_death_shows_nothing_old(world: World) -> None:
    """The process dies between commit and cache: who reads then asks the database."""
    [paid] = pay(world, 11)
    usecases.get_payment(world.ports, paid.id, USER)

    class Killed(FakeCache):
        """The process is dead before it comes here."""

        def put(self, payments: Iterable[Payment]) -> None:
            """Do nothing any more."""
            raise ConnectionError

    dying = Killed()
    dying.payments = world.cache.payments
    stated = IdempotencyKey(Scope(USER, "RefundPayment", "r"), b"f" * 32)
    asked = usecases.RefundPayment(caller(), stated, paid.id, Money("CNY", 30), "")
    with pytest.raises(ConnectionError):
        usecases.refund_payments(replace(world.ports, cache=dying), [asked])
    assert usecases.get_payment(world.ports, paid.id, USER).refunded == 30


def test_payment_of_another_is_not_found_also_when_it_is_remembered(world: World) -> None:
    """The cache knows no owner; the use case does."""
    [paid] = pay(world, 11)
    assert usecases.get_payment(world.ports, paid.id, None).id == paid.id
    for reader in (paid.id, 424242):
        with pytest.raises(DomainError) as caught:
            usecases.get_payment(world.ports, reader, 8)
        assert caught.value.reason == "PAYMENT_NOT_FOUND"
    with pytest.raises(DomainError):
        usecases.list_refunds(world.ports, paid.id, 8, FIRST)


def test_balance_is_of_the_currency_that_is_asked_for(world: World) -> None:
    """CNY where none is named; none yet is 0; no such currency is refused."""
    assert usecases.get_balance(world.ports, USER, "")[1:] == (1000, world.clock.ms)
    assert usecases.get_balance(world.ports, USER, "JPY")[1:] == (0, 0)
    with pytest.raises(DomainError) as caught:
        usecases.get_balance(world.ports, USER, "XAU")
    assert caught.value.reason == "CURRENCY_UNSUPPORTED"


def withdraw(world: World, amount: int, key: str = "w") -> Answer:
    """Take money off a balance."""
    stated = IdempotencyKey(Scope(USER, "WithdrawBalance", key), str(amount).encode())
    [answer] = usecases.withdraw_balances(
        world.ports, [usecases.WithdrawBalance(caller(), stated, USER, Money("CNY", amount))]
    )
    return answer


def test_withdrawal_is_booked_once_and_never_beyond_the_balance(world: World) -> None:
    """A repeat gets the same bytes, the clearing account owes what was paid out, a fen too much is refused."""
    first = withdraw(world, 600)
    assert first == withdraw(world, 600)
    assert said([withdraw(world, 401, "more")]) == ["BALANCE_INSUFFICIENT"]
    assert world.store.balance(AccountKey(USER_BALANCE, USER, "CNY"))[0] == 400
    assert world.store.balance(AccountKey(FUNDING_CLEARING, 1, "CNY"))[0] == -400
