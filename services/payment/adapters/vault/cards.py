"""CardVault: tokenizes, reveals, rotates."""

from __future__ import annotations

import secrets
import string
import threading
from typing import TYPE_CHECKING

from services.payment.adapters.vault.sealing import KEY_BYTES, NONCE_BYTES, SealBroken, fingerprint, seal, unseal
from services.payment.domain.card import Card, Pan
from services.payment.ports.cards import DATA, LOOKUP, CardRow, KeyRow, Sealed, VaultUnusable

if TYPE_CHECKING:
    from services.payment.domain.card import Expiry
    from services.payment.ports.cards import CardStore, KeyService

TOKEN_PREFIX = "card_"  # noqa: S105 - the part that everyone knows
_TOKEN_LETTERS = 28
"""26^28 is 2^131. Letters alone: whatever digits someone reads out of a token, there are none to pass Luhn. Lower case
alone: some databases compare text whatever its case."""


class CardVault:
    """A vault over rows and a key service.

    The key of the fingerprints is wrapped like a data key and stays the same as long as the vault: another one would find
    no card again. Keys are unwrapped once a process and kept in memory.
    """

    def __init__(self, store: CardStore, keys: KeyService) -> None:
        """Keep cards in ``store`` under keys that ``keys`` wraps; nothing is read or made yet."""
        self._store, self._keys = store, keys
        self._lock = threading.Lock()
        self._rows: dict[str, KeyRow] = {}
        self._open: dict[str, bytes] = {}
        self._newest: dict[str, str] = {}

    def tokenize(self, merchant_id: int, pan: Pan, expiry: Expiry, now_ms: int) -> Card:
        """Keep a card and return its token; see the port."""
        expiry.check(now_ms)
        key = self._key(self._in_use(LOOKUP, now_ms))
        lookup = fingerprint(key, f"paymesh.vault.lookup|{merchant_id}|{pan.reveal()}".encode()).hex()
        known = self._store.known(merchant_id, lookup, expiry)
        if known is None:
            card = Card(_token(), merchant_id, pan.brand, pan.first6, pan.last4, expiry)
            known = self._store.add(CardRow(card, self._sealed(card, pan, self._in_use(DATA, now_ms)), lookup, now_ms))
        return known.card

    def card(self, merchant_id: int, token: str) -> Card | None:
        """Return what may be shown of a card."""
        row = self._store.card(merchant_id, token)
        return None if row is None else row.card

    def reveal(self, merchant_id: int, token: str) -> tuple[Pan, Expiry] | None:
        """Return a card for the card network. One under an older data key is encrypted anew on the way."""
        row = self._store.card(merchant_id, token)
        if row is None:
            return None
        pan = self._pan(row)
        if row.sealed.key_id != self._newest[DATA]:
            self._reseal(row, pan)
        return pan, row.card.expiry

    def forget(self, merchant_id: int, token: str) -> bool:
        """Remove a card; return whether there was one."""
        return self._store.remove(merchant_id, token)

    def rotate_key_encryption_key(self) -> int:
        """Make a new key-encryption key, then `rewrap`."""
        self._keys.rotate()
        return self.rewrap()

    def rewrap(self) -> int:
        """Wrap every key under the current key-encryption key; return how many were under another."""
        current, count = self._keys.current(), 0
        for row in self._store.all_keys():
            if row.key.kek_id != current:
                wrapped = self._keys.wrap(self._keys.unwrap(row.key, row.id), row.id)
                fresh = KeyRow(row.purpose, row.serial, wrapped, row.create_ms)
                count += self._store.rewrap(fresh, row.key.kek_id)
        return count

    def rotate_data_key(self, now_ms: int) -> str:
        """Make a new data key and return its id; other processes use it when they next see it."""
        self._reload()
        newest = self._newest.get(DATA)
        return self._make(DATA, 1 + (int(newest.rpartition("-")[2]) if newest else 0), now_ms)

    def reseal_some(self, limit: int) -> list[str]:
        """Encrypt at most ``limit`` cards anew under the newest data key; return their tokens, none when all are."""
        self._reload()
        if DATA not in self._newest:
            return []
        stale = self._store.stale(self._newest[DATA], limit)
        return [row.card.token for row in stale if self._reseal(row, self._pan(row))]

    def _pan(self, row: CardRow) -> Pan:
        card, sealed = row.card, row.sealed
        try:
            return Pan(unseal(self._key(sealed.key_id), sealed.nonce, sealed.ciphertext, _about(card)).decode())
        except SealBroken:
            raise VaultUnusable(f"the number of {card.token} does not open with {sealed.key_id}") from None

    def _sealed(self, card: Card, pan: Pan, key_id: str) -> Sealed:
        nonce = secrets.token_bytes(NONCE_BYTES)
        return Sealed(key_id, nonce, seal(self._key(key_id), nonce, pan.reveal().encode(), _about(card)))

    def _reseal(self, row: CardRow, pan: Pan) -> bool:
        sealed = self._sealed(row.card, pan, self._newest[DATA])
        return self._store.reseal(row.card.token, sealed, row.sealed.key_id)

    def _in_use(self, purpose: str, now_ms: int) -> str:
        """Return the id of the newest key of a purpose; the first one is made here."""
        if purpose not in self._newest:
            self._reload()
        return self._newest.get(purpose) or self._make(purpose, 1, now_ms)

    def _make(self, purpose: str, serial: int, now_ms: int) -> str:
        """Make a key. The store keeps the first of two that are made at once, so what counts is what it says then."""
        named = f"{purpose}-{serial}"
        wrapped = self._keys.wrap(secrets.token_bytes(KEY_BYTES), named)
        self._store.add_key(KeyRow(purpose, serial, wrapped, now_ms))
        self._reload()
        return self._newest[purpose]

    def _key(self, key_id: str) -> bytes:
        """Return a key, unwrapped at its first use. What another process made or wrapped anew meanwhile is read again."""
        found = self._open.get(key_id)
        if found is None:
            known = self._rows.get(key_id)
            try:
                found = self._unwrapped(key_id, known)
            except VaultUnusable:
                self._reload()
                fresh = self._rows.get(key_id)
                if fresh == known:
                    raise
                found = self._unwrapped(key_id, fresh)
            self._open[key_id] = found
        return found

    def _unwrapped(self, key_id: str, row: KeyRow | None) -> bytes:
        if row is None:
            raise VaultUnusable(f"there is no key {key_id}")
        return self._keys.unwrap(row.key, key_id)

    def _reload(self) -> None:
        with self._lock:
            for row in sorted(self._store.all_keys(), key=lambda row: row.serial):
                self._rows[row.id] = row
                self._newest[row.purpose] = row.id


def _token() -> str:
    return TOKEN_PREFIX + "".join(secrets.choice(string.ascii_lowercase) for _ in range(_TOKEN_LETTERS))


def _about(card: Card) -> bytes:
    """What the ciphertext of a card is bound to: moved to another merchant's or token's row it does not open."""
    return f"paymesh.vault.card|{card.merchant_id}|{card.token}".encode()
