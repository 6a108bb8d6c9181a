"""Cards that users keep, over real SQL: one suite with the fake, two processes at once, the service, and no number anywhere."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import grpc
import pytest
import sqlalchemy as sa

from paymesh.payment.v1 import payment_service_pb2 as pb
from paymesh.payment.v1 import payment_service_pb2_grpc as rpc
from services.kernel.caller import Caller
from services.kernel.clock import SystemClock
from services.kernel.errors import DomainError
from services.kernel.ids import IdMaker
from services.kernel.pages import Page
from services.payment import usecases
from services.payment.adapters.vault import CardVault, FileKeys
from services.payment.app import build
from services.payment.domain import Purse
from services.payment.domain.card import Card, Expiry, Pan
from services.payment.domain.purse import METHODS_MAX
from services.payment.ports.cards import Vault
from services.payment.ports.methods import SavedCards
from services.payment.settings import Settings
from services.payment.store import SqlCards, SqlPaymentMethods
from services.payment.store.cards import cards
from services.payment.store.tables import payment_methods
from services.platform.batcher import Batcher
from services.platform.database import Database
from services.platform.status import error_from
from tests.fakes.cards import FakeCards, FakeKeys
from tests.fakes.payment import FakeSavedCards, World
from tests.integration.engines import ENGINES, SQLITE, Engines
from tests.integration.processes import Processes, together
from tests.leaks import Leaks, check_digit
from tests.running import Served

USER, OTHER, NOW = 7_000_001, 7_000_002, 1_800_000_000_000
SOON = Expiry(2028, 6)
FIRST = Page(50, "")


def number(n: int) -> str:
    """A card number of its own for each ``n``."""
    return check_digit(f"4{n:014}")


@pytest.fixture(params=ENGINES)
def database(request: pytest.FixtureRequest, engines: Engines) -> Iterator[Database]:
    """An empty database; at its end no card is kept whose number is gone, and no number that nobody keeps."""
    found = Database(engines.migrated(request.param, "payment"))
    yield found
    with found.read() as connection:
        kept = connection.execute(sa.select(payment_methods)).all()
        numbers = set(connection.execute(sa.select(cards.c.token)).scalars())
    found.stop()
    assert {row.token for row in kept} == numbers
    of_users = [[row for row in kept if row.user_id == user] for user in {row.user_id for row in kept}]
    assert [sum(row.default_user_id is not None for row in rows) for rows in of_users] == [1] * len(of_users)
    assert all(len(rows) <= METHODS_MAX for rows in of_users)


class Kept:
    """Saved cards under test, with the vault beside them."""

    def __init__(self, saved: SavedCards, vault: Vault) -> None:
        self.saved, self.vault, self._last = saved, vault, 0

    def card(self, n: int, now_ms: int = NOW) -> Card:
        """A card whose number is in the vault."""
        return self.vault.tokenize(1, Pan(number(n)), SOON, now_ms)

    def save(self, n: int, user: int = USER, *, make_default: bool = False) -> int:
        """Keep a card; returns its id."""
        card = self.card(n)
        self._last += 1
        with self.saved.transaction() as tx:
            purse = tx.purses([user])[user]
            method = purse.save(self._last, card, NOW, make_default=make_default)
            tx.write([purse], set())
            tx.commit()
        return method.id

    def has(self, card: Card) -> bool:
        """Whether the vault has a card."""
        return self.vault.card(1, card.token) is not None


@pytest.fixture(params=["fake", *ENGINES])
def kept(request: pytest.FixtureRequest, engines: Engines) -> Iterator[Kept]:
    """The store under test, empty."""
    if request.param == "fake":
        rows = FakeCards()
        yield Kept(FakeSavedCards(rows), CardVault(rows, FakeKeys()))
        return
    database = Database(engines.migrated(request.param, "payment"))
    yield Kept(SqlPaymentMethods(database, 1), CardVault(SqlCards(database), FakeKeys()))
    database.stop()


class TestSavedCards:
    """What both stores do."""

    def test_cards_are_found_by_id_and_by_default_by_their_owner(self, kept: Kept) -> None:
        """As they were saved; not another's, and none where there is none."""
        first, second = kept.save(1), kept.save(2)
        theirs = kept.save(1, OTHER)
        wanted = [(USER, None), (USER, first), (USER, second), (USER, theirs), (OTHER, None), (9, None)]
        assert kept.saved.find(wanted) == {
            (USER, None): kept.card(1), (USER, first): kept.card(1), (USER, second): kept.card(2),
            (OTHER, None): kept.card(1),
        }  # fmt: skip
        [newest, oldest] = kept.saved.methods_of(USER, FIRST)
        assert (newest.id, newest.is_default, newest.create_ms, newest.user_id) == (second, False, NOW, USER)
        assert (oldest.card, oldest.is_default) == (kept.card(1), True)
        assert [m.id for m in kept.saved.methods_of(USER, Page(1, ""))] == [second, first]
        assert [m.id for m in kept.saved.methods_of(USER, Page(1, str(second)))] == [first]

    def test_default_moves_from_card_to_card_in_one_write(self, kept: Kept) -> None:
        """Its column is unique, whichever row is written first; a removed default makes room for the next."""
        ids = [kept.save(n) for n in (1, 2, 3)]
        for wanted in (ids[2], ids[0], ids[1]):
            with kept.saved.transaction() as tx:
                purse = tx.purses([USER])[USER]
                purse.set_default(wanted)
                tx.write([purse], set())
                tx.commit()
            assert [m.id for m in kept.saved.methods_of(USER, FIRST) if m.is_default] == [wanted]
        second = kept.card(2)
        with kept.saved.transaction() as tx:
            purse = tx.purses([USER])[USER]
            purse.remove(ids[1])
            tx.write([purse], {second.token})
            tx.commit()
        assert [(m.id, m.is_default) for m in kept.saved.methods_of(USER, FIRST)] == [(ids[2], True), (ids[0], False)]
        assert not kept.has(second)

    def test_nothing_is_written_or_forgotten_without_a_commit(self, kept: Kept) -> None:
        """Rollback is the default, in the vault too."""
        method_id, card = kept.save(1), kept.card(1)
        with kept.saved.transaction() as tx:
            purse = tx.purses([USER])[USER]
            purse.remove(method_id)
            tx.write([purse], {card.token})
        assert [m.id for m in kept.saved.methods_of(USER, FIRST)] == [method_id]
        assert kept.has(card)

    def test_token_is_told_of_by_those_who_keep_it(self, kept: Kept) -> None:
        """What the vault has, and what others than the ones named keep."""
        kept.save(1)
        kept.save(1, OTHER)
        kept.save(2)
        one, two = kept.card(1).token, kept.card(2).token
        with kept.saved.transaction() as tx:
            assert tx.in_vault({one, two, "card_none"}) == {one, two}
            assert tx.in_vault(set()) == tx.held_beside(set(), {USER}) == set()
            assert tx.held_beside({one, two, "card_none"}, {USER}) == {one}
            assert tx.held_beside({one, two}, {USER, OTHER}) == set()

    def test_sweep_forgets_what_nobody_keeps_and_is_old(self, kept: Kept) -> None:
        """Page by page, from the beginning again at the end."""
        kept.save(1)
        old, lost = [kept.card(n, NOW - 1) for n in (2, 3)], kept.card(4, NOW)
        at = kept.saved.sweep("", NOW, 3)
        assert at
        assert kept.saved.sweep(at, NOW, 3) == ""
        assert [kept.has(card) for card in (*old, lost, kept.card(1))] == [False, False, True, True]
        assert kept.saved.sweep("", NOW + 1, 3) == ""
        assert not kept.has(lost)


