"""Reconciliation: bills against the books, over fakes; the sums by a model that knows nothing of how it is done."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.kernel.caller import Caller
from services.kernel.errors import DomainError
from services.kernel.idempotency import IdempotencyKey, Scope
from services.kernel.money import Money
from services.kernel.pages import Page
from services.payment import states, usecases
from services.payment.domain import AccountKey, Decision, Method, Reason, Review
from services.payment.domain.bill import (
    MIDNIGHT_MS,
    ZONES,
    Bill,
    Billed,
    Booked,
    Difference,
    Mismatch,
    Number,
    day_ms,
    days_due,
    due_ms,
    judge,
)
from services.payment.domain.ledger import BANK, CLEARING, FEES, SUSPENSE
from services.payment.jobs import BILL_RETRY_MS, bill_importer
from services.payment.ports.provider import BillLine, Provider
from services.platform.batcher import Batcher
from tests.fakes.bills import FakeBiller, booked_late, charged, given_back, line, submitted
from tests.fakes.payment import World

DAY, NEXT = "2027-01-14", "2027-01-15"
NOON, NEXT_NOON = day_ms(DAY, Method.ALIPAY)[0] + 43_200_000, day_ms(NEXT, Method.ALIPAY)[0] + 43_200_000
HERE, THERE, AMOUNT, TWICE = Mismatch.MISSING_HERE, Mismatch.MISSING_AT_PROVIDER, Mismatch.AMOUNT, Mismatch.DUPLICATE


class Shop(World):
    """A world with a provider who has bills."""

    def __post_init__(self) -> None:
        """Put it together; it is two days later."""
        super().__post_init__()
        self.biller = FakeBiller()
        self.providers[Method.ALIPAY] = cast("Provider", self.biller)
        self.clock.ms = NEXT_NOON + 86_400_000

    def bill(self, *lines: BillLine, day: str = DAY) -> tuple[Bill, list[Difference]]:
        """Import a bill with these lines; returns it with its differences, oldest first."""
        self.biller.days[day] = lines
        made = usecases.import_bill(
            self.ports, submitted(self.ports), usecases.ImportBill(Method.ALIPAY, day, actor_id=9)
        )
        found, _ = usecases.list_bill_differences(self.ports, made.id, Page(100, ""))
        return made, list(reversed(found))

    def balance(self, kind: str, currency: str = "CNY") -> int:
        """An account of the merchant's."""
        return self.ports.store.balance(AccountKey(kind, 1, currency))[0]

    @property
    def reviews(self) -> dict[int, Review]:
        """Those that were opened."""
        return self.store.rows.reviews

    @property
    def books(self) -> dict[str, int]:
        """Clearing, bank, fees and suspense, where there is anything."""
        kinds = {"clearing": CLEARING[Method.ALIPAY], "bank": BANK, "fees": FEES, "suspense": SUSPENSE}
        return {name: balance for name, kind in kinds.items() if (balance := self.balance(kind))}


@pytest.fixture
def shop() -> Shop:
    """An empty one."""
    return Shop()


def kinds(differences: list[Difference]) -> list[tuple[str, Mismatch]]:
    """What does not agree, and how."""
    return [(d.number.request_id, d.mismatch) for d in differences]


def test_bill_that_agrees_leaves_nothing_in_clearing(shop: Shop) -> None:
    """Charges less refunds less fees reach the bank, and the provider owes nothing any more."""
    one = charged(shop.ports, 1, 1000, NOON)
    charged(shop.ports, 2, 500, NOON)
    given_back(shop.ports, one, 3, 200, NOON)
    assert shop.books == {"clearing": -1300}
    made, differences = shop.bill(line("P1", 1000, 6), line("P2", 500, 3), line("R3", 200, -1))
    assert differences == []
    assert (made.lines, made.matched, made.differences) == (3, 3, 0)
    [settlement] = made.settlements
    assert (settlement.charged, settlement.refunded, settlement.fees, settlement.fees_returned) == (1500, 200, 9, 1)
    assert shop.books == {"bank": -(1500 - 200 - 9 + 1), "fees": -8}
    assert (shop.alarm.told, shop.reviews) == ([], {})
    assert shop.files.kept == {made.sha256: repr(shop.biller.days[DAY]).encode()}


