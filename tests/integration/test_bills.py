"""Reconciliation over SQL, against the sandbox's providers, from two processes at once, and after a crash."""

from __future__ import annotations

import hashlib
import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import sqlalchemy as sa

from services.kernel.clock import SystemClock
from services.kernel.errors import DomainError
from services.kernel.ids import IdMaker
from services.kernel.money import Money
from services.kernel.pages import Page
from services.payment import audit, usecases
from services.payment.adapters.files import FolderFiles
from services.payment.adapters.providers import Merchant, providers
from services.payment.adapters.vault import CardVault, MemoryCvvRelay
from services.payment.audit.bills import accounts_follow_bills
from services.payment.domain import AccountKey, Method, Review
from services.payment.domain.bill import ZONES, Bill, Difference, Mismatch, due_ms
from services.payment.domain.card import Expiry, Pan
from services.payment.domain.ledger import BANK, CLEARING, FEES, SUSPENSE
from services.payment.ports import Ports
from services.payment.ports.provider import BillLine, Charge, Provider, Refunding, Verdict
from services.payment.store import SqlBills, SqlStore, rows
from services.payment.store import tables as t
from services.platform import failpoint, migrations
from services.platform.batcher import Batcher
from services.platform.database import Database
from tests.fakes.bills import FakeBiller, charged, given_back, line
from tests.fakes.cards import FakeCards, FakeKeys
from tests.fakes.payment import World
from tests.integration.engines import SQLITE, Engines
from tests.integration.processes import Processes, together
from tests.integration.provider_sandbox import ProviderSandbox, eventually
from tests.unit.payment import test_bills as scenarios
from tests.unit.payment import test_exports
from tests.unit.payment.test_bills import DAY, NEXT, NOON, Shop

SCENARIOS = (
    scenarios.test_bill_that_agrees_leaves_nothing_in_clearing,
    scenarios.test_bill_again_is_what_was_imported,
    scenarios.test_other_file_that_says_the_same_is_the_same_bill,
    scenarios.test_day_that_only_gives_back,
    scenarios.test_differences_of_every_kind,
    scenarios.test_refunds_differ_as_charges_do,
    scenarios.test_review_that_is_open_is_not_opened_again,
    scenarios.test_number_of_another_provider_or_currency_is_not_ours,
    scenarios.test_entry_that_is_booked_after_its_bill,
    scenarios.test_entry_that_two_files_of_its_day_had_before_the_books,
    scenarios.test_refund_that_is_booked_after_its_bill,
    scenarios.test_refund_that_a_review_took_back_is_not_of_the_books,
    scenarios.test_refund_that_a_review_takes_back_after_its_bill,
    scenarios.test_another_file_of_the_day_imports_what_is_new,
    scenarios.test_part_of_a_charge_in_the_next_bill,
    scenarios.test_entry_near_midnight_is_looked_for_in_the_next_bill,
    scenarios.test_entry_is_due_when_the_provider_says_it_was_paid,
    scenarios.test_import_that_another_overtakes_is_matched_again,
    scenarios.test_lists_are_paged_and_unknown_bills_are_refused,
)


def breaches(database: Database) -> list[str]:
    """What the audit of the ledger finds."""
    with database.read() as connection:
        return [b for f in audit.invariants(connection, int(time.time() * 1000), settled=False) for b in f.breaches
                if f.invariant in {"I1", "I2", "I10"}]  # fmt: skip


class SqlShop(Shop):
    """The same world over a database."""

    def over(self, database: Database) -> SqlShop:
        """Keep everything in ``database``."""
        self.database = database
        ids = IdMaker(SystemClock(), 1)
        self.ports = replace(self.ports, store=SqlStore(database, ids), bills=SqlBills(database), ids=ids)
        return self

    @property
    def reviews(self) -> dict[int, Review]:
        """Those that were opened."""
        with self.database.read() as connection:
            return {row.id: rows.review_of(row) for row in connection.execute(sa.select(t.reviews))}


