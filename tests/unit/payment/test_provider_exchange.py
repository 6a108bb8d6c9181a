"""HTTP with a provider: what is sent, and when it is given up."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

import httpx
import pytest

from services.payment.adapters import strict_json
from services.payment.adapters.exchange import Exchange, Unanswered, provider_url, same_origin
from tests.fakes.order import FakeClock

URL = httpx.URL("https://provider.example.com/pay?x=1")


def exchange(answer: httpx.Response, clock: FakeClock | None = None) -> tuple[Exchange, list[httpx.Request]]:
    """An exchange with a provider that answers always the same, and what it was asked."""
    asked: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return answer

    return Exchange(clock or FakeClock(), transport=httpx.MockTransport(handle)), asked


def test_send_when_redirected() -> None:
    """A redirect is an answer like another: what is signed for one URL goes to no other."""
    made, asked = exchange(
        httpx.Response(307, headers={"Location": "https://evil.example.com/"}, stream=httpx.ByteStream(b""))
    )
    assert made.send("POST", URL, {"Authorization": "x"}, b"{}").status == 307
    assert [str(each.url) for each in asked] == [str(URL)]


def test_send_when_the_body_comes_packed() -> None:
    """We ask for plain bytes, and what comes packed stays packed: nothing unfolds to a gigabyte."""
    packed = gzip.compress(b" " * 1_000_000)
    made, asked = exchange(httpx.Response(200, headers={"Content-Encoding": "gzip"}, stream=httpx.ByteStream(packed)))
    assert made.send("GET", URL, {}).body == packed
    assert asked[0].headers["accept-encoding"] == "identity"


def test_send_when_the_answer_trickles() -> None:
    """An answer whose pieces each come in time, but never end, is given up."""
    clock = FakeClock()

    class Trickle(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            while True:
                clock.ms += 4_000
                yield b" "

    made, _ = exchange(httpx.Response(200, stream=Trickle()), clock)
    before = clock.ms
    with pytest.raises(Unanswered, match="timeout"):
        made.send("GET", URL, {})
    assert clock.ms - before <= 16_000


@pytest.mark.parametrize(
    "text",
    [
        "http://example.com",
        "http://10.0.0.1",
        "https://",
        "//x",
        "https://u@x/",
        "https://x/#f",
        "https://x:y/",
        "\x00",
    ],
)
def test_url_when_not_a_providers(text: str) -> None:
    """TLS, but to this machine; a host; nobody's password."""
    with pytest.raises(ValueError, match=r"."):
        provider_url(text)


def test_origin_when_compared() -> None:
    """Scheme, host and port make the server."""
    one = httpx.URL("https://a.example.com/x")
    assert same_origin(one, httpx.URL("https://a.example.com:443/y"))
    for other in ("http://a.example.com/x", "https://b.example.com/x", "https://a.example.com:444/x"):
        assert not same_origin(one, httpx.URL(other))


def test_json_when_it_has_two_readings() -> None:
    """A name twice, NaN, what is no object and what nests too deep are no JSON to a verifier."""
    for text in (
        '{"a":1,"a":2}',
        '{"x":{"a":1,"a":2}}',
        '{"a":NaN}',
        "[]",
        "1",
        "",
        "{",
        '{"a":1}x',
        '{"a":' * 100_000,
    ):
        with pytest.raises(ValueError, match=r"."):
            assert strict_json.members(text)


def test_json_when_its_members_are_wanted_as_they_stand() -> None:
    """Each value is the very characters of the text."""
    text = ' { "a" : { "b" : "\\/" , "c":[1, 2.50]} ,\n"sign" :"x"} '
    assert strict_json.members(text) == {"a": '{ "b" : "\\/" , "c":[1, 2.50]}', "sign": '"x"'}
    assert strict_json.members("{}") == {}
