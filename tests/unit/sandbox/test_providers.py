"""What the providers of payments share: key material, the book, scripts, and callbacks that go wrong as told."""

from __future__ import annotations

import asyncio
import json
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.sandbox import keys
from services.sandbox.book import Book, Charge, Refund, State, read
from services.sandbox.rules import WALLET, Rules
from tests.unit.sandbox.merchants import AlipayMerchant, CardMerchant, FakeClock, WechatMerchant, World


def test_keys_are_made_once(key_folder: Path) -> None:
    """A second call changes nothing; nobody but the owner reads what is secret; both sides' halves fit."""
    before = {path: path.read_bytes() for path in key_folder.rglob("*.json")}
    keys.make(key_folder)
    assert {path: path.read_bytes() for path in key_folder.rglob("*.json")} == before
    assert {stat.S_IMODE(path.stat().st_mode) for path in before} == {0o600}
    assert stat.S_IMODE(key_folder.stat().st_mode) == 0o700
    merchant = json.loads(before[key_folder / "merchant" / "wechat.json"])
    assert merchant["serial_no"] == keys.wechat(key_folder).merchant_serial_no
    assert len(merchant["api_v3_key"]) == 32
    assert "PRIVATE" not in repr(keys.wechat(key_folder)) + repr(keys.alipay(key_folder))
    assert keys.cards(key_folder).request_secret not in repr(keys.cards(key_folder))


def test_keys_when_several_make_them(tmp_path: Path) -> None:
    """Whoever comes first counts, complete; nothing half made stays."""
    folder = tmp_path / "providers"
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(keys.make, [folder] * 3)) == [None] * 3
    assert [path.name for path in tmp_path.iterdir()] == ["providers"]
    merchant = json.loads((folder / "merchant" / "cards.json").read_text())
    assert merchant["request_secret"] == keys.cards(folder).request_secret


def a_charge(request_id: str = "C1", provider_id: str = "ch_1") -> Charge:
    """An unpaid charge of 100."""
    return Charge("cards", request_id, provider_id, 100, "USD", State.WAITING, 1)


def test_book_outlives_the_process(tmp_path: Path) -> None:
    """What was written before a kill is read again, a torn line is dropped, and reading goes on where it ended."""
    path = tmp_path / "book" / "cards.jsonl"
    book = Book("cards", path, FakeClock())
    charge = book.open(a_charge())
    book.take(charge, 100)
    book.give_back(charge, Refund("R1", "re_1", 60, 2))
    found, end = read(path)
    assert found == {"C1": charge}
    with path.open("ab") as file:
        file.write(b'{"event": "torn", "charge": {"provi')
    assert read(path) == (found, end)
    again = Book("cards", path, FakeClock())
    kept = again.get("C1")
    assert kept == charge
    assert again.by_provider_id("ch_1") is kept
    assert again.of_refund("R1") == (kept, charge.refunds["R1"])
    again.open(a_charge(request_id="C2", provider_id="ch_2"))
    assert list(read(path, end)[0]) == ["C2"]
    for each in (book, again):
        each.close()


def test_book_refuses_what_cannot_be(tmp_path: Path) -> None:
    """A second charge of a request id, and more back than was taken, are defects of the sandbox: they raise."""
    book = Book("cards", None, FakeClock())
    charge = book.open(a_charge())
    with pytest.raises(ValueError, match="C1"):
        book.open(a_charge())
    book.take(charge, 100)
    with pytest.raises(ValueError, match="R1"):
        book.give_back(charge, Refund("R1", "re_1", 101, 2))


async def test_book_over_http(world: World, cards: CardMerchant, wechat: WechatMerchant) -> None:
    """One list for all providers, narrowed by provider and by the number of a charge or refund."""
    await cards.charge("C1")
    await wechat.native("ORDER1")
    every = (await world.http.get("/book")).json()["charges"]
    assert [(each["provider"], each["request_id"], each["state"]) for each in every] == [
        ("wechat", "ORDER1", "waiting"), ("cards", "C1", "captured")]  # fmt: skip
    only = (await world.http.get("/book", params={"provider": "cards"})).json()["charges"]
    assert [each["request_id"] for each in only] == ["C1"]


def rules() -> Rules:
    """A wallet's script."""
    return Rules(WALLET, {"amount"}, {"signature"})


