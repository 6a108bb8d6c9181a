"""What the payment room needs to keep the cards of users: their rows, and the vault's with which they come and go."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager
from typing import Protocol

from services.kernel.pages import Page
from services.payment.domain import Purse, SavedPaymentMethod
from services.payment.domain.card import Card


class SavedCardsTransaction(Protocol):
    """One transaction; it rolls back unless ``commit`` is called. Rows that it reads stay locked: users', then the vault's."""

    def purses(self, user_ids: Iterable[int]) -> dict[int, Purse]:
        """Lock the cards of users; who has none has an empty purse."""
        ...

    def in_vault(self, tokens: AbstractSet[str]) -> set[str]:
        """Lock cards of the vault, and return those that it has: they stay until this transaction ends."""
        ...

    def held_beside(self, tokens: AbstractSet[str], user_ids: AbstractSet[int]) -> set[str]:
        """Return those of the tokens that users other than ``user_ids`` keep; ask after `in_vault` locked them."""
        ...

    def write(self, purses: Iterable[Purse], forgotten: AbstractSet[str]) -> None:
        """Write what changed in purses, and take the numbers of ``forgotten`` tokens out of the vault."""
        ...

    def commit(self) -> None:
        """Make it durable."""
        ...


class SavedCards(Protocol):
    """The cards that users keep."""

    def find(self, wanted: Iterable[tuple[int, int | None]]) -> dict[tuple[int, int | None], Card]:
        """Return (user, payment method or None) -> the card; None asks for the default."""
        ...

    def methods_of(self, user_id: int, page: Page) -> list[SavedPaymentMethod]:
        """Read a page of a user's cards, newest first, one more than it holds."""
        ...

    def transaction(self) -> AbstractContextManager[SavedCardsTransaction]:
        """Begin a transaction."""
        ...

    def sweep(self, after: str, before_ms: int, limit: int) -> str:
        """Look at the ``limit`` cards of the vault behind the token ``after``; forget the old ones that nobody keeps.

        Old is what the vault has since before ``before_ms``. Returns where to go on; "" at the end.
        """
        ...
