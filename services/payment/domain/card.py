"""Cards: numbers that pass Luhn, brands by prefix, expiry, what of a card may be shown, what 3-D Secure says. Pure.

A card number and a verification value live in `Pan` and `Cvv`, which show themselves masked wherever text is made of
them (str, repr, format, %), and which neither pickle nor JSON takes. ``reveal`` and ``take`` are the only ways to what
they hold, so that every place that has it in clear is found by these two words.
"""

from __future__ import annotations

import datetime as dt
import hmac
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NoReturn, Self

from services.kernel.errors import DomainError

DIGITS_MIN, DIGITS_MAX = 12, 19
"""ISO/IEC 7812: how long a card number is."""
HIDDEN_MIN = 5
"""Digits that are hidden at least: of a number under 15 digits less than the first six are shown."""
EXPIRY_YEARS_MAX = 20
"""No issuer makes a card that lasts longer; what says so is a slip of the pen."""
_WEST_MS = 12 * 3_600_000
"""A month ends last at UTC-12; until then a card is not past its expiry everywhere."""


class Brand(StrEnum):
    """The scheme that a card belongs to, by its prefix; SQL stores these words."""

    VISA = "visa"
    MASTERCARD = "mastercard"
    AMEX = "amex"
    UNIONPAY = "unionpay"
    JCB = "jcb"
    DISCOVER = "discover"
    DINERS = "diners"
    MAESTRO = "maestro"
    MIR = "mir"
    OTHER = "other"


_LONG = frozenset({16, 17, 18, 19})
_ANY = frozenset(range(DIGITS_MIN, DIGITS_MAX + 1))

_PREFIXES: Final[tuple[tuple[str, str, Brand, frozenset[int]], ...]] = (
    ("622126", "622925", Brand.UNIONPAY, _LONG),  # Discover's as well; issued in China, where UnionPay clears it
    ("2200", "2204", Brand.MIR, _LONG),
    ("2221", "2720", Brand.MASTERCARD, frozenset({16})),
    ("3528", "3589", Brand.JCB, _LONG),
    ("6011", "6011", Brand.DISCOVER, _LONG),
    ("6304", "6304", Brand.MAESTRO, _ANY),
    ("6759", "6763", Brand.MAESTRO, _ANY),
    ("300", "305", Brand.DINERS, frozenset({14, *_LONG})),
    ("309", "309", Brand.DINERS, frozenset({14, *_LONG})),
    ("644", "649", Brand.DISCOVER, _LONG),
    ("34", "34", Brand.AMEX, frozenset({15})),
    ("36", "36", Brand.DINERS, frozenset({14, 15, *_LONG})),
    ("37", "37", Brand.AMEX, frozenset({15})),
    ("38", "39", Brand.DINERS, frozenset({14, *_LONG})),
    ("51", "55", Brand.MASTERCARD, frozenset({16})),
    ("50", "50", Brand.MAESTRO, _ANY),
    ("56", "58", Brand.MAESTRO, _ANY),
    ("62", "62", Brand.UNIONPAY, _LONG),
    ("65", "65", Brand.DISCOVER, _LONG),
    ("67", "67", Brand.MAESTRO, _ANY),
    ("81", "81", Brand.UNIONPAY, _LONG),
    ("4", "4", Brand.VISA, frozenset({13, 16, 18, 19})),
)
"""First and last prefix, brand, lengths that the brand issues. The first that fits counts."""


def luhn_valid(digits: str) -> bool:
    """Whether the last digit is the check digit of the others (ISO/IEC 7812-1, annex B)."""
    if not (digits.isascii() and digits.isdecimal()):
        return False
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(doubled)) % 10 == 0


def brand_of(digits: str) -> Brand:
    """Return the brand by prefix, whatever the length."""
    return next((brand for low, high, brand, _ in _PREFIXES if low <= digits[: len(low)] <= high), Brand.OTHER)


def looks_issued(digits: str) -> bool:
    """Whether a card of a known brand could have this number."""
    fits = next((lengths for low, high, _, lengths in _PREFIXES if low <= digits[: len(low)] <= high), frozenset[int]())
    return len(digits) in fits and luhn_valid(digits)


def shown(digits: str) -> tuple[str, str]:
    """Return what may be shown of a number: its first six digits at most, and its last four."""
    return digits[: max(0, min(6, len(digits) - HIDDEN_MIN - 4))], digits[-4:]


class _Secret:
    """What is masked in every text and cannot leave the process by accident."""

    __slots__ = ()

    def _masked(self) -> str:
        return "***"

    def __str__(self) -> str:
        return self._masked()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._masked()})"

    def __format__(self, spec: str) -> str:
        return format(self._masked(), spec)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} is never written down")

    def __getstate__(self) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} is never written down")

    __hash__ = None  # type: ignore[assignment] # a hash of it would be a fingerprint that anyone can compute


