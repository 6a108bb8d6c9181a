"""Keys that sign tokens: the public half, and the key as it is stored."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class PublicKey:
    """The public half of an ES256 key: coordinates on P-256 in base64url; ``kid`` is its RFC 7638 thumbprint."""

    kid: str
    x: str
    y: str


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key as it is stored. ``sealed`` is the private half, encrypted; ``serial`` counts the keys from 1."""

    serial: int
    public: PublicKey
    sealed: bytes = field(repr=False)
    create_ms: int
