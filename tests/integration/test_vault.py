"""What the card vault stands on: one suite over the fakes, SQL and key files; two processes at the first start."""

from __future__ import annotations

import dataclasses
import json
import os
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from services.cli.commands import main
from services.payment.adapters.vault import CardVault, FileKeys
from services.payment.domain.card import Brand, Card, Expiry, Pan
from services.payment.ports.cards import (
    DATA,
    LOOKUP,
    CardRow,
    CardStore,
    KeyRow,
    KeyService,
    Sealed,
    VaultUnusable,
    WrappedKey,
)
from services.payment.store import SqlCards, metadata
from services.payment.store.cards import card_keys, cards
from services.platform.database import Database, Failure, failure_of
from tests.fakes.cards import FakeCards, FakeKeys
from tests.integration.engines import ENGINES, Engines, differences

NOW = 1_800_000_000_000
NUMBER = "4242424242424242"
SOON, LATER = Expiry(2028, 6), Expiry(2031, 6)


@pytest.fixture
def database(engine: str, engines: Engines) -> Iterator[Database]:
    """An empty database of the newest schema."""
    found = Database(engines.migrated(engine, "payment"))
    yield found
    found.stop()


@pytest.fixture(params=["fake", *ENGINES])
def store(request: pytest.FixtureRequest, engines: Engines) -> Iterator[CardStore]:
    """Each store in turn."""
    if request.param == "fake":
        yield FakeCards()
        return
    database = Database(engines.migrated(request.param, "payment"))
    yield SqlCards(database)
    database.stop()


@pytest.fixture(params=["fake", "file"])
def keys(request: pytest.FixtureRequest, tmp_path: Path) -> KeyService:
    """Each key service in turn."""
    return FakeKeys() if request.param == "fake" else FileKeys(tmp_path / "keys" / "cards")


def key_row(serial: int = 1, purpose: str = DATA, kek: str = "kek-1", wrapped: bytes = b"wrapped") -> KeyRow:
    """A key as it is stored."""
    return KeyRow(purpose, serial, WrappedKey(kek, wrapped), NOW)


def card_row(token: str, merchant: int = 1, lookup: str = "a" * 64, key: str = "data-1") -> CardRow:
    """A card as it is stored."""
    card = Card(token, merchant, Brand.VISA, "424242", "4242", SOON)
    return CardRow(card, Sealed(key, b"n" * 12, b"\0ciphertext\xff"), lookup, NOW)


def test_keys_are_read_as_they_were_written(store: CardStore) -> None:
    """By purpose and serial; of two with one name the first stays."""
    rows = [key_row(2), key_row(1), key_row(1, LOOKUP, wrapped=bytes(range(60)))]
    for row in rows:
        store.add_key(row)
    store.add_key(key_row(2, wrapped=b"late"))
    assert store.all_keys() == [rows[1], rows[0], rows[2]]


def test_key_is_wrapped_anew_once(store: CardStore) -> None:
    """Only from the key-encryption key that the writer saw."""
    store.add_key(key_row())
    fresh = key_row(kek="kek-2", wrapped=b"fresh")
    assert store.rewrap(fresh, "kek-1")
    assert not store.rewrap(key_row(kek="kek-3"), "kek-1")
    assert not store.rewrap(key_row(9, kek="kek-2"), "kek-1")
    assert store.all_keys() == [fresh]


def test_card_is_read_as_it_was_written(store: CardStore) -> None:
    """By token and by fingerprint, each with its merchant."""
    store.add_key(key_row())
    row = card_row("card_a")
    assert store.add(row) == row
    assert store.card(1, "card_a") == store.known(1, "a" * 64, SOON) == row
    for nothing in (store.card(2, "card_a"), store.card(1, "card_b"), store.known(2, "a" * 64, SOON),
                    store.known(1, "b" * 64, SOON), store.known(1, "a" * 64, LATER)):  # fmt: skip
        assert nothing is None


def test_same_card_is_kept_once(store: CardStore) -> None:
    """Of one merchant, fingerprint and expiry; every other is another."""
    store.add_key(key_row())
    row = card_row("card_a")
    store.add(row)
    assert store.add(card_row("card_b")) == row
    assert store.card(1, "card_b") is None
    later = card_row("card_c")
    later = dataclasses.replace(later, card=dataclasses.replace(later.card, expiry=LATER))
    others = [card_row("card_d", merchant=2), card_row("card_e", lookup="b" * 64), later]
    assert [store.add(other) for other in others] == others
    assert store.remove(1, "card_a")
    assert not store.remove(1, "card_d")
    assert [store.card(1, "card_a"), store.card(2, "card_d")] == [None, others[0]]


