"""Money: integer minor units of one ISO 4217 currency."""

from __future__ import annotations

from dataclasses import dataclass

from services.kernel.currencies import EXPONENTS
from services.kernel.errors import DomainError

MINOR_UNITS_MAX = 2**53 - 1
"""The largest amount, so that any JSON reader keeps it exact."""


@dataclass(frozen=True, slots=True)
class Money:
    """An amount in its currency's minor unit: 12.34 CNY is 1234, 500 JPY is 500, 1.234 KWD is 1234. Never negative."""

    currency_code: str
    minor_units: int

    def __post_init__(self) -> None:
        """Refuse with CURRENCY_UNSUPPORTED or INVALID_ARGUMENT what cannot be an amount."""
        if self.currency_code not in EXPONENTS:
            raise DomainError("CURRENCY_UNSUPPORTED", currency_code=self.currency_code)
        if not 0 <= self.minor_units <= MINOR_UNITS_MAX:
            raise DomainError("INVALID_ARGUMENT", field="minor_units", value=self.minor_units)

    def plus(self, other: Money) -> Money:
        """Add an amount of the same currency; another is CURRENCY_UNSUPPORTED."""
        return Money(self._same(other), self.minor_units + other.minor_units)

    def times(self, count: int) -> Money:
        """Multiply by a count."""
        return Money(self.currency_code, self.minor_units * count)

    def _same(self, other: Money) -> str:
        if other.currency_code != self.currency_code:
            raise DomainError("CURRENCY_UNSUPPORTED", currency_code=other.currency_code)
        return self.currency_code

    def __str__(self) -> str:
        """Render for people, in major units: ``12.34 CNY``."""
        exponent = EXPONENTS[self.currency_code]
        if not exponent:
            return f"{self.minor_units} {self.currency_code}"
        major, minor = divmod(self.minor_units, 10**exponent)
        return f"{major}.{minor:0{exponent}} {self.currency_code}"
