"""Reviews over real SQL: the cases of tests/unit with an audit after each, two processes at once, and the service."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import grpc
import pytest
import sqlalchemy as sa

from paymesh.payment.v1 import payment_pb2, review_pb2
from paymesh.payment.v1 import payment_service_pb2 as pb
from paymesh.payment.v1 import payment_service_pb2_grpc as rpc
from services.kernel.clock import SystemClock
from services.kernel.idempotency import IdempotencyKey, Scope
from services.kernel.ids import IdMaker
from services.payment import audit, usecases
from services.payment.app import RENDER, build
from services.payment.ports import Deed
from services.payment.settings import Settings
from services.payment.store import SqlStore
from services.payment.store.lifecycle import audit_hash
from services.payment.store.tables import audit_log, outbox
from services.platform.batcher import Batcher
from services.platform.database import Database
from services.platform.status import error_from
from tests.fakes.payment import World
from tests.integration.engines import ENGINES, SQLITE, Engines
from tests.integration.processes import Processes, together
from tests.running import Served
from tests.unit.payment.test_reviews import (  # noqa: F401 - the cases run here over this module's room
    ACCEPT,
    ANNE,
    BOB,
    DONE,
    FIRST,
    GIVE_BACK,
    REFUSE,
    REFUSED,
    USER,
    Room,
    TestPaymentInReview,
    TestPaymentThatKeptItsState,
    TestRefundInReview,
    TestTwoPeople,
    caller,
    taken,
    why,
)


@pytest.fixture(params=ENGINES)
def database(request: pytest.FixtureRequest, engines: Engines) -> Iterator[Database]:
    """An empty database; at its end no invariant of the room is broken, and the audit log is whole."""
    found = Database(engines.migrated(request.param, "payment"))
    yield found
    with found.read() as connection:
        findings = list(audit.invariants(connection, int(time.time() * 1000), settled=False))
        log = connection.execute(sa.select(audit_log).order_by(audit_log.c.seq)).all()
    found.stop()
    assert [breach for finding in findings for breach in finding.breaches] == []
    link = bytes(32)
    for seq, row in enumerate(log, 1):
        link = audit_hash(link, seq, row.at_ms, Deed(row.actor_id, row.action, row.about_id, row.detail))
        assert (row.seq, bytes(row.hash)) == (seq, link)


def room_over(database: Database, instance: int = 1) -> Room:
    """A room that keeps everything in ``database``."""
    world, ids = World(), IdMaker(SystemClock(), instance)
    world.ids, world.clock.ms = ids, int(time.time() * 1000)  # type: ignore[assignment]
    ports = replace(world.ports, store=SqlStore(database, ids), render=RENDER, ids=ids)

    def events() -> list[tuple[str, int, int]]:
        o = outbox.c
        with database.read() as connection:
            rows = connection.execute(sa.select(o.topic, o.event_key, o.version).order_by(o.id)).all()
        return [(topic, int(key), version) for topic, key, version in rows]

    def deeds() -> list[Deed]:
        a = audit_log.c
        with database.read() as connection:
            rows = connection.execute(sa.select(a.actor_id, a.action, a.about_id, a.detail).order_by(a.seq)).all()
        return [Deed(*row) for row in rows]

    return Room(world, ports, events, deeds)


@pytest.fixture
def room(database: Database) -> Room:
    """An empty room over real SQL."""
    return room_over(database)


def test_planted_bugs_of_reviews_are_found_by_the_audit(room: Room, database: Database) -> None:
    """Payments in review and refunds in doubt or undone: each kind of damage makes its invariant speak."""
    late, review = room.late(11)
    doubted, undone, kept = room.paid(12), room.paid(13), room.paid(14)
    room.say_of_refund(room.refund(doubted, 30), DONE, REFUSED)
    refund_id = room.refund(undone, 30)
    room.say_of_refund(refund_id, DONE, REFUSED)
    room.resolve(room.review(undone, refund_id), REFUSE)
    of_undone = f"(SELECT id FROM ledger_transactions WHERE reference_id = {refund_id} AND kind = 'refund_undone')"
    damages = [
        ("I3", f"UPDATE payments SET live_order_id = NULL WHERE id = {kept.id}"),
        ("I3", f"UPDATE payments SET status = 'failed' WHERE id = {kept.id}"),
        ("I3", f"DELETE FROM ledger_entries WHERE transaction_id = {of_undone}"),
        ("I3", f"UPDATE refunds SET status = 'success' WHERE id = {refund_id}"),
        ("I4", f"UPDATE reviews SET status = 'decided', decider_id = {BOB} WHERE id = {review.id}"),
        ("I5", f"UPDATE payments SET refunded_minor = 0 WHERE id = {doubted.id}"),
        ("I5", f"UPDATE payments SET refunded_minor = 30 WHERE id = {undone.id}"),
    ]
    for invariant, damage in damages:
        with database.write() as connection:
            connection.execute(sa.text(damage))
            found = audit.invariants(connection, int(time.time() * 1000), settled=True)
            assert invariant in {f.invariant for f in found if f.breaches and f.invariant != "I7"}, damage
    with database.read() as connection:
        live = {each.payment_id for each in audit.payments_by_order(connection, None) if each.live}
        assert live == {doubted.id, undone.id, kept.id}
    assert room.payment(late.id).status == "review"


def decide_all(url: str, instance: int, review_ids: list[int], key: str) -> list[bytes | str]:
    """In a process of its own: decide reviews when the other one is ready, each by itself, from four threads."""
    database = Database(url)
    room = room_over(database, instance)
    batcher = Batcher({"decide_reviews": partial(usecases.decide_reviews, room.ports)})
    batcher.start()
    proposed = {review.id: review.decision or ACCEPT for review in room.ports.store.reviews_from(FIRST, decided=True)}
    together()

    def decide(review_id: int) -> bytes | str:
        stated = IdempotencyKey(Scope(BOB, "DecideReview", f"{key}-{review_id}"), b"f" * 32)
        command = usecases.DecideReview(caller(BOB), stated, review_id, proposed[review_id], agree=True, note="yes")
        [answer] = batcher.submit_all("decide_reviews", [command])
        return answer if isinstance(answer, bytes) else why(answer)

    try:
        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(decide, review_ids))
    finally:
        batcher.stop()
        database.stop()


class Both:
    """Two processes that decide at once over one database."""

    def __init__(self, database: Database, processes: Processes) -> None:
        self._url, self._processes = database.url.render_as_string(hide_password=False), processes

    def __call__(
        self, one: list[int], key: str, two: list[int], other_key: str
    ) -> list[tuple[bytes | str, bytes | str]]:
        """Decide ``one`` in the first and ``two`` in the second, under keys that begin so; the answers in pairs."""
        first, second = self._processes(decide_all, (self._url, 2, one, key), (self._url, 3, two, other_key))
        return list(zip(first, second, strict=True))


@pytest.fixture
def both(database: Database, processes: Processes) -> Both:
    """Two processes over the room's database."""
    return Both(database, processes)


