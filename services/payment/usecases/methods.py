"""Payment methods: cards that users keep. A number goes into the vault first, and what is kept of it after.

Of a card that is saved, the vault's transaction ends before the one of the payment method begins; what dies between the
two leaves a card in the vault that nobody keeps, which `SavedCards.sweep` forgets. What is removed leaves the vault in
the transaction that removes it. That transaction and the one that saves lock the vault's card: a card is never kept whose
number is gone, and never forgotten while anybody keeps it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from services.kernel.errors import DomainError
from services.kernel.ids import shard_of
from services.payment.ports.cards import VaultUnusable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from services.kernel.caller import Caller
    from services.kernel.pages import Page
    from services.payment.domain import Purse, SavedPaymentMethod
    from services.payment.domain.card import Card, Expiry, Pan
    from services.payment.ports import Ports


@dataclass(frozen=True, slots=True)
class SavePaymentMethod:
    """Keep a card of the caller's, whose number is in the vault; the first becomes the default anyway."""

    caller: Caller
    card: Card
    make_default: bool


@dataclass(frozen=True, slots=True)
class SetDefaultPaymentMethod:
    """Make a card of the caller's the default."""

    caller: Caller
    method_id: int


@dataclass(frozen=True, slots=True)
class RemovePaymentMethod:
    """Forget a card of the caller's."""

    caller: Caller
    method_id: int


_Item = SavePaymentMethod | SetDefaultPaymentMethod | RemovePaymentMethod
I = TypeVar("I", bound=_Item)  # noqa: E741 - an item
R = TypeVar("R")


def tokenize(ports: Ports, pan: Pan, expiry: Expiry) -> Card:
    """Put a card's number into the vault; in no transaction, for the vault has its own. Refuses with INVALID_ARGUMENT."""
    try:
        return ports.outside.vault.tokenize(ports.merchant_id, pan, expiry, ports.clock.now_ms())
    except VaultUnusable as broken:
        ports.alarm.alert("vault.unusable", why=str(broken))
        raise DomainError("UNAVAILABLE") from None


def save_payment_methods(ports: Ports, items: Sequence[SavePaymentMethod]) -> list[SavedPaymentMethod | DomainError]:
    """Keep cards, each once. A card that left the vault since it was tokenized is UNAVAILABLE: asked again, it is kept anew."""
    now = ports.clock.now_ms()

    def save(item: SavePaymentMethod, purse: Purse) -> SavedPaymentMethod:
        method_id = ports.ids.next(shard_of(purse.user_id))
        return purse.save(method_id, item.card, now, make_default=item.make_default)

    return _each(ports, items, save)


def set_default_payment_methods(
    ports: Ports, items: Sequence[SetDefaultPaymentMethod]
) -> list[SavedPaymentMethod | DomainError]:
    """Make cards the default."""
    return _each(ports, items, lambda item, purse: purse.set_default(item.method_id))


def remove_payment_methods(ports: Ports, items: Sequence[RemovePaymentMethod]) -> list[DomainError | None]:
    """Forget cards; a number that nobody else keeps leaves the vault."""
    return _each(ports, items, lambda item, purse: purse.remove(item.method_id))


def list_payment_methods(ports: Ports, user_id: int, page: Page) -> tuple[Sequence[SavedPaymentMethod], str]:
    """Return a page of a user's cards, newest first, and the token of the next."""
    return page.cut(ports.outside.cards.methods_of(user_id, page), lambda method: method.id)


def _each(ports: Ports, items: Sequence[I], decide: Callable[[I, Purse], R]) -> list[R | DomainError]:
    """Lock the purses of a batch, decide item by item, write once."""
    outcomes: list[R | DomainError] = []
    brought = {item.card.token for item in items if isinstance(item, SavePaymentMethod)}
    with ports.outside.cards.transaction() as tx:
        purses = tx.purses({item.caller.subject for item in items})
        there = tx.in_vault(brought)
        for item in items:
            try:
                if isinstance(item, SavePaymentMethod) and item.card.token not in there:
                    raise DomainError("UNAVAILABLE")
                outcomes.append(decide(item, purses[item.caller.subject]))
            except DomainError as refusal:
                outcomes.append(refusal)
        loose = brought.union(*({m.card.token for m in purse.removed} for purse in purses.values()))
        loose = loose.difference(*(purse.tokens for purse in purses.values()))
        loose = tx.in_vault(loose)
        tx.write(purses.values(), loose - tx.held_beside(loose, purses.keys()))
        tx.commit()
    return outcomes
