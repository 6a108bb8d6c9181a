"""The card vault over rows in memory: tokens, bindings, rotation, and verification values on their way."""

from __future__ import annotations

import dataclasses
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kernel.errors import DomainError
from services.payment.adapters.vault import CardVault, MemoryCvvRelay
from services.payment.adapters.vault.cvv import HELD_MAX
from services.payment.domain.card import Brand, Card, Cvv, Expiry, Pan, luhn_valid
from services.payment.ports.cards import Rotation, VaultUnusable
from tests.fakes.cards import FakeCards, FakeKeys
from tests.fakes.order import FakeClock

NOW = 1_800_000_000_000
NUMBER = "4242424242424242"
OTHER = "5555555555554444"
SOON, LATER = Expiry(2028, 6), Expiry(2031, 6)


@pytest.fixture
def store() -> FakeCards:
    """No rows yet."""
    return FakeCards()


@pytest.fixture
def keys() -> FakeKeys:
    """A key service."""
    return FakeKeys()


@pytest.fixture
def vault(store: FakeCards, keys: FakeKeys) -> CardVault:
    """An empty vault."""
    return CardVault(store, keys)


def kept(vault: CardVault, number: str = NUMBER, merchant: int = 1, expiry: Expiry = SOON) -> Card:
    """A card that was just tokenized."""
    return vault.tokenize(merchant, Pan(number), expiry, NOW)


def test_token_tells_nothing_and_is_no_number(vault: CardVault) -> None:
    """Prefixed, random, without a digit: no reading of it passes for a card number."""
    tokens = {kept(vault, merchant=n).token for n in range(50)}
    assert len(tokens) == 50
    for token in tokens:
        assert re.fullmatch(r"card_[a-z]{28}", token)
        assert not luhn_valid(token)
        assert not re.search(r"\d", token)


def test_card_is_shown_masked_and_revealed_whole(vault: CardVault) -> None:
    """Brand, first six and last four for everyone; the number for the network."""
    card = kept(vault)
    assert (card.brand, card.first6, card.last4, card.expiry) == (Brand.VISA, "424242", "4242", SOON)
    assert vault.card(1, card.token) == card
    assert vault.reveal(1, card.token) == (Pan(NUMBER), SOON)


def test_same_card_of_a_merchant_is_one_token(vault: CardVault, store: FakeCards) -> None:
    """Another merchant gets another, so does another expiry: who knows the number alone does not reach the card."""
    card = kept(vault)
    assert kept(vault) == card
    others = [kept(vault, merchant=2), kept(vault, expiry=LATER), kept(vault, OTHER)]
    assert len({card.token, *(other.token for other in others)}) == 4
    fingerprints = {store.rows[c.token].lookup for c in (card, *others)}
    assert len(fingerprints) == 3
    assert all(re.fullmatch(r"[0-9a-f]{64}", lookup) for lookup in fingerprints)


def test_token_is_worth_nothing_to_another_merchant(vault: CardVault) -> None:
    """Neither shown nor revealed nor removed."""
    card = kept(vault)
    assert vault.card(2, card.token) is None
    assert vault.reveal(2, card.token) is None
    assert not vault.forget(2, card.token)
    assert vault.forget(1, card.token)
    assert vault.reveal(1, card.token) is None
    assert not vault.forget(1, card.token)


def test_card_past_its_expiry_is_not_kept(vault: CardVault, store: FakeCards) -> None:
    """It could not be charged."""
    with pytest.raises(DomainError) as caught:
        kept(vault, expiry=Expiry(2020, 1))
    assert caught.value.metadata == {"field": "expiry"}
    assert not store.rows
    assert not store.key_rows


@pytest.mark.parametrize("swap", ["merchant", "token", "ciphertext", "nonce"])
def test_number_opens_only_where_it_was_put(vault: CardVault, store: FakeCards, swap: str) -> None:
    """A row moved to another merchant or token, or with a flipped bit, is refused: merchant and token are bound."""
    card = kept(vault)
    row = store.rows.pop(card.token)
    sealed = row.sealed
    flipped = bytes([sealed.ciphertext[0] ^ 1]) + sealed.ciphertext[1:]
    planted = {
        "merchant": dataclasses.replace(row, card=dataclasses.replace(card, merchant_id=2)),
        "token": dataclasses.replace(row, card=dataclasses.replace(card, token="card_" + "x" * 28)),
        "ciphertext": dataclasses.replace(row, sealed=dataclasses.replace(sealed, ciphertext=flipped)),
        "nonce": dataclasses.replace(row, sealed=dataclasses.replace(sealed, nonce=bytes(12))),
    }[swap]
    store.rows[planted.card.token] = planted
    with pytest.raises(VaultUnusable) as caught:
        vault.reveal(planted.card.merchant_id, planted.card.token)
    assert NUMBER not in str(caught.value)


def test_key_encryption_key_is_rotated_without_touching_cards(store: FakeCards, keys: FakeKeys) -> None:
    """Every key is wrapped anew, no card's row changes, and a vault that starts afterwards reads them all."""
    card = kept(CardVault(store, keys))
    rows = dict(store.rows)
    rotation: Rotation = CardVault(store, keys)
    assert rotation.rotate_key_encryption_key() == 2
    assert store.rows == rows
    assert {row.key.kek_id for row in store.all_keys()} == {"fake-2"}
    fresh = CardVault(store, keys)
    assert fresh.reveal(1, card.token) == (Pan(NUMBER), SOON)
    assert kept(fresh) == card
    assert fresh.rewrap() == 0