def test_bill_again_is_what_was_imported(shop: Shop) -> None:
    """The same file moves nothing twice."""
    charged(shop.ports, 1, 1000, NOON)
    first, _ = shop.bill(line("P1", 1000, 6))
    before = shop.books
    assert shop.bill(line("P1", 1000, 6))[0] == first
    assert shop.books == before
    assert usecases.list_bills(shop.ports, Page(10, ""))[0] == [first]


def test_other_file_that_says_the_same_is_the_same_bill(shop: Shop) -> None:
    """Files differ in when they were made; what says nothing new is what was imported, differences and all."""
    charged(shop.ports, 1, 1000, NOON)
    charged(shop.ports, 2, 500, NOON)
    first, [missing] = shop.bill(line("P1", 1000, 6, at_ms=1))
    again, differences = shop.bill(line("P1", 1000, 6, at_ms=2))
    assert (again, differences) == (first, [missing])
    assert len(shop.files.kept) == 2


def test_day_that_only_gives_back(shop: Shop) -> None:
    """What goes out of the bank: refunds, with what the provider returned of its fees."""
    one = charged(shop.ports, 1, 1000, NOON)
    shop.bill(line("P1", 1000, 6))
    given_back(shop.ports, one, 3, 1000, NEXT_NOON)
    made, differences = shop.bill(line("R3", 1000, -6), day=NEXT)
    assert (differences, made.settlements[0].cleared) == ([], -1000)
    assert shop.books == {}


@pytest.mark.parametrize(
    ("amounts", "booked", "matched", "expected", "difference"),
    [
        ([100], 100, 1, None, 0),
        ([60, 40], 100, 2, None, 0),
        ([40, 30, 20, 10], 100, 4, None, 0),
        ([100, 0], 100, 2, None, 0),
        ([100, 100], 100, 1, TWICE, 100),
        ([100, 7], 100, 1, TWICE, 7),
        ([60, 40, 60, 40], 100, 2, TWICE, 100),
        ([60, 60, 40, 40], 100, 2, TWICE, 100),
        ([101], 100, 0, AMOUNT, 101),
        ([99], 100, 0, AMOUNT, 99),
        ([60, 41], 100, 0, AMOUNT, 101),
        ([0], 100, 0, AMOUNT, 0),
        ([1] * 100, 100, 100, None, 0),
        ([3] * 40, 100, 0, AMOUNT, 120),
    ],
)
def test_lines_of_one_number(
    amounts: list[int], booked: int, matched: int, expected: Mismatch | None, difference: int
) -> None:
    """Parts that sum up are one charge; what lies beyond is there twice; what does not sum up is another amount."""
    number = Number("charge", "P5", "CNY")
    found = judge(number, Billed(amounts, 3), Booked(number, booked), frozenset())
    assert (found.matched, found.mismatch, found.difference) == (matched, expected, difference)
    assert (found.settled.billed, found.settled.cleared, found.settled.settles) == (sum(amounts), booked, 5)
    elsewhere = judge(number, Billed(amounts), Booked(number, booked, settled_by=8), frozenset({7}))
    assert (elsewhere.mismatch, elsewhere.matched, elsewhere.settled.suspense) == (TWICE, 0, sum(amounts))


@pytest.mark.parametrize(
    "request_id", ["P0", "P01", "P", "p1", "R1", "P-1", "P1 ", "P\u0661", "P9223372036854775808", "1", ""]
)
def test_number_that_is_none_of_ours(request_id: str) -> None:
    """Only the number as we wrote it stands for a payment."""
    assert Number("charge", request_id, "CNY").reference_id == 0
    assert Number("charge", "P9223372036854775807", "CNY").reference_id == 2**63 - 1


