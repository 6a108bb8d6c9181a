"""`paymesh verify` on a folder with every state that a payment can be in: it holds, each planted bug trips its check.

Both over everything and since the last run; what an incremental run does not see is stated here, too.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from services.cli.folder import Folder
from services.cli.invariants import RoomFinding
from services.cli.verify import Verified, run
from services.payment import audit
from services.platform.audit import OVERLAP_MS, Finding, Notes, Since
from services.platform.database import Database
from tests.load.fill import Fill, FillClock, Mesh
from tests.load.oddities import Oddities

BEGAN = 1_800_000_000_000
LATER_MS = 5 * 60_000


@dataclass(frozen=True)
class Books:
    """A folder with payments, when they ended, a while later, and which payment or refund is which."""

    folder: Path
    ended_ms: int
    now_ms: int
    ids: Mapping[str, int]

    def damage(self, room: str, *statements: str) -> None:
        """Change a database behind the back of its service."""
        with closing(sqlite3.connect(self.folder / f"{room}.db")) as connection:
            connection.execute("PRAGMA ignore_check_constraints = ON")
            for statement in statements:
                assert connection.execute(self.named(statement)).rowcount, f"{statement} changed nothing"
            connection.commit()

    def named(self, statement: str) -> str:
        """Replace :name by the id of the payment or refund of that name."""
        for name in sorted(self.ids, key=len, reverse=True):
            statement = statement.replace(f":{name.replace(' ', '_')}", str(self.ids[name]))
        return statement

    def book(self, provider: str, old: str, new: str) -> None:
        """Change what stands in a provider's book."""
        path = self.folder / "providers" / "book" / f"{provider}.jsonl"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def verify(self, at_ms: int = 0, *, full: bool = False, settled: bool = False) -> Verified:
        """Run verify, now or at another time."""
        return run(Folder(self.folder), at_ms or self.now_ms, full=full, settled=settled)

    def more(self, payments: int, at_ms: int, seed: int) -> None:
        """Let more be paid, at another time."""
        mesh = Mesh(self.folder, FillClock(at_ms), seed)
        filled = Fill(mesh, 3)
        filled.batch(payments)
        filled.publish()
        mesh.stop()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Books:
    """Payments of every kind, made once."""
    folder = tmp_path_factory.mktemp("verify") / "mesh"
    mesh = Mesh(folder, FillClock(BEGAN))
    filled = Fill(mesh, 10)
    filled.batch(60)
    ids = Oddities(filled).ids
    mesh.stop()
    books = Books(folder, mesh.clock.now_ms(), mesh.clock.now_ms() + LATER_MS, ids)
    # As if providers had been asked again and again: what is on its way is due now, all else is no longer young.
    books.damage(
        "payment", f"UPDATE attempts SET next_ms = next_ms + {LATER_MS} WHERE next_ms IS NOT NULL AND point <> 'held'"
    )
    (folder / "logs").mkdir()
    (folder / "logs" / "payment-1.log").write_text('{"event":"serving","service":"payment"}\n')
    return books


@pytest.fixture
def books(made: Books, tmp_path: Path) -> Books:
    """A copy of them for one test."""
    shutil.copytree(made.folder, tmp_path / "mesh")
    return replace(made, folder=tmp_path / "mesh")


def named(found: list[RoomFinding], room: str, what: str) -> Finding:
    """The finding of one check."""
    (finding,) = (f for r, f in found if (r, f.what) == (room, what))
    return finding


def test_verify_holds_when_every_state_is_there(books: Books) -> None:
    """No breach; each check of payments looked at something; what is on its way counts as pending."""
    said = books.verify()
    assert (said.faults, said.since_ms) == ([], 0)
    seldom = {"what providers are asked", "failed notifications with their event", "accounts and bills"}
    idle = [f.what for r, f in said.found if r in {"payment", "payment+provider", "order+payment"} and not f.examined]
    assert set(idle) <= seldom
    assert named(said.found, "payment", "payments at rest").pending == 3
    assert named(said.found, "payment", "refunds at rest").pending == 2