def test_review_that_two_processes_decide_at_once_is_carried_out_once(room: Room, both: Both) -> None:
    """Ten reviews under two keys each: one carries it out, the other finds it decided; the money is there once."""
    made = [room.late(n) for n in range(11, 21)]
    assert [room.propose(review, ACCEPT) for _, review in made] == [""] * 10
    ids = [review.id for _, review in made]
    pairs = both(ids, "one", ids, "two")
    for pair in pairs:
        assert sorted(isinstance(answer, bytes) for answer in pair) == [False, True]
        assert "REVIEW_STATUS_CONFLICT" in pair
    assert room.money() == (1000, 1000, 0)
    now = [room.ports.store.payment(payment.id, None) for payment, _ in made]
    assert [(p.status, p.live) for p in now if p is not None] == [("success", True)] * 10
    assert len(room.deeds()) == 20


def test_same_key_from_two_processes_gets_the_same_bytes(room: Room, both: Both) -> None:
    """Ten keys, both processes, one decision each."""
    made = [room.late(n) for n in range(11, 21)]
    assert [room.propose(review, GIVE_BACK) for _, review in made] == [""] * 10
    ids = [review.id for _, review in made]
    pairs = both(ids, "same", ids, "same")
    assert all(first == second and isinstance(first, bytes) for first, second in pairs)
    assert room.money() == (1000, 0, 1000)


def test_order_takes_one_of_two_late_payments_that_two_processes_accept(room: Room, both: Both) -> None:
    """Ten orders with two late payments each, accepted crosswise: one wins, the other is told."""
    made = [(room.late(n)[1], room.late(n)[1]) for n in range(11, 21)]
    assert {room.propose(review, ACCEPT) for pair in made for review in pair} == {""}
    one, two = ([pair[side].id for pair in made] for side in (0, 1))
    pairs = both(one, "one", two, "two")
    for pair in pairs:
        assert sorted(isinstance(answer, bytes) for answer in pair) == [False, True]
        assert "ORDER_HAS_LIVE_PAYMENT" in pair
    assert room.money() == (1000, 1000, 0)


ON_SQLITE = pytest.mark.parametrize("database", [SQLITE], indirect=True)


class Operators:
    """The service under test, and those who may review."""

    def __init__(self, served: Served, room: Room) -> None:
        self.served, self.room, self.stub = served, room, rpc.PaymentServiceStub(served.channel)

    def call(self, method: str, request: object, user: int, key: str = "", scope: str = "payments:review") -> object:
        """Call as an operator."""
        return self.served.call(getattr(self.stub, method), request, user=user, scope=scope, key=key)

    def refused(self, method: str, request: object, user: int, key: str = "", scope: str = "payments:review") -> str:
        """The reason that a call is refused with."""
        with pytest.raises(grpc.RpcError) as caught:
            self.call(method, request, user, key, scope)
        return error_from(caught.value).reason