def test_differences_of_every_kind(shop: Shop) -> None:
    """What the bill has beyond the books is in suspense, what it lacks stays in clearing; of ours each opens a review."""
    for number, amount in ((1, 1000), (2, 500), (3, 300), (4, 200)):
        charged(shop.ports, number, amount, NOON)
    charged(shop.ports, 5, 70, NOON, status=states.FAILED)
    made, differences = shop.bill(
        line("P1", 1001, 6), line("P2", 500, 3), line("P2", 500, 3), line("P3", 300), line("P5", 70, 1), line("STRAY", 9)
    )  # fmt: skip
    assert kinds(differences) == [("P1", AMOUNT), ("P2", TWICE), ("P5", HERE), ("STRAY", HERE), ("P4", THERE)]
    assert [(d.booked and d.booked.minor_units, d.billed and d.billed.minor_units) for d in differences] == [
        (1000, 1001),
        (500, 500),
        (None, 70),
        (None, 9),
        (200, None),
    ]
    assert (made.lines, made.matched, made.differences) == (6, 2, 5)
    assert shop.books == {
        "clearing": -200,
        "bank": -(1001 + 1000 + 300 + 70 + 9 - 13),
        "fees": -13,
        "suspense": 1 + 500 + 70 + 9,
    }
    reviews = shop.reviews
    assert [reviews[d.review_id].payment_id if d.review_id else 0 for d in differences] == [1, 2, 5, 0, 4]
    assert {r.reason for r in reviews.values()} == {Reason.BILL_MISMATCH}
    assert "the bill of 2027-01-14 says 10.01 CNY, the books say 10.00 CNY" in reviews[differences[0].review_id].detail
    failed = shop.ports.store.payment(5, None)
    assert failed is not None
    assert failed.status == states.FAILED, "a bill changes no payment"
    assert shop.alarm.told == [("alert", "bill.differences")]


def test_refunds_differ_as_charges_do(shop: Shop) -> None:
    """A refund that the books do not have left the bank; its review is of the refund."""
    one = charged(shop.ports, 1, 1000, NOON)
    given_back(shop.ports, one, 3, 200, NOON)
    given_back(shop.ports, one, 4, 100, NOON)
    _, differences = shop.bill(line("P1", 1000), line("R3", 201), line("R8", 50))
    assert kinds(differences) == [("R3", AMOUNT), ("R8", HERE), ("R4", THERE)]
    assert [(d.payment_id, d.refund_id) for d in differences] == [(1, 3), (0, 0), (1, 4)]
    assert shop.books == {"clearing": 100, "bank": -(1000 - 201 - 50), "suspense": -51}


def test_review_that_is_open_is_not_opened_again(shop: Shop) -> None:
    """Two bills that both contradict a payment have one review."""
    charged(shop.ports, 1, 1000, NOON)
    _, [first] = shop.bill(line("P1", 1001))
    _, [second] = shop.bill(line("P1", 1000), day=NEXT)
    assert (first.mismatch, second.mismatch) == (AMOUNT, TWICE)
    assert first.review_id == second.review_id != 0
    assert len(shop.reviews) == 1


def test_number_of_another_provider_or_currency_is_not_ours(shop: Shop) -> None:
    """A WeChat payment's number in Alipay's bill, and dollars for yuan, are missing here."""
    charged(shop.ports, 1, 1000, NOON, Method.WECHAT)
    charged(shop.ports, 2, 500, NOON)
    _, differences = shop.bill(line("P1", 1000), line("P2", 500, currency="USD"))
    assert kinds(differences) == [("P1", HERE), ("P2", HERE), ("P2", THERE)]
    assert [d.payment_id for d in differences] == [0, 2, 2]
    assert (shop.balance(BANK, "USD"), shop.balance(SUSPENSE, "USD")) == (-500, 500)
    assert shop.books == {"clearing": -500, "bank": -1000, "suspense": 1000}


def test_entry_that_is_booked_after_its_bill(shop: Shop) -> None:
    """A provider was faster than we: what was in suspense settles the charge once the books have it, and nobody misses it."""
    late = charged(shop.ports, 1, 1000, NOON, status=states.PROCESSING)
    _, [missing] = shop.bill(line("P1", 1000, 6))
    assert (missing.mismatch, missing.awaits) == (HERE, 1)
    booked_late(shop.ports, late, NEXT_NOON)
    assert shop.books == {"clearing": -1000, "bank": -994, "fees": -6, "suspense": 1000}
    charged(shop.ports, 2, 500, NEXT_NOON)
    _, differences = shop.bill(line("P2", 500), day=NEXT)
    assert differences == []
    assert shop.books == {"bank": -1494, "fees": -6}
    _, [again] = shop.bill(line("P1", 1000), line("P2", 500), day=NEXT)
    assert again.mismatch is TWICE, "it was settled by the bill that had it"


def test_entry_that_two_files_of_its_day_had_before_the_books(shop: Shop) -> None:
    """It is settled once, however many files of the day follow."""
    late = charged(shop.ports, 1, 1000, NOON, status=states.PROCESSING)
    shop.bill(line("P1", 1000, 6))
    shop.bill(line("P1", 1000, 7))
    assert shop.books == {"bank": -993, "fees": -7, "suspense": 1000}
    booked_late(shop.ports, late, NEXT_NOON)
    shop.bill(line("P1", 1000, 7), line("STRAY", 5))
    shop.bill(line("P1", 1000, 8), line("STRAY", 5))
    assert shop.books == {"bank": -997, "fees": -8, "suspense": 5}


