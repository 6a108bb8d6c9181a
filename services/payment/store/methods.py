"""The cards that users keep: tokens and what may be shown; the numbers are in the vault, whose rows are locked with them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from services.payment.domain import Purse, SavedPaymentMethod
from services.payment.domain.card import Brand, Card, Expiry
from services.payment.store import tables as t
from services.payment.store.cards import cards
from services.payment.store.sql import paged
from services.platform.database import insert_rows, select_rows, update_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from collections.abc import Set as AbstractSet

    from services.kernel.pages import Page
    from services.platform.database import Database

_M = t.payment_methods.c


class SqlSavedCardsTransaction:
    """One transaction over a Connection: users' rows first, then the vault's, each in the order of their keys."""

    def __init__(self, connection: sa.Connection, merchant_id: int) -> None:
        """Work on ``connection``, which rolls back unless ``commit`` is called."""
        self._connection, self._merchant_id = connection, merchant_id

    def purses(self, user_ids: Iterable[int]) -> dict[int, Purse]:
        """Lock the cards of users; who has none has an empty purse."""
        keys = [(user_id,) for user_id in user_ids]
        columns, by = tuple(_M.keys()), ("user_id",)
        found = select_rows(self._connection, t.payment_methods, columns, by, keys, lock=True)
        if (
            self._connection.dialect.name != "sqlite"
        ):  # a card that was saved while this waited for its turn shows only now
            found = select_rows(self._connection, t.payment_methods, columns, by, keys)
        methods: dict[int, list[SavedPaymentMethod]] = {user_id: [] for (user_id,) in keys}
        for row in found:
            methods[row.user_id].append(_method(row, self._merchant_id))
        return {user_id: Purse(user_id, kept) for user_id, kept in methods.items()}

    def in_vault(self, tokens: AbstractSet[str]) -> set[str]:
        """Lock cards of the vault, and return those that it has."""
        keys, columns = [(token,) for token in tokens], ("token", "merchant_id")
        found = select_rows(self._connection, cards, columns, ("token",), keys, lock=True)
        return {token for token, merchant_id in found if merchant_id == self._merchant_id}

    def held_beside(self, tokens: AbstractSet[str], user_ids: AbstractSet[int]) -> set[str]:
        """Return those of the tokens that users other than ``user_ids`` keep."""
        keys = [(token,) for token in tokens]
        found = select_rows(self._connection, t.payment_methods, ("token", "user_id"), ("token",), keys)
        return {token for token, user_id in found if user_id not in user_ids}

    def write(self, purses: Iterable[Purse], forgotten: AbstractSet[str]) -> None:
        """Write what changed in purses, and take the numbers of ``forgotten`` tokens out of the vault.

        What was a user's default is none before another becomes it: the column is unique at each statement.
        """
        c, all_purses = self._connection, list(purses)
        self._delete(t.payment_methods, _M.id, {m.id for purse in all_purses for m in purse.removed})
        changed = [_default(m) for purse in all_purses for m in purse.changed]
        for rows in (
            [r for r in changed if r["default_user_id"] is None],
            [r for r in changed if r["default_user_id"]],
        ):
            update_rows(c, t.payment_methods, ("id",), rows)
        insert_rows(c, t.payment_methods, [_row(m) for purse in all_purses for m in purse.added])
        self._delete(cards, cards.c.token, forgotten)

    def commit(self) -> None:
        """Make it durable."""
        self._connection.commit()

    def _delete(self, table: sa.Table, key: sa.Column[Any], keys: AbstractSet[Any]) -> None:
        if keys:
            self._connection.execute(sa.delete(table).where(key.in_(sorted(keys))))


class SqlPaymentMethods:
    """Saved cards in the room's database, which is the vault's too."""

    def __init__(self, database: Database, merchant_id: int) -> None:
        """Keep the cards of ``merchant_id``'s users in ``database``."""
        self._database, self._merchant_id = database, merchant_id

    def find(self, wanted: Iterable[tuple[int, int | None]]) -> dict[tuple[int, int | None], Card]:
        """Return (user, payment method or None) -> the card; None asks for the default."""
        asked = set(wanted)
        users = {user_id for user_id, _ in asked}
        named = {method_id for _, method_id in asked if method_id is not None}
        query = sa.select(t.payment_methods).where(sa.or_(_M.default_user_id.in_(users), _M.id.in_(named)))
        with self._database.read() as connection:
            found = connection.execute(query).all()
        known: dict[tuple[int, int | None], Card] = {}
        for row in found:
            names = ((row.user_id, row.id), (row.default_user_id, None))
            known |= {name: _card(row, self._merchant_id) for name in names if name in asked}
        return known

    def methods_of(self, user_id: int, page: Page) -> list[SavedPaymentMethod]:
        """Read a page of a user's cards, newest first, one more than it holds."""
        query = paged(sa.select(t.payment_methods).where(_M.user_id == user_id), _M.id, page)
        with self._database.read() as connection:
            return [_method(row, self._merchant_id) for row in connection.execute(query)]

    @contextlib.contextmanager
    def transaction(self) -> Iterator[SqlSavedCardsTransaction]:
        """Begin a transaction."""
        with self._database.write() as connection:
            yield SqlSavedCardsTransaction(connection, self._merchant_id)

    def sweep(self, after: str, before_ms: int, limit: int) -> str:
        """Look at the ``limit`` cards of the vault behind the token ``after``; forget the old ones that nobody keeps."""
        kept = sa.exists().where(_M.token == cards.c.token)
        query = sa.select(cards.c.token, cards.c.create_ms, kept.label("kept")).where(cards.c.token > after)
        with self._database.read() as connection:
            seen = connection.execute(query.order_by(cards.c.token).limit(limit)).all()
        loose = {row.token for row in seen if not row.kept and row.create_ms < before_ms}
        if loose:
            with self.transaction() as tx:
                loose = tx.in_vault(loose)  # whoever saves one now waits, or was faster
                tx.write([], loose - tx.held_beside(loose, set()))
                tx.commit()
        return seen[-1].token if len(seen) == limit else ""


def _default(method: SavedPaymentMethod) -> dict[str, Any]:
    return {"id": method.id, "default_user_id": method.user_id if method.is_default else None}


def _row(method: SavedPaymentMethod) -> dict[str, Any]:
    card = method.card
    return {
        **_default(method),
        "user_id": method.user_id,
        "token": card.token,
        "brand": str(card.brand),
        "first6": card.first6,
        "last4": card.last4,
        "expire_year": card.expiry.year,
        "expire_month": card.expiry.month,
        "create_ms": method.create_ms,
    }


def _method(row: Any, merchant_id: int) -> SavedPaymentMethod:  # noqa: ANN401 - a SQLAlchemy Row
    return SavedPaymentMethod(
        row.id, row.user_id, _card(row, merchant_id), row.default_user_id is not None, row.create_ms
    )


def _card(row: Any, merchant_id: int) -> Card:  # noqa: ANN401 - a SQLAlchemy Row
    expiry = Expiry(row.expire_year, row.expire_month)
    return Card(row.token, merchant_id, Brand(row.brand), row.first6, row.last4, expiry)
