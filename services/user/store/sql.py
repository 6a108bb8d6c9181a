"""SqlStore: SQLAlchemy Core behind the ports. A batch reads and writes each table at most once."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from services.platform import idempotency, outbox, signing
from services.platform.database import Conflict, Database, for_update, insert_rows, update_rows
from services.user import mapping
from services.user.domain import email_key, is_email, username_key
from services.user.ports import Credentials
from services.user.store import rows
from services.user.store import tables as t

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from services.kernel.idempotency import IdempotencyKey, Scope, Stored
    from services.kernel.ids import IdMaker
    from services.user.domain import Profile, RefreshToken, Session, SigningKey, User
    from services.user.ports import Change


class SqlTransaction:
    """One transaction over a Connection. A user's row, locked in the order of ids, is the lock of all that is the user's."""

    def __init__(self, connection: sa.Connection, ids: IdMaker) -> None:
        """Work on ``connection``, which rolls back unless ``commit`` is called."""
        self._connection, self._ids = connection, ids
        self._dialect = connection.dialect.name

    def stored(self, keys: Iterable[IdempotencyKey | None]) -> Mapping[Scope, Stored]:
        """Return the answers that ``keys`` got."""
        return idempotency.find(self._connection, t.idempotency_keys, keys)

    def usernames(self, keys: Iterable[str]) -> dict[str, int]:
        """Return who has these user names, by key."""
        return self._owners_of(t.users.c.username_key, keys)

    def emails(self, keys: Iterable[str]) -> dict[str, int]:
        """Return who has these e-mail addresses, by key."""
        return self._owners_of(t.users.c.email_key, keys)

    def users(self, ids: Iterable[int]) -> dict[int, User]:
        """Lock users in the order of their ids."""
        if not (wanted := sorted(ids)):
            return {}
        query = sa.select(t.users).where(t.users.c.id.in_(wanted)).order_by(t.users.c.id)
        found = self._connection.execute(for_update(query, self._dialect)).all()
        roles = _roles(self._connection, wanted)
        return {row.id: rows.user_of(row, roles.get(row.id, ())) for row in found}

    def owners(self, token_hashes: Iterable[str]) -> set[int]:
        """Return whose these refresh tokens are; locks nothing."""
        return {token.user_id for token in self.tokens(token_hashes).values()}

    def tokens(self, token_hashes: Iterable[str]) -> dict[str, RefreshToken]:
        """Return refresh tokens of locked users."""
        query = sa.select(t.refresh_tokens).where(t.refresh_tokens.c.token_hash.in_(sorted(token_hashes)))
        return {row.token_hash: rows.token_of(row) for row in self._connection.execute(query)}

    def sessions(self, ids: Iterable[str]) -> dict[str, Session]:
        """Return sessions of locked users."""
        query = sa.select(t.sessions).where(t.sessions.c.id.in_(sorted(ids)))
        return {row.id: rows.session_of(row) for row in self._connection.execute(query)}

    def live_sessions(self, user_ids: Iterable[int], now_ms: int) -> list[Session]:
        """Return the live sessions of locked users."""
        if not (wanted := sorted(user_ids)):
            return []
        s = t.sessions.c
        query = sa.select(t.sessions).where(s.user_id.in_(wanted), s.ended_ms == 0, s.expire_ms > now_ms)
        return [rows.session_of(row) for row in self._connection.execute(query)]

    def write(self, change: Change) -> None:
        """Write a change: rows, roles, sessions, tokens, events, answers."""
        c = self._connection
        self._write_users(change)
        self._write_roles(change.new_roles)
        insert_rows(c, t.sessions, [rows.session_row(s) for s in change.new_sessions])
        changed = [{"id": s.id, **rows.session_state(s)} for s in change.changed_sessions.values()]
        update_rows(c, t.sessions, ("id",), changed)
        insert_rows(c, t.refresh_tokens, [rows.token_row(token) for token in change.new_tokens])
        used = [{"token_hash": token.token_hash, "used_ms": token.used_ms} for token in change.used_tokens]
        update_rows(c, t.refresh_tokens, ("token_hash",), used)
        outbox.append(c, t.outbox, [mapping.event(e) for e in change.events], self._ids, change.now_ms)
        with _again_when_taken():
            idempotency.keep(c, t.idempotency_keys, change.answers, change.now_ms)

    def commit(self) -> None:
        """Make it durable."""
        self._connection.commit()

    def _owners_of(self, column: sa.Column[str], keys: Iterable[str]) -> dict[str, int]:
        if not (wanted := sorted(keys)):
            return {}
        query = sa.select(column, t.users.c.id).where(column.in_(wanted))
        return {row[0]: row[1] for row in self._connection.execute(query)}

    def _write_users(self, change: Change) -> None:
        with _again_when_taken():
            insert_rows(self._connection, t.users, [rows.user_row(user) for user in change.new_users])
            changed = [{"id": user.id, **rows.user_state(user)} for user in change.changed_users.values()]
            update_rows(self._connection, t.users, ("id",), changed)

    def _write_roles(self, roles: Mapping[int, Sequence[str]]) -> None:
        if roles:
            self._connection.execute(sa.delete(t.user_roles).where(t.user_roles.c.user_id.in_(sorted(roles))))
            each = [{"user_id": user_id, "role": role} for user_id, all_of in roles.items() for role in all_of]
            insert_rows(self._connection, t.user_roles, each)


class SqlStore:
    """The user room's database."""

    def __init__(self, database: Database, ids: IdMaker) -> None:
        """Keep everything in ``database``, which is at the head of the room's migrations."""
        self._database, self._ids = database, ids

    @contextlib.contextmanager
    def transaction(self) -> Iterator[SqlTransaction]:
        """Begin a transaction."""
        with self._database.write() as connection:
            yield SqlTransaction(connection, self._ids)

    def credentials(self, name: str) -> Credentials | None:
        """Read what a user name or an e-mail address, of any case, logs in with."""
        u = t.users.c
        return self._credentials(
            u.email_key == email_key(name) if is_email(name) else u.username_key == username_key(name)
        )

    def credentials_of(self, user_id: int) -> Credentials | None:
        """Read what a user logs in with."""
        return self._credentials(t.users.c.id == user_id)

    def user(self, user_id: int) -> Profile | None:
        """Read a user."""
        with self._database.read() as connection:
            row = connection.execute(sa.select(t.users).where(t.users.c.id == user_id)).one_or_none()
            return None if row is None else rows.profile_of(row, _roles(connection, [user_id]).get(user_id, ()))

    def session(self, session_id: str) -> Session | None:
        """Read a session."""
        with self._database.read() as connection:
            row = connection.execute(sa.select(t.sessions).where(t.sessions.c.id == session_id)).one_or_none()
        return None if row is None else rows.session_of(row)

    def ended_since(self, since_ms: int) -> dict[str, int]:
        """Read the sessions that were ended after a time: id -> when."""
        s = t.sessions.c
        with self._database.read() as connection:
            found = connection.execute(sa.select(s.id, s.ended_ms).where(s.ended_ms > since_ms)).all()
        return {row.id: row.ended_ms for row in found}

    def signing_keys(self) -> list[SigningKey]:
        """Read the signing keys, the newest first."""
        return signing.signing_keys(self._database, t.signing_keys)

    def keep_signing_key(self, key: SigningKey) -> None:
        """Store a key, unless another instance has stored one of its serial before."""
        signing.keep_signing_key(self._database, t.signing_keys, key)

    def forget_sessions(self, before_ms: int, limit: int) -> int:
        """Delete sessions that expired before a time, with their tokens, at most ``limit``; returns how many."""
        s = t.sessions.c
        with self._database.write() as connection:
            ids = connection.execute(sa.select(s.id).where(s.expire_ms < before_ms).limit(limit)).scalars().all()
            connection.execute(sa.delete(t.refresh_tokens).where(t.refresh_tokens.c.session_id.in_(ids)))
            connection.execute(sa.delete(t.sessions).where(s.id.in_(ids)))
            connection.commit()
        return len(ids)

    def _credentials(self, where: sa.ColumnElement[bool]) -> Credentials | None:
        u = t.users.c
        with self._database.read() as connection:
            row = connection.execute(sa.select(u.id, u.password_hash, u.locked_until_ms).where(where)).one_or_none()
        return None if row is None else Credentials(row.id, row.password_hash, row.locked_until_ms)


@contextlib.contextmanager
def _again_when_taken() -> Iterator[None]:
    """A name, an address or a key that was free when it was read is another process's by now: decide all again."""
    try:
        yield
    except sa.exc.IntegrityError as error:
        raise Conflict("taken between the read and the write") from error


def _roles(connection: sa.Connection, user_ids: Sequence[int]) -> dict[int, tuple[str, ...]]:
    """Read the roles of users, in a fixed order."""
    r, found = t.user_roles.c, defaultdict[int, tuple[str, ...]](tuple)
    query = sa.select(r.user_id, r.role).where(r.user_id.in_(user_ids)).order_by(r.user_id, r.role)
    row: Any
    for row in connection.execute(query):
        found[row.user_id] += (row.role,)
    return found
