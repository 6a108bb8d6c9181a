"""Rules, block list, assessments and alerts in SQL."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from services.kernel.idempotency import Answer, IdempotencyKey, Scope, Stored
from services.kernel.money import Money
from services.platform import idempotency
from services.platform import inbox as inbox_rows
from services.platform import outbox as outbox_rows
from services.platform.database import for_update, insert_rows
from services.platform.idempotency import idempotency_table
from services.platform.inbox import inbox_table
from services.platform.outbox import outbox_tables
from services.risk import mapping
from services.risk.domain import (
    Alert,
    AmountLimit,
    Assessment,
    Block,
    BlockList,
    Condition,
    Decision,
    Event,
    Noted,
    Rule,
    Snapshot,
    Unreachable,
    VelocityLimit,
)

if TYPE_CHECKING:
    from services.kernel.ids import IdMaker
    from services.kernel.pages import Page
    from services.platform.database import Database

metadata = sa.MetaData()

_DECISIONS = "('approve', 'review', 'block')"
_KINDS = {
    AmountLimit: "amount_limit",
    VelocityLimit: "velocity_limit",
    BlockList: "block_list",
    Unreachable: "unreachable",
}
_VERSION = "rules"

rules = sa.Table(
    "rules",
    metadata,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("enabled", sa.Boolean, nullable=False),
    sa.Column("decision", sa.String(8), nullable=False),
    sa.Column("score", sa.Integer, nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("limit_currency_code", sa.String(3)),
    sa.Column("limit_minor_units", sa.BigInteger),
    sa.Column("window_seconds", sa.Integer),
    sa.Column("payments_max", sa.Integer),
    sa.Column("create_ms", sa.BigInteger, nullable=False),
    sa.Column("update_ms", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("name", name="rules_name"),
    sa.CheckConstraint(f"decision IN {_DECISIONS}", name="rules_decision"),
    sa.CheckConstraint("kind IN ('amount_limit', 'velocity_limit', 'block_list', 'unreachable')", name="rules_kind"),
)
blocked_users = sa.Table(
    "blocked_users",
    metadata,
    sa.Column("user_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("note", sa.String(200), nullable=False),
    sa.Column("create_ms", sa.BigInteger, nullable=False),
)
rule_versions = sa.Table(
    "rule_versions",
    metadata,
    sa.Column("name", sa.String(16), primary_key=True),
    sa.Column("version", sa.BigInteger, nullable=False),
)
assessments = sa.Table(
    "assessments",
    metadata,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("payment_id", sa.BigInteger, nullable=False),
    sa.Column("user_id", sa.BigInteger, nullable=False),
    sa.Column("decision", sa.String(8), nullable=False),
    sa.Column("score", sa.Integer, nullable=False),
    sa.Column("rules_hit", sa.Text, nullable=False),
    sa.Column("currency_code", sa.String(3), nullable=False),
    sa.Column("minor_units", sa.BigInteger, nullable=False),
    sa.Column("create_ms", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("payment_id", "decision", name="assessments_payment"),
    sa.CheckConstraint("decision IN ('review', 'block')", name="assessments_decision"),
)
alerts = sa.Table(
    "alerts",
    metadata,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column(
        "assessment_id", sa.BigInteger, sa.ForeignKey("assessments.id", name="alerts_assessment"), nullable=False
    ),
    sa.Column("payment_id", sa.BigInteger, nullable=False),
    sa.Column("user_id", sa.BigInteger, nullable=False),
    sa.Column("decision", sa.String(8), nullable=False),
    sa.Column("rules_hit", sa.Text, nullable=False),
    sa.Column("currency_code", sa.String(3), nullable=False),
    sa.Column("minor_units", sa.BigInteger, nullable=False),
    sa.Column("create_ms", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("payment_id", name="alerts_payment"),
    sa.CheckConstraint("decision IN ('review', 'block')", name="alerts_decision"),
)
assessed_payments = sa.Table(
    "assessed_payments",
    metadata,
    sa.Column("payment_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("user_id", sa.BigInteger, nullable=False),
    sa.Column("at_ms", sa.BigInteger, nullable=False, index=True),
    sa.Index("assessed_payments_user", "user_id", "at_ms"),
)
"""What the velocity series are made of again when Redis lost them: no more than the longest window needs."""
outbox, relay_lease = outbox_tables(metadata)
inbox = inbox_table(metadata)
idempotency_keys = idempotency_table(metadata)


class SqlTransaction:
    """One transaction over a Connection."""

    def __init__(self, connection: sa.Connection, ids: IdMaker) -> None:
        """Work within ``connection``'s transaction; ``ids`` number the events."""
        self._connection, self._ids = connection, ids

    def stored(self, keys: Iterable[IdempotencyKey | None]) -> Mapping[Scope, Stored]:
        """Read the answers that keys got before."""
        return idempotency.find(self._connection, idempotency_keys, keys)

    def keep(self, kept: Sequence[tuple[IdempotencyKey, Answer]], now_ms: int) -> None:
        """Keep answers under their keys."""
        idempotency.keep(self._connection, idempotency_keys, kept, now_ms)

    def assessed(self, payment_ids: Collection[int]) -> tuple[Mapping[tuple[int, Decision], int], set[int]]:
        """Read what was recorded of payments. The version row is locked: one instance records at a time."""
        self._lock_version()
        a = assessments.c
        query = sa.select(a.id, a.payment_id, a.decision).where(a.payment_id.in_(payment_ids))
        known = {(row.payment_id, Decision.of(row.decision)): row.id for row in self._connection.execute(query)}
        alerted = sa.select(alerts.c.payment_id).where(alerts.c.payment_id.in_(payment_ids))
        return known, set(self._connection.execute(alerted).scalars())

    def record(self, made: Sequence[Assessment], raised: Sequence[Alert], events: Sequence[Event]) -> None:
        """Store assessments, then the alerts that name them, then their events."""
        insert_rows(self._connection, assessments, [_assessment_row(each) for each in made])
        insert_rows(self._connection, alerts, [_alert_row(each) for each in raised])
        messages = [mapping.event(each) for each in events]
        outbox_rows.append(self._connection, outbox, messages, self._ids, made[0].create_ms)

    def unseen(self, event_ids: Sequence[str]) -> set[str]:
        """Return those of the events that had no effect yet."""
        return inbox_rows.unseen(self._connection, inbox, event_ids)

    def note(self, noted: Sequence[Noted], events: Sequence[tuple[str, str]], now_ms: int) -> None:
        """Store payments, and their events as handled."""
        insert_rows(self._connection, assessed_payments, [each._asdict() for each in noted])
        inbox_rows.mark(self._connection, inbox, events, now_ms)

    def forget(self, before_ms: int, limit: int) -> int:
        """Drop old payments. Their ids are read first: MariaDB takes no LIMIT within IN."""
        p = assessed_payments.c
        query = sa.select(p.payment_id).where(p.at_ms <= before_ms).order_by(p.at_ms).limit(limit)
        old = list(self._connection.execute(query).scalars())
        self._connection.execute(sa.delete(assessed_payments).where(p.payment_id.in_(old)))
        return len(old)

    def names_taken(self, names: Collection[str]) -> set[str]:
        """Read which names exist. The version row is locked, so that two instances do not give one name away twice."""
        self._lock_version()
        return set(self._connection.execute(sa.select(rules.c.name).where(rules.c.name.in_(names))).scalars())

    def rules(self, rule_ids: Collection[int]) -> dict[int, Rule]:
        """Read rules and lock them, in the order of their ids."""
        query = sa.select(rules).where(rules.c.id.in_(rule_ids)).order_by(rules.c.id)
        found = self._connection.execute(for_update(query, self._connection.dialect.name))
        return {row.id: _rule(row) for row in found}

    def add_rules(self, made: Sequence[Rule]) -> None:
        """Insert rules."""
        self._connection.execute(sa.insert(rules), [_rule_row(rule) for rule in made])
        self._raise_version()

    def put_rules(self, changed: Sequence[Rule]) -> None:
        """Update rules."""
        for rule in changed:
            self._connection.execute(sa.update(rules).where(rules.c.id == rule.id).values(_rule_row(rule)))
        self._raise_version()

    def blocks(self, user_ids: Collection[int]) -> dict[int, Block]:
        """Read entries and keep others from changing the list: the version row is locked."""
        self._lock_version()
        query = sa.select(blocked_users).where(blocked_users.c.user_id.in_(user_ids))
        return {row.user_id: _block(row) for row in self._connection.execute(query)}

    def put_blocks(self, changed: Mapping[int, Block | None]) -> None:
        """Replace entries."""
        self._connection.execute(sa.delete(blocked_users).where(blocked_users.c.user_id.in_(changed)))
        rows = [
            {"user_id": block.user_id, "note": block.note, "create_ms": block.create_ms}
            for block in changed.values()
            if block is not None
        ]
        insert_rows(self._connection, blocked_users, rows)
        self._raise_version()

    def commit(self) -> None:
        """Make it durable."""
        self._connection.commit()

    def _lock_version(self) -> None:
        query = sa.select(rule_versions.c.version).where(rule_versions.c.name == _VERSION)
        self._connection.execute(for_update(query, self._connection.dialect.name)).one()

    def _raise_version(self) -> None:
        raised = {"version": rule_versions.c.version + 1}
        self._connection.execute(sa.update(rule_versions).where(rule_versions.c.name == _VERSION).values(raised))


