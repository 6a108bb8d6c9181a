"""Keys that sign access tokens."""

from services.kernel.signing import PublicKey, SigningKey

__all__ = ["PublicKey", "SigningKey"]
