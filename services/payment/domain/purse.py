"""The cards that a user keeps: each once, 20 at most, and one of them the default. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from services.kernel.errors import DomainError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from services.payment.domain.card import Card

METHODS_MAX = 20
"""More cards than this nobody uses; who tries out stolen ones would."""


@dataclass(frozen=True, slots=True)
class SavedPaymentMethod:
    """A card that a user keeps."""

    id: int
    user_id: int
    card: Card
    is_default: bool
    create_ms: int


class Purse:
    """All cards of one user, as a batch sees and changes them. Where there is any, exactly one is the default."""

    def __init__(self, user_id: int, methods: Iterable[SavedPaymentMethod]) -> None:
        """Begin with the ``methods`` that are stored."""
        self.user_id = user_id
        self._stored = {method.id: method for method in methods}
        self._methods = dict(self._stored)

    def save(self, method_id: int, card: Card, now_ms: int, *, make_default: bool) -> SavedPaymentMethod:
        """Keep a card as ``method_id``; one that is kept already is what it was. The first is the default anyway.

        Refuses with PAYMENT_METHOD_LIMIT_REACHED.
        """
        known = next((method for method in self._methods.values() if method.card.token == card.token), None)
        if known is None:
            if len(self._methods) >= METHODS_MAX:
                raise DomainError("PAYMENT_METHOD_LIMIT_REACHED", limit=METHODS_MAX)
            known = SavedPaymentMethod(method_id, self.user_id, card, is_default=False, create_ms=now_ms)
            make_default = make_default or not self._methods
            self._methods[method_id] = known
        return self.set_default(known.id) if make_default else known

    def set_default(self, method_id: int) -> SavedPaymentMethod:
        """Make a card the default. Refuses with PAYMENT_METHOD_NOT_FOUND."""
        self._find(method_id)
        for method in list(self._methods.values()):
            self._methods[method.id] = replace(method, is_default=method.id == method_id)
        return self._methods[method_id]

    def remove(self, method_id: int) -> None:
        """Take a card out; where it was the default, the newest is it now. Refuses with PAYMENT_METHOD_NOT_FOUND."""
        gone = self._find(method_id)
        del self._methods[method_id]
        if gone.is_default and self._methods:
            self.set_default(max(self._methods))

    @property
    def tokens(self) -> set[str]:
        """The tokens of the cards that are kept now."""
        return {method.card.token for method in self._methods.values()}

    @property
    def added(self) -> list[SavedPaymentMethod]:
        """What is kept and not stored yet."""
        return [method for method in self._methods.values() if method.id not in self._stored]

    @property
    def removed(self) -> list[SavedPaymentMethod]:
        """What is stored and kept no more."""
        return [method for method in self._stored.values() if method.id not in self._methods]

    @property
    def changed(self) -> list[SavedPaymentMethod]:
        """What is stored otherwise than it is kept."""
        return [method for method in self._methods.values() if self._stored.get(method.id, method) != method]

    def _find(self, method_id: int) -> SavedPaymentMethod:
        if method_id not in self._methods:
            raise DomainError("PAYMENT_METHOD_NOT_FOUND", payment_method_id=method_id)
        return self._methods[method_id]
