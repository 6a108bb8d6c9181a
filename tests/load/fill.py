"""Fills a mesh's folder with payments, as if it had run for a month: `python -m tests.load.fill DIR --payments 1000000`.

Some are made by the rooms' own use cases, and so are as they would be; what happens between rooms (events, their effects,
the providers' books) is written beside. These are then multiplied (tests/load/multiply.py). `paymesh verify` holds.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import sqlalchemy as sa

from services.cli.folder import keep_private
from services.cli.migrate import with_migrations
from services.contract.load import contract
from services.kernel.caller import Caller
from services.kernel.idempotency import IdempotencyKey, InFlight, Scope
from services.kernel.ids import IdMaker, shard_of
from services.kernel.money import Money
from services.notification.store import tables as notification
from services.order import mapping as order_mapping
from services.order import ports as order_ports
from services.order import store as order_store
from services.order import usecases as orders
from services.order.domain import Line
from services.payment import ports as payment_ports
from services.payment import usecases as payments
from services.payment.adapters.vault import MemoryCvvRelay
from services.payment.app import RENDER
from services.payment.domain import Attempt, KnownOrder, Method
from services.payment.domain.card import Brand, Card, Expiry
from services.payment.ports.provider import Charged, Phase, Refunded, Verdict
from services.payment.store import SqlBills, SqlStore
from services.payment.store import tables as payment_tables
from services.platform import migrations
from services.platform.database import Database, insert_rows
from services.platform.idempotency import business_reasons
from services.risk import store as risk
from services.sandbox.book import Charge, Refund, State
from services.user.store import tables as user
from tests.fakes.bills import FakeFiles
from tests.fakes.payment import FakeAlarm, FakeOrders, FakeRisk, FakeSavedCards
from tests.load.multiply import multiply

BATCH = 200
MADE = 10_000
"""Payments that are made, of those that are wanted; the others are copies."""
SKUS = tuple(f"sku-{n:03}" for n in range(200))
BOOKS = {Method.ALIPAY: "alipay", Method.WECHAT: "wechat", Method.BANK_CARD: "cards"}
HASH = "$argon2id$v=19$m=19456,t=2,p=1$" + "c2FsdHNhbHRzYWx0c2FsdA$" + "aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNoaGFzaGhhc2g"
CARD = Card("tok_" + "a" * 32, 1, Brand.VISA, "424242", "4242", Expiry(2030, 12))
OUTBOXES = {"user": user.outbox, "order": order_store.outbox, "payment": payment_tables.outbox}


class FillClock:
    """The fill's own time."""

    def __init__(self, now_ms: int) -> None:
        """Start at ``now_ms``."""
        self.ms = now_ms

    def now_ms(self) -> int:
        """Milliseconds since 1970 UTC."""
        return self.ms

    def monotonic(self) -> float:
        """Seconds."""
        return self.ms / 1000