@pytest.fixture
def database(engine: str, engines: Engines) -> Iterator[Database]:
    """An empty database of each engine; its ledger is sound at the end."""
    yield from sound(engines.migrated(engine, "payment"))


@pytest.fixture
def file(engines: Engines) -> Iterator[Database]:
    """An empty database in a file, likewise."""
    yield from sound(engines.migrated(SQLITE, "payment"))


def sound(url: str) -> Iterator[Database]:
    """Give a database, whose ledger is sound at the end."""
    made = Database(url)
    yield made
    found = breaches(made)
    made.stop()
    assert found == []


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each.__name__.removeprefix("test_"))
def test_scenario_over_sql(database: Database, scenario: Callable[[Shop], None]) -> None:
    """What holds over fakes holds over the database."""
    shop = SqlShop().over(database)
    scenario(shop)
    assert shop.ports.bills.newest(Page(1, "")), "something was imported"


def test_journal_over_sql(database: Database) -> None:
    """The export reads of the database what it reads of fakes, in the order of the chain."""
    shop = SqlShop().over(database)
    test_exports.test_journal_of_a_day(shop)
    links = [int(x["chain_seq"]) for day in (DAY, NEXT) for x in test_exports.journal(shop, day)]
    assert links == sorted(links)
    assert len(set(links)) == 3


DAMAGES = (
    "UPDATE settled_lines SET cleared_minor = cleared_minor - 1 WHERE request_id = 'P1'",
    "UPDATE settled_lines SET fees_minor = fees_minor + 1 WHERE request_id = 'P2'",
    "UPDATE settled_lines SET billed_minor = billed_minor + 1 WHERE request_id = 'P2'",
    "DELETE FROM settled_lines WHERE request_id = 'P1'",
    "UPDATE bills SET day = '2027-01-13' WHERE serial = 2",
)


@pytest.mark.parametrize("damage", DAMAGES)
def test_planted_bugs_of_bills_are_found_by_the_audit(database: Database, damage: str) -> None:
    """Lines that say another thing than what was moved by them."""
    scenarios.test_another_file_of_the_day_imports_what_is_new(SqlShop().over(database))
    with database.read() as connection:
        assert accounts_follow_bills(connection).breaches == []
        connection.execute(sa.text(damage))
        found = accounts_follow_bills(connection)
        connection.rollback()
    assert found.invariant == "I2"
    assert found.breaches


