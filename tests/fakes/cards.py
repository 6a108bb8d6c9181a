"""What the card vault stands on, in memory; it passes the suites of the real adapters (tests/integration/test_vault.py)."""

from __future__ import annotations

import dataclasses
import secrets
from dataclasses import dataclass, field

from services.payment.domain.card import Expiry
from services.payment.ports.cards import CardRow, KeyRow, Sealed, VaultUnusable, WrappedKey


@dataclass
class FakeCards:
    """Rows of cards and keys."""

    rows: dict[str, CardRow] = field(default_factory=dict)
    key_rows: dict[str, KeyRow] = field(default_factory=dict)

    def all_keys(self) -> list[KeyRow]:
        """Return every key, by purpose and serial."""
        return sorted(self.key_rows.values(), key=lambda row: (row.purpose, row.serial))

    def add_key(self, row: KeyRow) -> None:
        """Keep a key; of two with one purpose and serial the first stays."""
        self.key_rows.setdefault(row.id, row)

    def rewrap(self, row: KeyRow, before: str) -> bool:
        """Replace how a key is wrapped, if it is still wrapped under ``before``."""
        found = self.key_rows.get(row.id)
        if found is None or found.key.kek_id != before:
            return False
        self.key_rows[row.id] = dataclasses.replace(found, key=row.key)
        return True

    def card(self, merchant_id: int, token: str) -> CardRow | None:
        """Return a card of a merchant."""
        found = self.rows.get(token)
        return found if found and found.card.merchant_id == merchant_id else None

    def known(self, merchant_id: int, lookup: str, expiry: Expiry) -> CardRow | None:
        """Return the card of a merchant with this fingerprint and expiry."""
        wanted = (merchant_id, lookup, expiry)
        same = (row for row in self.rows.values() if (row.card.merchant_id, row.lookup, row.card.expiry) == wanted)
        return next(same, None)

    def add(self, row: CardRow) -> CardRow:
        """Keep a card and return the one that is there now."""
        assert row.sealed.key_id in self.key_rows, "the database refuses a card without its key"
        known = self.known(row.card.merchant_id, row.lookup, row.card.expiry)
        return known or self.rows.setdefault(row.card.token, row)

    def reseal(self, token: str, sealed: Sealed, before: str) -> bool:
        """Replace how a number is encrypted, if it is still under the data key ``before``."""
        found = self.rows.get(token)
        if found is None or found.sealed.key_id != before:
            return False
        self.rows[token] = dataclasses.replace(found, sealed=sealed)
        return True

    def stale(self, key_id: str, limit: int) -> list[CardRow]:
        """Return cards that are encrypted under another data key than this, at most ``limit``."""
        return [row for row in self.rows.values() if row.sealed.key_id != key_id][:limit]

    def remove(self, merchant_id: int, token: str) -> bool:
        """Forget a card of a merchant; return whether there was one."""
        return self.card(merchant_id, token) is not None and self.rows.pop(token, None) is not None


class FakeKeys:
    """A key service that remembers what it wrapped and gives out random handles instead."""

    def __init__(self) -> None:
        self._number = 1
        self._wrapped: dict[tuple[str, bytes], tuple[bytes, str]] = {}

    def current(self) -> str:
        """Return the id of the newest key."""
        return f"fake-{self._number}"

    def wrap(self, key: bytes, about: str) -> WrappedKey:
        """Return a handle of a key."""
        handle = secrets.token_bytes(16)
        self._wrapped[self.current(), handle] = (key, about)
        return WrappedKey(self.current(), handle)

    def unwrap(self, wrapped: WrappedKey, about: str) -> bytes:
        """Return the key of a handle. Raises VaultUnusable."""
        key, bound = self._wrapped.get((wrapped.kek_id, wrapped.wrapped), (b"", ""))
        if not key or bound != about:
            raise VaultUnusable(f"{about} was not wrapped here")
        return key

    def rotate(self) -> str:
        """Count on."""
        self._number += 1
        return self.current()
