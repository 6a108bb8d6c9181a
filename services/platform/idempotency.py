"""Where the answers to idempotency keys are kept: rendered, in the transaction of the change, for 7 days at least."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import orjson
import sqlalchemy as sa

from services.contract.load import contract
from services.kernel.errors import DomainError
from services.kernel.idempotency import Answer, IdempotencyKey, Scope, Stored
from services.platform.database import insert_rows, select_rows, update_rows

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence


_SCOPE = ("subject", "method", "idempotency_key")


def idempotency_table(metadata: sa.MetaData) -> sa.Table:
    """Declare the table ``idempotency_keys`` in a room's metadata."""
    return sa.Table(
        "idempotency_keys",
        metadata,
        sa.Column("subject", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("method", sa.String(48), primary_key=True),
        sa.Column("idempotency_key", sa.String(64), primary_key=True),
        sa.Column("fingerprint", sa.LargeBinary(32), nullable=False),
        sa.Column("response", sa.LargeBinary),
        sa.Column("refusal", sa.String(1000)),
        sa.Column("create_ms", sa.BigInteger, nullable=False, index=True),
    )


@cache
def business_reasons() -> frozenset[str]:
    """Reasons that are stored under a key and replayed: what the business refused."""
    return frozenset(name for name, reason in contract().reasons.items() if reason.business)


def find(connection: sa.Connection, table: sa.Table, keys: Iterable[IdempotencyKey | None]) -> dict[Scope, Stored]:
    """Read the stored answers of ``keys``; None among them is passed over."""
    return find_scopes(connection, table, {key.scope for key in keys if key is not None})


def find_scopes(
    connection: sa.Connection, table: sa.Table, scopes: Collection[Scope], *, lock: bool = False
) -> dict[Scope, Stored]:
    """Read the stored answers of keys; ``lock`` keeps others from answering them."""
    if not scopes:
        return {}
    keyed = [(s.subject, s.method, s.key) for s in scopes]
    found = {}
    rows = select_rows(connection, table, (*_SCOPE, "fingerprint", "response", "refusal"), _SCOPE, keyed, lock=lock)
    for subject, method, key, fingerprint, response, refusal in rows:
        answer: Answer = response if response is not None else _refusal(refusal)
        found[Scope(subject, method, key)] = Stored(fingerprint, answer)
    return found


def keep(
    connection: sa.Connection, table: sa.Table, kept: Sequence[tuple[IdempotencyKey, Answer]], now_ms: int
) -> None:
    """Store answers under their keys, within the transaction of the change."""
    rows = [
        {
            "subject": key.scope.subject,
            "method": key.scope.method,
            "idempotency_key": key.scope.key,
            "fingerprint": key.fingerprint,
            "response": answer if isinstance(answer, bytes) else None,
            "refusal": None if isinstance(answer, bytes) else _text(answer),
            "create_ms": now_ms,
        }
        for key, answer in kept
    ]
    insert_rows(connection, table, rows)


def hold(connection: sa.Connection, table: sa.Table, keys: Sequence[IdempotencyKey], now_ms: int) -> None:
    """Write keys down whose answer comes later, by `fill`; until then a repeat is IDEMPOTENCY_KEY_IN_FLIGHT."""
    rows = [
        {
            "subject": key.scope.subject,
            "method": key.scope.method,
            "idempotency_key": key.scope.key,
            "fingerprint": key.fingerprint,
            "response": None,
            "refusal": None,
            "create_ms": now_ms,
        }
        for key in keys
    ]
    insert_rows(connection, table, rows)


def fill(connection: sa.Connection, table: sa.Table, answers: Mapping[Scope, Answer]) -> None:
    """Write the answers of keys that are held, within the transaction that makes them true."""
    rows = [
        {
            **dict(zip(_SCOPE, scope, strict=True)),
            "response": answer if isinstance(answer, bytes) else None,
            "refusal": None if isinstance(answer, bytes) else _text(answer),
        }
        for scope, answer in answers.items()
    ]
    update_rows(connection, table, _SCOPE, rows)


def _text(refusal: DomainError) -> str:
    return orjson.dumps([refusal.reason, refusal.metadata]).decode()


def _refusal(text: str | None) -> DomainError:
    if text is None:
        return DomainError("IDEMPOTENCY_KEY_IN_FLIGHT")
    reason, metadata = orjson.loads(text)
    return DomainError(reason, **metadata)