def test_card_is_sealed_anew_once(store: CardStore) -> None:
    """Only from the data key that the writer saw; what is stale is found a few at a time."""
    for serial in (1, 2):
        store.add_key(key_row(serial))
    rows = [card_row(f"card_{n}", lookup=n * 64) for n in "abc"]
    for row in rows:
        store.add(row)
    fresh = Sealed("data-2", b"N" * 12, b"other bytes")
    assert len(store.stale("data-2", 2)) == 2
    assert store.reseal("card_a", fresh, "data-1")
    assert not store.reseal("card_a", fresh, "data-1")
    assert {row.card.token for row in store.stale("data-2", 10)} == {"card_b", "card_c"}
    found = store.card(1, "card_a")
    assert found is not None
    assert (found.sealed, found.lookup) == (fresh, "a" * 64)


def test_schema_is_what_the_migrations_make(database: Database) -> None:
    """No table, column, index or constraint of the vault or of the rest of the room differs."""
    with database.read() as connection:
        assert differences(connection, metadata) == []


@pytest.mark.parametrize(
    "harm",
    [
        {"key_id": "data-9"},  # a card that nobody could ever open
        {"first6": "4242424"},  # more than may be shown
        {"last4": "24242"},
        {"expire_month": 13},
    ],
)
def test_database_refuses_what_no_vault_writes(database: Database, harm: dict[str, object]) -> None:
    """Whoever writes it."""
    row = {"token": "card_a", "merchant_id": 1, "ciphertext": b"c", "nonce": b"n", "key_id": "data-1", "lookup": "a",
           "brand": "visa", "first6": "424242", "last4": "4242", "expire_year": 2028, "expire_month": 6,
           "create_ms": 0}  # fmt: skip
    SqlCards(database).add_key(key_row())
    with database.write() as connection:
        connection.execute(sa.insert(cards).values(row))
        connection.rollback()
        with pytest.raises(sa.exc.DBAPIError) as caught:
            connection.execute(sa.insert(cards).values({**row, **harm}))
    assert failure_of(caught.value) is Failure.BREACH


def test_key_opens_as_what_it_was_wrapped(keys: KeyService) -> None:
    """With the key that is named, about the thing that is named, and also after a rotation."""
    first = keys.wrap(b"k" * 32, "data-1")
    assert (keys.current(), first.kek_id) == (first.kek_id, keys.current())
    assert b"k" * 32 not in first.wrapped
    assert keys.rotate() == keys.current() != first.kek_id
    second = keys.wrap(b"k" * 32, "data-1")
    assert [keys.unwrap(wrapped, "data-1") for wrapped in (first, second)] == [b"k" * 32] * 2
    moved = WrappedKey(second.kek_id, first.wrapped)
    for wrapped, about in ((first, "data-2"), (moved, "data-1"), (WrappedKey(first.kek_id, b""), "data-1")):
        with pytest.raises(VaultUnusable):
            keys.unwrap(wrapped, about)


def test_key_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    """Made at the first use, 0600 in a folder of 0700; open to others it is not used."""
    folder = tmp_path / "keys" / "cards"
    keys = FileKeys(folder)
    assert not folder.exists()
    wrapped = keys.wrap(b"k" * 32, "data-1")
    [path] = folder.iterdir()
    assert (path.name, stat.S_IMODE(path.stat().st_mode)) == ("kek-1.key", 0o600)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    path.chmod(0o640)
    with pytest.raises(VaultUnusable, match="chmod 600"):
        keys.unwrap(wrapped, "data-1")


def test_wrong_key_file_is_named_and_never_shown(tmp_path: Path) -> None:
    """Missing, short, another, or one of another service: the message says what to do."""
    keys = FileKeys(tmp_path)
    wrapped = keys.wrap(b"k" * 32, "data-1")
    path = tmp_path / "kek-1.key"
    for content, said in ((os.urandom(32), "put that one back"), (b"short", "5 bytes"), (None, "cannot be read")):
        path.unlink()
        if content is not None:
            path.write_bytes(content)
            path.chmod(0o600)
        with pytest.raises(VaultUnusable, match=said) as caught:
            keys.unwrap(wrapped, "data-1")
        assert (content or b"!").hex() not in str(caught.value)
        path.touch(0o600)
    for name in ("../kek-1", "kek-0", "transit/cards", ""):
        with pytest.raises(VaultUnusable, match="kept elsewhere"):
            keys.unwrap(WrappedKey(name, wrapped.wrapped), "data-1")