class Instance:
    """The card side of one payment process: use cases and Batcher over the shared file and the shared keys."""

    def __init__(self, url: str, keys: Path, instance: int) -> None:
        self.database = Database(url)
        clock = SystemClock()
        ports = World().ports
        outside = replace(ports.outside, cards=SqlPaymentMethods(self.database, 1),
                          vault=CardVault(SqlCards(self.database), FileKeys(keys)))  # fmt: skip
        self.ports = replace(ports, outside=outside, ids=IdMaker(clock, instance), clock=clock)
        names = ("save_payment_methods", "set_default_payment_methods", "remove_payment_methods")
        self.batcher = Batcher({name: partial(getattr(usecases, name), self.ports) for name in names})
        self.batcher.start()

    def save(self, user: int, n: int) -> str:
        """Keep a card; returns the id of its payment method, or the reason why not."""
        caller = Caller(user, frozenset(), "s1", time.monotonic() + 60)
        card = usecases.tokenize(self.ports, Pan(number(n)), SOON)
        return self.submit("save_payment_methods", usecases.SavePaymentMethod(caller, card, make_default=False))

    def change(self, kind: str, user: int, method_id: int) -> str:
        """Prefer or remove a card."""
        caller = Caller(user, frozenset(), "s1", time.monotonic() + 60)
        command = usecases.SetDefaultPaymentMethod if kind.startswith("set") else usecases.RemovePaymentMethod
        return self.submit(kind, command(caller, method_id))

    def submit(self, kind: str, command: object) -> str:
        """Run one command."""
        [outcome] = self.batcher.submit_all(kind, [command])
        if isinstance(outcome, Exception) and not isinstance(outcome, DomainError):
            raise outcome
        return outcome.reason if isinstance(outcome, DomainError) else str(getattr(outcome, "id", ""))

    def churn(self, seed: int) -> list[str]:
        """Save, prefer and remove three cards of two users, in four threads, as it comes."""

        def turn(n: int) -> str:
            chance = random.Random(seed * 1000 + n)
            user, what = chance.choice((USER, OTHER)), chance.random()
            methods = self.ports.outside.cards.methods_of(user, FIRST)
            if what < 0.5 or not methods:
                return self.save(user, chance.randrange(3))
            kind = "set_default_payment_methods" if what < 0.6 else "remove_payment_methods"
            return self.change(kind, user, chance.choice(methods).id)

        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(turn, range(80)))

    def many(self, first: int) -> list[str]:
        """Save fifteen cards of one user, from ``first`` on."""
        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(partial(self.save, USER), range(first, first + 15)))

    def same(self, n: int) -> list[str]:
        """Save one card ten times."""
        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(lambda _: self.save(USER, n), range(10)))