class House:
    """The payment room's ports over a database and files, and one provider of the sandbox."""

    def __init__(self, database: Database, folder: Path, sandbox: ProviderSandbox) -> None:
        """Take up what the sandbox made for the merchant."""
        self.sandbox, self.database, self.clock = sandbox, database, SystemClock()
        self.ids, vault = IdMaker(self.clock, 1), CardVault(FakeCards(), FakeKeys())
        urls = {
            Method.ALIPAY: f"{sandbox.url}/alipay/gateway.do",
            Method.WECHAT: sandbox.url,
            Method.BANK_CARD: sandbox.url,
        }
        public = sandbox.notify_url.removesuffix("/callbacks")
        merchant = Merchant(sandbox.folder / "merchant", urls, public, 1)
        self.method = {"alipay": Method.ALIPAY, "wechat": Method.WECHAT, "cards": Method.BANK_CARD}[sandbox.name]
        made = providers(merchant, vault, MemoryCvvRelay(self.clock), self.clock)
        self.provider = sandbox.provider = made[self.method]
        self.others = made.values()
        pan, expiry = Pan("4242424242424242"), Expiry(2034, 6)
        self.token = vault.tokenize(1, pan, expiry, self.clock.now_ms()).token
        world = World(clock=cast("Any", self.clock))
        world.providers[self.method] = self.provider
        outside = replace(world.ports.outside, files=FolderFiles(folder))
        self.ports = replace(world.ports, store=SqlStore(database, self.ids), bills=SqlBills(database), ids=self.ids,
                             outside=outside)  # fmt: skip
        self.alarm, self.day = world.alarm, datetime.now(ZONES[self.method]).date().isoformat()

    def pay(self, fen: int, *, book: bool = True) -> int:
        """Have a charge made and paid, and booked; returns the payment."""
        number = self.ids.next(0)
        scene = {Method.ALIPAY: "qr", Method.WECHAT: "native", Method.BANK_CARD: "card"}[self.method]
        money, ends = Money("CNY", fen), self.clock.now_ms() + 900_000
        said = self.provider.charge(Charge(f"P{number}", money, "tea", scene, ends, {"card_token": self.token}))
        if self.method is not Method.BANK_CARD:
            self.sandbox.payer(f"P{number}", "pay", said.action)
            said = self.provider.query(f"P{number}")
        assert said.verdict is Verdict.DONE
        if book:
            charged(self.ports, number, fen, said.at_ms, self.method)
        return number

    def refund(self, payment_id: int, fen: int) -> int:
        """Have a part given back, and book it; returns the refund."""
        number, payment = self.ids.next(0), self.ports.store.payment(payment_id, None)
        assert payment is not None
        asked = Refunding(f"R{number}", f"P{payment_id}", "", Money("CNY", fen), payment.amount, "cold")
        self.provider.refund(asked)
        assert eventually(lambda: self.provider.query_refund(asked).verdict is Verdict.DONE)
        given_back(self.ports, payment, number, fen, self.clock.now_ms())
        return number

    def bill(self) -> tuple[Bill, dict[str, Difference]]:
        """Import today's bill; returns it, with its differences by number."""
        made = usecases.import_bill(self.ports, self.submit, usecases.ImportBill(self.method, self.day, 9))
        found, _ = usecases.list_bill_differences(self.ports, made.id, Page(100, ""))
        return made, {each.number.request_id: each for each in found}

    def submit(self, kind: str, commands: Any) -> Any:  # noqa: ANN401 - as the Batcher's
        """Do it at once."""
        return getattr(usecases, kind)(self.ports, commands)

    def balance(self, kind: str) -> int:
        """An account of the merchant's."""
        return self.ports.store.balance(AccountKey(kind, 1, "CNY"))[0]


@pytest.fixture(params=["alipay", "wechat", "cards"])
def sandbox(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ProviderSandbox]:
    """The sandbox, playing one provider after the other."""
    with ProviderSandbox(tmp_path / "keys", request.param) as running:
        yield running


@pytest.fixture
def house(file: Database, tmp_path: Path, sandbox: ProviderSandbox) -> Iterator[House]:
    """A merchant, and a provider who has today's bill today."""
    made = House(file, tmp_path / "files", sandbox)
    sandbox.script(bill_today=True)
    yield made
    for provider in made.others:
        provider.stop()


