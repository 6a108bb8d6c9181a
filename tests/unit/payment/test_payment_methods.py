"""Cards that users keep: the rules of a purse, and what becomes of numbers in the vault."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kernel.caller import Caller
from services.kernel.errors import DomainError
from services.kernel.idempotency import IdempotencyKey, InFlight, Scope
from services.kernel.money import Money
from services.kernel.pages import Page
from services.payment import jobs, states, usecases
from services.payment.adapters.vault import CardVault
from services.payment.domain import KnownOrder, Method, Purse, SavedPaymentMethod
from services.payment.domain.card import Brand, Card, Expiry, Pan
from services.payment.domain.purse import METHODS_MAX
from services.payment.ports.cards import VaultUnusable, WrappedKey
from services.payment.ports.provider import Charged, Phase, Verdict
from tests.fakes.cards import FakeKeys
from tests.fakes.payment import World
from tests.fakes.provider import FakeProvider
from tests.leaks import check_digit

USER, OTHER, NOW = 7, 8, 1_800_000_000_000
SOON = Expiry(2028, 6)
NUMBER = "4242424242424242"
FIRST = Page(50, "")


def number(n: int) -> str:
    """A card number of its own for each ``n``."""
    return check_digit(f"4{n:014}")


def caller(user: int = USER) -> Caller:
    """Somebody."""
    return Caller(user, frozenset(), "s1", 100.0)


def save(
    world: World, pan: str = NUMBER, user: int = USER, expiry: Expiry = SOON, *, make_default: bool = False
) -> SavedPaymentMethod:
    """Keep a card."""
    card = usecases.tokenize(world.ports, Pan(pan), expiry)
    [saved] = usecases.save_payment_methods(world.ports, [usecases.SavePaymentMethod(caller(user), card, make_default)])
    if isinstance(saved, DomainError):
        raise saved
    return saved


def remove(world: World, method_id: int, user: int = USER) -> None:
    """Forget a card."""
    [gone] = usecases.remove_payment_methods(world.ports, [usecases.RemovePaymentMethod(caller(user), method_id)])
    if gone is not None:
        raise gone


def set_default(world: World, method_id: int, user: int = USER) -> SavedPaymentMethod:
    """Make a card the default."""
    item = usecases.SetDefaultPaymentMethod(caller(user), method_id)
    [now] = usecases.set_default_payment_methods(world.ports, [item])
    if isinstance(now, DomainError):
        raise now
    return now


def kept(world: World, user: int = USER) -> list[tuple[int, bool]]:
    """A user's cards, newest first: the id, and whether it is the default."""
    found, token = usecases.list_payment_methods(world.ports, user, FIRST)
    assert token == ""
    return [(method.id, method.is_default) for method in found]


def vault(world: World) -> set[str]:
    """The tokens that the vault has."""
    return set(world.cards.vault.rows)


def naive(kept: dict[int, int], default: int, step: tuple[str, int, bool], new_id: int) -> tuple[dict[int, int], int]:
    """Ids -> numbers of cards, and the default, after a step; what is refused changes nothing."""
    what, n, flag = step
    of_card = {card: method_id for method_id, card in kept.items()}
    if what == "save" and (n in of_card or len(kept) < METHODS_MAX):
        method_id = of_card.get(n, new_id)
        return kept | {method_id: n}, method_id if flag or not kept else default
    if what == "default" and n in kept:
        return kept, n
    if what == "remove" and n in kept:
        left = {method_id: card for method_id, card in kept.items() if method_id != n}
        return left, max(left, default=0) if default == n else default
    return kept, default


@given(st.lists(st.tuples(st.sampled_from(("save", "save", "default", "remove")), st.integers(1, 25), st.booleans())))
def test_purse_does_what_a_naive_one_does(steps: list[tuple[str, int, bool]]) -> None:
    """Each card once, 20 at most, one default unless it is empty, the newest where the default was removed."""
    purse, kept_, default = Purse(USER, []), dict[int, int](), 0
    for new_id, step in enumerate(steps, 1):
        what, n, flag = step
        expected = naive(kept_, default, step, new_id)
        with contextlib.suppress(DomainError):
            if what == "save":
                card = Card(f"card_{n}", 1, Brand.VISA, "424242", "4242", SOON)
                assert purse.save(new_id, card, NOW, make_default=flag) in purse.added
            elif what == "default":
                assert purse.set_default(n).is_default
            else:
                purse.remove(n)
        kept_, default = expected
        assert {m.id: m.card.token for m in purse.added} == {i: f"card_{card}" for i, card in kept_.items()}
        assert [m.id for m in purse.added if m.is_default] == ([default] if default else [])


