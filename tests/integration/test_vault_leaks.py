"""No card number, verification value or key in clear: not in a log, an exception, a repr, a database's bytes, or Redis."""

from __future__ import annotations

import base64
import copy
import dataclasses
import json
import logging
import pickle
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import orjson
import pytest
import redis as redispy
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.kernel.money import Money
from services.payment.adapters.card import CardNetwork
from services.payment.adapters.redis import RedisStatusCache
from services.payment.adapters.vault import CardVault, FileKeys, MemoryCvvRelay
from services.payment.domain import Method, Payment
from services.payment.domain.card import Cvv, Expiry, Pan
from services.payment.ports.provider import Callback, Charge
from services.payment.store import SqlCards
from services.platform import cache, migrations, telemetry
from services.platform.database import Database
from tests.fakes.card_network import SETTINGS, FakeNetwork, callback, charge_body, error_body
from tests.fakes.order import FakeClock
from tests.leaks import Leaks, card_numbers, cvv_of

NOW = 1_800_000_000_000
SOON = Expiry(2028, 6)
CHARGES = "POST /cards/v1/charges"


class Room:
    """The card side of a payment room over a folder, with all that it logs."""

    def __init__(self, folder: Path) -> None:
        migrations.upgrade("payment", f"sqlite:///{folder / 'payment.db'}")
        self.folder, clock = folder, FakeClock(NOW)
        self.database = Database(f"sqlite:///{folder / 'payment.db'}")
        self.store, self.keys = SqlCards(self.database), FileKeys(folder.parent / "keys" / "cards")
        self.vault, self.cvvs, self.network = CardVault(self.store, self.keys), MemoryCvvRelay(clock), FakeNetwork()
        self.cards = CardNetwork(SETTINGS, self.vault, self.cvvs, clock, self.network)
        self.said: list[str] = []

    def attempt(self, work: Callable[[], object]) -> None:
        """Do something, and keep what it returns or raises as it would be logged."""
        try:
            done = work()
        except Exception as error:  # noqa: BLE001 - whatever it is must not tell
            self.said.append("".join(traceback.format_exception(error)))
            telemetry.log.error("attempt.failed", error=str(error), exc_info=error)
        else:
            self.said.append(f"{done} {done!r}")
            telemetry.log.info("attempt.done", done=done, json=orjson.dumps([done], default=repr).decode())
            logging.getLogger("paymesh").info("done %s %r", done, done)

    def pay(self, number: str, cvv: str) -> None:
        """A card's whole way, with all that can go wrong on it."""
        pan, secret = Pan(number), Cvv(cvv)
        self.attempt(lambda: [pan, secret, {"card": pan}, dataclasses.astuple(_Form(pan, secret))])
        self.attempt(lambda: copy.deepcopy([pan, secret]))
        for write in (pickle.dumps, json.dumps, orjson.dumps, vars):
            self.attempt(lambda write=write: write(pan))  # type: ignore[misc]
            self.attempt(lambda write=write: write(secret))  # type: ignore[misc]
        for wrong in (number[:-1], number + "0", number[:-1] + str((int(number[-1]) + 1) % 10), f"{number}x"):
            self.attempt(lambda wrong=wrong: Pan(wrong))  # type: ignore[misc]
        self.attempt(lambda: Cvv(f"{cvv}x"))
        self.attempt(lambda: self.vault.tokenize(1, pan, Expiry(2001, 1), NOW))
        card = self.vault.tokenize(1, pan, SOON, NOW)
        self.attempt(lambda: [card, self.store.card(1, card.token), self.vault.reveal(1, card.token), self.vault])
        charge = Charge("P1", Money("CNY", 1234), "books", "card", NOW, {"card_token": card.token})
        for answer in ((200, charge_body()), (200, charge_body(status="failed", captured=0, code="card_declined")),
                       (400, error_body("invalid_number")), (500, {}), (200, b"<html>")):  # fmt: skip
            self.network.put(CHARGES, answer)
            self.cvvs.put("P1", Cvv(cvv))
            self.attempt(lambda: [self.cards.charge(charge), charge, self.cards, self.cvvs])
        self.network.broken = httpx.ReadTimeout("slow")
        self.attempt(lambda: self.cards.charge(charge))
        self.network.broken = RuntimeError("of any kind")
        self.attempt(lambda: self.cards.charge(charge))
        self.network.broken = None
        self.attempt(lambda: self.cards.parse(Callback({}, callback("charge.captured", charge_body())), NOW))
        self.attempt(lambda: self.vault.forget(2, card.token))


@dataclasses.dataclass
class _Form:
    """What a request brought."""

    pan: Pan
    cvv: Cvv


telemetry_lines = structlog.processors.JSONRenderer(
    serializer=lambda event, **_: orjson.dumps(event, default=repr).decode()
)


