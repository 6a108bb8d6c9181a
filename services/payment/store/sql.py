"""SqlStore: SQLAlchemy Core behind the ports. A batch reads and writes each table at most once."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from services.kernel.money import Money
from services.payment import mapping, states
from services.payment.domain import (
    Account,
    AccountKey,
    JournalLine,
    KnownOrder,
    Payment,
    Point,
    Refund,
    Review,
    TrialBalanceLine,
    chain_hash,
)
from services.payment.ports import Look
from services.payment.store import rows
from services.payment.store import tables as t
from services.payment.store.lifecycle import Lifecycle, charges
from services.payment.store.settled import Settlements, bill_differences, bills
from services.platform import idempotency, inbox, outbox
from services.platform.database import Conflict, Database, for_update, insert_rows, select_rows, update_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from services.kernel.idempotency import IdempotencyKey, Scope, Stored
    from services.kernel.ids import IdMaker
    from services.kernel.pages import Page
    from services.payment.domain import Book
    from services.payment.ports import CancelledOrder, Change


_STREAMED = 1000
"""Rows of a long read that are held at a time."""


class SqlTransaction(Lifecycle, Settlements):
    """One transaction over a Connection; rows that it will change are read under lock, in key order."""

    def __init__(self, connection: sa.Connection, ids: IdMaker) -> None:
        """Work on ``connection``, which rolls back unless ``commit`` is called."""
        super().__init__(connection)
        self._ids = ids

    def stored(self, keys: Iterable[IdempotencyKey | None]) -> Mapping[Scope, Stored]:
        """Return the answers that ``keys`` got."""
        return idempotency.find(self._connection, t.idempotency_keys, keys)

    def live_payments(self, order_ids: Iterable[int]) -> dict[int, int]:
        """Return order id -> id of its payment that is live or captured."""
        keys = [(order_id,) for order_id in order_ids]
        found = select_rows(self._connection, t.payments, ("live_order_id", "id"), ("live_order_id",), keys)
        return dict(map(tuple, found))

    def accounts(self, keys: Iterable[AccountKey]) -> dict[AccountKey, Account]:
        """Lock the accounts in key order; those that do not exist yet come new, with balance 0."""
        found = {key: Account(key, 0, 0, -1) for key in keys}
        wanted = [(key.owner_id, key.kind, key.currency_code) for key in found]
        by = ("owner_id", "kind", "currency_code")
        read = select_rows(self._connection, t.accounts, (*by, "id", "balance_minor", "version"), by, wanted, lock=True)
        for owner_id, kind, currency_code, account_id, balance, version in read:
            account = found[AccountKey(kind, owner_id, currency_code)]
            account.id, account.balance, account.version = account_id, balance, version
        return found

    def payments(self, ids: Iterable[int]) -> dict[int, Payment]:
        """Lock payments in the order of their ids."""
        keys = [(payment_id,) for payment_id in ids]
        read = select_rows(self._connection, t.payments, tuple(t.payments.c.keys()), ("id",), keys, lock=True)
        payments = {row.id: rows.payment_of(row) for row in read}
        charges(self._connection, payments.values(), lock=True)
        return payments

    def unseen(self, event_ids: Sequence[str]) -> set[str]:
        """Return those events that had no effect yet."""
        return inbox.unseen(self._connection, t.inbox, event_ids)

    def know_orders(self, orders: Sequence[KnownOrder]) -> None:
        """Keep what is known of orders; an older version never replaces a newer one."""
        known = self._versions(order.id for order in orders)
        latest = {order.id: order for order in sorted(orders, key=lambda o: o.version)}
        insert_rows(self._connection, t.known_orders, [rows.order_row(o) for o in latest.values() if o.id not in known])
        newer = [rows.order_row(o) for o in latest.values() if o.id in known and known[o.id] < o.version]
        update_rows(self._connection, t.known_orders, ("order_id",), newer)

    def cancel_orders(self, cancelled: Sequence[CancelledOrder]) -> None:
        """Keep that orders were cancelled, also of those that are not known yet."""
        known = self._versions(order.order_id for order in cancelled)
        nothing = Money("CNY", 0)
        unknown = [
            KnownOrder(c.order_id, c.user_id, nothing, "cancelled", 0, c.version)
            for c in cancelled
            if c.order_id not in known
        ]
        self.know_orders(unknown)
        change = [
            {"order_id": c.order_id, "status": "cancelled", "version": c.version}
            for c in cancelled
            if known.get(c.order_id, c.version) < c.version
        ]
        update_rows(self._connection, t.known_orders, ("order_id",), change)

    def write(self, change: Change) -> None:
        """Write a change: rows, ledger, chain, history, events, answers, inbox."""
        c = self._connection
        insert_rows(c, t.payments, [rows.payment_row(p) for p in change.new_payments])
        changed = [{"id": p.id, **rows.payment_state(p)} for p in change.changed_payments.values()]
        for live in (
            False,
            True,
        ):  # an order that one gives up may be another's in the same change: the column is unique
            part = [row for row in changed if (row["live_order_id"] is not None) is live]
            update_rows(c, t.payments, ("id",), part)
        insert_rows(c, t.payment_history, [rows.step_row(m.step) for m in change.moved])
        insert_rows(c, t.refunds, [rows.refund_row(r) for r in change.refunds])
        self._write_lifecycle(change)
        if change.bills is not None:
            self._write_bills(change.bills)
        if change.book is not None and change.book.postings:
            self._write_book(change.book, change.now_ms)
        events = [event for moved in change.moved if (event := mapping.event(moved)) is not None]
        outbox.append(c, t.outbox, events, self._ids, change.now_ms)
        idempotency.keep(c, t.idempotency_keys, change.answers, change.now_ms)
        idempotency.hold(c, t.idempotency_keys, change.held, change.now_ms)
        idempotency.fill(c, t.idempotency_keys, change.late)
        inbox.mark(c, t.inbox, change.taken, change.now_ms)

    def commit(self) -> None:
        """Make it durable."""
        self._connection.commit()

    def _versions(self, order_ids: Iterable[int]) -> dict[int, int]:
        keys = [(order_id,) for order_id in order_ids]
        columns, by = ("order_id", "version"), ("order_id",)
        return dict(map(tuple, select_rows(self._connection, t.known_orders, columns, by, keys, lock=True)))

    def _write_book(self, book: Book, now_ms: int) -> None:
        """Write the accounts once each, the transactions with their entries, and one link of the hash chain."""
        c = self._connection
        self._write_accounts(book.touched.values(), now_ms)
        seq, previous = c.execute(for_update(sa.select(t.ledger_tail.c.seq, t.ledger_tail.c.hash), self._dialect)).one()
        seq += 1
        booked = [
            {"id": p.id, "kind": p.kind, "reference_id": p.reference_id, "chain_seq": seq, "at_ms": now_ms}
            for p in book.postings
        ]
        entries = [
            {"transaction_id": p.id, "line": line, "account_id": book.touched[e.account].id, "amount_minor": e.amount}
            for p in book.postings
            for line, e in enumerate(p.entries, 1)
        ]
        insert_rows(c, t.ledger_transactions, booked)
        insert_rows(c, t.ledger_entries, entries)
        said = {p.id: (p.kind, p.reference_id, now_ms) for p in book.postings}
        # Linked in the order of the primary key, in which an audit reads them back.
        link = chain_hash(previous, sorted((*entry.values(), *said[entry["transaction_id"]]) for entry in entries))
        insert_rows(c, t.ledger_chain, [{"seq": seq, "hash": link}])
        update_rows(c, t.ledger_tail, ("id",), [{"id": 1, "seq": seq, "hash": link}])

    def _write_accounts(self, accounts: Iterable[Account], now_ms: int) -> None:
        new, old = [], []
        for account in accounts:
            values: rows.Row = {"balance_minor": account.balance, "version": account.version + 1, "update_ms": now_ms}
            if account.is_new:
                account.id = self._ids.next(0)
                key = account.key
                new.append({"id": account.id, "kind": key.kind, "owner_id": key.owner_id,
                            "currency_code": key.currency_code, **values})  # fmt: skip
            else:
                old.append({"id": account.id, **values})
        insert_rows(self._connection, t.accounts, new)
        if update_rows(self._connection, t.accounts, ("id",), old) != len(old):
            raise Conflict("an account vanished under its lock")


_LAST = (t.outbox, t.ledger_transactions, t.attempts, t.reviews, bills, bill_differences)


class SqlStore:
    """The payment room's database."""

    def __init__(self, database: Database, ids: IdMaker) -> None:
        """Keep everything in ``database``, which is at the head of the room's migrations."""
        self._database, self._ids = database, ids

    @contextlib.contextmanager
    def transaction(self) -> Iterator[SqlTransaction]:
        """Begin a transaction."""
        with self._database.write() as connection:
            yield SqlTransaction(connection, self._ids)

    def last_id(self) -> int:
        """Return the highest id that was written; 0: none was. These have the last of a change."""
        with self._database.read() as connection:
            found = [connection.execute(sa.select(sa.func.max(table.c.id))).scalar() for table in _LAST]
        return max(number or 0 for number in found)

    def look(self, keys: Sequence[IdempotencyKey | None], order_ids: Iterable[int]) -> Look:
        """Read what a batch of payments needs before it may ask others; locks nothing."""
        k, wanted = t.known_orders, [(order_id,) for order_id in order_ids]
        with self._database.read() as connection:
            stored = idempotency.find(connection, t.idempotency_keys, keys)
            known = select_rows(connection, k, tuple(k.c.keys()), ("order_id",), wanted)
        return Look(stored, {row.order_id: rows.order_of(row) for row in known})

    def payment(self, payment_id: int, user_id: int | None) -> Payment | None:
        """Read a payment; ``user_id`` narrows it to one user's."""
        query = sa.select(t.payments).where(t.payments.c.id == payment_id)
        if user_id is not None:
            query = query.where(t.payments.c.user_id == user_id)
        with self._database.read() as connection:
            return next(iter(_payments(connection, query)), None)

    def payments_of(self, *, user_id: int | None, order_id: int | None, page: Page) -> list[Payment]:
        """Read a page of payments, newest first, one more than it holds."""
        p = t.payments.c
        narrowed = [
            column == value for column, value in ((p.user_id, user_id), (p.order_id, order_id)) if value is not None
        ]
        with self._database.read() as connection:
            return _payments(connection, paged(sa.select(t.payments).where(*narrowed), p.id, page))

    def refunds_of(self, payment_id: int, page: Page) -> list[Refund]:
        """Read a page of refunds, newest first, one more than it holds."""
        query = sa.select(t.refunds).where(t.refunds.c.payment_id == payment_id)
        with self._database.read() as connection:
            return [rows.refund_of(row) for row in connection.execute(paged(query, t.refunds.c.id, page))]

    def refund(self, refund_id: int) -> Refund | None:
        """Read a refund."""
        with self._database.read() as connection:
            row = connection.execute(sa.select(t.refunds).where(t.refunds.c.id == refund_id)).one_or_none()
        return None if row is None else rows.refund_of(row)

    def payments_of_refunds(self, refund_ids: Iterable[int]) -> dict[int, int]:
        """Return refund id -> id of its payment, of those that exist; locks nothing."""
        keys = [(refund_id,) for refund_id in refund_ids]
        with self._database.read() as connection:
            return dict(map(tuple, select_rows(connection, t.refunds, ("id", "payment_id"), ("id",), keys)))

    def reviews_from(self, page: Page, *, decided: bool) -> list[Review]:
        """Read a page of reviews, oldest first, one more than it holds; with ``decided`` also those."""
        r, after = t.reviews.c, page.after_id()
        query = sa.select(t.reviews).order_by(r.id).limit(page.limit)
        if after is not None:
            query = query.where(r.id > after)
        if not decided:
            query = query.where(r.status.in_((states.REVIEW_OPEN, states.REVIEW_PROPOSED)))
        with self._database.read() as connection:
            return [rows.review_of(row) for row in connection.execute(query)]

    def payments_of_reviews(self, review_ids: Iterable[int]) -> dict[int, int]:
        """Return review id -> id of its payment, of those that exist; locks nothing."""
        keys = [(review_id,) for review_id in review_ids]
        with self._database.read() as connection:
            return dict(map(tuple, select_rows(connection, t.reviews, ("id", "payment_id"), ("id",), keys)))

    def has_due(self, now_ms: int) -> bool:
        """Whether an attempt is due."""
        with self._database.read() as connection:
            due = sa.select(t.attempts.c.id).where(t.attempts.c.next_ms <= now_ms).limit(1)
            return connection.execute(due).first() is not None

    def adopt(self, owner: int, now_ms: int) -> int:
        """Make due what an instance was asking of providers when it died; return how much that was."""
        a = t.attempts.c
        left = sa.update(t.attempts).where(a.owner == owner, a.next_ms > now_ms, a.point != Point.HELD)
        with self._database.write() as connection:
            found = connection.execute(left.values(next_ms=now_ms)).rowcount
            connection.commit()
        return found

    def forget(self, before: Mapping[str, int], limit: int) -> int:
        """Delete at most about ``limit`` rows each of idempotency_keys and callbacks older than ``before`` (name -> ms)."""
        times = {"idempotency_keys": t.idempotency_keys.c.create_ms, "callbacks": t.callbacks.c.taken_ms}
        gone = 0
        with self._database.write() as connection:
            for name, until in before.items():
                column = times[name]
                oldest = sa.select(column).where(column < until).order_by(column).limit(limit).subquery()
                newest = connection.execute(sa.select(sa.func.max(oldest.c[0]))).scalar()
                if newest is not None:
                    gone += connection.execute(sa.delete(column.table).where(column <= newest)).rowcount
            connection.commit()
        return gone

    def balance(self, key: AccountKey) -> tuple[int, int]:
        """Return an account's balance and when it last changed; (0, 0) where there is none."""
        a = t.accounts.c
        query = sa.select(a.balance_minor, a.update_ms).where(
            a.kind == key.kind, a.owner_id == key.owner_id, a.currency_code == key.currency_code
        )
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        return (0, 0) if row is None else (row.balance_minor, row.update_ms)

    def trial_balance(self) -> list[TrialBalanceLine]:
        """Add up the ledger by kind of account and currency, in this order."""
        a, amount = t.accounts.c, t.ledger_entries.c.amount_minor
        debits = sa.func.sum(sa.case((amount < 0, -amount), else_=0))
        credits_ = sa.func.sum(sa.case((amount > 0, amount), else_=0))
        query = (
            sa.select(a.kind, a.currency_code, sa.func.count(a.id.distinct()), debits, credits_)
            .join_from(t.ledger_entries, t.accounts, t.ledger_entries.c.account_id == a.id)
            .group_by(a.kind, a.currency_code)
            .order_by(a.kind, a.currency_code)
        )
        with self._database.read() as connection:  # some databases sum integers up to decimals
            return [
                TrialBalanceLine(kind, currency, accounts, int(debit), int(credit))
                for kind, currency, accounts, debit, credit in connection.execute(query)
            ]

    def journal(self, begin_ms: int, end_ms: int) -> Iterator[JournalLine]:
        """Yield the ledger's entries from ``begin_ms`` until before ``end_ms`` in the order of the chain."""
        x, e, a = t.ledger_transactions.c, t.ledger_entries.c, t.accounts.c
        query = (
            sa.select(x.chain_seq, x.id, x.at_ms, x.kind, x.reference_id, e.line, a.kind, a.owner_id, a.currency_code,
                      e.amount_minor)
            .join_from(t.ledger_transactions, t.ledger_entries, e.transaction_id == x.id)
            .join(t.accounts, e.account_id == a.id)
            .where(x.at_ms >= begin_ms, x.at_ms < end_ms)
            .order_by(x.chain_seq, x.id, e.line)
            .execution_options(yield_per=_STREAMED)
        )  # fmt: skip
        with self._database.read() as connection, connection.execute(query) as found:
            yield from map(JournalLine._make, found)


def _payments(connection: sa.Connection, query: sa.Select[Any]) -> list[Payment]:
    found = [rows.payment_of(row) for row in connection.execute(query)]
    charges(connection, found)
    return found


def paged(query: sa.Select[Any], by: sa.Column[int], page: Page) -> sa.Select[Any]:
    """Narrow a query to a page, the newest first, and one row more."""
    after = page.after_id()
    if after is not None:
        query = query.where(by < after)
    return query.order_by(by.desc()).limit(page.limit)