def test_settled_is_broken_when_something_is_on_its_way(books: Books) -> None:
    """With --settled what waits for a payer, an issuer or a provider is a breach; a review with an open entry is none."""
    faults = books.verify(settled=True).faults
    on_their_way = {books.ids[name] for name in ("waiting", "unknown", "held", "refund pending", "refund unknown")}
    assert {int(fault.split()[3]) for fault in faults} == on_their_way


DAMAGES = {
    # I1
    "ledger transactions": [
        "UPDATE ledger_entries SET amount_minor = amount_minor + 1 WHERE line = 2",
        "INSERT INTO ledger_transactions VALUES (7, 'top_up', 7, 1, 1)",
        "UPDATE ledger_entries SET account_id = 7 WHERE line = 2",
    ],
    # I2
    "account balances": [
        "UPDATE accounts SET balance_minor = balance_minor + 5 WHERE kind = 'user_balance'",
        "DELETE FROM accounts WHERE kind = 'clearing_wechat'",
    ],
    "accounts by kind and currency": [
        "UPDATE accounts SET kind = 'suspense' WHERE kind = 'clearing_alipay'",
        "UPDATE accounts SET balance_minor = balance_minor + 5 WHERE kind = 'refunds_payable'",
        "UPDATE refunds SET status = 'failed' WHERE id = :refund_pending",
        "UPDATE refunds SET amount_minor = amount_minor + 1 WHERE id = :refund_doubted",
        "UPDATE payments SET captured_minor = captured_minor - 1 WHERE status = 'success' AND payment_method = 'wechat'",
    ],
    # I3
    "one payment per order": [
        "UPDATE payments SET live_order_id = NULL WHERE status = 'success'",
        "UPDATE payments SET live_order_id = order_id + 1 WHERE status = 'processing'",
        "UPDATE payments SET live_order_id = order_id WHERE id = :refused",
        "UPDATE payments SET live_order_id = order_id WHERE id = :beside",
        "UPDATE payments SET live_order_id = NULL WHERE id = :mismatch",
    ],
    "payments and ledger agree": [
        "UPDATE payments SET captured_minor = captured_minor - 1 WHERE id = :part",
        "UPDATE payments SET captured_minor = 30 WHERE id = :waiting",
        "UPDATE ledger_transactions SET reference_id = 7 WHERE kind = 'payment' AND reference_id = :part",
        "UPDATE accounts SET kind = CASE kind WHEN 'clearing_alipay' THEN 'fees' ELSE kind END",
        "UPDATE accounts SET owner_id = owner_id + 1 WHERE kind = 'user_balance'",
        "UPDATE accounts SET currency_code = 'EUR' WHERE kind = 'merchant_settlement'",
        "DELETE FROM payments WHERE id = :part",
    ],
    "refunds and ledger agree": [
        "UPDATE refunds SET status = 'success' WHERE id = :refund_pending",
        "UPDATE refunds SET status = 'unknown' WHERE id = :refund_failed",
        "UPDATE refunds SET amount_minor = 29 WHERE id = :refund_failed",
        "UPDATE ledger_transactions SET kind = 'refund' WHERE kind = 'refund_reversal'",
        "UPDATE ledger_entries SET account_id = 7 WHERE line = 1",
        "DELETE FROM refunds WHERE id = :refund_failed",
        "DELETE FROM payments WHERE id = :payment_of_refund_failed",
    ],
    # I4
    "payments at rest": [
        "UPDATE attempts SET next_ms = next_ms - 700000 WHERE id = :waiting",
        "UPDATE attempts SET next_ms = next_ms + 86400000 WHERE id = :unknown",
        "UPDATE attempts SET next_ms = next_ms + 3000000000 WHERE id = :held",
        "UPDATE attempts SET expire_ms = 1 WHERE id = :waiting",
        "UPDATE payments SET status = 'processing', update_ms = 1 WHERE id = :part",
        "UPDATE reviews SET status = 'decided', decider_id = 9 WHERE payment_id = :late",
        "DELETE FROM reviews WHERE payment_id = :mismatch",
        "UPDATE attempts SET point = 'settled', next_ms = NULL WHERE id = :held",
    ],
    "refunds at rest": [
        "UPDATE attempts SET next_ms = next_ms - 700000 WHERE id = :refund_pending",
        "UPDATE attempts SET point = 'settled', next_ms = NULL WHERE id = :refund_unknown",
        "DELETE FROM reviews WHERE refund_id = :refund_doubted",
        "UPDATE reviews SET refund_id = 0 WHERE refund_id = :refund_taken_back",
    ],
    "what providers are asked": [
        "UPDATE attempts SET point = 'waiting', next_ms = update_ms WHERE id = :part",
        "UPDATE attempts SET next_ms = 1 WHERE payment_id = :held_late AND kind = 'void'",
        "UPDATE attempts SET payment_id = 7 WHERE id = :waiting",
    ],
    # I5
    "refunds": [
        "UPDATE payments SET refunded_minor = refunded_minor - 1 WHERE status = 'refunded'",
        "UPDATE payments SET refunding_minor = refunding_minor - 1 WHERE id = :payment_of_refund_pending",
        "UPDATE payments SET refunding_minor = 0 WHERE id = :payment_of_refund_doubted",
        "UPDATE refunds SET status = 'success' WHERE id = :refund_failed",
        "UPDATE refunds SET payment_id = 7 WHERE id = :refund_unknown",
    ],
    # I6
    "idempotency keys": [
        "UPDATE idempotency_keys SET refusal = 'both' WHERE response IS NOT NULL",
        "UPDATE idempotency_keys SET response = NULL WHERE method = 'CreatePayment'",
        "UPDATE idempotency_keys SET response = x'02' WHERE method = 'CreatePayment'",
        "UPDATE idempotency_keys SET response = x'01' WHERE method = 'RefundPayment'",
    ],
    # I7
    "events published": ["UPDATE outbox SET published_ms = NULL, event_ms = 1 WHERE version = 1"],
    # I8
    "versions of each payment": [
        "DELETE FROM outbox WHERE version = 2",
        "UPDATE outbox SET version = 3 WHERE version = 2",
        "UPDATE payments SET events = events + 1 WHERE id = :part",
        "INSERT INTO outbox SELECT 7, topic, '7', 1, payload, event_ms, '', 1, '' FROM outbox LIMIT 1",
    ],
    # I10
    "links of the ledger chain": [
        "UPDATE ledger_entries SET account_id = account_id + 1",
        "UPDATE ledger_transactions SET at_ms = at_ms + 1",
        "UPDATE ledger_transactions SET kind = 'top_up' WHERE kind = 'withdrawal'",
        "UPDATE ledger_chain SET hash = x'00' WHERE seq = 3",
        "DELETE FROM ledger_chain WHERE seq = 3",
        "UPDATE ledger_tail SET seq = seq + 1",
        "INSERT INTO ledger_entries VALUES (7, 1, 7, 7)",
        "INSERT INTO ledger_transactions VALUES (7, 'top_up', 7, 100000, 1)",
    ],
    "rows of the audit log": [
        "UPDATE audit_log SET detail = 'refuse' WHERE seq = 1",
        "UPDATE audit_log SET actor_id = 3 WHERE seq = 2",
        "DELETE FROM audit_log WHERE seq = 1",
        "UPDATE audit_log SET seq = 3 WHERE seq = 2",
    ],
    # I12
    "steps of payments": [
        "UPDATE payment_history SET status = 'refunded' WHERE version = 2",
        "UPDATE payment_history SET status = 'success' WHERE version = 1",
        "DELETE FROM payment_history WHERE version = 1",
        "UPDATE payments SET status = 'closed' WHERE id = :refused",
        "UPDATE payments SET version = version + 1 WHERE id = :refused",
        "INSERT INTO payment_history VALUES (7, 1, 'pending', 1)",
    ],
    "charges of payments": [
        "UPDATE attempts SET amount_minor = amount_minor + 1 WHERE id = :part",
        "UPDATE attempts SET request_id = 'P7' WHERE id = :waiting",
        "UPDATE attempts SET payment_method = 'wechat' WHERE id = :waiting",
        "DELETE FROM attempts WHERE id = :late",
    ],
    "states of refunds": [
        "UPDATE attempts SET point = 'settled', next_ms = NULL WHERE id = :refund_pending",
        "UPDATE attempts SET point = 'unknown', next_ms = update_ms WHERE id = :refund_failed",
        "UPDATE attempts SET amount_minor = 29 WHERE id = :refund_failed",
        "DELETE FROM attempts WHERE id = :refund_doubted",
    ],
}  # fmt: skip
"""What a finding of the payment room is about -> damages to its database that it must see."""