def test_refund_that_is_booked_after_its_bill(shop: Shop) -> None:
    """The other way round: what had left the bank for nothing in the books is what was owed to the provider."""
    one = charged(shop.ports, 1, 1000, NOON)
    book = given_back(shop.ports, one, 3, 200, NOON, done=False)
    _, [missing] = shop.bill(line("P1", 1000), line("R3", 200))
    assert (missing.mismatch, missing.payment_id, missing.refund_id, missing.awaits) == (HERE, 1, 3, 3)
    assert shop.books == {"bank": -800, "suspense": -200}
    book(NEXT_NOON)
    assert shop.books == {"clearing": 200, "bank": -800, "suspense": -200}
    shop.bill(line("STRAY", 1), day=NEXT)
    assert shop.books == {"bank": -801, "suspense": 1}


@pytest.mark.parametrize("decision", list(Decision))
def test_review_of_a_payment_that_had_failed(shop: Shop, decision: Decision) -> None:
    """Two people say whether the money of the bill is the payment's; what they book is settled by the bill that had it."""
    charged(shop.ports, 5, 70, NOON, status=states.FAILED)
    _, [missing] = shop.bill(line("P5", 70, 1))
    decide(shop, missing.review_id, decision)
    payment = shop.ports.store.payment(5, None)
    assert payment is not None
    booked = {Decision.ACCEPT: states.SUCCESS, Decision.REFUSE: states.FAILED, Decision.GIVE_BACK: states.REVIEW}
    assert (payment.status, payment.captured) == (booked[decision], 0 if decision is Decision.REFUSE else 70)
    assert payment.live is (decision is Decision.ACCEPT)
    shop.bill(line("STRAY", 5), day=NEXT)
    suspense = 75 if decision is Decision.REFUSE else 5
    assert shop.books == {"bank": -74, "fees": -1, "suspense": suspense}


def test_refund_that_a_review_took_back_is_not_of_the_books(shop: Shop) -> None:
    """A bill lacks a refund, and two people say that it was not done: nobody owes it to the provider any more."""
    one = charged(shop.ports, 1, 1000, NOON)
    given_back(shop.ports, one, 3, 200, NOON)
    _, [missing] = shop.bill(line("P1", 1000))
    assert (missing.mismatch, shop.books["clearing"]) == (THERE, 200)
    decide(shop, missing.review_id, Decision.REFUSE)
    assert shop.books == {"bank": -1000}
    assert shop.ports.bills.unsettled(Method.ALIPAY, 0, 2 * NOON) == []
    _, [late] = shop.bill(line("P1", 1000), line("R3", 200))
    assert (late.mismatch, late.payment_id, late.refund_id) == (HERE, 1, 3)


def test_refund_that_a_review_takes_back_after_its_bill(shop: Shop) -> None:
    """What the bill had taken for it the provider owes, until a bill says it again: then it belongs to nothing."""
    one = charged(shop.ports, 1, 1000, NOON)
    given_back(shop.ports, one, 3, 200, NOON)
    _, [drift] = shop.bill(line("P1", 1000), line("R3", 150))
    assert (drift.mismatch, shop.books) == (AMOUNT, {"bank": -850, "suspense": 50})
    decide(shop, drift.review_id, Decision.REFUSE)
    assert shop.books == {"clearing": -200, "bank": -850, "suspense": 50}
    shop.bill(line("P1", 1000), line("R3", 150, -1))
    assert shop.books == {"bank": -851, "fees": 1, "suspense": -150}


def decide(shop: Shop, review_id: int, decision: Decision) -> None:
    """Have one operator propose, and another agree."""
    one, two = (Caller(number, frozenset({"payments:review"}), "s1", time.monotonic() + 60) for number in (8, 9))
    key = IdempotencyKey(Scope(9, "DecideReview", f"decide-{review_id}"), b"f")
    [proposed] = usecases.propose_reviews(shop.ports, [usecases.ProposeReview(one, review_id, decision, "looked")])
    assert not isinstance(proposed, DomainError)
    agreed = usecases.DecideReview(two, key, review_id, decision, agree=True, note="so it is")
    [decided] = usecases.decide_reviews(shop.ports, [agreed])
    assert isinstance(decided, bytes)


