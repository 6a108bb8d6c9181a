"""The vault's rows: cards as ciphertext, keys as they are wrapped. No number, no verification value, no key in clear."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa

from services.payment.domain.card import Brand, Card, Expiry
from services.payment.ports.cards import CardRow, KeyRow, Sealed, WrappedKey
from services.payment.store.tables import metadata
from services.platform.database import Failure, failure_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.platform.database import Database

T = TypeVar("T")

_TRIES = 5

card_keys = sa.Table(
    "card_keys",
    metadata,
    sa.Column("id", sa.String(24), primary_key=True),
    sa.Column("purpose", sa.String(8), nullable=False),
    sa.Column("serial", sa.Integer, nullable=False),
    sa.Column("kek_id", sa.String(64), nullable=False),
    sa.Column("wrapped", sa.LargeBinary(255), nullable=False),
    sa.Column("create_ms", sa.BigInteger, nullable=False),
    sa.CheckConstraint("purpose IN ('data', 'lookup')", name="card_keys_purpose"),
)

cards = sa.Table(
    "cards",
    metadata,
    sa.Column("token", sa.String(48), primary_key=True),
    sa.Column("merchant_id", sa.BigInteger, nullable=False),
    sa.Column("ciphertext", sa.LargeBinary(64), nullable=False),
    sa.Column("nonce", sa.LargeBinary(12), nullable=False),
    sa.Column("key_id", sa.String(24), sa.ForeignKey("card_keys.id", name="cards_key"), nullable=False, index=True),
    sa.Column("lookup", sa.String(64), nullable=False),
    sa.Column("brand", sa.String(16), nullable=False),
    sa.Column("first6", sa.String(6), nullable=False),
    sa.Column("last4", sa.String(4), nullable=False),
    sa.Column("expire_year", sa.Integer, nullable=False),
    sa.Column("expire_month", sa.Integer, nullable=False),
    sa.Column("create_ms", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("merchant_id", "lookup", "expire_year", "expire_month", name="cards_known"),
    sa.CheckConstraint("length(first6) <= 6 AND length(last4) = 4", name="cards_shown"),
    sa.CheckConstraint("expire_month BETWEEN 1 AND 12", name="cards_expiry"),
)


class SqlCards:
    """The vault's rows in the room's database. Each call is a transaction of its own."""

    def __init__(self, database: Database) -> None:
        """Keep them in ``database``, which is at the head of the room's migrations."""
        self._database = database

    def all_keys(self) -> list[KeyRow]:
        """Return every key, by purpose and serial."""
        k = card_keys.c
        query = sa.select(k.purpose, k.serial, k.kek_id, k.wrapped, k.create_ms).order_by(k.purpose, k.serial)
        with self._database.read() as connection:
            return [
                KeyRow(r.purpose, r.serial, WrappedKey(r.kek_id, bytes(r.wrapped)), r.create_ms)
                for r in connection.execute(query)
            ]

    def add_key(self, row: KeyRow) -> None:
        """Keep a key; of two with one purpose and serial the first stays."""
        values = {"id": row.id, "purpose": row.purpose, "serial": row.serial, "kek_id": row.key.kek_id,
                  "wrapped": row.key.wrapped, "create_ms": row.create_ms}  # fmt: skip

        def add(connection: sa.Connection) -> None:
            if connection.execute(sa.select(card_keys.c.id).where(card_keys.c.id == row.id)).first() is None:
                connection.execute(sa.insert(card_keys).values(values))

        self._write(add)

    def rewrap(self, row: KeyRow, before: str) -> bool:
        """Replace how a key is wrapped, if it is still wrapped under ``before``."""
        k = card_keys.c
        change = sa.update(card_keys).where(k.id == row.id, k.kek_id == before)
        return self._changed(change.values(kek_id=row.key.kek_id, wrapped=row.key.wrapped))

    def card(self, merchant_id: int, token: str) -> CardRow | None:
        """Return a card of a merchant."""
        return self._one(cards.c.token == token, cards.c.merchant_id == merchant_id)

    def known(self, merchant_id: int, lookup: str, expiry: Expiry) -> CardRow | None:
        """Return the card of a merchant with this fingerprint and expiry."""
        return self._one(*_same(merchant_id, lookup, expiry))

    def add(self, row: CardRow) -> CardRow:
        """Keep a card and return the one that is there now: where the same one was kept before, that one."""
        card = row.card
        values = {
            "token": card.token, "merchant_id": card.merchant_id, "ciphertext": row.sealed.ciphertext,
            "nonce": row.sealed.nonce, "key_id": row.sealed.key_id, "lookup": row.lookup, "brand": str(card.brand),
            "first6": card.first6, "last4": card.last4, "expire_year": card.expiry.year,
            "expire_month": card.expiry.month, "create_ms": row.create_ms,
        }  # fmt: skip

        def add(connection: sa.Connection) -> CardRow:
            same = _same(card.merchant_id, row.lookup, card.expiry)
            known = connection.execute(sa.select(cards).where(*same)).one_or_none()
            if known is None:
                connection.execute(sa.insert(cards).values(values))
            return row if known is None else _row(known)

        return self._write(add)

    def reseal(self, token: str, sealed: Sealed, before: str) -> bool:
        """Replace how a number is encrypted, if it is still under the data key ``before``."""
        change = sa.update(cards).where(cards.c.token == token, cards.c.key_id == before)
        return self._changed(change.values(key_id=sealed.key_id, nonce=sealed.nonce, ciphertext=sealed.ciphertext))

    def stale(self, key_id: str, limit: int) -> list[CardRow]:
        """Return cards that are encrypted under another data key than this, at most ``limit``."""
        query = sa.select(cards).where(cards.c.key_id != key_id).order_by(cards.c.key_id).limit(limit)
        with self._database.read() as connection:
            return [_row(found) for found in connection.execute(query)]

    def remove(self, merchant_id: int, token: str) -> bool:
        """Forget a card of a merchant; return whether there was one."""
        return self._changed(sa.delete(cards).where(cards.c.token == token, cards.c.merchant_id == merchant_id))

    def _one(self, *where: sa.ColumnElement[bool]) -> CardRow | None:
        with self._database.read() as connection:
            found = connection.execute(sa.select(cards).where(*where)).one_or_none()
        return None if found is None else _row(found)

    def _changed(self, change: sa.Update | sa.Delete) -> bool:
        return self._write(lambda connection: connection.execute(change).rowcount) > 0

    def _write(self, work: Callable[[sa.Connection], T]) -> T:
        """Do ``work`` in a transaction, and again when another was faster: what it then reads is there."""
        tries = _TRIES
        while True:
            tries -= 1
            try:
                with self._database.write() as connection:
                    done = work(connection)
                    connection.commit()
                    return done
            except Exception as error:
                if not tries or failure_of(error) not in {Failure.RETRY, Failure.BREACH}:
                    raise


def _same(merchant_id: int, lookup: str, expiry: Expiry) -> tuple[sa.ColumnElement[bool], ...]:
    c = cards.c
    found = (c.merchant_id == merchant_id, c.lookup == lookup)
    return (*found, c.expire_year == expiry.year, c.expire_month == expiry.month)


def _row(found: Any) -> CardRow:  # noqa: ANN401 - a SQLAlchemy Row
    expiry = Expiry(found.expire_year, found.expire_month)
    card = Card(found.token, found.merchant_id, Brand(found.brand), found.first6, found.last4, expiry)
    sealed = Sealed(found.key_id, bytes(found.nonce), bytes(found.ciphertext))
    return CardRow(card, sealed, found.lookup, found.create_ms)
