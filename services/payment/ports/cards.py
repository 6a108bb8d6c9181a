"""What the payment room needs to keep cards: a vault, and what a vault stands on.

Card numbers are tokenized before anything else sees them. Whoever has the database without the key service has no card
number; whoever has the key service without the database has none either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from services.payment.domain.card import Card, Cvv, Expiry, Pan

DATA = "data"
LOOKUP = "lookup"
"""What a key is for: to encrypt cards, or to make the fingerprint that the same card is found by."""


class VaultUnusable(Exception):
    """A key is not the one that cards were encrypted with, or is missing or open to others. Says which, never its value."""


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A key encrypted under a key-encryption key, which ``kek_id`` names."""

    kek_id: str
    wrapped: bytes = field(repr=False)


class KeyService(Protocol):
    """Holds the key-encryption keys; they never leave it. ``about`` is bound to the wrapped key: it opens only as that.

    An adapter over OpenBao's transit engine fits as it is: wrap is encrypt, unwrap is decrypt, ``about`` its context.
    """

    def current(self) -> str:
        """Return the id of the key that wraps now. Raises VaultUnusable."""
        ...

    def wrap(self, key: bytes, about: str) -> WrappedKey:
        """Encrypt a key under the current one. Raises VaultUnusable."""
        ...

    def unwrap(self, wrapped: WrappedKey, about: str) -> bytes:
        """Decrypt a key. Raises VaultUnusable."""
        ...

    def rotate(self) -> str:
        """Make a new key, the current one from now on, and return its id; older ones go on unwrapping."""
        ...


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A key of the vault as it is stored: ``serial`` counts those of a ``purpose`` from 1, the highest is in use."""

    purpose: str
    serial: int
    key: WrappedKey
    create_ms: int

    @property
    def id(self) -> str:
        """What cards name it by, and what it is wrapped as: ``data-1``."""
        return f"{self.purpose}-{self.serial}"


@dataclass(frozen=True, slots=True)
class Sealed:
    """A card number as it is stored: AES-256-GCM under the data key that ``key_id`` names."""

    key_id: str
    nonce: bytes = field(repr=False)
    ciphertext: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class CardRow:
    """A card as it is stored. ``lookup`` is the keyed fingerprint of merchant and number, 64 hexadecimal digits."""

    card: Card
    sealed: Sealed
    lookup: str = field(repr=False)
    create_ms: int


class CardStore(Protocol):
    """Rows of cards and of wrapped keys. Each call is a transaction of its own."""

    def all_keys(self) -> list[KeyRow]:
        """Return every key, by purpose and serial."""
        ...

    def add_key(self, row: KeyRow) -> None:
        """Keep a key; of two with one purpose and serial the first stays."""
        ...

    def rewrap(self, row: KeyRow, before: str) -> bool:
        """Replace how a key is wrapped, if it is still wrapped under ``before``; return whether it was."""
        ...

    def card(self, merchant_id: int, token: str) -> CardRow | None:
        """Return a card of a merchant."""
        ...

    def known(self, merchant_id: int, lookup: str, expiry: Expiry) -> CardRow | None:
        """Return the card of a merchant with this fingerprint and expiry."""
        ...

    def add(self, row: CardRow) -> CardRow:
        """Keep a card and return the one that is there now: where the same one was kept before, that one."""
        ...

    def reseal(self, token: str, sealed: Sealed, before: str) -> bool:
        """Replace how a number is encrypted, if it is still under the data key ``before``; return whether it was."""
        ...

    def stale(self, key_id: str, limit: int) -> list[CardRow]:
        """Return cards that are encrypted under another data key than this, at most ``limit``."""
        ...

    def remove(self, merchant_id: int, token: str) -> bool:
        """Forget a card of a merchant; return whether there was one."""
        ...


class Vault(Protocol):
    """Where card numbers live. A token is worth nothing to another merchant. All raise VaultUnusable."""

    def tokenize(self, merchant_id: int, pan: Pan, expiry: Expiry, now_ms: int) -> Card:
        """Keep a card and return its token: the same one for the same number and expiry of the same merchant.

        Another expiry gets another token: who knows a number alone must not reach a card that was kept with more. Refuses
        an expiry that is past with INVALID_ARGUMENT. Never inside a transaction: it has transactions of its own.
        """
        ...

    def card(self, merchant_id: int, token: str) -> Card | None:
        """Return what may be shown of a card."""
        ...

    def reveal(self, merchant_id: int, token: str) -> tuple[Pan, Expiry] | None:
        """Return a card for the card network; None: this merchant has no such card."""
        ...

    def forget(self, merchant_id: int, token: str) -> bool:
        """Remove a card; return whether there was one."""
        ...


class CvvRelay(Protocol):
    """Hands a verification value from the request that brought it to the one authorization that it is for.

    In this process's memory alone, for minutes: an authorization that another process takes up goes without it.
    """

    def put(self, request_id: str, cvv: Cvv) -> None:
        """Hold a value for the charge with this id of ours."""
        ...

    def take(self, request_id: str) -> Cvv | None:
        """Hand it over and forget it."""
        ...

    def sweep(self) -> None:
        """Forget what nobody took in time; for a timed job."""
        ...


class Rotation(Protocol):
    """Key rotation of a vault, in its two halves; for an operator's command and a timed job."""

    def rotate_key_encryption_key(self) -> int:
        """Make a new key-encryption key, then `rewrap`."""
        ...

    def rewrap(self) -> int:
        """Wrap every key of the vault under the current key-encryption key; cards are not touched. Returns how many."""
        ...

    def rotate_data_key(self, now_ms: int) -> str:
        """Make a new data key and return its id; cards move to it when they are next read, or by ``reseal_some``."""
        ...

    def reseal_some(self, limit: int) -> Sequence[str]:
        """Encrypt at most ``limit`` cards anew under the newest data key; return their tokens, none when all are."""
        ...