@pytest.fixture
def operators(run_dir: Path, tmp_path: Path, redis_url: str, kafka: str, database: Database) -> Iterator[Operators]:
    """A payment service over the database, with the room's use cases beside it."""
    settings = Settings(data=tmp_path, listen=f"unix:{run_dir}/p.sock", mesh=f"unix:{run_dir}/out.sock",
                        database_url=database.url.render_as_string(), redis_url=redis_url, kafka=kafka)  # fmt: skip
    with Served(build(settings)) as served:
        yield Operators(served, room_over(database, 9))


@ON_SQLITE
def test_operators_list_propose_and_decide(operators: Operators) -> None:
    """The way of a review through the service: pages, every field, two people, the repeat, and what became of the payment."""
    room = operators.room
    made = [room.late(n) for n in (11, 12, 13)]
    payment, review = made[0]
    listed = operators.call("ListReviews", pb.ListReviewsRequest(page_size=2), ANNE)
    assert isinstance(listed, pb.ListReviewsResponse)
    assert [r.payment_id for r in listed.reviews] == [p.id for p, _ in made[:2]]
    rest = operators.call("ListReviews", pb.ListReviewsRequest(page_token=listed.next_page_token), ANNE)
    assert isinstance(rest, pb.ListReviewsResponse)
    assert [r.payment_id for r in rest.reviews] == [made[2][0].id]
    shown = listed.reviews[0]
    assert (shown.id, shown.refund_id, shown.detail) == (review.id, 0, review.detail)
    assert (shown.reason, shown.status) == (review_pb2.Review.REASON_LATE_SUCCESS, review_pb2.Review.STATUS_OPEN)
    proposal = pb.ProposeReviewRequest(id=review.id, decision=review_pb2.Review.DECISION_ACCEPT, note="it is here")
    proposed = operators.call("ProposeReview", proposal, ANNE)
    assert isinstance(proposed, pb.ProposeReviewResponse)
    assert (proposed.review.status, proposed.review.proposer_id) == (review_pb2.Review.STATUS_PROPOSED, ANNE)
    decision = pb.DecideReviewRequest(id=review.id, decision=proposal.decision, agree=True, note="it is")
    assert operators.refused("DecideReview", decision, ANNE, "decide-0001") == "REVIEW_NEEDS_SECOND_PERSON"
    first, again = (operators.call("DecideReview", decision, BOB, "decide-0002") for _ in range(2))
    assert isinstance(first, pb.DecideReviewResponse)
    assert first == again
    assert (first.review.status, first.review.decision) == (proposed.review.STATUS_DECIDED, proposal.decision)
    assert (first.review.decider_id, first.review.decision_note) == (BOB, "it is")
    found = operators.call("GetPayment", pb.GetPaymentRequest(id=payment.id), USER, scope="")
    assert isinstance(found, pb.GetPaymentResponse)
    assert (found.payment.status, found.payment.captured.minor_units) == (payment_pb2.Payment.STATUS_SUCCESS, 100)
    every = operators.call("ListReviews", pb.ListReviewsRequest(all=True), ANNE)
    assert isinstance(every, pb.ListReviewsResponse)
    assert [r.status for r in every.reviews] == [3, 1, 1]


@ON_SQLITE
def test_review_is_for_operators_alone_and_refused_with_its_reason(operators: Operators) -> None:
    """Without the scope nothing; without a key no decision; what does not fit says so."""
    room = operators.room
    payment = room.say(room.begin(), taken(120))
    review = room.review(payment)
    propose = pb.ProposeReviewRequest(id=review.id, decision=review_pb2.Review.DECISION_ACCEPT, note="x")
    decide = pb.DecideReviewRequest(id=review.id, decision=propose.decision, agree=True, note="x")
    for method, request in (("ListReviews", pb.ListReviewsRequest()), ("ProposeReview", propose)):
        assert operators.refused(method, request, ANNE, scope="payments:read") == "SCOPE_MISSING"
    assert operators.refused("DecideReview", decide, ANNE) == "IDEMPOTENCY_KEY_MISSING"
    assert operators.refused("ProposeReview", propose, ANNE) == "REVIEW_STATUS_CONFLICT"
    assert operators.refused("DecideReview", decide, BOB, "decide-0001") == "REVIEW_STATUS_CONFLICT"
    propose.id = decide.id = 424242
    assert operators.refused("ProposeReview", propose, ANNE) == "REVIEW_NOT_FOUND"
    assert operators.refused("DecideReview", decide, BOB, "decide-0002") == "REVIEW_NOT_FOUND"
    propose.note = ""
    assert operators.refused("ProposeReview", propose, ANNE) == "INVALID_ARGUMENT"