class Forgetful:
    """A cache that remembers nothing, for both rooms."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any of its methods
        return lambda *_: None


_HEARD = {
    service: tuple(
        e.topic for e in contract().events.values() if e.service == service and "notification" in e.consumers
    )
    for service in ("order", "payment")
}
"""What notification hears of each."""
_MAILED = frozenset({"user.created", "order.paid", "payment.failed", "payment.refunded"})


@dataclass
class Mesh:
    """The databases of a folder and what writes into them; time is the fill's own."""

    folder: Path
    clock: FillClock
    seed: int = 1
    databases: dict[str, Database] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Make what is not there."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for room in with_migrations():
            url = f"sqlite:///{self.folder / room}.db"
            migrations.upgrade(room, url)
            self.databases[room] = Database(url)
            sa.event.listen(self.databases[room]._writer, "connect", _hurry)
        self.random = random.Random(self.seed)
        self.ids = IdMaker(self.clock, self.seed % 16)
        self.keys = count(1)
        self.cards = FakeSavedCards()
        self.payment, self.order = self._payment(), self._order()

    def _payment(self) -> payment_ports.Ports:
        outside = payment_ports.Outside(
            providers=dict.fromkeys(BOOKS), cards=self.cards, vault=None, cvvs=MemoryCvvRelay(self.clock),  # type: ignore[arg-type] # nothing is asked
            jitter=lambda: 1.0, instance=1, pay_window_ms=900_000, capture_window_ms=604_800_000, files=FakeFiles(),
        )  # fmt: skip
        return payment_ports.Ports(
            store=SqlStore(self.databases["payment"], self.ids), risk=FakeRisk(), orders=FakeOrders(), cache=Forgetful(),
            render=RENDER, ids=self.ids, clock=self.clock, business=business_reasons(), merchant_id=1,
            committed=lambda: None, outside=outside, alarm=FakeAlarm(), reach=lambda *_: None,
            bills=SqlBills(self.databases["payment"]),
        )  # fmt: skip

    def _order(self) -> order_ports.Ports:
        return order_ports.Ports(
            store=order_store.SqlStore(self.databases["order"], self.ids), cache=Forgetful(), ids=self.ids,
            clock=self.clock, render=order_mapping.created, published=lambda: None, business=business_reasons(),
            hold_ms=31 * 86_400_000,
        )  # fmt: skip

    def key(self, subject: int, method: str) -> IdempotencyKey:
        """Return a key that nobody has used."""
        name = f"fill-{self.seed}-{next(self.keys)}"
        return IdempotencyKey(Scope(subject, method, name), hashlib.sha256(name.encode()).digest())

    def stop(self) -> None:
        """Close the databases."""
        for database in self.databases.values():
            database.stop()


def _hurry(connection: Any, _record: object) -> None:  # noqa: ANN401 - a DBAPI connection
    """Do not wait for the disk: a fill that is cut short is begun again."""
    connection.execute("PRAGMA synchronous=OFF")


class _Fact(NamedTuple):
    """What events of a payment tell."""

    order_id: int
    user_id: int
    amount: Money
    captured: int
    refunded: int
    live: bool


def caller(subject: int) -> Caller:
    """Somebody who may do everything."""
    return Caller(
        subject, frozenset({"payments:refund", "payments:capture", "balance:write"}), "", time.monotonic() + 3600
    )


