"""HTTP with a provider: time-outs, a pool, no redirects, no proxies of the environment, answers of bounded size."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx

from services.platform import failpoint

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.kernel.clock import Clock

CONNECT_S = 2.0
READ_S = 5.0
ANSWER_BYTES_MAX = 1 << 20
"""An answer of a provider is a few kilobytes."""
CONNECTIONS_MAX = 64


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, the body as the bytes that were sent."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Unanswered(Exception):
    """No answer, or none that may be used; it is not known what the provider did. The word says why.

    unreached: no connection came about · timeout · broken: the connection ended early · too_large
    """

    def __init__(self, word: str) -> None:
        """Say why in a ``word``."""
        self.word = word
        super().__init__(word)


class Exchange:
    """A pool of connections to one provider; any number of threads may use it."""

    def __init__(
        self,
        clock: Clock,
        *,
        connect_s: float = CONNECT_S,
        read_s: float = READ_S,
        transport: httpx.BaseTransport | None = None,
        provider: str = "",
    ) -> None:
        """Wait ``connect_s`` for a connection and ``read_s`` for each piece; ``transport`` replaces the network."""
        self._clock, self._provider = clock, provider
        self._total_s = connect_s + 2 * read_s
        self._client = httpx.Client(
            timeout=httpx.Timeout(read_s, connect=connect_s, pool=connect_s),
            limits=httpx.Limits(max_connections=CONNECTIONS_MAX, keepalive_expiry=5),
            follow_redirects=False,  # a signature is made for one URL
            trust_env=False,
            transport=transport,
            # A body is verified as the bytes that came, so it must not come packed.
            headers={"User-Agent": "paymesh", "Accept": "application/json", "Accept-Encoding": "identity"},
        )

    def send(
        self,
        method: str,
        url: httpx.URL,
        headers: Mapping[str, str],
        body: bytes = b"",
        *,
        bytes_max: int = ANSWER_BYTES_MAX,
        total_s: float | None = None,
    ) -> Answer:
        """Send exactly these bytes once, and return the answer, whatever its status. Raises Unanswered."""
        request = self._client.build_request(method, url, headers=dict(headers), content=body or None)
        ends = self._clock.monotonic() + (total_s or self._total_s)
        try:
            answer = self._client.send(request, stream=True)
            if body:
                failpoint.reach("P8", self._provider)  # it has done what it was asked for, and we have not read so yet
            try:
                return Answer(answer.status_code, answer.headers, self._read(answer, bytes_max, ends))
            finally:
                answer.close()
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise Unanswered("unreached") from error
        except httpx.TimeoutException as error:
            raise Unanswered("timeout") from error
        except httpx.HTTPError as error:
            raise Unanswered("broken") from error

    def _read(self, answer: httpx.Response, bytes_max: int, ends: float) -> bytes:
        """Read the body; one that trickles is given up, as one that never ends is."""
        pieces, size = [], 0
        for piece in answer.iter_raw():
            size += len(piece)
            if size > bytes_max:
                raise Unanswered("too_large")
            if self._clock.monotonic() > ends:
                raise Unanswered("timeout")
            pieces.append(piece)
        return b"".join(pieces)

    def stop(self) -> None:
        """Close the connections."""
        self._client.close()


def provider_url(text: str) -> httpx.URL:
    """Read a provider's URL: https, or http to this machine alone, where the sandbox is. Raises ValueError."""
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise ValueError("not a URL") from error
    if url.scheme != "https" and not (url.scheme == "http" and _loopback(url.host)):
        raise ValueError("neither https nor http to this machine")
    if not url.host or url.userinfo or url.fragment:
        raise ValueError("not the URL of a provider: no host, or a user, or a fragment")
    return url


def same_origin(one: httpx.URL, other: httpx.URL) -> bool:
    """Whether two URLs lead to the same server by the same scheme."""
    return (one.scheme, one.host, one.port) == (other.scheme, other.host, other.port)


def _loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
