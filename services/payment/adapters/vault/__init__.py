"""The card vault: card numbers under AES-256-GCM data keys, those wrapped under key-encryption keys that it never sees."""

from services.payment.adapters.vault.cards import CardVault
from services.payment.adapters.vault.cvv import MemoryCvvRelay
from services.payment.adapters.vault.keys import FileKeys

__all__ = ["CardVault", "FileKeys", "MemoryCvvRelay"]
