"""Webhooks: signatures, schedule, secrets, and where they may go."""

from __future__ import annotations

import base64
import dataclasses

import pytest

from services.kernel.errors import DomainError
from services.notification import states
from services.notification.adapters.webhook import addresses_of
from services.notification.domain import Attempt, Target, WebhookDelivery, WebhookEndpoint, admitted, pending, target_of
from services.notification.domain.target import is_public
from services.notification.domain.webhook import (
    LEASE_MS,
    OLD_SECRET_MS,
    PAUSES_MS,
    SCHEDULE_MS,
    TRIES_MAX,
    secret_text,
    signature,
)

NOW = 1_800_000_000_000
HOUR_MS = 3_600_000
PENDING, DELIVERED, FAILED = (
    states.WEBHOOK_DELIVERY_PENDING,
    states.WEBHOOK_DELIVERY_DELIVERED,
    states.WEBHOOK_DELIVERY_FAILED,
)
PUBLISHED = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def delivery() -> WebhookDelivery:
    return pending(5, endpoint_id=7, event_id="payment-9", topic="payment.success", body="{}", now_ms=NOW)


def endpoint() -> WebhookEndpoint:
    url, topics = "https://shop.example/", ("payment.success",)
    return WebhookEndpoint(7, url, topics, "", enabled=True, disable_reason="", secret=b"one", old_secret=b"",
                           old_until_ms=0, create_ms=NOW)  # fmt: skip


def refusal(url: str, addresses: list[str] | None = None, allowed: frozenset[str] = frozenset()) -> str:
    """Why a URL may not be called; "" when it may."""
    try:
        target = target_of(url, allowed)
        admitted(target, addresses_of(target.host, target.port) if addresses is None else addresses)
    except DomainError as error:
        return error.metadata["why"]
    return ""


def test_signature_is_that_of_the_published_example() -> None:
    """The vector that the libraries of Standard Webhooks are tested with."""
    secret = base64.b64decode(PUBLISHED.removeprefix("whsec_"))
    signed = signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert secret_text(secret) == PUBLISHED