class SqlStore:
    """Risk's part of the database."""

    def __init__(self, database: Database, ids: IdMaker) -> None:
        """Keep everything in ``database``."""
        self._database, self._ids = database, ids

    @contextmanager
    def transaction(self) -> Iterator[SqlTransaction]:
        """Begin a change; it is rolled back unless committed."""
        with self._database.write() as connection:
            yield SqlTransaction(connection, self._ids)

    def version(self) -> int:
        """Read the version; a look at one row."""
        with self._database.read() as connection:
            return self._version(connection)

    def snapshot(self) -> Snapshot:
        """Read version, then rules and list: what is read may be newer than its version, and is then read once more."""
        with self._database.read() as connection:
            version = self._version(connection)
            found = connection.execute(sa.select(rules).order_by(rules.c.name)).all()
            blocked = connection.execute(sa.select(blocked_users.c.user_id)).scalars()
            return Snapshot(version, tuple(_rule(row) for row in found), frozenset(blocked))

    def noted_of(self, user_ids: Collection[int], since_ms: int, limit: int) -> Sequence[Noted]:
        """Read payments of users."""
        p = assessed_payments.c
        query = sa.select(p.payment_id, p.user_id, p.at_ms).where(p.user_id.in_(user_ids), p.at_ms > since_ms)
        with self._database.read() as connection:
            return [Noted(*row) for row in connection.execute(query.limit(limit))]

    def noted_since(self, since_ms: int, after: int, limit: int) -> Sequence[Noted]:
        """Read payments by id."""
        p = assessed_payments.c
        query = sa.select(p.payment_id, p.user_id, p.at_ms).where(p.payment_id > after, p.at_ms > since_ms)
        with self._database.read() as connection:
            return [Noted(*row) for row in connection.execute(query.order_by(p.payment_id).limit(limit))]

    def list_rules(self, page: Page) -> Sequence[Rule]:
        """Read rules by name."""
        query = sa.select(rules).where(rules.c.name > page.after).order_by(rules.c.name).limit(page.limit)
        with self._database.read() as connection:
            return [_rule(row) for row in connection.execute(query)]

    def list_alerts(self, page: Page) -> Sequence[Alert]:
        """Read alerts, newest first."""
        query = sa.select(alerts).order_by(alerts.c.id.desc()).limit(page.limit)
        after = page.after_id()
        if after is not None:
            query = query.where(alerts.c.id < after)
        with self._database.read() as connection:
            return [_alert(row) for row in connection.execute(query)]

    def list_blocks(self, page: Page) -> Sequence[Block]:
        """Read the block list by user."""
        b = blocked_users.c
        query = sa.select(blocked_users).where(b.user_id > (page.after_id() or 0)).order_by(b.user_id).limit(page.limit)
        with self._database.read() as connection:
            return [_block(row) for row in connection.execute(query)]

    def _version(self, connection: sa.Connection) -> int:
        query = sa.select(rule_versions.c.version).where(rule_versions.c.name == _VERSION)
        return int(connection.execute(query).scalar_one())