def test_another_file_of_the_day_imports_what_is_new(shop: Shop) -> None:
    """More lines, a line put right, a line that turned wrong: the bank has what the last file says."""
    for number in (1, 2, 3):
        charged(shop.ports, number, 100 * number, NOON)
    _, first = shop.bill(line("P1", 100, 1), line("P2", 201, 2))
    assert kinds(first) == [("P2", AMOUNT), ("P3", THERE)]
    made, second = shop.bill(line("P1", 100, 1), line("P2", 200, 2), line("P3", 300, 3))
    assert (second, made.lines, made.matched) == ([], 3, 3)
    assert shop.books == {"bank": -(600 - 6), "fees": -6}
    third, differences = shop.bill(line("P1", 100, 1), line("P1", 100, 1), line("P2", 200, 2), line("P3", 300, 3))
    assert kinds(differences) == [("P1", TWICE)]
    assert (third.matched, third.settlements[0].cleared) == (3, 0)
    assert shop.books == {"bank": -(700 - 7), "fees": -7, "suspense": 100}


def test_part_of_a_charge_in_the_next_bill(shop: Shop) -> None:
    """A charge whose parts come on two days ends with nothing in suspense, and two differences to look at."""
    charged(shop.ports, 1, 1000, NOON)
    _, first = shop.bill(line("P1", 600))
    _, second = shop.bill(line("P1", 400), day=NEXT)
    assert kinds(first + second) == [("P1", AMOUNT), ("P1", TWICE)]
    assert shop.books == {"bank": -1000}


def test_entry_near_midnight_is_looked_for_in_the_next_bill(shop: Shop) -> None:
    """Within ten minutes of midnight it is missing only when the next day's bill lacks it, too."""
    midnight = day_ms(NEXT, Method.ALIPAY)[0]
    for number, at in (
        (1, midnight - 1),
        (2, midnight - MIDNIGHT_MS),
        (3, midnight - MIDNIGHT_MS - 1),
        (4, midnight + 1),
    ):
        charged(shop.ports, number, 100, at)
    _, first = shop.bill(line("P9", 1))
    assert kinds(first) == [("P9", HERE), ("P3", THERE)]
    _, second = shop.bill(line("P1", 100), day=NEXT)
    assert kinds(second) == [("P2", THERE), ("P4", THERE)]


def test_entry_is_due_when_the_provider_says_it_was_paid(shop: Shop) -> None:
    """Not when it was booked, nor by another zone's day; and what is paid after the bill was asked for is not due."""
    begins, ends = day_ms(DAY, Method.ALIPAY)
    assert (begins, ends) == (NOON - 43_200_000, NOON + 43_200_000)
    assert day_ms(DAY, Method.BANK_CARD)[0] - begins == 8 * 3_600_000
    assert due_ms(DAY, Method.ALIPAY) == (begins - MIDNIGHT_MS, ends - MIDNIGHT_MS)
    charged(shop.ports, 1, 100, begins + 20_000_000)
    charged(shop.ports, 2, 100, begins + 20_000_001)
    shop.clock.ms = begins + 20_000_001
    assert kinds(shop.bill(line("P9", 1))[1]) == [("P9", HERE), ("P1", THERE)]


def test_bill_is_refused_before_anything_is_kept(shop: Shop) -> None:
    """Balances have no bills, a provider may have none of a day, and a day must be one."""

    def refusal(method: Method, day: str) -> str:
        with pytest.raises(DomainError) as caught:
            usecases.import_bill(shop.ports, submitted(shop.ports), usecases.ImportBill(method, day))
        return caught.value.reason

    assert refusal(Method.BALANCE, DAY) == refusal(Method.WECHAT, DAY) == "PAYMENT_METHOD_UNAVAILABLE"
    assert refusal(Method.ALIPAY, DAY) == "BILL_NOT_AVAILABLE"
    assert refusal(Method.ALIPAY, "2027-02-30") == "INVALID_ARGUMENT"
    shop.biller.days[DAY] = (line("P1", 1),)
    shop.files.failure = DomainError("UNAVAILABLE")
    assert refusal(Method.ALIPAY, DAY) == "UNAVAILABLE"
    assert (shop.store.rows.bills.bills, shop.store.rows.postings, shop.files.kept) == ({}, {}, {})