def test_headers_have_a_signature_for_each_secret() -> None:
    """Of the second in which the try is made, over the very bytes of the body; secrets are not shown."""
    attempt = Attempt(5, 7, 1, "https://shop.example/", "msg_7_payment-9", b"{}", (b"new" * 10, b"old" * 10))
    headers = attempt.headers(NOW + 999)
    assert (headers["webhook-id"], headers["webhook-timestamp"]) == ("msg_7_payment-9", str(NOW // 1000))
    wanted = [signature(secret, "msg_7_payment-9", NOW // 1000, b"{}") for secret in attempt.secrets]
    assert headers["webhook-signature"] == " ".join(wanted)
    assert "new" not in repr(attempt)
    assert "one" not in repr(endpoint())


def test_schedule_is_that_of_standard_webhooks() -> None:
    """10 tries in 75:35:05 h, each pause from the end of the try before; the bound of the audit lies above."""
    assert TRIES_MAX == 10
    assert sum(PAUSES_MS) == 75 * HOUR_MS + 35 * 60_000 + 5_000
    found, now_ms = delivery(), NOW
    for pause_ms in PAUSES_MS:
        found = found.claimed(now_ms)
        assert not found.may_be_tried(now_ms + LEASE_MS - 1)
        found = found.tried("answered 500", now_ms, 1.0)
        assert (found.status, found.due_ms) == (PENDING, now_ms + pause_ms)
        now_ms = found.due_ms
    found = found.claimed(now_ms).tried("answered 500", now_ms, 1.0)
    assert (found.status, found.attempts, found.failure) == (FAILED, TRIES_MAX, "answered 500")
    assert now_ms < NOW + SCHEDULE_MS


def test_stretch_moves_a_pause() -> None:
    """By the jitter, or the scale of a test."""
    assert delivery().claimed(NOW).tried("x", NOW, 0.9).due_ms == NOW + 4_500
    assert delivery().claimed(NOW).tried("x" * 999, NOW, 0.0).failure == "x" * 300


def test_delivery_that_was_given_up_begins_again_when_it_is_resent() -> None:
    """With all its tries, under the same id; the tries of before stay counted."""
    found = delivery()
    for _ in range(TRIES_MAX):
        found = dataclasses.replace(found, due_ms=NOW).claimed(NOW).tried("answered 500", NOW, 0.0)
    again = found.resent(NOW + 5)
    assert (again.status, again.due_ms, again.begin_ms, again.is_spent) == (PENDING, NOW + 5, NOW + 5, False)
    assert (again.attempts, again.webhook_id) == (TRIES_MAX, "msg_7_payment-9")
    assert again.claimed(NOW + 5).tried("x", NOW + 5, 1.0).due_ms == NOW + 5 + PAUSES_MS[0]
    taken = again.claimed(NOW + 5).delivered(NOW + 6)
    assert (taken.status, taken.deliver_ms, taken.failure) == (DELIVERED, NOW + 6, "")


@pytest.mark.parametrize("deed", ["resent", "delivered", "given_up"])
def test_delivered_is_delivered(deed: str) -> None:
    """Nothing follows in the contract's graph, and the guard says so."""
    taken = delivery().claimed(NOW).delivered(NOW)
    with pytest.raises(AssertionError, match="delivered ->"):
        getattr(taken, deed)("x" if deed == "given_up" else NOW)


def test_old_secret_signs_for_a_day() -> None:
    """The one before the last, and none that is older."""
    once = endpoint().rotated(b"two", NOW)
    assert once.secrets(NOW + OLD_SECRET_MS - 1) == (b"two", b"one")
    assert once.secrets(NOW + OLD_SECRET_MS) == (b"two",)
    assert once.rotated(b"three", NOW + 1).secrets(NOW + 2) == (b"three", b"two")
    assert endpoint().secrets(NOW) == (b"one",)


def test_endpoint_wants_its_topics_while_it_is_enabled() -> None:
    """No other topic, and none while it is not."""
    assert endpoint().wants("payment.success")
    assert not endpoint().wants("payment.failed")
    off = endpoint().switched(on=False, reason="gone")
    assert (off.wants("payment.success"), off.disable_reason) == (False, "gone")
    assert off.switched(on=True, reason="gone") == endpoint()


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1"),
        *("169.254.169.254", "100.64.0.1", "192.0.0.8", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1"),
        *("224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"),
        *("::", "::1", "fc00::1", "fd12:3456::1", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:a9fe:a9fe", "::127.0.0.1", "64:ff9b::7f00:1"),
        *("64:ff9b:1::808:808", "2002:7f00:1::", "2001:db8::1", "2001::1", "100::1", "4000::1"),
    ],
)
def test_address_is_not_public(address: str) -> None:
    """Loopback, private, link-local, shared, documentation, multicast, reserved, and those hidden in IPv6."""
    assert not is_public(address)
    with pytest.raises(DomainError, match="WEBHOOK_URL_REFUSED why=address_not_public"):
        admitted(target_of("https://shop.example/hook", ()), [address])
    assert refusal("https://shop.example/hook", [address]) == "address_not_public"
    assert refusal("https://shop.example/hook", ["8.8.8.8", address]) == "address_not_public"


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "172.32.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_address_is_public(address: str) -> None:
    """Addresses of the internet, also where IPv6 carries IPv4."""
    assert is_public(address)
    assert refusal("https://shop.example/hook", [address]) == ""


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.1", "2130706433", "0x7f000001", "0x7f.1", "017700000001", "0177.0.0.01", "0"),
        *("[::1]", "[::ffff:127.0.0.1]", "[0:0:0:0:0:ffff:7f00:1]", "[::]", "[fc00::1]", "[fe80::1]"),
        *("10.0.0.1", "169.254.169.254", "2852039166", "LOCALHOST"),
    ],
)
def test_host_is_refused_in_every_spelling(host: str) -> None:
    """Decimal, octal and hexadecimal hosts are addresses to the machine's own look-up, and judged as those."""
    assert refusal(f"https://{host}/hook") in {"address_not_public", "host_unknown"}
    assert refusal(f"https://{host}:8443/hook") in {"address_not_public", "host_unknown"}


def test_spellings_of_loopback_are_found_by_the_look_up() -> None:
    """The test above is no accident: this machine does take them for 127.0.0.1."""
    assert addresses_of("2130706433", 443) == addresses_of("0x7f.1", 443) == addresses_of("127.1", 443) == ["127.0.0.1"]
    assert addresses_of("no-such-host.invalid", 443) == []
    assert addresses_of("a" * 300, 443) == []


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://shop.example/hook", "not_https"),
        ("ftp://shop.example/hook", "url_malformed"),
        ("https:///hook", "url_malformed"),
        ("https://user@shop.example/", "url_malformed"),
        ("https://8.8.8.8@127.0.0.1/", "url_malformed"),
        ("https://shop.example\\@127.0.0.1/", "url_malformed"),
        ("https://shop.example\\.evil/", "url_malformed"),
        ("https://shop.example/#part", "url_malformed"),
        ("https://shop.example:0/", "url_malformed"),
        ("https://shop.example:65536/", "url_malformed"),
        ("https://shop.example:x/", "url_malformed"),
        ("https://[::1/", "url_malformed"),
        ("https://[fe80::1%25eth0]/", "url_malformed"),
        ("https://[v1.x]/", "url_malformed"),
        ("https://①②⑦.⓪.⓪.①/", "url_malformed"),
        ("https://shop.example/a b", "url_malformed"),
        ("https://shop.example/\r\nhost: x", "url_malformed"),
        ("https://%31%32%37.0.0.1/", "url_malformed"),
        (f"https://shop.example/{'x' * 500}", "url_malformed"),
    ],
)
def test_url_is_refused(url: str, why: str) -> None:
    """What one program reads as this host and another as that one is not called at all."""
    assert refusal(url, ["8.8.8.8"]) == why