OTHERS = {
    ("order", "orders and their events"): [
        ("order", "DELETE FROM outbox WHERE topic = 'order.paid'"),
        ("order", "UPDATE orders SET version = version + 1"),
        ("order", "INSERT INTO outbox SELECT 7, topic, '7', 1, payload, event_ms, '', 1, '' FROM outbox LIMIT 1"),
    ],
    ("order", "states of orders"): [
        ("order", "UPDATE order_history SET status = 'refunded' WHERE version = 1"),
        ("order", "UPDATE order_history SET status = 'pending' WHERE version = 2"),
        ("order", "DELETE FROM order_history"),
    ],
    ("order", "amounts of orders"): [("order", "UPDATE order_items SET quantity = quantity + 1 WHERE line = 0")],
    ("order", "items of the inventory"): [("order", "UPDATE stock SET reserved = reserved + 1 WHERE sku = 'sku-001'")],
    ("order", "expiry of orders"): [("order", "UPDATE orders SET expire_ms = 1 WHERE status = 'pending'")],
    ("payment+risk", "payment.initiated handled by risk"): [
        ("risk", "DELETE FROM inbox WHERE event_id = (SELECT MIN(event_id) FROM inbox)"),
        ("risk", "INSERT INTO inbox VALUES ('payment-402371336233603300', 'payment.initiated', 1)"),
        ("risk", "UPDATE inbox SET topic = 'payment.success' WHERE event_id = (SELECT MIN(event_id) FROM inbox)"),
        ("risk", "DELETE FROM inbox"),
    ],
    ("payment+order", "payment.success handled by order"): [
        ("order", "DELETE FROM inbox WHERE topic = 'payment.success'"),
        ("payment", "UPDATE outbox SET topic = 'payment.failed' WHERE topic = 'payment.success'"),
    ],
    ("notification", "events told"): [("notification", "DELETE FROM notifications WHERE event_id LIKE 'payment-%'")],
    ("notification", "failed notifications with their event"): [
        ("notification", "UPDATE notifications SET status = 'failed' WHERE event_id LIKE 'payment-%'"),
        ("notification", "INSERT INTO outbox VALUES (7, 'notification.failed', '7', 1, x'', 1, '', 1, '')"),
    ],
    ("risk", "alerts with their event"): [
        ("risk", "INSERT INTO outbox VALUES (7, 'risk.alert', '7', 1, x'', 1, '', 1, '')"),
    ],
    ("risk", "blocking assessments with their event"): [
        ("risk", "INSERT INTO assessments VALUES (7, 7, 7, 'block', 1, '', 'CNY', 1, 1800000000000)"),
    ],
    ("user", "accounts and their events"): [("user", "UPDATE users SET version = 2")],
    ("user", "password hashes"): [("user", "UPDATE users SET password_hash = 'secret'")],
    ("order+payment", "orders and their payments"): [
        ("order", "UPDATE orders SET payment_id = payment_id - 1000000000000000 WHERE status = 'paid'"),
        ("order", "UPDATE orders SET status = 'refunded' WHERE status = 'paid'"),
        ("order", "UPDATE orders SET status = 'paid' WHERE status = 'refunded'"),
        ("order", "UPDATE orders SET status = 'cancelled', payment_id = NULL, cancel_reason = 'user' WHERE status = 'paid'"),
        ("payment", "UPDATE payments SET refunded_minor = 0 WHERE id = :beside"),
        ("payment", "UPDATE payments SET refunded_minor = 0 WHERE id = :rejected"),
        ("payment", "UPDATE payments SET status = 'refunded' WHERE status = 'success'"),
    ],
    ("order+payment", "payments that took money"): [("payment", "UPDATE payments SET order_id = 7 WHERE id = :part")],
}  # fmt: skip
"""(Room of the finding, what it is about) -> damages (room, SQL) to other rooms, or of one to another."""

