"""What must hold when a run has come to rest: the rooms' own audits, and what only who sees both sides can check."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from services.contract.load import contract
from services.order import audit as order_audit
from services.order import states as order_states
from services.payment import audit, states
from services.payment.domain import Method, Reason
from services.payment.ports.provider import Phase, Verdict
from services.payment.store import tables as t
from services.platform.audit import Pair, Since, effects
from tests.leaks import Leaks
from tests.simulation.clients import CVV
from tests.simulation.providers import PAN

if TYPE_CHECKING:
    from tests.simulation.world import Sim

Found = Iterator[tuple[str, str]]
"""Invariant and breach."""
_LEAKS = Leaks([PAN], [CVV])


@dataclass(frozen=True)
class Books:
    """Our side of it."""

    payments: dict[int, Any]
    refunds: dict[int, Any]
    passed: dict[int, list[str]]
    """Payment -> the states that it went through."""
    reviews: list[Any]
    in_review: frozenset[int]


def check(sim: Sim) -> None:
    """Put down every breach."""
    now, books = sim.clock.now_ms(), _books(sim)
    with sim.stage.databases["payment"].read() as connection:
        for finding in audit.invariants(connection, now, settled=True):
            for breach in finding.breaches:
                sim.breach(finding.invariant, breach)
    with sim.stage.databases["order"].read() as connection:
        for finding in order_audit.invariants(connection, now, settled=True):
            for breach in finding.breaches:
                sim.breach(finding.invariant, breach)
    for each in (_effects, _orders, _trades, _returns, _charged_once, _words, _clients, _leaks):
        for invariant, breach in each(sim, books):
            sim.breach(invariant, breach)
    sim.met.update(f"{p.payment_method} {status}" for p in books.payments.values() for status in books.passed[p.id])
    sim.met.update(f"refund {r.status}" for r in books.refunds.values())
    sim.met.update(f"review {r.reason}" for r in books.reviews)
    sim.met["repeats answered"] += sim.answers.repeated


def _books(sim: Sim) -> Books:
    with sim.stage.databases["payment"].read() as connection:
        payments, refunds, history = (
            connection.execute(sa.select(table).order_by(*table.primary_key)).all()
            for table in (t.payments, t.refunds, t.payment_history)
        )
        reviews = connection.execute(sa.select(t.reviews).order_by(t.reviews.c.id)).all()
    passed: dict[int, list[str]] = defaultdict(list)
    for row in history:
        passed[row.payment_id].append(row.status)
    undecided = frozenset(r.payment_id for r in reviews if r.status != states.REVIEW_DECIDED)
    return Books({p.id: p for p in payments}, {r.id: r for r in refunds}, passed, list(reviews), undecided)


def _effects(sim: Sim, books: Books) -> Found:
    """I7: what one room told had its effect in the other."""
    del books
    databases, topics = sim.stage.databases, defaultdict[tuple[str, str], list[str]](list)
    for event in contract().events.values():
        for consumer in {*event.consumers} & databases.keys() - {event.service} if event.service in databases else ():
            topics[event.service, consumer].append(event.topic)
    for (service, consumer), some in topics.items():
        with databases[consumer].read() as taken, databases[service].read() as told:
            pair = Pair(service, consumer, tuple(some))
            for finding in effects(told, taken, pair, sim.clock.now_ms(), settled=True, since=Since()):
                yield from (("I7", breach) for breach in finding.breaches)


def _orders(sim: Sim, books: Books) -> Found:
    """I9: paid: by one payment that kept something; refunded: that was given back; cancelled: nothing is kept."""
    fits = {
        order_states.PAID: {states.SUCCESS, states.PARTIALLY_REFUNDED},
        order_states.REFUNDED: {states.REFUNDED},
    }
    kept: dict[int, list[Any]] = defaultdict(list)
    for p in books.payments.values():
        if p.captured_minor > p.refunded_minor and p.id not in books.in_review:
            kept[p.order_id].append(p)
    with sim.stage.databases["order"].read() as connection:
        facts = list(order_audit.order_facts(connection))
    for fact in facts:
        paid_by = books.payments.get(fact.payment_id)
        fit = paid_by is not None and (paid_by.order_id, paid_by.status) in {
            (fact.order_id, status) for status in fits.get(fact.status, ())
        }
        if fact.status in fits and fact.payment_id not in books.in_review and not fit:
            yield "I9", f"order {fact.order_id} is {fact.status} by {fact.payment_id}: {paid_by}"
        others = [p.id for p in kept.pop(fact.order_id, []) if fact.status not in fits or p.id != fact.payment_id]
        if others:
            yield "I9", f"order {fact.order_id} is {fact.status}, yet money of {others} is kept"
    yield from (("I9", f"money for the unknown order {order_id}") for order_id in kept)


def _trades(sim: Sim, books: Books) -> Found:
    """I3: what a provider took is what we booked, and it holds nothing for what has ended."""
    for provider in sim.providers.values():
        for request_id, trade in provider.trades.items():
            p = books.payments.get(int(request_id[1:]))
            provider._lapse(trade)
            if p is None or p.payment_method != provider.method:
                yield "I3", f"{provider.method} has {request_id}, which is no payment of ours"
            elif trade.phase in {Phase.AUTHORIZED, Phase.WAITING}:
                yield "I4", f"{request_id} is {p.status}, yet {provider.method} has it {trade.phase}"
            elif p.id not in books.in_review and (trade.captured, trade.refunded) != (
                p.captured_minor,
                p.refunded_minor,
            ):
                yield "I3", f"{request_id}: {provider.method} took {trade.captured} and gave back {trade.refunded}: {p}"


def _returns(sim: Sim, books: Books) -> Found:
    """I3: what a provider gave back is what we booked."""
    for provider in sim.providers.values():
        for request_id, back in provider.returns.items():
            r, done = books.refunds.get(int(request_id[1:])), back.verdict is Verdict.DONE
            if r is None or (r.payment_id not in books.in_review and done != (r.status == states.REFUND_SUCCESS)):
                yield "I3", f"{provider.method} has the refund {request_id} {back.verdict}: {r}"


def _charged_once(sim: Sim, books: Books) -> Found:
    """I3: what we booked a provider took, and nobody is charged twice for one order."""
    took: dict[int, list[str]] = defaultdict(list)
    for p in books.payments.values():
        trades = {} if p.payment_method == Method.BALANCE else sim.providers[Method(p.payment_method)].trades
        trade = trades.get(p.payment_no)
        if p.captured_minor and trade is None and p.payment_method != Method.BALANCE:
            yield "I3", f"{p.payment_no} took money that {p.payment_method} knows nothing of"
        kept = p.captured_minor - p.refunded_minor if trade is None else trade.captured - trade.refunded
        if kept > 0 and p.id not in books.in_review:
            took[p.order_id].append(p.payment_no)
    yield from (("I3", f"order {order_id} is paid by {many}") for order_id, many in took.items() if len(many) > 1)


def _words(sim: Sim, books: Books) -> Found:
    """I4: what is shown as ended was ended by its provider, and a review has a contradiction behind it."""
    for p in books.payments.values():
        ended = {states.FAILED, states.CLOSED} & set(books.passed[p.id])
        asked = states.PROCESSING in books.passed[p.id]
        if ended and asked and p.payment_no not in sim.providers[Method(p.payment_method)].ended:
            yield "I4", f"{p.payment_no} was shown as {ended}, and {p.payment_method} never said so"
    for r in books.reviews:
        p = books.payments[r.payment_id]
        provider = sim.providers[Method(p.payment_method)]
        match Reason(r.reason):
            case Reason.LATE_SUCCESS:
                real = p.payment_no in provider.ended
            case Reason.AMOUNT_MISMATCH | Reason.LATE_FAILURE:
                real = p.payment_no in provider.odd
            case Reason.REFUND_CONTRADICTION:
                number = f"R{r.refund_id}"
                real = number in provider.odd or (number in provider.refused and bool(p.owed))
            case _:
                real = False
        if not real:
            yield "I4", f"review {r.reason} of {p.payment_no} without a reason: {r.detail}"


def _clients(sim: Sim, books: Books) -> Found:
    """I4 and I12: everyone knows what became of his request, and nobody was shown a payment go back."""
    for request in sim.requests:
        if not request.over:
            yield "I4", f"{request.name} never learns what came of it after {request.tries} tries"
    for payment_id, shown in sim.seen.items():
        path = books.passed.get(payment_id, [])
        for before, after in pairwise(shown):
            if before not in path or after not in path[path.index(before) :]:
                yield "I12", f"payment {payment_id} was shown {before}, then {after}; it went {path}"
    if sim.alarm.told.count(("security", "callback.refused")) < sim.calls.refused:
        yield "F9", "a forged callback was no security event"


def _leaks(sim: Sim, books: Books) -> Found:
    """I11: no card number is in a database, in whatever form."""
    del books
    if _LEAKS.in_bytes(sim.stage.contents(), binary=True):
        yield "I11", "a card number is in a database"
