"""Where the answers to idempotency keys are kept: rendered, in the transaction of the change, for 7 days at least."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import orjson
import sqlalchemy as sa

from services.contract.load import contract
from services.kernel.errors import DomainError
from services.kernel.idempotency import Answer, IdempotencyKey, Scope, Stored
from services.platform.database import insert_rows, select_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


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
    scopes = {key.scope for key in keys if key is not None}
    if not scopes:
        return {}
    keyed = [(s.subject, s.method, s.key) for s in scopes]
    found = {}
    rows = select_rows(connection, table, (*_SCOPE, "fingerprint", "response", "refusal"), _SCOPE, keyed)
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
            "refusal": None if isinstance(answer, bytes) else orjson.dumps([answer.reason, answer.metadata]).decode(),
            "create_ms": now_ms,
        }
        for key, answer in kept
    ]
    insert_rows(connection, table, rows)


def _refusal(text: str) -> DomainError:
    reason, metadata = orjson.loads(text)
    return DomainError(reason, **metadata)