def test_crash_between_file_and_books(shop: Shop) -> None:
    """The file is there and nothing is booked; the next import books it once."""
    charged(shop.ports, 1, 1000, NOON)
    shop.biller.days[DAY] = (line("P1", 1000),)

    def die(point: str, _label: str) -> None:
        if point == "P21":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        usecases.import_bill(
            replace(shop.ports, reach=die), submitted(shop.ports), usecases.ImportBill(Method.ALIPAY, DAY)
        )
    assert (len(shop.files.kept), shop.books) == (1, {"clearing": -1000})
    made, _ = shop.bill(line("P1", 1000))
    assert (made.matched, shop.books) == (1, {"bank": -1000})
    assert set(shop.files.kept) == {made.sha256}
    assert [(deed.actor_id, deed.action, deed.about_id) for deed in shop.store.rows.audit] == [
        (9, "ImportBill", made.id)
    ]


def test_import_that_another_overtakes_is_matched_again(shop: Shop) -> None:
    """Between matching and booking another process imports another bill with the same charge: it is settled once."""
    charged(shop.ports, 1, 1000, NOON)
    plain = submitted(shop.ports)
    tries = []

    def submit(kind: str, commands: Any) -> Any:  # noqa: ANN401 - as the Batcher's
        if kind == "book_bills":
            tries.append(kind)
            if len(tries) == 1:
                shop.bill(line("P1", 1000), day=NEXT)
        return plain(kind, commands)

    shop.biller.days[DAY] = (line("P1", 1000),)
    made = usecases.import_bill(shop.ports, submit, usecases.ImportBill(Method.ALIPAY, DAY))
    assert len(tries) == 2
    assert kinds(list(usecases.list_bill_differences(shop.ports, made.id, Page(9, ""))[0])) == [("P1", TWICE)]
    assert shop.books == {"bank": -2000, "suspense": 1000}


def test_lists_are_paged_and_unknown_bills_are_refused(shop: Shop) -> None:
    """Newest first, with a token for the rest."""
    shop.bill(*(line(f"S{n}", 1) for n in range(5)))
    made, _ = shop.bill(line("S9", 1), day=NEXT)
    [newest], token = usecases.list_bills(shop.ports, Page(1, ""))
    assert (newest, bool(token)) == (made, True)
    with pytest.raises(DomainError) as caught:
        usecases.list_bill_differences(shop.ports, 5, Page(1, ""))
    assert caught.value.reason == "BILL_NOT_FOUND"


def test_days_are_due_after_ten_in_the_provider_s_zone() -> None:
    """The last one is yesterday from ten o'clock on, before that the day before; a week of them."""
    ten = day_ms(NEXT, Method.ALIPAY)[0] + 36_000_000
    assert days_due(Method.ALIPAY, ten)[-1] == DAY
    assert days_due(Method.ALIPAY, ten - 1)[-1] == "2027-01-13"
    assert days_due(Method.BANK_CARD, ten)[-1] == "2027-01-13", "it is two in the morning there"
    assert len(set(days_due(Method.ALIPAY, ten))) == 7
    assert set(ZONES) == set(Method) - {Method.BALANCE}


AMOUNTS = st.integers(1, 1_000)
FEES_OF = st.integers(0, 9)


@st.composite
def days(draw: st.DrawFn) -> tuple[dict[str, int], set[str], list[tuple[str, list[BillLine]]]]:
    """Books (number -> amount), those of them that are booked only after the first bill, and bills as providers spoil them."""
    amounts = draw(st.lists(AMOUNTS, min_size=1, max_size=6))
    books = {f"P{n}": amount for n, amount in enumerate(amounts, 1)}
    for n, amount in enumerate(amounts, 1):
        if draw(st.booleans()):
            books[f"R{n + 100}"] = draw(st.integers(1, amount))
    late = {number for number in books if number.startswith("P") and f"R{int(number[1:]) + 100}" not in books and draw(st.booleans())}  # fmt: skip  # noqa: E501
    bills = [(draw(st.sampled_from([DAY, NEXT])), _spoiled(draw, books)) for _ in range(draw(st.integers(1, 4)))]
    return books, late, bills