def work_in(url: str, keys: Path, instance: int, work: str, arg: int) -> list[str]:
    """In a process of its own: make an instance, and do the work when the other one is ready."""
    made = Instance(url, keys, instance)
    together()
    try:
        done: list[str] = getattr(made, work)(arg)
        return done
    finally:
        made.batcher.stop()
        made.database.stop()


class Both:
    """Two processes that keep cards at once, in one database and under the same keys."""

    def __init__(self, database: Database, keys: Path, processes: Processes) -> None:
        self._shared, self._processes = (database.url.render_as_string(hide_password=False), keys), processes

    def __call__(self, work: str, one: int, two: int) -> list[str]:
        """Do ``work`` with ``one`` in the first and with ``two`` in the second; what came out of both."""
        first, second = self._processes(work_in, (*self._shared, 2, work, one), (*self._shared, 3, work, two))
        return first + second


@pytest.fixture
def both(database: Database, tmp_path: Path, processes: Processes) -> Both:
    """Two processes over the database."""
    return Both(database, tmp_path / "keys", processes)


def test_same_card_from_two_processes_is_one_payment_method(both: Both) -> None:
    """Twenty times at once, also at the vault's first start: one id."""
    outcomes = both("same", 1, 1)
    assert len(set(outcomes)) == 1
    assert outcomes[0].isdecimal()


