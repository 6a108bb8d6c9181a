"""Access tokens: ES256 JWTs by joserfc. Refresh tokens and session ids: random."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import orjson
from joserfc import jwt
from joserfc.jwk import ECKey

from services.user.domain import PublicKey, SigningKey

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from services.platform.masterkey import MasterKey

_ALG = "ES256"
_CURVE = "P-256"


class Es256Signer:
    """Signs with the newest key; private halves are sealed with the master key wherever they are kept."""

    def __init__(self, master: MasterKey) -> None:
        """Seal and unseal with ``master``; there is no key before ``load``."""
        self._master = master
        self._public: tuple[PublicKey, ...] = ()
        self._key: ECKey | None = None
        self._header: dict[str, str] = {}

    def make(self, serial: int, now_ms: int) -> SigningKey:
        """Make a key; its id is the RFC 7638 thumbprint."""
        key = ECKey.generate_key(_CURVE)
        kid, parts = key.thumbprint(), key.as_dict(private=True)
        public = PublicKey(kid, str(parts["x"]), str(parts["y"]))
        return SigningKey(serial, public, self._master.seal(orjson.dumps(parts), _about(kid)), now_ms)

    def load(self, keys: Sequence[SigningKey]) -> None:
        """Use these keys, the newest first. Raises when the newest cannot be unsealed."""
        newest = keys[0]
        kid = newest.public.kid
        self._key = ECKey.import_key(orjson.loads(self._master.unseal(newest.sealed, _about(kid))))
        self._header = {"alg": _ALG, "kid": kid, "typ": "JWT"}
        self._public = tuple(key.public for key in keys)

    def public_keys(self) -> Sequence[PublicKey]:
        """Return the public halves, the one in use first."""
        return self._public

    def sign(self, claims: Mapping[str, str | int]) -> str:
        """Return a JWT over ``claims``; about 80 us."""
        assert self._key is not None, "load() comes before sign()"
        return jwt.encode(self._header, dict(claims), self._key)


class RandomSecrets:
    """What nobody can guess, from the system's generator."""

    def token(self) -> str:
        """Return 256 random bits in base64url, 43 characters."""
        return secrets.token_urlsafe(32)

    def session_id(self) -> str:
        """Return 128 random bits in hexadecimal, 32 characters."""
        return secrets.token_hex(16)


def _about(kid: str) -> str:
    return f"signing-key:{kid}"