def test_first_card_is_the_default_and_another_only_when_asked() -> None:
    """The default is one; a card that is saved again may become it, and stays what it was otherwise."""
    world = World()
    first, second = save(world, number(1)), save(world, number(2))
    assert kept(world) == [(second.id, False), (first.id, True)]
    assert save(world, number(2), make_default=True).id == second.id
    assert kept(world) == [(second.id, True), (first.id, False)]
    assert save(world, number(1)) == replace(first, is_default=False)
    assert set_default(world, first.id).is_default
    assert kept(world) == [(second.id, False), (first.id, True)]


def test_same_card_again_is_the_same_payment_method() -> None:
    """Later, twice in a batch, with blanks; another expiry is another card."""
    world = World()
    first = save(world)
    card = usecases.tokenize(world.ports, Pan("4242 4242 4242 4242"), SOON)
    twice = [usecases.SavePaymentMethod(caller(), card, make_default=False)] * 2
    assert usecases.save_payment_methods(world.ports, twice) == [first, first]
    assert save(world, expiry=Expiry(2031, 6)).id != first.id
    assert len(kept(world)) == len(vault(world)) == 2


def test_twenty_cards_are_kept_and_what_is_refused_leaves_no_number() -> None:
    """The 21st is refused and gone from the vault; one that is kept already is no 21st; room that is made is used."""
    world = World()
    methods = [save(world, number(n)) for n in range(METHODS_MAX)]
    before = vault(world)
    with pytest.raises(DomainError) as caught:
        save(world, number(99))
    assert (caught.value.reason, caught.value.metadata) == ("PAYMENT_METHOD_LIMIT_REACHED", {"limit": "20"})
    assert vault(world) == before
    assert save(world, number(5)) == methods[5]
    save(world, number(99), user=OTHER)
    with pytest.raises(DomainError):
        save(world, number(99))
    assert len(vault(world)) == METHODS_MAX + 1  # the other user keeps it
    remove(world, methods[3].id)
    save(world, number(99))
    assert len(kept(world)) == METHODS_MAX


def test_removing_the_default_makes_the_newest_the_default() -> None:
    """Of three the newest that is left; the last one leaves none."""
    world = World()
    one, two, three = (save(world, number(n)) for n in (1, 2, 3))
    remove(world, one.id)
    assert kept(world) == [(three.id, True), (two.id, False)]
    remove(world, two.id)
    assert kept(world) == [(three.id, True)]
    remove(world, three.id)
    assert kept(world) == []
    assert vault(world) == set()


def test_number_stays_as_long_as_another_user_keeps_it() -> None:
    """Two users hold one token; it leaves the vault with the second."""
    world = World()
    mine, theirs = save(world), save(world, user=OTHER)
    assert mine.card == theirs.card
    remove(world, mine.id)
    assert vault(world) == {theirs.card.token}
    remove(world, theirs.id, OTHER)
    assert vault(world) == set()
    assert save(world).card.token != mine.card.token


def test_both_owners_of_a_number_in_one_batch_take_it_along() -> None:
    """Removed by both at once it is gone; removed by one and saved by the other it stays."""
    world = World()
    methods = [save(world), save(world, user=OTHER)]
    items = [usecases.RemovePaymentMethod(caller(m.user_id), m.id) for m in methods]
    assert usecases.remove_payment_methods(world.ports, items) == [None, None]
    assert vault(world) == set()


def test_card_of_another_is_not_found() -> None:
    """Nobody sees, prefers or removes another's; a repeat of a removal is told that it is gone."""
    world = World()
    mine = save(world)
    for forbidden in (lambda: remove(world, mine.id, OTHER), lambda: set_default(world, mine.id, OTHER)):
        with pytest.raises(DomainError) as caught:
            forbidden()
        assert caught.value.reason == "PAYMENT_METHOD_NOT_FOUND"
    assert kept(world, OTHER) == []
    remove(world, mine.id)
    with pytest.raises(DomainError) as caught:
        remove(world, mine.id)
    assert caught.value.reason == "PAYMENT_METHOD_NOT_FOUND"