def test_limit_holds_for_two_processes(both: Both) -> None:
    """Thirty cards, fifteen from each: twenty are kept, and of the others no number stays."""
    outcomes = both("many", 100, 200)
    assert sorted(outcome.isdecimal() for outcome in outcomes) == [False] * 10 + [True] * METHODS_MAX
    assert {outcome for outcome in outcomes if not outcome.isdecimal()} == {"PAYMENT_METHOD_LIMIT_REACHED"}


def test_cards_that_two_users_save_and_remove_in_two_processes_stay_whole(both: Both) -> None:
    """Three numbers, two users, two processes: no card without its number, no number without a card; see the fixture."""
    outcomes = both("churn", 1, 2)
    refused = {outcome for outcome in outcomes if outcome and not outcome.isdecimal()}
    assert refused <= {"UNAVAILABLE", "PAYMENT_METHOD_NOT_FOUND"}
    assert sum(outcome.isdecimal() for outcome in outcomes) > 20


ON_SQLITE = pytest.mark.parametrize("database", [SQLITE], indirect=True)


class Cards:
    """The service under test."""

    def __init__(self, served: Served) -> None:
        self.served, self.stub = served, rpc.PaymentServiceStub(served.channel)

    def save(self, card_number: str, user: int = USER, month: int = 6, **fields: bool) -> pb.SavePaymentMethodResponse:
        """Keep a card."""
        request = pb.SavePaymentMethodRequest(card_number=card_number, expire_month=month, expire_year=2030, **fields)
        answer: pb.SavePaymentMethodResponse = self.served.call(self.stub.SavePaymentMethod, request, user=user)
        return answer

    def kept(self, user: int = USER, size: int = 0, token: str = "") -> pb.ListPaymentMethodsResponse:
        """List cards."""
        request = pb.ListPaymentMethodsRequest(page_size=size, page_token=token)
        answer: pb.ListPaymentMethodsResponse = self.served.call(self.stub.ListPaymentMethods, request, user=user)
        return answer

    def refused(self, call: object, request: object, user: int = USER) -> str:
        """The reason that a call is refused with."""
        with pytest.raises(grpc.RpcError) as caught:
            self.served.call(call, request, user=user)  # type: ignore[arg-type]
        return error_from(caught.value).reason


@pytest.fixture
def service(run_dir: Path, tmp_path: Path, redis_url: str, kafka: str, database: Database) -> Iterator[Cards]:
    """A payment service over an empty database."""
    settings = Settings(data=tmp_path, listen=f"unix:{run_dir}/p.sock", mesh=f"unix:{run_dir}/out.sock",
                        database_url=database.url.render_as_string(), redis_url=redis_url, kafka=kafka)  # fmt: skip
    with Served(build(settings)) as served:
        yield Cards(served)


@ON_SQLITE
def test_cards_are_kept_listed_preferred_and_removed(service: Cards) -> None:
    """The way of two cards through the service, in pages, for their owner alone."""
    first = service.save("4242 4242 4242 4242").payment_method
    second = service.save("5555555555554444", make_default=True).payment_method
    assert (first.card.brand, first.card.first6, first.card.last4) == ("visa", "424242", "4242")
    assert (first.card.expire_month, first.card.expire_year, first.is_default, first.user_id) == (6, 2030, True, USER)
    page = service.kept(size=1)
    assert [(m.id, m.is_default) for m in page.payment_methods] == [(second.id, True)]
    rest = service.kept(size=1, token=page.next_page_token)
    assert [(m.id, m.is_default) for m in rest.payment_methods] == [(first.id, False)]
    assert rest.next_page_token == ""
    stub = service.stub
    assert service.refused(stub.SetDefaultPaymentMethod, pb.SetDefaultPaymentMethodRequest(id=first.id), OTHER) == (
        "PAYMENT_METHOD_NOT_FOUND"
    )
    now = service.served.call(stub.SetDefaultPaymentMethod, pb.SetDefaultPaymentMethodRequest(id=first.id), user=USER)
    assert now.payment_method.is_default
    service.served.call(stub.RemovePaymentMethod, pb.RemovePaymentMethodRequest(id=first.id), user=USER)
    assert [(m.id, m.is_default) for m in service.kept().payment_methods] == [(second.id, True)]
    gone = pb.RemovePaymentMethodRequest(id=first.id)
    assert service.refused(stub.RemovePaymentMethod, gone) == "PAYMENT_METHOD_NOT_FOUND"
    assert list(service.kept(OTHER).payment_methods) == []