def test_rewrap_is_taken_up_where_a_crash_left_it(store: FakeCards, keys: FakeKeys) -> None:
    """A new key without a rewrap harms nothing, and the rest is done later."""
    card = kept(CardVault(store, keys))
    keys.rotate()
    vault = CardVault(store, keys)
    assert vault.reveal(1, card.token) is not None
    assert vault.rewrap() == 2
    assert CardVault(store, keys).reveal(1, card.token) is not None


def test_data_key_is_rotated_lazily(vault: CardVault, store: FakeCards) -> None:
    """New cards take the new key at once, an old one when it is next read, the rest by the sweep; tokens stay."""
    cards = [kept(vault, merchant=n) for n in range(5)]
    before = {token: row.sealed for token, row in store.rows.items()}
    assert vault.rotate_data_key(NOW) == "data-2"
    assert {token: row.sealed for token, row in store.rows.items()} == before
    assert store.rows[kept(vault, OTHER).token].sealed.key_id == "data-2"
    assert vault.reveal(0, cards[0].token) == (Pan(NUMBER), SOON)
    assert store.rows[cards[0].token].sealed.key_id == "data-2"
    assert store.rows[cards[0].token].sealed.nonce != before[cards[0].token].nonce
    assert [len(vault.reseal_some(3)) for _ in range(3)] == [3, 1, 0]
    assert {row.sealed.key_id for row in store.rows.values()} == {"data-2"}
    assert [vault.reveal(n, card.token) for n, card in enumerate(cards)] == [(Pan(NUMBER), SOON)] * 5
    assert kept(vault, merchant=0) == cards[0]


def test_other_process_reads_what_a_rotation_left(store: FakeCards, keys: FakeKeys) -> None:
    """It goes on with the key that it knows, and learns the new one from the first card that has it."""
    one, two = CardVault(store, keys), CardVault(store, keys)
    card = kept(one)
    assert kept(two) == card
    two.rotate_data_key(NOW)
    assert store.rows[kept(one, OTHER).token].sealed.key_id == "data-1"
    fresh = kept(two, merchant=3)
    assert one.reveal(3, fresh.token) == (Pan(NUMBER), SOON)
    assert store.rows[kept(one, merchant=4).token].sealed.key_id == "data-2"


def test_vault_stops_without_its_keys(store: FakeCards, keys: FakeKeys) -> None:
    """It neither makes new ones over the old nor says that there is no card."""
    card = kept(CardVault(store, keys))
    stranger = CardVault(store, FakeKeys())
    with pytest.raises(VaultUnusable):
        stranger.reveal(1, card.token)
    with pytest.raises(VaultUnusable):
        kept(stranger, OTHER)
    store.key_rows.clear()
    with pytest.raises(VaultUnusable):
        CardVault(store, keys).reveal(1, card.token)


def test_empty_vault_has_nothing_to_seal_anew(vault: CardVault, store: FakeCards) -> None:
    """And asks for no key."""
    assert vault.reseal_some(10) == []
    assert vault.rewrap() == 0
    assert store.key_rows == {}


@given(st.binary(min_size=1, max_size=80))
def test_no_byte_of_a_row_is_the_number(salt: bytes) -> None:
    """Neither in clear nor as hexadecimal, whatever the merchant is."""
    store = FakeCards()
    vault = CardVault(store, FakeKeys())
    card = vault.tokenize(int.from_bytes(salt[:7]), Pan(NUMBER), SOON, NOW)
    row = store.rows[card.token]
    assert NUMBER.encode() not in row.sealed.ciphertext
    assert NUMBER not in f"{row!r} {store!r} {card!r}"
    assert len(row.sealed.ciphertext) == len(NUMBER) + 16


def test_verification_value_is_handed_over_once() -> None:
    """To the charge that it came with, and to no other."""
    relay = MemoryCvvRelay(FakeClock(NOW))
    relay.put("P1", Cvv("123"))
    assert relay.take("P2") is None
    taken = relay.take("P1")
    assert taken is not None
    assert taken.take() == "123"
    assert relay.take("P1") is None


def test_verification_value_is_forgotten_after_a_while() -> None:
    """Nobody took it: it is gone from memory with the sweep, or with the next one that comes."""
    clock = FakeClock(NOW)
    relay = MemoryCvvRelay(clock, hold_s=60)
    relay.put("P1", Cvv("123"))
    clock.ms += 61_000
    assert relay.take("P1") is None
    relay.put("P2", Cvv("123"))
    clock.ms += 61_000
    relay.put("P3", Cvv("123"))
    assert list(relay._held) == ["P3"]
    relay.sweep()
    assert list(relay._held) == ["P3"]
    clock.ms += 61_000
    relay.sweep()
    assert not relay._held


def test_verification_values_held_are_limited() -> None:
    """The oldest goes first."""
    relay = MemoryCvvRelay(FakeClock(NOW))
    for number in range(HELD_MAX + 1):
        relay.put(f"P{number}", Cvv("123"))
    assert len(relay._held) == HELD_MAX
    assert relay.take("P0") is None
    assert relay.take(f"P{HELD_MAX}") is not None