def _spoiled(draw: st.DrawFn, books: dict[str, int]) -> list[BillLine]:
    lines = []
    for number, amount in books.items():
        sign = -1 if number.startswith("R") else 1
        match draw(st.sampled_from(["same", "same", "omit", "split", "repeat", "drift", "drift down"])):
            case "same":
                parts = [amount]
            case "split" if amount > 1:
                first = draw(st.integers(1, amount - 1))
                parts = [first, amount - first]
            case "repeat":
                parts = [amount, amount]
            case "drift":
                parts = [amount + 1]
            case "drift down":
                parts = [amount - 1]
            case _:
                parts = []
        lines += [line(number, part, sign * draw(FEES_OF)) for part in parts]
    lines += [line(f"STRAY{draw(st.integers(1, 2))}", draw(AMOUNTS)) for _ in range(draw(st.integers(0, 2)))]
    return draw(st.permutations(lines))


def _write(shop: Shop, books: dict[str, int], late: set[str]) -> dict[str, Any]:
    payments = {}
    for number, amount in books.items():
        if number.startswith("P"):
            status = states.PROCESSING if number in late else states.SUCCESS
            payments[number] = charged(shop.ports, int(number[1:]), amount, NOON, status=status)
        else:
            ours = int(number[1:])
            given_back(shop.ports, payments[f"P{ours - 100}"], ours, amount, NOON)
    return payments


@settings(max_examples=200, deadline=None)
@given(days())
def test_every_line_and_every_entry_is_accounted_for_once(
    drawn: tuple[dict[str, int], set[str], list[tuple[str, list[BillLine]]]],
) -> None:
    """Whatever bills say: the bank has what they say, clearing what none has, and each line is matched or differs."""
    books, late, bills = drawn
    shop = Shop()
    payments = _write(shop, books, late)
    said: dict[tuple[str, str], tuple[int, int]] = {}
    for turn, (day, lines) in enumerate(bills):
        if turn == 1:
            for number in late:
                booked_late(shop.ports, payments[number], NOON)
        stood = shop.ports.bills.standing(Method.ALIPAY, day)[1]
        known = len(shop.store.rows.bills.bills)
        made, differences = shop.bill(*lines, day=day)
        for number in {each.request_id for each in lines}:
            mine = [each for each in lines if each.request_id == number]
            said[day, number] = sum(e.amount.minor_units for e in mine), sum(e.fee for e in mine)
        _check_sums(shop, books, said)
        if len(shop.store.rows.bills.bills) > known:
            _check_lines(shop, made, lines, differences, stood)
            _check_entries(shop, made, lines, differences)


def _check_sums(shop: Shop, books: dict[str, int], said: dict[tuple[str, str], tuple[int, int]]) -> None:
    paid = sum((-1 if number[0] == "R" else 1) * amount for (_, number), (amount, _) in said.items())
    fees = sum(fee for _, fee in said.values())
    assert shop.balance(BANK) == fees - paid
    assert shop.balance(FEES) == -fees
    settled = {s.settles for s in shop.store.rows.bills.settled.values() if s.settles}
    booked = {p.reference_id for p in shop.store.rows.postings.values() if p.kind in {"payment", "refund"}}
    owed = sum((-1 if n[0] == "R" else 1) * a for n, a in books.items() if int(n[1:]) in booked - settled)
    assert shop.balance(CLEARING[Method.ALIPAY]) == -owed
    assert settled <= booked
    assert sum(account.balance for account in shop.store.rows.accounts.values()) == 0


def _check_lines(shop: Shop, made: Bill, lines: list[BillLine], differences: list[Difference], stood: Any) -> None:  # noqa: ANN401 - by number
    rows = shop.store.rows
    new = {s.number: s for (bill_id, _), s in rows.bills.settled.items() if bill_id == made.id}
    judged = {Number(e.kind, e.request_id, "CNY") for e in lines}
    stands = [new.get(n) or stood[n] for n in judged]
    assert sum(s.lines for s in stands) == len(lines) == made.lines
    agreeing = [s.lines for s in stands if s.cleared == s.billed > 0]
    assert sum(agreeing) <= made.matched <= made.lines
    # What an earlier bill of the day had before our books: booked since, it agrees, though its suspense is settled apart.
    booked = {p.reference_id for p in rows.postings.values() if p.kind in {"payment", "refund"}}
    since = [s for s in stands if s.number not in new and not s.cleared and s.number.reference_id in booked]
    if made.matched == made.lines:
        assert len(agreeing) + len(since) == len(stands)
    else:
        assert len(agreeing) < len(stands)
    found = [d.number for d in differences]
    assert len(found) == len(set(found)) == made.differences
    moved = {kind: _moved(shop, made, kind, differences) for kind in ("settlement", "correction")}
    before = sum(s.number.sign * s.billed for n, s in stood.items() if n in new)
    now = sum(s.number.sign * s.billed for s in new.values())
    assert moved["settlement"] + moved["correction"] == now - before