class Pan(_Secret):
    """A card number (primary account number): 12 to 19 digits that pass Luhn, of a length that its brand issues."""

    __slots__ = ("__digits",)

    def __init__(self, text: str) -> None:
        """Read a number as it is typed, with blanks or dashes. Refuses with INVALID_ARGUMENT; never says what it read."""
        digits = text.replace(" ", "").replace("-", "")
        lengths = next((some for low, high, _, some in _PREFIXES if low <= digits[: len(low)] <= high), _ANY)
        if not luhn_valid(digits) or len(digits) not in lengths:
            raise DomainError("INVALID_ARGUMENT", field="card_number")
        self.__digits = digits

    def reveal(self) -> str:
        """Return the digits: for the vault's cipher and for the card network, for nobody else."""
        return self.__digits

    @property
    def brand(self) -> Brand:
        """The scheme of the card."""
        return brand_of(self.__digits)

    @property
    def first6(self) -> str:
        """The leading digits that may be shown: six, less of a short number."""
        return shown(self.__digits)[0]

    @property
    def last4(self) -> str:
        """The last four digits."""
        return shown(self.__digits)[1]

    __hash__ = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pan) and hmac.compare_digest(self.__digits, other.__digits)

    def _masked(self) -> str:
        hidden = len(self.__digits) - len(self.first6) - 4
        return f"{self.first6}{'*' * hidden}{self.last4}"


class CvvUsed(Exception):
    """A verification value was taken twice: it is sent with one authorization and then forgotten."""


class Cvv(_Secret):
    """A card verification value: 3 digits, 4 on an American Express card. Taken once, then gone; stored nowhere."""

    __slots__ = ("__digits",)

    def __init__(self, text: str) -> None:
        """Read a value as it is typed. Refuses with INVALID_ARGUMENT; never says what it read."""
        if not (text.isascii() and text.isdecimal() and len(text) in {3, 4}):
            raise DomainError("INVALID_ARGUMENT", field="cvv")
        self.__digits = text

    def check_fits(self, brand: Brand) -> None:
        """Refuse with INVALID_ARGUMENT a value that a card of ``brand`` cannot have."""
        if len(self.__digits) != (4 if brand is Brand.AMEX else 3):
            raise DomainError("INVALID_ARGUMENT", field="cvv")

    def take(self) -> str:
        """Return the digits and forget them. Raises CvvUsed at the second time."""
        digits, self.__digits = self.__digits, ""
        if not digits:
            raise CvvUsed
        return digits


@dataclass(frozen=True, slots=True, order=True)
class Expiry:
    """The last month in which a card can be used."""

    year: int
    month: int

    def __post_init__(self) -> None:
        """Refuse with INVALID_ARGUMENT what is no month."""
        if not (1 <= self.month <= 12 and 2000 <= self.year <= 2099):
            raise DomainError("INVALID_ARGUMENT", field="expiry")

    def check(self, now_ms: int) -> None:
        """Refuse with INVALID_ARGUMENT an expiry that is past, or further away than any card's."""
        year = dt.datetime.fromtimestamp(now_ms / 1000, dt.UTC).year
        if self.is_past(now_ms) or self.year > year + EXPIRY_YEARS_MAX:
            raise DomainError("INVALID_ARGUMENT", field="expiry")

    def is_past(self, now_ms: int) -> bool:
        """Whether the month has ended everywhere on earth."""
        ended = dt.datetime(self.year + self.month // 12, self.month % 12 + 1, 1, tzinfo=dt.UTC)
        return now_ms >= int(ended.timestamp()) * 1000 + _WEST_MS

    def __str__(self) -> str:
        """Render as it stands on the card: MM/YY."""
        return f"{self.month:02}/{self.year % 100:02}"


@dataclass(frozen=True, slots=True)
class Card:
    """What everyone but the vault has of a card: its token, and what may be shown of it."""

    token: str
    merchant_id: int
    brand: Brand
    first6: str
    last4: str
    expiry: Expiry


class Authentication(StrEnum):
    """What becomes of a payment after 3-D Secure."""

    PROCEED = "proceed"
    REFUSED = "refused"
    CHALLENGE = "challenge"
    UNAVAILABLE = "unavailable"
    INFORMATIONAL = "informational"


TRANS_STATUS: Final[dict[str, Authentication]] = {
    "Y": Authentication.PROCEED,
    "A": Authentication.PROCEED,
    "N": Authentication.REFUSED,
    "R": Authentication.REFUSED,
    "U": Authentication.UNAVAILABLE,
    "C": Authentication.CHALLENGE,
    "D": Authentication.CHALLENGE,
    "I": Authentication.INFORMATIONAL,
}
"""EMV 3-D Secure 2, transStatus: authenticated, attempted, not authenticated, rejected, could not, challenge, decoupled,
informational only. Any other word is none that we may act on."""