@pytest.mark.parametrize(
    "wanted",
    [
        {"rules": {}},
        {"rules": [1]},
        {"rules": [{"on": "charge"}]},
        {"rules": [{"on": "nothing", "do": "decline"}]},
        {"rules": [{"on": "capture", "do": "decline"}]},
        {"rules": [{"on": "charge", "do": "lose"}]},
        {"rules": [{"on": "charge", "do": "decline", "times": -1}]},
        {"rules": [{"on": "charge", "do": "decline", "times": True}]},
        {"rules": [{"on": "charge", "do": "slow", "delay_ms": 600_001}]},
        {"rules": [{"on": "charge", "do": "decline", "surprise": 1}]},
        {"rules": [{"on": "charge", "do": "forge", "forge": "amount"}]},
        {"rules": [{"on": "callback", "do": "forge", "forge": "signature"}]},
        {"rules": [{"on": "callback", "do": "forge"}]},
        {"rules": [{"on": "charge", "do": "decline", "forge": "signature"}]},
        {"bill_today": 1},
        {"sign_with": "both"},
    ],
)
def test_script_when_malformed(wanted: dict[str, Any]) -> None:
    """A script with a fault is refused as a whole, and the one before stays."""
    script = rules()
    assert script.set({"rules": [{"on": "charge", "do": "slow"}], "bill_today": True}) == []
    before = script.shown()
    assert script.set(wanted)
    assert script.add(wanted)
    assert script.shown() == before


def test_rule_wears_off() -> None:
    """A rule applies as often as it says; one for an order goes before one for all; 0 is for ever."""
    script = rules()
    assert script.set({"rules": [{"on": "charge", "do": "decline", "times": 2},
                                 {"on": "charge", "do": "error", "request_id": "P1"},
                                 {"on": "query", "do": "slow", "times": 0}]}) == []  # fmt: skip
    taken = [script.take("charge", (number,)) for number in ("P1", "P1", "P2", "P3")]
    assert [rule and rule.do for rule in taken] == ["error", "decline", "decline", None]
    assert [bool(script.take("query", ("P1",))) for _ in range(3)] == [True] * 3
    assert [rule["on"] for rule in script.shown()["rules"]] == ["query"]


async def test_script_over_http(world: World) -> None:
    """PUT replaces, POST adds, GET shows what is left; nonsense is 400."""
    rule = {"on": "charge", "do": "decline"}
    assert (await world.http.put("/scripts/alipay", json={"rules": [rule], "bill_today": True})).status_code == 200
    assert (await world.http.post("/scripts/alipay", json={"rules": [rule]})).status_code == 200
    shown = (await world.http.get("/scripts/alipay")).json()
    assert (len(shown["rules"]), shown["bill_today"]) == (2, True)
    for bad in (b"nonsense", b"[]", b'{"bill_today": true}'):
        assert (await world.http.post("/scripts/alipay", content=bad)).status_code == 400
    assert (await world.http.put("/scripts/alipay", json={})).json() == {"rules": [], "bill_today": False}


async def paid(cards: CardMerchant, *numbers: str) -> list[str]:
    """Charge cards one after the other; return the numbers of the callbacks as they came."""
    for number in numbers:
        await cards.charge(number)
    return [cards.noticed(each)["data"]["request_id"] for each in await cards.world.called("cards")]


async def test_callbacks_when_duplicated(cards: CardMerchant) -> None:
    """Fifty of one, one of the next."""
    await cards.world.rule("cards", on="callback", do="duplicate")
    assert sorted(await paid(cards, "C1", "C2")) == ["C1"] * 50 + ["C2"]


async def test_callbacks_when_reordered(cards: CardMerchant) -> None:
    """Three are held and sent newest first; those that were not taken come again."""
    await cards.world.rule("cards", on="callback", do="reorder", times=3)
    codes = iter([200, 500])
    cards.world.inbox.answer = lambda _request: httpx.Response(next(codes, 200))
    assert await paid(cards, "C1", "C2", "C3") == ["C3", "C2", "C1", "C2"]


async def test_callbacks_when_lost(cards: CardMerchant) -> None:
    """A lost attempt counts as one: the repeat arrives; with times 0 none ever does."""
    await cards.world.rule("cards", on="callback", do="lose", times=2, request_id="C1")
    assert await paid(cards, "C1") == ["C1"]
    await cards.world.rule("cards", on="callback", do="lose", times=0, request_id="C2")
    assert await paid(cards, "C2") == ["C1"]
    found = (await cards.world.http.get("/callbacks/cards", params={"request_id": "C2"})).json()["deliveries"]
    assert (len(found), {each["answer"] for each in found}) == (16, {"lost"})