class Fill:
    """A month of a mesh, batch after batch."""

    def __init__(self, mesh: Mesh, users: int) -> None:
        self.mesh, self.random = mesh, mesh.random
        self.books = {m: (mesh.folder / "providers" / "book" / f"{name}.jsonl") for m, name in BOOKS.items()}
        next(iter(self.books.values())).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.users = [mesh.ids.next(n) for n in range(users)]
        self._last: dict[str, int] = {}
        for room, outbox in OUTBOXES.items():
            with mesh.databases[room].read() as connection:
                last = connection.execute(sa.select(sa.func.max(outbox.c.id))).scalar() or 0
            self._last |= {f"{room}{topics}": last for topics in ("", "order.created", "".join(_HEARD["order"]))}
        self._settle_users()

    def _settle_users(self) -> None:
        """Register everybody, with money, and put the shelves full."""
        mesh, now = self.mesh, self.mesh.clock.now_ms()
        for some in _cut(self.users, BATCH):
            rows = [
                {"id": u, "username": f"u{u}", "username_key": f"u{u}", "email": f"u{u}@example.org",
                 "email_key": f"u{u}@example.org", "phone": "", "status": "active", "password_hash": HASH,
                 "failed_logins": 0, "locked_until_ms": 0, "version": 1, "create_ms": now, "update_ms": now}
                for u in some
            ]  # fmt: skip
            told = [(mesh.ids.next(0), "user.created", str(u), u) for u in some]
            with mesh.databases["user"].write() as connection:
                insert_rows(connection, user.users, rows)
                insert_rows(connection, user.outbox, [_event(each, 1, now) for each in told])
                connection.commit()
            self._notify("user", told)
            topped = [
                payments.TopUpBalance(caller(1), mesh.key(1, "TopUpBalance"), u, Money("CNY", 10**12)) for u in some
            ]
            payments.top_up_balances(mesh.payment, topped)
            mesh.cards.saved |= {(u, None): CARD for u in some}
        orders.set_stocks(
            mesh.order,
            [orders.SetStock(sku, f"Item {sku}", Money("CNY", 100 + n), 10**9) for n, sku in enumerate(SKUS)],
        )

    def batch(self, size: int) -> None:
        """Let ``size`` orders be made, and paid as people do."""
        mesh = self.mesh
        mesh.clock.ms += self.random.randint(500, 2_000)
        attempts = self.begin(self.order(size))
        mesh.clock.ms += 40
        self._settle(attempts)
        self._refund([key for _, topic, key, _ in self._new_payments() if topic == "payment.success"])
        self.spread()

    def order(self, size: int) -> list[KnownOrder]:
        """Make orders, of which payment hears."""
        mesh = self.mesh
        orders.create_orders(mesh.order, [self._order(u) for u in self.random.choices(self.users, k=size)])
        made = self._told("order", order_store.outbox, ("order.created",))
        found = self._orders([int(key) for _, _, key, _ in made])
        known = [payments.OrderKnown(f"order-{i}", topic, found[int(key)]) for i, topic, key, _ in made]
        payments.know_orders(mesh.payment, known)
        return list(found.values())

    def begin(
        self, made: Sequence[KnownOrder], method: Method | None = None, how: payments.How | None = None
    ) -> list[Attempt]:
        """Begin to pay orders, by ``method`` or as people do; returns what providers are to be asked."""
        outcomes = payments.create_payments(self.mesh.payment, [self._pay(order, method, how) for order in made])
        attempts = [each.work for each in outcomes if isinstance(each, InFlight)]
        return [each for each in attempts if isinstance(each, Attempt)]

    def _order(self, user_id: int) -> orders.CreateOrder:
        skus = self.random.sample(SKUS, self.random.choice((1, 1, 1, 2)))
        return orders.CreateOrder(caller(user_id), None, tuple(Line(sku, self.random.randint(1, 3)) for sku in skus))

    def _orders(self, ids: Sequence[int]) -> dict[int, KnownOrder]:
        bare = self.mesh.order.store.bare_orders(ids)
        return {o.id: KnownOrder(o.id, o.user_id, o.amount, o.status, o.expire_ms, 1) for o in bare}

    def _pay(self, order: KnownOrder, method: Method | None, how: payments.How | None) -> payments.CreatePayment:
        method = method or self.random.choices(tuple(Method), (25, 25, 10, 40))[0]
        key = self.mesh.key(order.user_id, "CreatePayment")
        how = None if method is Method.BALANCE else how or payments.How()
        payment_id = self.mesh.ids.next(shard_of(order.user_id))
        return payments.CreatePayment(caller(order.user_id), key, order.id, method, None, payment_id, how)

    def _settle(self, attempts: Sequence[Attempt]) -> None:
        """Let providers answer: most take the money, some refuse; the book says so too."""
        said, lines = [], {method: list[bytes]() for method in BOOKS}
        for attempt in attempts:
            refused = self.random.random() < 0.06
            charge = self.charge(attempt)
            lines[attempt.method].append(self.line("opened", charge))
            if refused:
                charge.state, charge.code = State.FAILED, "declined"
                said.append(payments.Said(attempt, charged=Charged(Verdict.REFUSED, Phase.FAILED, code="declined")))
            else:
                charge.state, charge.charged, charge.captured, charge.times_charged = (
                    State.CAPTURED,
                    charge.amount,
                    charge.amount,
                    1,
                )
                said.append(payments.Said(attempt, charged=Charged(Verdict.DONE, Phase.CAPTURED, charge.provider_id)))
            lines[attempt.method].append(self.line(str(charge.state), charge))
        payments.settle(self.mesh.payment, said)
        self.write(lines)

    def charge(self, attempt: Attempt) -> Charge:
        """Begin a charge as its provider does."""
        now = self.mesh.clock.now_ms()
        details = {
            "scene": "qr",
            "subject": attempt.request_id,
            "notify_url": "https://127.0.0.1:8443/api/payments/callbacks",
        }
        number = f"20261124220014{self.random.randrange(10**13, 10**14)}"
        amount = attempt.amount
        return Charge(BOOKS[attempt.method], attempt.request_id, number, amount.minor_units, amount.currency_code,
                      State.WAITING, now, expire_ms=attempt.expire_ms, details=details)  # fmt: skip

    def line(self, event: str, charge: Charge) -> bytes:
        """Write down how a charge stands, as its provider does."""
        line = {"event": event, "at_ms": self.mesh.clock.now_ms(), "charge": charge}
        return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)

    def write(self, lines: dict[Method, list[bytes]]) -> None:
        """Add lines to the providers' books."""
        for method, some in lines.items():
            with self.books[method].open("ab") as file:
                file.writelines(some)

    def _refund(self, paid: Sequence[str]) -> None:
        """Give some of what was paid back, whole or in part."""
        chosen = [int(key) for key in paid if self.random.random() < 0.04]
        if not chosen:
            return
        mesh = self.mesh
        mesh.clock.ms += 20
        items = []
        for payment_id in chosen:
            amount = Money("CNY", 50) if self.random.random() < 0.5 else None
            items.append(
                payments.RefundPayment(caller(1), mesh.key(1, "RefundPayment"), payment_id, amount, "changed my mind")
            )
        outcomes = payments.refund_payments(mesh.payment, items)
        attempts = [each.work for each in outcomes if isinstance(each, InFlight) and isinstance(each.work, Attempt)]
        done = Refunded(Verdict.DONE)
        payments.settle(mesh.payment, [payments.Said(attempt, refunded=done) for attempt in attempts])
        lines = {method: list[bytes]() for method in BOOKS}
        for attempt in attempts:
            now = mesh.clock.now_ms()
            charged = int(attempt.payer["charged"])
            charge = Charge(BOOKS[attempt.method], attempt.payer["charge_request_id"], attempt.provider_id, charged, "CNY",
                            State.CAPTURED, now, charged, charged, 1)  # fmt: skip
            charge.refunds[attempt.request_id] = Refund(attempt.request_id, "re", attempt.amount.minor_units, now)
            lines[attempt.method].append(self.line("refunded", charge))
        self.write(lines)

    def _new_payments(self) -> list[tuple[int, str, str, int]]:
        return self._told("payment", payment_tables.outbox, (), keep=True)

    def spread(self) -> None:
        """Let every event have its effect."""
        mesh = self.mesh
        mesh.clock.ms += 15
        now = mesh.clock.now_ms()
        told = self._told("payment", payment_tables.outbox, ())
        facts = self._facts({int(key) for _, _, key, _ in told})
        paid, back = [], []
        for number, topic, key, _ in told:
            fact = facts[int(key)]
            if topic == "payment.success":
                paid.append(orders.PaymentSucceeded(f"payment-{number}", int(key), fact.order_id, fact.amount))
            elif topic == "payment.refunded":
                whole = fact.refunded == fact.captured
                back.append(
                    orders.PaymentRefunded(
                        f"payment-{number}", int(key), fact.order_id, fact.amount, whole, not fact.live
                    )
                )
        orders.pay_orders(mesh.order, paid)
        orders.refund_orders(mesh.order, back)
        noted = [(number, topic, int(key)) for number, topic, key, _ in told if topic == "payment.initiated"]
        with mesh.databases["risk"].write() as connection:
            rows = [{"payment_id": p, "user_id": facts[p].user_id, "at_ms": now} for _, _, p in noted]
            insert_rows(connection, risk.assessed_payments, rows)
            insert_rows(connection, risk.inbox, [_taken("payment", n, topic, now) for n, topic, _ in noted])
            connection.commit()
        self._notify("payment", [(n, topic, key, facts[int(key)].user_id) for n, topic, key, _ in told])
        of_orders = self._told("order", order_store.outbox, _HEARD["order"])
        self._notify("order", [(n, topic, key, self.users[0]) for n, topic, key, _ in of_orders])

    def _facts(self, ids: set[int]) -> dict[int, _Fact]:
        p, found = payment_tables.payments.c, {}
        query = sa.select(
            p.id, p.order_id, p.user_id, p.amount_minor, p.currency_code, p.captured_minor, p.refunded_minor, p.live_order_id
        )  # fmt: skip
        with self.mesh.databases["payment"].read() as connection:
            for some in _cut(sorted(ids), BATCH):
                for r in connection.execute(query.where(p.id.in_(some))):
                    amount, live = Money(r.currency_code, r.amount_minor), r.live_order_id is not None
                    found[r.id] = _Fact(r.order_id, r.user_id, amount, r.captured_minor, r.refunded_minor, live)
        return found

    def _notify(self, service: str, told: Sequence[tuple[int, str, str, int]]) -> None:
        """Take each event, and write a mail about those that are told by one, sent."""
        mesh, now = self.mesh, self.mesh.clock.now_ms()
        text = "Hello,\n\nwe have news about number O{key}: {topic}. You need do nothing.\n\nYours, the shop\n"
        rows = [
            {"id": mesh.ids.next(0), "user_id": user_id, "channel": "email", "recipient": f"u{user_id}@example.org",
             "subject": f"About O{key}", "text": text.format(key=key, topic=topic), "status": "sent", "attempts": 1,
             "failure": "", "create_ms": now, "send_ms": now, "not_before_ms": now, "push_ms": now,
             "event_id": f"{service}-{number}"}
            for number, topic, key, user_id in told
            if topic in _MAILED
        ]  # fmt: skip
        with mesh.databases["notification"].write() as connection:
            insert_rows(connection, notification.notifications, rows)
            insert_rows(connection, notification.inbox, [_taken(service, n, topic, now) for n, topic, *_ in told])
            connection.commit()

    def _told(
        self, room: str, outbox: sa.Table, topics: Sequence[str], *, keep: bool = False
    ) -> list[tuple[int, str, str, int]]:
        """Read the events that were told since the last time; ``keep``: and they are new the next time, too."""
        o, place = outbox.c, f"{room}{''.join(topics)}"
        query = sa.select(o.id, o.topic, o.event_key, o.version).where(o.id > self._last.get(place, 0)).order_by(o.id)
        with self.mesh.databases[room].read() as connection:
            found = [tuple(row) for row in connection.execute(query.where(o.topic.in_(topics)) if topics else query)]
        if found and not keep:
            self._last[place] = found[-1][0]
        return found

    def publish(self) -> None:
        """Mark every event as published."""
        for room, outbox in OUTBOXES.items():
            with self.mesh.databases[room].write() as connection:
                waiting = sa.update(outbox).where(outbox.c.published_ms.is_(None))
                connection.execute(waiting.values(published_ms=outbox.c.event_ms, broker_id="fill"))
                connection.commit()


