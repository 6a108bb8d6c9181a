"""TopUpBalance and WithdrawBalance: money that operators received from users, or pay out to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.kernel.errors import DomainError
from services.kernel.idempotency import Answer, IdempotencyKey, Once
from services.payment.domain import AccountKey, Book
from services.payment.domain.ledger import FUNDING_CLEARING, USER_BALANCE, transfer
from services.payment.ports import Change

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from services.kernel.caller import Caller
    from services.kernel.money import Money
    from services.payment.ports import Ports


@dataclass(frozen=True, slots=True)
class TopUpBalance:
    """Book ``amount`` from funding clearing to a user's balance."""

    caller: Caller
    key: IdempotencyKey
    user_id: int
    amount: Money


@dataclass(frozen=True, slots=True)
class WithdrawBalance:
    """Book ``amount`` from a user's balance to funding clearing, out of which operators pay the user."""

    caller: Caller
    key: IdempotencyKey
    user_id: int
    amount: Money


def top_up_balances(ports: Ports, items: Sequence[TopUpBalance]) -> list[Answer]:
    """Answer each item with the rendered balance afterwards, or with BALANCE_LIMIT_EXCEEDED."""
    return _move(ports, items, "top_up", ports.render.topped_up)


def withdraw_balances(ports: Ports, items: Sequence[WithdrawBalance]) -> list[Answer]:
    """Answer each item with the rendered balance afterwards, or with BALANCE_INSUFFICIENT."""
    return _move(ports, items, "withdrawal", ports.render.withdrawn)


def _move(
    ports: Ports,
    items: Sequence[TopUpBalance | WithdrawBalance],
    kind: str,
    render: Callable[[AccountKey, int, int], bytes],
) -> list[Answer]:
    keys = [item.key for item in items]
    with ports.store.transaction() as tx:
        once = Once(keys, tx.stored(keys))
        asked = [items[place] for place in once.fresh]
        accounts = {_balance(item) for item in asked} | {_clearing(ports, item) for item in asked}
        book = Book(tx.accounts(accounts))
        change = Change(ports.clock.now_ms(), book=book)
        for place, item in zip(once.fresh, asked, strict=True):
            booking = ports.ids.next(0)
            balance, clearing = _balance(item), _clearing(ports, item)
            debit, credit = (clearing, balance) if isinstance(item, TopUpBalance) else (balance, clearing)
            try:
                book.post(transfer(booking, kind, booking, debit, credit, item.amount.minor_units))
                once.settle(place, render(balance, book.balance(balance), change.now_ms))
            except DomainError as refusal:
                once.settle(place, refusal)
        change.answers = once.kept(business=ports.business)
        tx.write(change)
        tx.commit()
    return once.done()


def _balance(item: TopUpBalance | WithdrawBalance) -> AccountKey:
    return AccountKey(USER_BALANCE, item.user_id, item.amount.currency_code)


def _clearing(ports: Ports, item: TopUpBalance | WithdrawBalance) -> AccountKey:
    return AccountKey(FUNDING_CLEARING, ports.merchant_id, item.amount.currency_code)
