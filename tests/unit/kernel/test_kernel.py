"""The kernel: money, ids, pages, idempotency."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kernel.errors import DomainError
from services.kernel.idempotency import IdempotencyKey, Once, Scope, Stored
from services.kernel.ids import EPOCH_MS, IdMaker, shard_of
from services.kernel.money import MINOR_UNITS_MAX, Money
from services.kernel.pages import Page, page


class FakeClock:
    """A clock that a test turns."""

    def __init__(self, now_ms: int = 1_800_000_000_000) -> None:
        self.ms = now_ms

    def now_ms(self) -> int:
        """What it was turned to."""
        return self.ms

    def monotonic(self) -> float:
        """The same, in seconds."""
        return self.ms / 1000


@pytest.mark.parametrize(
    ("money", "text"),
    [
        (Money("CNY", 1234), "12.34 CNY"),
        (Money("JPY", 500), "500 JPY"),
        (Money("KWD", 1234), "1.234 KWD"),
        (Money("CNY", 5), "0.05 CNY"),
    ],
)
def test_money_is_written_with_the_decimals_of_its_currency(money: Money, text: str) -> None:
    """ISO 4217 says how many: CNY 2, JPY 0, KWD 3."""
    assert str(money) == text


@pytest.mark.parametrize(("code", "minor"), [("XAU", 1), ("xyz", 1), ("CNY", -1), ("CNY", MINOR_UNITS_MAX + 1)])
def test_money_is_refused_when_it_cannot_be_an_amount(code: str, minor: int) -> None:
    """No minor unit, no such currency, negative, larger than JSON keeps exact."""
    with pytest.raises(DomainError) as caught:
        Money(code, minor)
    assert caught.value.reason in {"CURRENCY_UNSUPPORTED", "INVALID_ARGUMENT"}


def test_money_of_two_currencies_is_never_added() -> None:
    """Adding asks for one currency."""
    with pytest.raises(DomainError):
        Money("CNY", 1).plus(Money("USD", 1))


@given(st.lists(st.integers(-50, 50), max_size=300), st.integers(0, 1023))
def test_ids_ascend_and_keep_their_shard_whatever_the_clock_does(jumps: list[int], shard: int) -> None:
    """Ids of one maker ascend even when the clock stands still or goes back, and fit 63 bits."""
    clock = FakeClock()
    maker, made = IdMaker(clock, 3), []
    for jump in jumps:
        clock.ms += jump
        made.append(maker.next(shard))
    assert made == sorted(set(made))
    assert all(shard_of(i) == shard and 0 < i < 2**63 for i in made)


def test_ids_of_two_instances_never_meet() -> None:
    """Instances of a service make different ids in the same millisecond, also when they overflow it."""
    clock = FakeClock()
    one, two = IdMaker(clock, 1), IdMaker(clock, 2)
    made = [maker.next(7) for maker in (one, two) for _ in range(2000)]
    assert len(set(made)) == len(made)


def test_ids_ascend_beyond_those_of_the_process_before_though_the_clock_went_back() -> None:
    """A restart after the clock was turned back makes no id twice; once the clock is ahead again it leads."""
    clock = FakeClock()
    before = [IdMaker(clock, 1).next(0)]
    maker = IdMaker(clock, 1)
    clock.ms -= 600_000
    maker.pass_over(before[-1])
    made = [maker.next(0) for _ in range(600)]
    assert made == sorted({*made, *before} - {*before})
    assert made[0] > before[-1]
    clock.ms += 3_600_000
    maker.pass_over(made[0])
    assert maker.next(0) >> 22 == clock.ms - EPOCH_MS


@pytest.mark.parametrize("token", ["%%%", "ab$", "w6"])
def test_page_token_is_refused_when_it_was_never_given(token: str) -> None:
    """Rubbish is PAGE_TOKEN_INVALID, not a crash and not the first page."""
    with pytest.raises(DomainError) as caught:
        page(10, token).after_id()
    assert caught.value.reason == "PAGE_TOKEN_INVALID"


def test_page_ends_without_a_token_when_nothing_follows() -> None:
    """A full page with something behind it has a token; the last one has none."""
    rows, token = Page(2, "").cut([5, 4, 3], lambda n: n)
    assert (rows, page(2, token).after_id()) == ([5, 4], 4)
    assert Page(2, "").cut([5, 4], lambda n: n) == ([5, 4], "")


def key(text: str, fingerprint: bytes = b"f" * 32) -> IdempotencyKey:
    """A key of subject 1."""
    return IdempotencyKey(Scope(1, "CreatePayment", text), fingerprint)


def test_batch_is_sorted_by_key() -> None:
    """Answered before, repeated by a neighbour, reused with another body, without a key: each is treated as it should."""
    before = Stored(b"f" * 32, b"old")
    once = Once(
        [key("a"), key("b"), key("b"), key("b", b"x" * 32), None, None, key("a", b"x" * 32)], {key("a").scope: before}
    )
    assert once.fresh == [1, 4, 5]
    for place in once.fresh:
        once.settle(place, b"new-%d" % place)
    answers = once.done()
    assert answers[:3] == [b"old", b"new-1", b"new-1"]
    assert [str(answers[3]), answers[4], answers[5], str(answers[6])] == [
        "IDEMPOTENCY_KEY_REUSED", b"new-4", b"new-5", "IDEMPOTENCY_KEY_REUSED",
    ]  # fmt: skip
    assert once.kept(business=frozenset()) == [(key("b"), b"new-1")]


def test_answer_of_another_process_wins_and_is_not_kept_again() -> None:
    """What was stored between the look and the transaction is the answer, also for neighbours that repeat it."""
    once = Once([key("a"), key("a"), key("b")], {})
    once.recheck({key("a").scope: Stored(b"f" * 32, b"theirs")})
    once.settle(2, DomainError("BALANCE_INSUFFICIENT", amount="1"))
    assert once.done()[:2] == [b"theirs", b"theirs"]
    assert [k.scope.key for k, _ in once.kept(business=frozenset({"BALANCE_INSUFFICIENT"}))] == ["b"]
    assert once.kept(business=frozenset()) == []


def test_error_is_copied_and_sent_between_processes_as_it_is() -> None:
    """A worker process hands it back whole."""
    error = DomainError("ORDER_NOT_FOUND", order_id=11)
    for twin in (copy.deepcopy(error), pickle.loads(pickle.dumps(error))):
        assert (twin.reason, twin.metadata, str(twin)) == (error.reason, error.metadata, "ORDER_NOT_FOUND order_id=11")


def test_answer_of_another_process_also_settles_who_stood_behind_a_neighbour() -> None:
    """Two requests under one key in a batch: the answer is that of the one which another process answered."""
    once = Once([key("a", b"x" * 32), key("a")], {})
    once.recheck({key("a").scope: Stored(b"f" * 32, b"theirs")})
    first, second = once.done()
    assert (str(first), second) == ("IDEMPOTENCY_KEY_REUSED", b"theirs")
    assert once.fresh == []
    assert once.kept(business=frozenset()) == []
