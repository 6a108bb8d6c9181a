"""SqlStore: API keys, the keys that sign them, and the answers to idempotency keys, in SQLAlchemy Core."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from services.gateway.domain import ApiKey
from services.platform import idempotency, signing
from services.platform.database import for_update, insert_rows, update_rows

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from services.kernel.idempotency import Answer, IdempotencyKey, Scope, Stored
    from services.kernel.pages import Page
    from services.kernel.signing import SigningKey
    from services.platform.database import Database

metadata = sa.MetaData()
API_KEYS = sa.Table(
    "api_keys",
    metadata,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("user_id", sa.BigInteger, nullable=False),
    sa.Column("name", sa.String(60), nullable=False),
    # Scopes with spaces between them: at most 32 of 40 characters.
    sa.Column("scopes", sa.String(1400), nullable=False),
    sa.Column("create_ms", sa.BigInteger, nullable=False),
    sa.Column("expire_ms", sa.BigInteger, nullable=False, index=True),
    sa.Column("revoke_ms", sa.BigInteger, nullable=False, index=True),
    sa.Column("replaced_by", sa.BigInteger, nullable=False),
    sa.Index("api_keys_of_user", "user_id", "id"),
)
SIGNING_KEYS = signing.signing_keys_table(metadata)
IDEMPOTENCY_KEYS = idempotency.idempotency_table(metadata)


def _key(row: Any) -> ApiKey:  # noqa: ANN401 - a SQLAlchemy Row
    return ApiKey(row.id, row.user_id, row.name, tuple(row.scopes.split()), row.create_ms, row.expire_ms,
                  row.revoke_ms, row.replaced_by)  # fmt: skip


class SqlTransaction:
    """One transaction over a Connection, which rolls back unless `commit` is called."""

    def __init__(self, connection: sa.Connection) -> None:
        """Work on ``connection``."""
        self._connection = connection

    def stored(self, keys: Iterable[IdempotencyKey | None]) -> Mapping[Scope, Stored]:
        """Return the answers that idempotency keys got."""
        return idempotency.find(self._connection, IDEMPOTENCY_KEYS, keys)

    def keep(self, kept: Sequence[tuple[IdempotencyKey, Answer]], now_ms: int) -> None:
        """Keep answers under their idempotency keys."""
        idempotency.keep(self._connection, IDEMPOTENCY_KEYS, kept, now_ms)

    def held(self, user_ids: Collection[int], now_ms: int) -> dict[int, int]:
        """Count the keys of users whose time is not over. Two instances at once may go over a limit by one each."""
        if not user_ids:
            return {}
        k = API_KEYS.c
        query = sa.select(k.user_id, sa.func.count()).where(k.user_id.in_(sorted(user_ids)), k.expire_ms > now_ms)
        return {row[0]: row[1] for row in self._connection.execute(query.group_by(k.user_id))}

    def lock(self, key_ids: Collection[int]) -> dict[int, ApiKey]:
        """Read keys and lock them, in the order of their ids."""
        if not key_ids:
            return {}
        query = sa.select(API_KEYS).where(API_KEYS.c.id.in_(sorted(key_ids))).order_by(API_KEYS.c.id)
        found = self._connection.execute(for_update(query, self._connection.dialect.name))
        return {row.id: _key(row) for row in found}

    def add(self, made: Sequence[ApiKey]) -> None:
        """Insert keys."""
        rows = [
            {
                "id": key.id,
                "user_id": key.user_id,
                "name": key.name,
                "scopes": " ".join(key.scopes),
                "create_ms": key.create_ms,
                "expire_ms": key.expire_ms,
                "revoke_ms": key.revoke_ms,
                "replaced_by": key.replaced_by,
            }
            for key in made
        ]
        insert_rows(self._connection, API_KEYS, rows)

    def put(self, changed: Sequence[ApiKey]) -> None:
        """Update what changes of a key."""
        rows = [{"id": key.id, "revoke_ms": key.revoke_ms, "replaced_by": key.replaced_by} for key in changed]
        update_rows(self._connection, API_KEYS, ("id",), rows)

    def commit(self) -> None:
        """Make it durable."""
        self._connection.commit()


class SqlStore:
    """The gateway's database."""

    def __init__(self, database: Database) -> None:
        """Keep keys in ``database``."""
        self._database = database

    @contextmanager
    def transaction(self) -> Iterator[SqlTransaction]:
        """Begin a change."""
        with self._database.write() as connection:
            yield SqlTransaction(connection)

    def list_keys(self, user_id: int, page: Page) -> Sequence[ApiKey]:
        """Read ``page.limit`` keys of a user, newest first."""
        query = sa.select(API_KEYS).where(API_KEYS.c.user_id == user_id)
        after = page.after_id()
        if after is not None:
            query = query.where(API_KEYS.c.id < after)
        return self._read(query.order_by(API_KEYS.c.id.desc()).limit(page.limit))

    def revoked(self, now_ms: int) -> Sequence[ApiKey]:
        """Read the keys that are revoked and whose time is not over."""
        k = API_KEYS.c
        query = sa.select(API_KEYS).where(k.revoke_ms > 0, k.revoke_ms <= now_ms, k.expire_ms > now_ms)
        return self._read(query.order_by(k.id))

    def forget(self, before_ms: int, limit: int) -> int:
        """Delete keys whose time was over before, at most ``limit``; returns how many."""
        k = API_KEYS.c
        with self._database.write() as connection:
            ids = connection.execute(sa.select(k.id).where(k.expire_ms < before_ms).limit(limit)).scalars().all()
            connection.execute(sa.delete(API_KEYS).where(k.id.in_(ids)))
            connection.commit()
        return len(ids)

    def signing_keys(self) -> list[SigningKey]:
        """Read the signing keys, the newest first."""
        return signing.signing_keys(self._database, SIGNING_KEYS)

    def keep_signing_key(self, key: SigningKey) -> None:
        """Store a key, unless another instance has stored one of its serial before."""
        signing.keep_signing_key(self._database, SIGNING_KEYS, key)

    def _read(self, query: sa.Select[Any]) -> list[ApiKey]:
        with self._database.read() as connection:
            return [_key(row) for row in connection.execute(query)]