def test_name_that_leads_to_a_private_address_is_refused() -> None:
    """One such address among many is enough; a name without any is unknown."""
    assert refusal("https://rebind.example/", ["8.8.8.8", "10.0.0.1"]) == "address_not_public"
    assert refusal("https://nowhere.example/", []) == "host_unknown"
    assert refusal("https://shop.example/", ["8.8.8.8"]) == ""


def test_allowed_place_may_be_private_and_plain() -> None:
    """That very host and port, and no other."""
    allowed = frozenset({"127.0.0.1:8080", "[::1]:8443"})
    assert refusal("http://127.0.0.1:8080/hook", allowed=allowed) == ""
    assert refusal("https://[::1]:8443/hook", allowed=allowed) == ""
    assert refusal("http://127.0.0.1:8081/hook", allowed=allowed) == "not_https"
    assert refusal("https://127.0.0.1/hook", allowed=allowed) == "address_not_public"
    assert refusal("http://localhost:8080/hook", allowed=allowed) == "not_https"


def test_target_keeps_path_and_query() -> None:
    """As they were given; the port is that of the scheme where none is."""
    assert target_of("https://Shop.example?a=1&b=%20", ()) == Target(
        "https", "shop.example", 443, "/?a=1&b=%20", trusted=False
    )
    assert target_of("https://shop.example:8443/x", ()).port == 8443


@pytest.mark.parametrize(
    ("url", "authority"),
    [
        ("https://shop.example/", "shop.example"),
        ("https://shop.example:443/", "shop.example"),
        ("https://shop.example:80/", "shop.example:80"),
        ("https://[2606:4700::1111]/", "[2606:4700::1111]"),
        ("https://[2606:4700::1111]:8443/", "[2606:4700::1111]:8443"),
    ],
)
def test_authority_is_what_a_browser_would_say(url: str, authority: str) -> None:
    """The scheme's own port is left out, an address of IPv6 has brackets."""
    assert target_of(url, ()).authority == authority
