"""WeChat Pay's keys: both modes, the switch between them, and how certificates are fetched."""

from __future__ import annotations

import threading
import time

import httpx
import pytest

from services.payment.adapters.wechat import WechatPay
from services.payment.adapters.wechat.keys import LIFE_S_MAX, PAUSE_S, certificates
from services.payment.ports.provider import CallbackForged, Charged, Verdict
from tests.fakes.order import FakeClock
from tests.fakes.provider_vectors import (
    NEXT_PLATFORM_CERTIFICATE,
    NEXT_SERIAL,
    NOW_MS,
    PLATFORM_CERTIFICATE,
    PUBLIC_KEY_ID,
    SERIAL,
)
from tests.fakes.wechat import APIV3_KEY, FakeWechat, callback, certificate_list, transaction
from tests.unit.payment.test_wechat import adapter

UNVERIFIED = Charged(Verdict.UNKNOWN, code="unverified")


def fetching(wechat: FakeWechat, clock: FakeClock | None = None, **changed: object) -> WechatPay:
    """An adapter in certificate mode."""
    options = {"public_keys": {}, "fetch_certificates": True, "clock": clock or FakeClock(NOW_MS), **changed}
    return adapter(wechat, **options)


def paid(pay: WechatPay) -> bool:
    """Whether a query's answer verifies."""
    made = pay.query("P1002")
    assert made.verdict is Verdict.DONE or made == UNVERIFIED
    return made.verdict is Verdict.DONE


def test_certificates_when_fetched_for_the_first_answer() -> None:
    """The list is fetched once, decrypted, verified with what is in it, and kept."""
    wechat = FakeWechat(transaction(), serial=SERIAL)
    pay = fetching(wechat)
    assert [paid(pay) for _ in range(3)] == [True] * 3
    assert wechat.listings == 1
    assert "wechatpay-serial" not in wechat.request_headers[0], "no public key that we could ask for"


def test_certificates_when_known_before() -> None:
    """A certificate that the settings bring verifies, without one being fetched."""
    wechat = FakeWechat(transaction(), serial=SERIAL)
    assert paid(adapter(wechat, public_keys={}, certificates={SERIAL: PLATFORM_CERTIFICATE}))
    assert wechat.listings == 0


def test_keys_when_switched() -> None:
    """During a switch the old certificate, the new one and the public key verify side by side."""
    wechat = FakeWechat(transaction(), listed=certificate_list((SERIAL, NEXT_SERIAL)))
    pay = adapter(wechat, fetch_certificates=True)
    for serial in (SERIAL, PUBLIC_KEY_ID, NEXT_SERIAL, SERIAL):
        wechat.serial = serial
        assert paid(pay)
        assert pay.parse(callback(transaction(), serial=serial), NOW_MS).request_id == "P1002"
    assert wechat.listings == 1


def test_keys_when_a_mode_is_off() -> None:
    """A key of a mode that is not set is not known, and nobody asks for it."""
    wechat = FakeWechat(transaction(), serial=SERIAL)
    assert not paid(adapter(wechat))
    assert wechat.listings == 0
    wechat.serial = PUBLIC_KEY_ID
    assert not paid(fetching(wechat))
    assert wechat.listings == 0, "public keys are told, not fetched"


def test_keys_when_a_serial_is_another_keys() -> None:
    """A signature counts only under the serial that made it."""
    wechat = FakeWechat(transaction(), listed=certificate_list((SERIAL, NEXT_SERIAL)))
    pay = adapter(wechat, fetch_certificates=True)
    genuine = callback(transaction(), serial=SERIAL)
    assert pay.parse(genuine, NOW_MS).request_id == "P1002"
    for serial in (NEXT_SERIAL, PUBLIC_KEY_ID):
        moved = type(genuine)({**genuine.headers, "wechatpay-serial": serial}, genuine.body)
        with pytest.raises(CallbackForged, match="the signature does not verify"):
            pay.parse(moved, NOW_MS)