def test_keys_are_made_once_by_many(tmp_path: Path, database: Database) -> None:
    """Twelve vaults over one folder and one database start at once: one key of each purpose, and one token."""
    start = threading.Barrier(12)

    def tokenize(_: int) -> str:
        vault = CardVault(SqlCards(database), FileKeys(tmp_path / "keys"))
        start.wait(10)
        return vault.tokenize(1, Pan(NUMBER), SOON, NOW).token

    with ThreadPoolExecutor(12) as pool:
        tokens = set(pool.map(tokenize, range(12)))
    assert len(tokens) == 1
    assert [row.id for row in SqlCards(database).all_keys()] == ["data-1", "lookup-1"]
    assert [path.name for path in (tmp_path / "keys").iterdir()] == ["kek-1.key"]
    assert CardVault(SqlCards(database), FileKeys(tmp_path / "keys")).reveal(1, tokens.pop()) == (Pan(NUMBER), SOON)


def test_cards_stay_readable_while_keys_are_rotated(tmp_path: Path, database: Database) -> None:
    """Both kinds of rotation under load, from another vault: every read gives the number."""
    vault = CardVault(SqlCards(database), FileKeys(tmp_path / "keys"))
    tokens = [vault.tokenize(merchant, Pan(NUMBER), SOON, NOW).token for merchant in range(10)]
    rotating = CardVault(SqlCards(database), FileKeys(tmp_path / "keys"))

    def read(turn: int) -> bool:
        fresh = CardVault(SqlCards(database), FileKeys(tmp_path / "keys")) if turn % 7 == 0 else vault
        return fresh.reveal(turn % 10, tokens[turn % 10]) == (Pan(NUMBER), SOON)

    with ThreadPoolExecutor(4) as pool:
        reads = pool.map(read, range(120))
        for turn in range(4):
            rotating.rotate_data_key(NOW + turn)
            assert rotating.rotate_key_encryption_key() == 3 + turn
            rotating.reseal_some(4)
        assert all(reads)
    while rotating.reseal_some(4):
        pass
    with database.read() as connection:
        assert set(connection.scalars(sa.select(cards.c.key_id))) == {"data-5"}
        assert set(connection.scalars(sa.select(card_keys.c.kek_id))) == {"kek-5"}
    for old in ("kek-1.key", "kek-2.key", "kek-3.key", "kek-4.key"):
        (tmp_path / "keys" / old).unlink()
    fresh = CardVault(SqlCards(database), FileKeys(tmp_path / "keys"))
    assert all(fresh.reveal(merchant, token) == (Pan(NUMBER), SOON) for merchant, token in enumerate(tokens))


def test_writer_waits_for_another_and_goes_on(database: Database, tmp_path: Path) -> None:
    """Another process holds the file for a moment: the card is kept nevertheless."""
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        other = Database(database.url.render_as_string(hide_password=False))
        with other.write():
            held.set()
            release.wait(10)
        other.stop()

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(10)
    threading.Timer(0.3, release.set).start()
    vault = CardVault(SqlCards(database), FileKeys(tmp_path / "keys"))
    assert vault.tokenize(1, Pan(NUMBER), SOON, NOW).last4 == "4242"
    thread.join(10)


def test_key_wrapped_anew_meanwhile_is_read_again(tmp_path: Path, database: Database) -> None:
    """A vault that knew a key by its old wrapping opens it by the new one once the old file is gone."""
    first = CardVault(SqlCards(database), FileKeys(tmp_path))
    token = first.tokenize(1, Pan(NUMBER), SOON, NOW).token
    slow = CardVault(SqlCards(database), FileKeys(tmp_path))
    slow._reload()
    first.rotate_key_encryption_key()
    (tmp_path / "kek-1.key").unlink()
    assert slow.reveal(1, token) == (Pan(NUMBER), SOON)


def test_operator_rotates_every_key_while_the_vault_is_used(
    tmp_path: Path, database: Database, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`paymesh rotate`: a vault that was open before reads its cards, moves them, and needs the old files no more."""
    vault = CardVault(SqlCards(database), FileKeys(tmp_path / "vault-keys"))
    card = vault.tokenize(1, Pan(NUMBER), LATER, NOW)
    monkeypatch.setenv("PAYMESH_PAYMENT_DATABASE_URL", database.url.render_as_string(hide_password=False))
    assert main(["rotate", "--data", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"keys_wrapped_anew": 2, "data_key": "data-2"}
    assert vault.reseal_some(10) == [card.token]
    (tmp_path / "vault-keys" / "kek-1.key").unlink()
    fresh = CardVault(SqlCards(database), FileKeys(tmp_path / "vault-keys"))
    assert fresh.reveal(1, card.token) == (Pan(NUMBER), LATER)
    assert SqlCards(database).stale("data-2", 10) == []