BOOKS = {
    ("payment+provider", "captured charges of the books"): [
        ("cards", '"times_charged":1', '"times_charged":2'),
        ("alipay", '"request_id":"P', '"request_id":"X'),
    ],
    ("payment+provider", "captured payments in the books"): [
        ("wechat", '"captured":', '"captured":1'),
        ("wechat", '"currency":"CNY"', '"currency":"EUR"'),
        ("wechat", '"captured":', '"captured":0,"taken":'),
        ("wechat", '"request_id":"P', '"request_id":"P1'),
    ],
    ("payment+provider", "refunds in the books"): [
        ("alipay", '"state":"succeeded"', '"state":"abnormal"'),
        ("alipay", '"request_id":"R', '"request_id":"R1'),
        ("alipay", '"provider_id":"re","amount":', '"provider_id":"re","amount":1'),
    ],
}
"""What is found -> damages (book, text, what stands there instead)."""


@pytest.fixture(scope="module")
def payment(made: Books, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """A copy of the payment room's database, in which every change is taken back."""
    path = tmp_path_factory.mktemp("payment") / "payment.db"
    shutil.copy(made.folder / "payment.db", path)
    database = Database(f"sqlite:///{path}")
    yield database
    database.stop()


@pytest.mark.parametrize(("what", "sql"), [(what, sql) for what, some in DAMAGES.items() for sql in some])
def test_planted_bug_trips_its_check_in_the_room(made: Books, payment: Database, what: str, sql: str) -> None:
    """Each kind of damage to the stored money makes the check speak that is there for it."""
    with payment.write() as connection:
        connection.exec_driver_sql("PRAGMA ignore_check_constraints = ON")
        assert connection.exec_driver_sql(made.named(sql)).rowcount, f"{sql} changed nothing"
        found = {each.what: each.breaches for each in audit.invariants(connection, made.now_ms, settled=False)}
    assert found[what], f"{sql} was not found"


@pytest.mark.parametrize(
    ("where", "room", "sql"), [(where, room, sql) for where, some in OTHERS.items() for room, sql in some]
)
def test_planted_bug_trips_its_check(books: Books, where: tuple[str, str], room: str, sql: str) -> None:
    """What is wrong in another room, or between two, makes the check speak that is there for it, and verify fails."""
    books.damage(room, sql)
    said = books.verify()
    assert named(said.found, *where).breaches, f"{sql} was not found"
    assert said.faults


@pytest.mark.parametrize(
    ("where", "provider", "old", "new"), [(where, *each) for where, some in BOOKS.items() for each in some]
)
def test_book_that_says_otherwise_trips_its_check(
    books: Books, where: tuple[str, str], provider: str, old: str, new: str
) -> None:
    """What a provider's book says otherwise than ours is found."""
    books.book(provider, old, new)
    assert named(books.verify().found, *where).breaches


def test_run_goes_on_where_the_last_one_ended(books: Books) -> None:
    """Only what is new is examined, and once more what is close to it; a full run finds the same."""
    said, at_ms = books.verify(), books.now_ms
    assert said.since_ms == 0
    for seed, payments in ((2, 30), (3, 40)):
        at_ms += 4 * 60_000
        books.damage("payment", "UPDATE attempts SET next_ms = next_ms + 240000 WHERE next_ms > 0 AND point <> 'held'")
        books.more(payments, at_ms, seed)
        said = books.verify(at_ms + 30_000)
        assert said.faults == []
    assert said.since_ms == books.now_ms + 4 * 60_000 + 30_000 - 120_000
    for room, what in (
        ("payment", "steps of payments"),
        ("payment", "versions of each payment"),
        ("order+payment", "orders and their payments"),
        ("order+payment", "order.created handled by payment"),
        ("payment+risk", "payment.initiated handled by risk"),
        ("payment", "ledger transactions"),
        ("payment", "idempotency keys"),
    ):
        assert 35 <= named(said.found, room, what).examined <= 80, what
    again = books.verify(at_ms + 40_000, full=True)
    assert (again.faults, again.since_ms) == ([], 0)
    assert named(again.found, "payment+risk", "payment.initiated handled by risk").examined > 120


def test_breach_is_seen_again_until_it_is_mended(books: Books) -> None:
    """A run that finds a breach notes nothing, so that the next one does not pass over it."""
    books.verify()
    books.damage("order", "UPDATE inbox SET event_id = event_id || '7' WHERE topic = 'payment.refunded'")
    books.damage("order", "UPDATE inbox SET taken_ms = taken_ms + 290000 WHERE topic = 'payment.refunded'")
    first = books.verify(books.now_ms + 10_000)
    assert any("nobody told" in fault for fault in first.faults)
    assert books.verify(books.now_ms + 20_000).faults == first.faults
    books.damage("order", "UPDATE inbox SET event_id = substr(event_id, 1, 26) WHERE topic = 'payment.refunded'")
    assert books.verify(books.now_ms + 30_000).faults == []


UNSEEN_IN_NEW = frozenset({
    "UPDATE ledger_chain SET hash = x'00' WHERE seq = 3",
    "DELETE FROM refunds WHERE id = :refund_failed",
})  # fmt: skip
"""Behind the last link that was seen: hashes, which only a full run computes again, and postings without their cause."""
UNSEEN_BEHIND = UNSEEN_IN_NEW | set(DAMAGES["idempotency keys"])
"""Of what did not change since the last run there is no sum over answers to keys."""


@pytest.fixture(scope="module")
def noted(made: Books, tmp_path_factory: pytest.TempPathFactory) -> Books:
    """The folder after a run right at the end of the payments, and one after a while."""
    folder = tmp_path_factory.mktemp("noted") / "mesh"
    shutil.copytree(made.folder, folder)
    books = replace(made, folder=folder)
    for name, at_ms in (("new", books.ended_ms), ("behind", books.now_ms)):
        assert books.verify(at_ms, full=True).faults == []
        shutil.copy(folder / "verify.db", folder / f"{name}.notes")
    return books


def _seen(noted: Books, payment: Database, tmp_path: Path, notes: str, sql: str) -> list[str]:
    """What the payment room's checks say of damage when they go on from some notes."""
    path = tmp_path / "verify.db"
    shutil.copy(noted.folder / f"{notes}.notes", path)
    with closing(Notes(path)) as kept, payment.write() as connection:
        since = Since(kept.get("run")["at_ms"] - OVERLAP_MS, "payment", kept)
        connection.exec_driver_sql("PRAGMA ignore_check_constraints = ON")
        connection.exec_driver_sql(noted.named(sql))
        later_ms = noted.now_ms + 1_000
        return [b for f in audit.invariants(connection, later_ms, settled=False, since=since) for b in f.breaches]


@pytest.mark.parametrize("sql", [sql for some in DAMAGES.values() for sql in some])
def test_incremental_run_sees_what_is_wrong_with_what_is_new(
    noted: Books, payment: Database, tmp_path: Path, sql: str
) -> None:
    """Damage to payments that changed since the last run is seen like by a full run, but for links behind it."""
    assert bool(_seen(noted, payment, tmp_path, "new", sql)) == (sql not in UNSEEN_IN_NEW)


@pytest.mark.parametrize("sql", [sql for some in DAMAGES.values() for sql in some])
def test_incremental_run_sees_much_of_what_is_wrong_behind_it(
    noted: Books, payment: Database, tmp_path: Path, sql: str
) -> None:
    """Sums over everything give most damage behind the last run away; what they do not is known, and a full run sees it."""
    assert bool(_seen(noted, payment, tmp_path, "behind", sql)) == (sql not in UNSEEN_BEHIND)