async def test_callbacks_when_forged_by_script(cards: CardMerchant) -> None:
    """The forged one goes first, then the true one; alone where the rule says so."""
    await cards.world.rule("cards", on="callback", do="forge", forge="amount")
    await cards.world.rule("cards", on="callback", do="forge", forge="seller", real=False)
    await paid(cards, "C1", "C2")
    found = (await cards.world.http.get("/callbacks/cards")).json()["deliveries"]
    assert sorted((each["ids"][0], each["forge"]) for each in found) == [("C1", ""), ("C1", "amount"), ("C2", "seller")]


async def test_callbacks_when_late_or_nobody_listens(cards: CardMerchant) -> None:
    """A late one waits; a refused connection is an attempt like any other."""
    await cards.world.rule("cards", on="callback", do="late", delay_ms=50)
    tries = iter([httpx.ConnectError("refused"), httpx.ReadTimeout("slow")])

    def answer(request: httpx.Request) -> httpx.Response:
        if error := next(tries, None):
            raise error
        return httpx.Response(204)

    cards.world.inbox.answer = answer
    await cards.charge("C1")
    await asyncio.sleep(0)
    assert cards.world.inbox.came == []
    await cards.world.called("cards")
    found = (await cards.world.http.get("/callbacks/cards")).json()["deliveries"]
    assert [(each["status"], each["answer"]) for each in found] == [(0, "ConnectError"), (0, "ReadTimeout"), (204, "")]


async def test_callback_sent_by_hand(cards: CardMerchant) -> None:
    """A true notice can be sent again, as often as asked; what is unknown is 404, nonsense 400."""
    await cards.charge("C1")
    await cards.refund("R1", "C1", 1)
    await cards.world.called("cards")
    sent = (await cards.world.http.post("/callbacks/cards/R1", json={"times": 3})).json()["deliveries"]
    assert [(each["status"], each["taken"]) for each in sent] == [(200, True)] * 3
    assert cards.noticed(cards.world.inbox.came[-1])["type"] == "refund.succeeded"
    codes = [(await cards.world.http.post(path, json=body)).status_code for path, body in (
        ("/callbacks/cards/C9", {}), ("/callbacks/cards/C1", {"times": 0}), ("/callbacks/cards/C1", {"forge": "x"}))]  # fmt: skip
    assert codes == [404, 400, 400]


async def test_payer_when_he_asks_for_nonsense(world: World, alipay: AlipayMerchant) -> None:
    """Unknown charges, deeds and bodies are refused."""
    assert (await world.pays("alipay", "P1")).status_code == 404
    assert (await world.http.get("/payer/alipay/P1")).status_code == 404
    await alipay.precreate("P1")
    assert (await world.pays("alipay", "P1", "steal")).status_code == 404
    assert (await world.http.post("/payer/alipay/P1/pay", content=b"[]")).status_code == 400
    assert (await world.http.post("/payer/alipay/P1/pay", content=b"x" * 300_000)).status_code == 413
    await world.rule("alipay", on="pay", do="slow", delay_ms=1)
    assert (await world.pays("alipay", "P1")).status_code == 200


async def test_restart_takes_up_what_was_under_way(world: World, wechat: WechatMerchant, cards: CardMerchant) -> None:
    """After a restart the books are there, refunds that were processing end, late cards are decided."""
    await wechat.native("ORDER1")
    await world.pays("wechat", "ORDER1")
    await wechat.refund("ORDER1", "R1", 100)
    await cards.charge("C1", "4000000000070047")
    for each in world.acquirers.values():
        await each.stop()
    again = World(world.folder)
    for each in again.acquirers.values():
        await each.start()
        await each.notifier.settled()
    assert (await again.booked("R1"))["refunds"][0]["state"] == "succeeded"
    assert (await again.booked("C1"))["times_charged"] == 1
    for each in again.acquirers.values():
        await each.stop()


async def test_charge_ends_in_time_though_nobody_looks(world: World, alipay: AlipayMerchant) -> None:
    """A timer closes it and the merchant is told; the clock decides, not the timer."""
    await alipay.precreate("P1", time_expire="2030-01-01 08:00:01")
    await world.pays("alipay", "P1", "open")
    acquirer = world.acquirers["alipay"]
    world.clock.ms += 1_000
    charge = acquirer.book.get("P1")
    assert charge is not None
    acquirer.expire_later(charge)
    await asyncio.sleep(0.1)
    assert charge.state is State.CLOSED
    assert alipay.noticed((await world.called("alipay"))[0])["trade_status"] == "TRADE_CLOSED"