def test_certificates_when_a_serial_is_unknown() -> None:
    """A new serial has the list fetched again at once, but not more than once a minute."""
    clock = FakeClock(NOW_MS)
    wechat = FakeWechat(transaction(), serial=SERIAL)
    pay = fetching(wechat, clock)
    assert paid(pay)

    wechat.serial, wechat.listed = NEXT_SERIAL, certificate_list((SERIAL, NEXT_SERIAL))
    assert not paid(pay), "less than a minute since the last look"
    assert wechat.listings == 1
    clock.ms += PAUSE_S * 1000
    wechat.at_ms = clock.ms
    assert paid(pay)
    assert wechat.listings == 2


def test_certificates_when_serials_are_made_up() -> None:
    """A flood of forged callbacks asks WeChat Pay once a minute; malformed serials and old times not at all."""
    clock = FakeClock(NOW_MS)
    wechat = FakeWechat()
    pay = fetching(wechat, clock)
    genuine = callback(transaction(), serial=SERIAL)
    for serial in ("", "x", "PUB_KEY_ID_1", "5157f09e", "0" * 65, "../certificates", "PUB_KEY_ID_\n"):
        with pytest.raises(CallbackForged):
            pay.parse(type(genuine)({**genuine.headers, "wechatpay-serial": serial}, genuine.body), NOW_MS)
    with pytest.raises(CallbackForged):
        pay.parse(genuine, NOW_MS + 300_000)
    assert wechat.listings == 0
    for number in range(200):
        clock.ms += 1000
        headers = {**genuine.headers, "wechatpay-serial": f"{number:040X}"}
        with pytest.raises(CallbackForged, match="not known"):
            pay.parse(type(genuine)(headers, genuine.body), NOW_MS)
    assert wechat.listings == 4


def test_certificates_when_half_their_time_is_over() -> None:
    """After twelve hours the list is fetched again; what fails then leaves the known ones in force."""
    clock = FakeClock(NOW_MS)
    wechat = FakeWechat(transaction(), serial=SERIAL)
    pay = fetching(wechat, clock)
    for at_s, listings in ((0, 1), (LIFE_S_MAX - 1, 1), (LIFE_S_MAX, 2)):
        clock.ms = wechat.at_ms = NOW_MS + at_s * 1000
        assert paid(pay)
        assert wechat.listings == listings
    wechat.listed = {"data": []}
    clock.ms = wechat.at_ms = clock.ms + LIFE_S_MAX * 1000
    assert paid(pay)
    assert paid(pay)
    assert wechat.listings == 3
    clock.ms = wechat.at_ms = clock.ms + PAUSE_S * 1000
    assert paid(pay)
    assert wechat.listings == 4, "asked again after a minute, since the last look brought nothing"


def test_certificates_when_the_end_is_near() -> None:
    """A certificate that ends in four hours is looked after in two; after its end it verifies nothing."""
    end_ms = next(iter(certificates(APIV3_KEY, _text(certificate_list())).values())).until_ms
    clock = FakeClock(end_ms - 4 * 3_600_000)
    wechat = FakeWechat(transaction(), serial=SERIAL, at_ms=clock.ms)
    pay = fetching(wechat, clock)
    assert paid(pay)
    clock.ms = wechat.at_ms = clock.ms + 2 * 3_600_000
    assert paid(pay)
    assert wechat.listings == 2
    clock.ms = wechat.at_ms = end_ms
    assert not paid(pay)


def test_certificates_when_not_valid_yet() -> None:
    """Before its time a certificate verifies nothing."""
    wechat = FakeWechat(transaction(), serial=SERIAL, at_ms=NOW_MS - 86_400_000 * 30)
    assert not paid(fetching(wechat, FakeClock(NOW_MS - 86_400_000 * 30)))


