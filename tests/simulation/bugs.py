"""Planted bugs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.payment.domain import Method
from tests.simulation.processes import OrderTransaction, PaymentTransaction
from tests.simulation.providers import SimProvider

if TYPE_CHECKING:
    from tests.simulation.world import Sim


@dataclass(frozen=True, slots=True)
class Bug:
    """What is other than it should be, and the invariant that must find it."""

    name: str = ""
    invariant: str = ""
    transaction: type[PaymentTransaction] = PaymentTransaction
    order_transaction: type[OrderTransaction] = OrderTransaction
    provider: Callable[[Sim, Method], SimProvider] = SimProvider
    marks_first: bool = False
    pragmas: tuple[str, ...] = ()


NONE = Bug()