def test_day_at_a_provider(house: House, sandbox: ProviderSandbox, tmp_path: Path) -> None:
    """A bill with every fault in it: each is found, the rest is settled, and a bill put right afterwards imports the rest."""
    right, drifted, twice, omitted = (house.pay(fen) for fen in (8888, 1000, 2000, 3000))
    unbooked = house.pay(500, book=False)
    back = house.refund(right, 888)
    sandbox.script(
        {"on": "bill", "do": "drift", "request_id": f"P{drifted}"},
        {"on": "bill", "do": "repeat", "request_id": f"P{twice}"},
        {"on": "bill", "do": "omit", "request_id": f"P{omitted}"},
        {"on": "bill", "do": "stray"},
        bill_today=True,
    )
    made, differences = house.bill()
    stray = next(number for number in differences if number.startswith("STRAY"))
    since, until = due_ms(house.day, house.method)
    due = {f"P{omitted}": Mismatch.MISSING_AT_PROVIDER} if since <= house.clock.now_ms() - 1000 < until else {}
    assert {number: each.mismatch for number, each in differences.items()} == {
        f"P{drifted}": Mismatch.AMOUNT, f"P{twice}": Mismatch.DUPLICATE, f"P{unbooked}": Mismatch.MISSING_HERE,
        stray: Mismatch.MISSING_HERE, **due,
    }  # fmt: skip
    assert (made.lines, made.matched) == (7, 3)
    assert {n for n, each in differences.items() if each.review_id} == {f"P{n}" for n in (drifted, twice)} | set(due)
    [total] = made.settlements
    assert house.balance(CLEARING[house.method]) == -3000
    assert house.balance(SUSPENSE) == 1 + 2000 + 500 + (total.charged - 8888 - 1001 - 4000 - 500)
    assert house.balance(BANK) == -(total.charged - total.refunded - total.fees + total.fees_returned)
    assert house.balance(FEES) == total.fees_returned - total.fees < 0
    assert hashlib.sha256((tmp_path / "files" / made.sha256[:2] / made.sha256).read_bytes()).hexdigest() == made.sha256
    assert house.alarm.told == [("alert", "bill.differences")]
    assert house.bill()[0].id != made.id, "the script wore off: this is another file"
    assert house.balance(CLEARING[house.method]) == 0
    assert f"R{back}" not in differences


def test_day_without_faults(house: House) -> None:
    """Nothing is left in clearing; a day that is not over has no bill."""
    paid = [house.pay(fen) for fen in (100, 250)]
    house.refund(paid[0], 40)
    made, differences = house.bill()
    assert not {f"P{number}" for number in paid} & differences.keys()
    assert house.balance(CLEARING[house.method]) == 0
    assert made.settlements[0].cleared == 310
    house.sandbox.script()
    with pytest.raises(DomainError) as caught:
        house.bill()
    assert caught.value.reason == "BILL_NOT_AVAILABLE"


LINES = 400


def lines_of(day: str) -> tuple[BillLine, ...]:
    """A bill with most of what is booked; each file of the day has other strays."""
    return (*(line(f"P{n}", 100 + n, 1) for n in range(1, LINES + 1)), line(f"STRAY{day}", 5))


def import_often(url: str, folder: Path, number: int, stray: str, *, meet: bool = False) -> list[Bill]:
    """Import the bill ten times as instance ``number``; in a process of its own where there is another to ``meet``."""
    database, biller = Database(url), FakeBiller()
    biller.days[DAY] = lines_of(stray)
    ports = _ports(database, folder, number, biller)
    batcher = Batcher({name: partial(getattr(usecases, name), ports) for name in ("book_bills", "settle_late")})
    batcher.start()
    if meet:
        together()
    command = usecases.ImportBill(Method.ALIPAY, DAY, number)
    try:
        return [usecases.import_bill(ports, batcher.submit_all, command) for _ in range(10)]
    finally:
        batcher.stop()
        database.stop()


def _ports(database: Database, folder: Path, number: int, biller: FakeBiller) -> Ports:
    world = World()
    world.clock.ms = NOON + 2 * 86_400_000
    world.providers[Method.ALIPAY] = cast("Provider", biller)
    ids = IdMaker(SystemClock(), number)
    return replace(world.ports, store=SqlStore(database, ids), bills=SqlBills(database), ids=ids, reach=failpoint.reach,
                   outside=replace(world.ports.outside, files=FolderFiles(folder)))  # fmt: skip


