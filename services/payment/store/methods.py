"""The cards that users keep: tokens and what may be shown; the numbers are in the vault."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from services.payment.domain.card import Brand, Card, Expiry
from services.payment.store import tables as t

if TYPE_CHECKING:
    from collections.abc import Iterable

    from services.platform.database import Database


class SqlPaymentMethods:
    """Saved cards in the room's database."""

    def __init__(self, database: Database, merchant_id: int) -> None:
        """Keep the cards of ``merchant_id``'s users in ``database``."""
        self._database, self._merchant_id = database, merchant_id

    def find(self, wanted: Iterable[tuple[int, int | None]]) -> dict[tuple[int, int | None], Card]:
        """Return (user, payment method or None) -> the card; None asks for the default."""
        asked = set(wanted)
        m = t.payment_methods.c
        users = {user_id for user_id, _ in asked}
        named = {method_id for _, method_id in asked if method_id is not None}
        query = sa.select(t.payment_methods).where(sa.or_(m.default_user_id.in_(users), m.id.in_(named)))
        with self._database.read() as connection:
            found = connection.execute(query).all()
        cards: dict[tuple[int, int | None], Card] = {}
        for row in found:
            names = ((row.user_id, row.id), (row.default_user_id, None))
            cards |= {name: self._card(row) for name in names if name in asked}
        return cards

    def _card(self, row: sa.Row[Any]) -> Card:
        expiry = Expiry(row.expire_year, row.expire_month)
        return Card(row.token, self._merchant_id, Brand(row.brand), row.first6, row.last4, expiry)