def _rule_row(rule: Rule) -> dict[str, Any]:
    condition = rule.condition
    amount = condition.limit if isinstance(condition, AmountLimit) else None
    velocity = condition if isinstance(condition, VelocityLimit) else None
    return {
        "id": rule.id,
        "name": rule.name,
        "enabled": rule.enabled,
        "decision": rule.decision.word,
        "score": rule.score,
        "kind": _KINDS[type(condition)],
        "limit_currency_code": amount and amount.currency_code,
        "limit_minor_units": amount and amount.minor_units,
        "window_seconds": velocity and velocity.window_seconds,
        "payments_max": velocity and velocity.payments_max,
        "create_ms": rule.create_ms,
        "update_ms": rule.update_ms,
    }


def _condition(row: Any) -> Condition:  # noqa: ANN401 - a SQLAlchemy Row
    if row.kind == "amount_limit":
        return AmountLimit(Money(row.limit_currency_code, row.limit_minor_units))
    if row.kind == "velocity_limit":
        return VelocityLimit(row.window_seconds, row.payments_max)
    return BlockList() if row.kind == "block_list" else Unreachable()


def _rule(row: Any) -> Rule:  # noqa: ANN401 - a SQLAlchemy Row
    return Rule(
        id=row.id,
        name=row.name,
        enabled=row.enabled,
        decision=Decision.of(row.decision),
        score=row.score,
        condition=_condition(row),
        create_ms=row.create_ms,
        update_ms=row.update_ms,
    )