@pytest.mark.parametrize(
    "listed",
    [
        {},
        {"data": []},
        {"data": {}},
        {"data": ["x"]},
        {"data": certificate_list()["data"] * 17},
        certificate_list(key=b"x" * 32),
        {"data": [{**certificate_list()["data"][0], "serial_no": NEXT_SERIAL}]},
        {"data": [{**certificate_list()["data"][0], "serial_no": "x"}]},
        certificate_list((NEXT_SERIAL,)),
        b"<html>",
    ],
)
def test_certificates_when_the_list_is_not_genuine(listed: object) -> None:
    """A list that does not decrypt, names another serial or is signed by none of its own is not used."""
    wechat = FakeWechat(transaction(), serial=SERIAL, listed=listed)
    assert not paid(fetching(wechat))
    assert wechat.listings == 1


def test_certificates_when_the_list_is_signed_by_the_public_key() -> None:
    """During a switch the list may be signed with the public key, which is known before."""
    wechat = FakeWechat(transaction(), serial=SERIAL, list_serial=PUBLIC_KEY_ID)
    assert paid(adapter(wechat, fetch_certificates=True))


def test_certificates_when_no_longer_listed() -> None:
    """A certificate that is taken from the list may have signed what is under way: it is known until it ends."""
    clock = FakeClock(NOW_MS)
    wechat = FakeWechat(transaction(), serial=SERIAL)
    pay = fetching(wechat, clock)
    assert paid(pay)
    clock.ms = wechat.at_ms = NOW_MS + LIFE_S_MAX * 1000
    wechat.listed, wechat.list_serial = certificate_list((NEXT_SERIAL,)), NEXT_SERIAL
    assert paid(pay)
    assert wechat.listings == 2
    wechat.serial = NEXT_SERIAL
    assert paid(pay)


def test_certificates_when_the_network_fails() -> None:
    """Without certificates an answer is unknown and a callback forged; nothing is raised."""
    wechat = FakeWechat(transaction(), serial=SERIAL, fault=httpx.ReadTimeout("slow"))
    pay = fetching(wechat)
    with pytest.raises(CallbackForged, match="not known"):
        pay.parse(callback(transaction(), serial=SERIAL), NOW_MS)
    assert pay.query("P1002") == Charged(Verdict.UNKNOWN, code="timeout")


def test_certificates_when_many_threads_need_them() -> None:
    """Twenty callbacks at once with a serial that is not known yet have the list fetched once, and all are read."""
    slow = SlowList(transaction(), serial=SERIAL)
    pay = fetching(slow)
    made = callback(transaction(), serial=SERIAL)
    read: list[str] = []
    threads = [threading.Thread(target=lambda: read.append(pay.parse(made, NOW_MS).request_id)) for _ in range(20)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(10)
    assert read == ["P1002"] * 20
    assert slow.listings == 1


def test_certificates_when_read_in_their_own_words() -> None:
    """A list has the certificates by the serial that they carry, with their time."""
    found = certificates(APIV3_KEY, _text(certificate_list((SERIAL, NEXT_SERIAL))))
    assert set(found) == {SERIAL, NEXT_SERIAL}
    assert all(each.valid(NOW_MS) for each in found.values())
    assert PLATFORM_CERTIFICATE != NEXT_PLATFORM_CERTIFICATE


def test_certificates_when_a_serial_is_not_the_certificates() -> None:
    """A certificate goes by the serial that it carries, in a list and in the settings."""
    entry = {**certificate_list()["data"][0], "serial_no": NEXT_SERIAL}
    with pytest.raises(ValueError, match="another serial"):
        certificates(APIV3_KEY, _text({"data": [entry]}))
    with pytest.raises(ValueError, match="another serial"):
        adapter(FakeWechat(), certificates={NEXT_SERIAL: PLATFORM_CERTIFICATE})


class SlowList(FakeWechat):
    """Takes its time with the list."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer."""
        time.sleep(0.05)
        return super().handle_request(request)


def _text(listed: dict[str, object]) -> str:
    return httpx.Request("POST", "http://x", json=listed).content.decode()
