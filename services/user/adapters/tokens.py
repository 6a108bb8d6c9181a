"""Access tokens are the platform's signed ones. Refresh tokens and session ids: random."""

from __future__ import annotations

import secrets

from services.platform.signing import Es256Signer

__all__ = ["Es256Signer", "RandomSecrets"]


class RandomSecrets:
    """What nobody can guess, from the system's generator."""

    def token(self) -> str:
        """Return 256 random bits in base64url, 43 characters."""
        return secrets.token_urlsafe(32)

    def session_id(self) -> str:
        """Return 128 random bits in hexadecimal, 32 characters."""
        return secrets.token_hex(16)