def _event(told: tuple[int, str, str, int], version: int, now_ms: int) -> dict[str, Any]:
    number, topic, key, _ = told
    return {"id": number, "topic": topic, "event_key": key, "version": version, "payload": b"", "event_ms": now_ms}


def _taken(service: str, number: int, topic: str, now_ms: int) -> dict[str, Any]:
    return {"event_id": f"{service}-{number}", "topic": topic, "taken_ms": now_ms}


def _cut(each: Iterable[int], size: int) -> Iterator[list[int]]:
    them = iter(each)
    while some := list(islice(them, size)):
        yield some


def fill(folder: Path, *, wanted: int, users: int, seed: int, until_ms: int) -> None:
    """Fill ``folder`` with payments that end shortly before ``until_ms``; more than MADE only if it is empty."""
    made = min(wanted, MADE)
    copies = -(-wanted // made) - 1
    span_ms = (made // BATCH + 2) * 2_100
    mesh = Mesh(folder, FillClock(until_ms - 10_000 - (copies + 1) * span_ms), seed)
    filled, left = Fill(mesh, users), made
    while left > 0:
        filled.batch(min(BATCH, left))
        left -= BATCH
    filled.publish()
    mesh.stop()
    multiply(folder, copies, span_ms)


def main() -> None:
    """Read the command line, fill, say how long it took."""
    parser = argparse.ArgumentParser(description="Fill a mesh's folder with payments.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--payments", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1, help="Another one for each further fill of the same folder.")
    told = parser.parse_args()
    keep_private()
    began, now_ms = time.monotonic(), time.time_ns() // 1_000_000
    fill(told.folder, wanted=told.payments, users=told.users, seed=told.seed, until_ms=now_ms)
    sys.stdout.write(f"{told.payments} payments in {time.monotonic() - began:.0f} s\n")


if __name__ == "__main__":
    main()