@ON_SQLITE
def test_number_is_nowhere_but_in_the_vault(
    service: Cards, database: Database, capfd: pytest.CaptureFixture[str]
) -> None:
    """Saved, refused, saved again and removed: not in the database's files, a log, an error, or beside a key."""
    numbers = ["4242424242424242", "378282246310005", "4000000000000002"]
    for each in numbers:
        service.save(each)
    wrong = ["4242424242424241", "4242424242424243"]
    refusals = [
        error
        for request in (
            *(pb.SavePaymentMethodRequest(card_number=n, expire_month=6, expire_year=2030) for n in wrong),
            pb.SavePaymentMethodRequest(card_number=numbers[0], expire_month=6, expire_year=2001),
            pb.SavePaymentMethodRequest(card_number=numbers[0], expire_month=13, expire_year=2030),
            pb.SavePaymentMethodRequest(card_number=f"{numbers[0]}x", expire_month=6, expire_year=2030),
        )
        if (error := _error(service, request))
    ]
    assert len(refusals) == 5
    removed = service.save(numbers[2]).payment_method.id
    service.served.call(service.stub.RemovePaymentMethod, pb.RemovePaymentMethodRequest(id=removed), user=USER)
    time.sleep(0.3)  # lines of the access log go out every 100 ms
    logged = "".join(capfd.readouterr())
    assert logged.count("SavePaymentMethod") >= 9
    leaks = Leaks([*numbers, *wrong])
    assert leaks.in_text(logged, *refusals) == []
    files = list(Path(str(database.url.database)).parent.glob(f"{Path(str(database.url.database)).name}*"))
    assert [path for path in files if leaks.in_bytes(path.read_bytes(), binary=True)] == []
    assert len(files) == 3  # with the log and the index of what is not in the file yet
    with database.read() as connection:
        kept = connection.execute(sa.text("SELECT * FROM idempotency_keys")).all()
        assert connection.execute(sa.select(sa.func.count()).select_from(cards)).scalar_one() == 2
    assert kept == []


def _error(service: Cards, request: pb.SavePaymentMethodRequest) -> str:
    with pytest.raises(grpc.RpcError) as caught:
        service.served.call(service.stub.SavePaymentMethod, request, user=USER)
    return f"{caught.value} {error_from(caught.value)} {caught.value.trailing_metadata()}"


@ON_SQLITE
def test_card_is_refused_with_its_reason(service: Cards) -> None:
    """No card, and one past its expiry; nothing is kept of either."""
    save = service.stub.SavePaymentMethod
    none = pb.SavePaymentMethodRequest(card_number="4242424242424241", expire_month=6, expire_year=2030)
    past = pb.SavePaymentMethodRequest(card_number="4242424242424242", expire_month=6, expire_year=2020)
    assert [service.refused(save, request) for request in (none, past)] == ["INVALID_ARGUMENT"] * 2
    assert list(service.kept().payment_methods) == []


def test_purse_is_written_for_many_users_in_one_transaction(database: Database) -> None:
    """A batch of forty users: each has his own card and default."""
    saved, vault = SqlPaymentMethods(database, 1), CardVault(SqlCards(database), FakeKeys())
    made = [vault.tokenize(1, Pan(number(n)), SOON, NOW) for n in range(40)]
    with saved.transaction() as tx:
        purses: dict[int, Purse] = tx.purses(range(1, 41))
        for user, card in zip(purses, made, strict=True):
            purses[user].save(1000 + user, card, NOW, make_default=False)
        tx.write(purses.values(), set())
        tx.commit()
    assert saved.find([(user, None) for user in range(1, 41)]) == {
        (user, None): card for user, card in zip(range(1, 41), made, strict=True)
    }
