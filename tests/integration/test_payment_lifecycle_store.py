"""What the use cases of payments through providers rely on, over FakeStore and SqlStore alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import sqlalchemy as sa

from services.kernel.clock import SystemClock
from services.kernel.errors import DomainError
from services.kernel.idempotency import IdempotencyKey, Scope
from services.kernel.ids import IdMaker
from services.kernel.money import Money
from services.kernel.pages import Page
from services.payment import states
from services.payment.domain import Attempt, Kind, Method, Payment, Point, Reason, Refund, Review
from services.payment.domain.attempt import LEASE_MS
from services.payment.ports import CallbackTaken, Change, Moved
from services.payment.store import SqlStore
from services.platform.database import Database
from tests.fakes.payment import FakeIds, FakeStore
from tests.integration.engines import ENGINES, Engines
from tests.integration.test_payment_store import NOW, USER, Kept, is_breach, new_payment

KEY = IdempotencyKey(Scope(USER, "CreatePayment", "key-00000001"), bytes(32))


@pytest.fixture(params=["fake", *ENGINES])
def kept(request: pytest.FixtureRequest, engines: Engines) -> Iterator[Kept]:
    """The store under test, empty. Rows are written here without what belongs to them, so no audit follows."""
    if request.param == "fake":
        yield Kept(FakeStore(FakeIds()), list, None)
        return
    database = Database(engines.migrated(request.param, "payment"))
    yield Kept(SqlStore(database, IdMaker(SystemClock(), 1)), list, database)
    database.stop()


def begun(kept: Kept, order_id: int = 11, key: IdempotencyKey | None = KEY) -> tuple[Payment, Attempt]:
    """Write a payment by card whose provider is being asked."""
    payment = replace(new_payment(kept.ids.next(0), order_id), method=Method.BANK_CARD)
    change = Change(NOW, [payment], moved=[Moved(payment.step(), payment)])
    change.moved.append(Moved(payment.enter(states.PROCESSING, NOW), payment))
    attempt = Attempt(
        id=payment.id, payment_id=payment.id, refund_id=0, kind=Kind.CHARGE, method=payment.method,
        request_id=payment.payment_no, amount=payment.amount, create_ms=NOW, update_ms=NOW, next_ms=NOW + LEASE_MS,
        owner=1, scope=key.scope if key else None, payer={"card_token": "card_x"}, expire_ms=NOW + 900_000,
    )  # fmt: skip
    change.new_attempts, change.held = [attempt], [key] if key else []
    kept.write(change)
    return payment, attempt


def test_attempt_comes_back_as_it_was(kept: Kept) -> None:
    """Every field of an attempt is kept, and a payment is read with what its provider was asked."""
    payment, attempt = begun(kept)
    with kept.store.transaction() as tx:
        assert tx.attempts([payment.id]) == {attempt.id: attempt}
        assert tx.payments([payment.id])[payment.id].charge == attempt
    read = kept.store.payment(payment.id, USER)
    assert read is not None
    assert (read.charge, read.events, read.version) == (attempt, 1, 2)


def test_key_is_held_until_it_is_answered(kept: Kept) -> None:
    """In between a repeat is told so, and the answer that came first stays."""
    _, attempt = begun(kept)
    with kept.store.transaction() as tx:
        stored = tx.stored([KEY])[KEY.scope]
        assert isinstance(stored.answer, DomainError)
        assert stored.answer.reason == "IDEMPOTENCY_KEY_IN_FLIGHT"
        assert tx.held([KEY.scope]) == {KEY.scope: None}
        attempt.scope = None
        tx.write(Change(NOW + 1, changed_attempts={attempt.id: attempt}, late={KEY.scope: b"first"}))
        tx.commit()
    with kept.store.transaction() as tx:
        assert tx.held([KEY.scope]) == {KEY.scope: b"first"}
        assert tx.stored([KEY])[KEY.scope].answer == b"first"
        assert tx.attempts([attempt.payment_id])[attempt.id].scope is None


def test_attempt_is_due_when_its_time_has_come(kept: Kept) -> None:
    """Not before, the longest first, never when it is settled; of one payment only what waits or is unknown."""
    (_, first), (other, second) = begun(kept), begun(kept, 12, None)
    assert not kept.store.has_due(NOW + LEASE_MS - 1)
    assert kept.store.has_due(NOW + LEASE_MS)
    second.next_ms, second.point = NOW + 5, Point.WAITING
    kept.write(Change(NOW, changed_attempts={second.id: second}))
    with kept.store.transaction() as tx:
        assert [each.id for each in tx.due(NOW + LEASE_MS, 10, [])] == [second.id, first.id]
        assert [each.id for each in tx.due(NOW + LEASE_MS, 1, [])] == [second.id]
        assert [each.id for each in tx.due(NOW, 10, [other.id, first.payment_id])] == [second.id]
    for each in (first, second):
        each.settle(NOW + 6)
    kept.write(Change(NOW + 6, changed_attempts={first.id: first, second.id: second}))
    assert not kept.store.has_due(NOW * 2)


def test_instance_takes_up_its_own_when_it_comes_back(kept: Kept) -> None:
    """What it was asking when it died is due at once; what another asks, and what is held, is not."""
    (_, mine), (_, theirs), (_, held) = (begun(kept, n, None) for n in (11, 12, 13))
    theirs.owner = 2
    held.hold(NOW + 99_000_000, NOW)
    kept.write(Change(NOW, changed_attempts={theirs.id: theirs, held.id: held}))
    assert kept.store.adopt(1, NOW + 1) == 1
    with kept.store.transaction() as tx:
        assert [each.id for each in tx.due(NOW + 1, 10, [])] == [mine.id]


def test_callback_is_known_again(kept: Kept) -> None:
    """By provider and id; a second row of it is a breach; what is old is forgotten."""
    taken = CallbackTaken(Method.ALIPAY, "n-1", "P1")
    kept.write(Change(NOW, callbacks=[taken]))
    asked = [(Method.ALIPAY, "n-1"), (Method.WECHAT, "n-1"), (Method.ALIPAY, "n-2")]
    with kept.store.transaction() as tx:
        assert tx.known_callbacks(asked) == {(Method.ALIPAY, "n-1")}
    assert kept.store.forget({"callbacks": NOW}, 10) == 0
    assert kept.store.forget({"callbacks": NOW + 1}, 10) == 1
    with kept.store.transaction() as tx:
        assert tx.known_callbacks(asked) == set()


def test_review_is_found_with_its_payment_and_waits_until_it_is_decided(kept: Kept) -> None:
    """With its payment it is there for ever; among those that wait only until it is decided, the oldest first."""
    payment, _ = begun(kept)
    review = Review(5, payment.id, 0, Reason.LATE_SUCCESS, "why", 100, states.REVIEW_OPEN, NOW, NOW)
    kept.write(Change(NOW, new_reviews=[review]))
    with kept.store.transaction() as tx:
        assert tx.reviews([payment.id]) == [review]
    younger = replace(review, id=6, refund_id=1, status=states.REVIEW_PROPOSED)
    kept.write(Change(NOW, new_reviews=[younger]))
    assert kept.store.reviews_from(Page(1, ""), decided=False) == [review, younger]
    assert kept.store.reviews_from(Page(1, "5"), decided=False) == [younger]
    review.status, review.proposer_id, review.decider_id = states.REVIEW_DECIDED, 8, 9
    kept.write(Change(NOW, changed_reviews={5: review}))
    with kept.store.transaction() as tx:
        assert sorted(tx.reviews([payment.id]), key=lambda r: r.id) == [review, younger]
    assert kept.store.reviews_from(Page(9, ""), decided=False) == [younger]
    assert kept.store.reviews_from(Page(9, ""), decided=True) == [review, younger]
    assert kept.store.payments_of_reviews([5, 6, 7]) == {5: payment.id, 6: payment.id}
    review.decider_id = 8
    with pytest.raises(sa.exc.DBAPIError) as caught:  # MariaDB calls a CHECK that failed an operational error
        kept.write(Change(NOW, changed_reviews={5: review}))
    assert is_breach(caught)


def test_ledger_tells_what_is_booked_of_what(kept: Kept) -> None:
    """Kinds by reference; nothing of what nothing is booked of."""
    kept.top_up(100)
    paid = kept.pay(11)
    with kept.store.transaction() as tx:
        assert tx.booked([paid.id, 424242]) == {paid.id: {"payment"}}
        assert tx.booked([]) == {}


def test_refunds_under_way_never_exceed_what_was_captured(kept: Kept) -> None:
    """What is set aside counts: the database itself refuses one unit more."""
    payment, _ = begun(kept)
    payment.succeed(NOW)
    payment.set_aside(60)
    refund = Refund(7, payment.id, Money("CNY", 60), "", states.REFUND_PENDING, NOW, NOW)
    kept.write(Change(NOW, changed_payments={payment.id: payment}, refunds=[refund]))
    assert kept.store.payments_of_refunds([7, 8]) == {7: payment.id}
    assert kept.store.refund(7) == refund
    payment.set_aside(41)
    with pytest.raises(sa.exc.DBAPIError) as caught:
        kept.write(Change(NOW, changed_payments={payment.id: payment}))
    assert is_breach(caught)


def test_order_is_free_again_when_its_payment_ended(kept: Kept) -> None:
    """A closed payment gives its order up, and takes it back only where nobody else has it."""
    first, _ = begun(kept)
    first.close("PAYMENT_EXPIRED", NOW)
    kept.write(Change(NOW, changed_payments={first.id: first}))
    second, _ = begun(kept, first.order_id, None)
    with kept.store.transaction() as tx:
        assert tx.live_payments([first.order_id]) == {first.order_id: second.id}
    first.enter(states.REVIEW, NOW)
    kept.write(Change(NOW, changed_payments={first.id: first}))
    first.live = True
    with pytest.raises(sa.exc.DBAPIError) as caught:
        kept.write(Change(NOW, changed_payments={first.id: first}))
    assert is_breach(caught)