def test_card_that_leaves_the_vault_while_it_is_saved_is_not_kept() -> None:
    """Between vault and row another user removes it: no row without a number; asked again, it is kept anew."""
    world = World()
    theirs = save(world, user=OTHER)
    card = usecases.tokenize(world.ports, Pan(NUMBER), SOON)
    remove(world, theirs.id, OTHER)
    late = usecases.SavePaymentMethod(caller(), card, make_default=False)
    [refused] = usecases.save_payment_methods(world.ports, [late])
    assert isinstance(refused, DomainError)
    assert refused.reason == "UNAVAILABLE"
    assert kept(world) == []
    again = save(world)
    assert vault(world) == {again.card.token}


def test_number_whose_saver_died_is_swept_out_after_an_hour() -> None:
    """What nobody keeps goes, page by page and not before its time; what is kept stays."""
    world = World()
    mine = save(world, number(1))
    lost = {usecases.tokenize(world.ports, Pan(number(n)), SOON).token for n in (2, 3, 4)}
    world.clock.ms += jobs.CARDS_LOOSE_MS
    young = usecases.tokenize(world.ports, Pan(number(5)), SOON).token
    cards, now = world.ports.outside.cards, world.clock.now_ms()
    assert cards.sweep("", now - jobs.CARDS_LOOSE_MS, 10) == ""
    assert vault(world) == {mine.card.token, young} | lost
    world.clock.ms += 1
    at, turns = "", 0
    while at or not turns:
        at, turns = cards.sweep(at, world.clock.now_ms() - jobs.CARDS_LOOSE_MS, 2), turns + 1
    assert turns == 3
    assert vault(world) == {mine.card.token, young}
    world.clock.ms += jobs.CARDS_LOOSE_MS + 1
    sweeper = jobs.sweeper(world.ports)
    sweeper.start()
    sweeper.stop()
    assert vault(world) == {mine.card.token}


def test_vault_that_cannot_be_opened_is_unavailable_and_an_alarm() -> None:
    """A key file is missing: nothing is kept, someone is told, and the caller may come again."""

    class Locked(FakeKeys):
        """A key service whose keys are gone."""

        def wrap(self, key: bytes, about: str) -> WrappedKey:
            """Refuse."""
            raise VaultUnusable("kek-1.key cannot be read")

    world = World()
    outside = replace(world.ports.outside, vault=CardVault(world.cards.vault, Locked()))
    with pytest.raises(DomainError) as caught:
        usecases.tokenize(replace(world.ports, outside=outside), Pan(NUMBER), SOON)
    assert caught.value.reason == "UNAVAILABLE"
    assert world.alarm.told == [("alert", "vault.unusable")]


@pytest.mark.parametrize("expiry", [Expiry(2020, 1), Expiry(2099, 1)])
def test_card_past_its_expiry_is_refused_before_it_is_kept(expiry: Expiry) -> None:
    """Past, or further away than any card's: INVALID_ARGUMENT, and no number in the vault."""
    world = World()
    with pytest.raises(DomainError) as caught:
        usecases.tokenize(world.ports, Pan(NUMBER), expiry)
    assert (caught.value.reason, caught.value.metadata) == ("INVALID_ARGUMENT", {"field": "expiry"})
    assert vault(world) == set()


def test_payment_of_a_card_that_was_removed_shows_it_and_is_refunded() -> None:
    """What was paid keeps what may be shown of its card; a refund needs no number."""
    world = World()
    world.providers[Method.BANK_CARD] = FakeProvider(Method.BANK_CARD, world.clock)
    saved = save(world)
    order = KnownOrder(11, USER, Money("CNY", 100), "pending", world.clock.ms + 10_000, 1)
    usecases.know_orders(world.ports, [usecases.OrderKnown("o", "order.created", order)])
    key = IdempotencyKey(Scope(USER, "CreatePayment", "pay-1"), b"f" * 32)
    command = usecases.CreatePayment(caller(), key, 11, Method.BANK_CARD, None, world.ids.next(0))
    [begun] = usecases.create_payments(world.ports, [command])
    assert isinstance(begun, InFlight)
    remove(world, saved.id)
    taken = usecases.Said(begun.work, Charged(Verdict.DONE, Phase.CAPTURED, "ch_1"))  # type: ignore[arg-type]
    assert isinstance(usecases.settle(world.ports, [taken])[0], bytes)
    paid = usecases.get_payment(world.ports, command.payment_id, USER)
    assert paid.charge is not None
    assert (paid.status, paid.charge.card) == (states.SUCCESS, saved.card)
    key = IdempotencyKey(Scope(USER, "RefundPayment", "refund-1"), b"f" * 32)
    [refund] = usecases.refund_payments(world.ports, [usecases.RefundPayment(caller(), key, paid.id, None, "")])
    assert isinstance(refund, InFlight)
    assert vault(world) == set()