@pytest.fixture
def room(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Room]:
    """An empty room; every logger says all it can."""
    caplog.set_level(logging.DEBUG)
    for name in ("httpx", "httpcore", "sqlalchemy.engine", "sqlalchemy.pool", "alembic"):
        caplog.set_level(logging.DEBUG, name)
    folder = tmp_path / "data"
    folder.mkdir()
    # As a service's process sets it up.
    structlog.configure(processors=[structlog.processors.add_log_level, telemetry._TRACEBACKS, telemetry_lines])
    made = Room(folder)
    yield made
    made.database.stop()
    structlog.reset_defaults()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(number=card_numbers)
def test_nothing_that_a_process_leaves_has_a_card_number(
    room: Room, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], number: str
) -> None:
    """Logs of every library at their finest, standard output, exceptions, reprs, and the database's files."""
    caplog.clear()
    room.said.clear()
    room.pay(number, cvv_of(number))
    leaks = Leaks([number], [cvv_of(number)])
    logged = [*(record.getMessage() for record in caplog.records), caplog.text, *capfd.readouterr()]
    assert "attempt.done" in "".join(logged)
    assert leaks.in_text(*logged, *room.said) == []
    assert leaks.in_files(room.folder) == []


def test_no_key_is_in_the_database(room: Room) -> None:
    """Neither a data key nor the one of the fingerprints nor a key-encryption key, also not after rotations."""
    number = "4242424242424242"
    room.vault.tokenize(1, Pan(number), SOON, NOW)
    opened = dict(room.vault._open)
    room.vault.rotate_data_key(NOW)
    room.vault.rotate_key_encryption_key()
    while room.vault.reseal_some(10):
        pass
    opened |= {"data-2": room.vault._key("data-2")}
    files = {path.name: path.read_bytes() for path in (room.folder.parent / "keys" / "cards").iterdir()}
    assert set(opened) == {"data-1", "data-2", "lookup-1"}
    assert set(files) == {"kek-1.key", "kek-2.key"}
    assert Leaks([number], keys=[*opened.values(), *files.values()]).in_files(room.folder) == []


def test_verification_value_leaves_no_trace_in_memory(room: Room) -> None:
    """Once it was sent, nobody holds it any more."""
    room.network.put(CHARGES, (200, charge_body()))
    card, cvv = room.vault.tokenize(1, Pan("4242424242424242"), SOON, NOW), Cvv("815")
    room.cvvs.put("P1", cvv)
    room.cards.charge(Charge("P1", Money("CNY", 1234), "", "card", NOW, {"card_token": card.token}))
    assert room.network.asked[-1][1]["card"]["cvc"] == "815"
    assert room.cvvs.take("P1") is None
    assert not room.cvvs._held
    assert "815" not in str(getattr(cvv, "_Cvv__digits"))  # noqa: B009 - what the class hides


def test_redis_has_no_card_number(redis_url: str, room: Room) -> None:
    """What is remembered of a card's payment is the payment."""
    number = "4242424242424242"
    room.pay(number, "815")
    with cache.connect(redis_url) as client:
        remembered = RedisStatusCache(client)
        remembered.put([Payment(1, 2, 3, Money("CNY", 1234), Method.BANK_CARD, "success", 3, 1234, 0, "", NOW, NOW)])
        assert len(list(client.scan_iter())) == 1
        assert Leaks([number], ["815"]).in_redis(client) == []


@given(number=card_numbers, before=st.binary(max_size=7), after=st.binary(max_size=7))
def test_search_finds_what_leaks(number: str, before: bytes, after: bytes) -> None:
    """A search that cannot find is none: every form is found wherever it stands."""
    leaks = Leaks([number])
    packed = bytes.fromhex(number if len(number) % 2 == 0 else "0" + number)
    spaced = " ".join(number[at : at + 4] for at in range(0, len(number), 4)).encode()
    plain = number.encode()
    for written in (plain, plain.hex().encode(), packed, number.encode("utf-16-le"), spaced, int(number).to_bytes(8)):
        assert leaks.in_bytes(before + written + after, binary=True)
    assert leaks.in_bytes(base64.b64encode(before + plain + after))


def test_search_finds_verification_values() -> None:
    """Alone: three digits stand in many a number."""
    leaks = Leaks([], ["815"])
    assert leaks.in_bytes(b'{"cvc": "815"}')
    assert leaks.in_bytes(b"cvv=815")
    assert not leaks.in_bytes(b"1815 8152 0.815 a815 815f")


def test_files_and_redis_are_really_searched(tmp_path: Path, redis_url: str) -> None:
    """A planted number is found in a file, in a folder below, in a key and in a value."""
    number = "4242424242424241"[:-1] + "2"
    leaks = Leaks([number])
    (tmp_path / "below").mkdir()
    planted = tmp_path / "below" / "payment.db-wal"
    planted.write_bytes(b"\0" * 5000 + number.encode() + b"\0")
    assert leaks.in_files(tmp_path) == [planted]
    client: redispy.Redis = cache.connect(redis_url)
    with client:
        client.hset("payment:1", "card", number)
        client.set(f"card:{number}", "1")
        client.set("payment:2", "nothing")
        assert sorted(leaks.in_redis(client)) == [f"card:{number}".encode(), b"payment:1"]