def _moved(shop: Shop, made: Bill, kind: str, differences: list[Difference]) -> int:
    """What postings of a kind brought to the bank."""
    references = {s.id for s in made.settlements} | {d.id for d in differences}
    return -sum(
        entry.amount
        for posting in shop.store.rows.postings.values()
        if posting.kind == kind and posting.reference_id in references
        for entry in posting.entries
        if entry.account.kind == BANK
    )


def _check_entries(shop: Shop, made: Bill, lines: list[BillLine], differences: list[Difference]) -> None:
    """By the day's bill each entry is settled, once, or missed; what a bill misses it does not have."""
    rows = shop.store.rows
    settles = [s.settles for s in rows.bills.settled.values() if s.settles]
    assert len(settles) == len(set(settles))
    booked = {p.reference_id for p in rows.postings.values() if p.kind in {"payment", "refund"}}
    missed = {d.number.reference_id for d, _ in rows.bills.differences.values() if d.mismatch is THERE}
    if made.day == DAY:
        assert booked <= {*settles, *missed}
    here = {d.number.request_id for d in differences if d.mismatch is THERE}
    assert not here & {each.request_id for each in lines}
    assert not {int(number[1:]) for number in here} & set(settles)


def test_bills_import_themselves(shop: Shop) -> None:
    """Yesterday's after ten, once; one that is not there is asked for again; one that stays away needs a person."""
    ports, submit = shop.ports, submitted(shop.ports)
    charged(ports, 1, 1000, NOON)
    shop.clock.ms = NEXT_NOON
    due = usecases.due_bills(ports)
    assert [command.day for command in due][-1] == DAY
    assert usecases.import_due(ports, submit, due[-1]) is None
    assert shop.alarm.told == [], "it may be late"
    shop.clock.ms += 86_400_000
    assert usecases.import_due(ports, submit, due[-1]) is None
    assert shop.alarm.told == [("alert", "bill.overdue")]
    shop.biller.days[DAY] = (line("P1", 1000),)
    made = usecases.import_due(ports, submit, due[-1])
    assert made is not None
    assert DAY not in {command.day for command in usecases.due_bills(ports)}
    assert Money("CNY", -shop.balance(BANK)) == Money("CNY", 1000)
    assert shop.store.rows.audit == [], "nobody asked"


def test_job_asks_once_an_hour_until_there_is_a_bill(shop: Shop) -> None:
    """From ten o'clock on, hour by hour, each day by itself; what was imported is not asked for again."""
    batcher = Batcher({name: partial(getattr(usecases, name), shop.ports) for name in ("book_bills", "settle_late")})
    batcher.start()
    turn = bill_importer(shop.ports, batcher)._work
    shop.clock.ms = day_ms(NEXT, Method.ALIPAY)[0] + 36_000_000 - 1
    turn()
    assert (len(shop.biller.asked), DAY in shop.biller.asked) == (7, False)
    shop.clock.ms += 1
    for _ in range(3):
        turn()
    assert shop.biller.asked.count(DAY) == 1
    shop.biller.days[DAY] = (line("STRAY", 1),)
    shop.clock.ms += BILL_RETRY_MS - 1
    turn()
    assert shop.biller.asked.count(DAY) == 1
    shop.clock.ms += 1
    turn()
    shop.clock.ms += BILL_RETRY_MS
    turn()
    batcher.stop()
    assert shop.biller.asked.count(DAY) == 2
    assert [bill.day for bill in usecases.list_bills(shop.ports, Page(9, ""))[0]] == [DAY]


def test_job_goes_on_when_one_provider_fails(shop: Shop) -> None:
    """A file that cannot be kept is that bill's failure alone, and it is tried again."""
    other = FakeBiller()
    shop.providers[Method.BANK_CARD] = cast("Provider", other)
    shop.biller.days = dict.fromkeys(days_due(Method.ALIPAY, shop.clock.ms), (line("STRAY", 1),))
    shop.files.failure = DomainError("UNAVAILABLE")
    turn = bill_importer(shop.ports, Batcher({}))._work
    turn()
    assert len(other.asked) == len(shop.biller.asked) == 7
    shop.clock.ms += BILL_RETRY_MS
    turn()
    assert len(shop.biller.asked) == 14
