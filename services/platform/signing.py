"""Signed tokens: ES256 JWTs by joserfc, and where the keys are kept, sealed."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import orjson
import sqlalchemy as sa
from joserfc import jwt
from joserfc.jwk import ECKey

from services.kernel.signing import PublicKey, SigningKey
from services.platform.database import insert_rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from services.platform.database import Database
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


def _about(kid: str) -> str:
    return f"signing-key:{kid}"


def signing_keys_table(metadata: sa.MetaData) -> sa.Table:
    """Declare the table ``signing_keys`` in a room's metadata."""
    return sa.Table(
        "signing_keys",
        metadata,
        # The primary key is the guard: of two instances that make the first key at once, one finds serial 1 taken.
        sa.Column("serial", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("kid", sa.String(64), nullable=False, unique=True),
        sa.Column("x", sa.String(64), nullable=False),
        sa.Column("y", sa.String(64), nullable=False),
        sa.Column("sealed", sa.LargeBinary(1024), nullable=False),
        sa.Column("create_ms", sa.BigInteger, nullable=False),
    )


def signing_keys(database: Database, table: sa.Table) -> list[SigningKey]:
    """Read the signing keys, the newest first."""
    with database.read() as connection:
        found = connection.execute(sa.select(table).order_by(table.c.serial.desc()))
        return [SigningKey(r.serial, PublicKey(r.kid, r.x, r.y), r.sealed, r.create_ms) for r in found]


def keep_signing_key(database: Database, table: sa.Table, key: SigningKey) -> None:
    """Store a key, unless another instance has stored one of its serial before."""
    public = key.public
    row = {
        "serial": key.serial,
        "kid": public.kid,
        "x": public.x,
        "y": public.y,
        "sealed": key.sealed,
        "create_ms": key.create_ms,
    }
    with database.write() as connection, contextlib.suppress(sa.exc.IntegrityError):
        insert_rows(connection, table, [row])
        connection.commit()