@pytest.mark.parametrize("strays", [("a", "a"), ("a", "b")], ids=["same file", "two files"])
def test_two_processes_import_at_once(
    database: Database, tmp_path: Path, processes: Processes, strays: tuple[str, str]
) -> None:
    """The same file is one bill; of two files of a day each is imported, and what both have is settled once."""
    ports = _ports(database, tmp_path / "files", 1, FakeBiller())
    for n in range(1, LINES + 1):
        charged(ports, n, 100 + n, NOON)
    url = database.url.render_as_string(hide_password=False)
    each = partial(import_often, meet=True)
    answers = processes(each, *((url, tmp_path / "files", n, stray) for n, stray in enumerate(strays, 2)))
    files = len(set(strays))
    assert len({bill.id for bills in answers for bill in bills}) == files == len(ports.bills.newest(Page(9, "")))
    assert [len(set(bills)) for bills in answers] == [1, 1]

    def balance(kind: str) -> int:
        return ports.store.balance(AccountKey(kind, 1, "CNY"))[0]

    assert (balance(CLEARING[Method.ALIPAY]), balance(SUSPENSE), balance(FEES)) == (0, 5 * files, -LINES)
    assert len([path for path in (tmp_path / "files").rglob("*") if path.is_file()]) == files


def _killed(url: str, folder: Path, failpoints: Path) -> None:
    """In a process of its own: import, and die where a test armed it."""
    failpoint.arm(str(failpoints))
    import_often(url, folder, 2, "a")


@pytest.mark.parametrize(("point", "booked"), [("P21", False), ("P22", True)])
def test_process_killed_during_an_import(database: Database, tmp_path: Path, point: str, *, booked: bool) -> None:
    """Between file and books nothing is booked; afterwards everything is. The next import ends with the same books."""
    ports = _ports(database, tmp_path / "files", 1, FakeBiller())
    for n in range(1, LINES + 1):
        charged(ports, n, 100 + n, NOON)
    (tmp_path / "failpoints").mkdir()
    (tmp_path / "failpoints" / point).touch()
    url = database.url.render_as_string(hide_password=False)
    dying = multiprocessing.get_context("spawn").Process(
        target=_killed, args=(url, tmp_path / "files", tmp_path / "failpoints")
    )
    dying.start()
    dying.join(60)
    assert dying.exitcode == -signal.SIGKILL
    assert len([path for path in (tmp_path / "files").rglob("*") if path.is_file()]) == 1
    assert (len(ports.bills.newest(Page(9, ""))), breaches(database)) == (int(booked), [])
    [made] = set(import_often(url, tmp_path / "files", 3, "a"))
    assert (made.lines, made.matched, made.differences) == (LINES + 1, LINES, 1)
    assert len(ports.bills.newest(Page(9, ""))) == 1
    assert ports.store.balance(AccountKey(CLEARING[Method.ALIPAY], 1, "CNY"))[0] == 0


def test_migration_gives_old_attempts_their_time(tmp_path: Path) -> None:
    """What was settled before bills were known is missed by them as if booked then; what is open has no time."""
    url = f"sqlite:///{tmp_path / 'old.db'}"
    migrations.upgrade("payment", url, "payment_0003")
    database = Database(url)
    old = {"payment_id": 1, "refund_id": 0, "kind": "charge", "payment_method": "alipay", "request_id": "P1",
           "amount_minor": 1, "currency_code": "CNY", "scene": "qr", "payer": "{}", "card": "", "capture": 1,
           "expire_ms": 0, "create_ms": 5, "tries": 0, "provider_id": "", "provider_code": "", "action": "{}",
           "owner": 1, "update_ms": 7}  # fmt: skip
    told = (
        {"id": 1, "point": "settled", "next_ms": None},
        {"id": 2, "point": "waiting", "next_ms": 9},
        {"id": 3, "point": "settled", "next_ms": None, "kind": "void"},
    )
    with database.write() as connection:
        for each in told:
            connection.execute(sa.insert(t.attempts).values({**old, **each}))
        connection.commit()
    migrations.upgrade("payment", url)
    with database.read() as connection:
        found = connection.execute(sa.select(t.attempts.c.id, t.attempts.c.paid_ms).order_by(t.attempts.c.id)).all()
    database.stop()
    assert [tuple(row) for row in found] == [(1, 7), (2, None), (3, None)]