def _assessment_row(made: Assessment) -> dict[str, Any]:
    return {
        "id": made.id,
        "payment_id": made.payment.payment_id,
        "user_id": made.payment.user_id,
        "decision": made.verdict.decision.word,
        "score": made.verdict.score,
        "rules_hit": " ".join(made.verdict.rules_hit),
        "currency_code": made.payment.currency_code,
        "minor_units": made.payment.minor_units,
        "create_ms": made.create_ms,
    }


def _alert_row(alert: Alert) -> dict[str, Any]:
    return {
        "id": alert.id,
        "assessment_id": alert.assessment_id,
        "payment_id": alert.payment_id,
        "user_id": alert.user_id,
        "decision": alert.decision.word,
        "rules_hit": " ".join(alert.rules_hit),
        "currency_code": alert.amount.currency_code,
        "minor_units": alert.amount.minor_units,
        "create_ms": alert.create_ms,
    }


def _alert(row: Any) -> Alert:  # noqa: ANN401 - a SQLAlchemy Row
    return Alert(
        id=row.id,
        assessment_id=row.assessment_id,
        payment_id=row.payment_id,
        user_id=row.user_id,
        decision=Decision.of(row.decision),
        rules_hit=tuple(row.rules_hit.split()),
        amount=Money(row.currency_code, row.minor_units),
        create_ms=row.create_ms,
    )


def _block(row: Any) -> Block:  # noqa: ANN401 - a SQLAlchemy Row
    return Block(row.user_id, row.note, row.create_ms)
