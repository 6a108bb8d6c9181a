"""Webhooks by HTTP: to checked addresses alone, without redirects or proxies, each try within one time-out."""

from __future__ import annotations

import socket
import ssl
import time
from typing import TYPE_CHECKING, Final

import httpcore
import httpx

from services.kernel.errors import DomainError
from services.notification.domain import Outcome, Target, admitted, target_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from services.kernel.clock import Clock
    from services.notification.domain import Attempt

_HEADERS: Final = {"content-type": "application/json", "user-agent": "paymesh-webhooks/1"}
_GONE: Final = 410
_CONNECT_S: Final = 5.0
"""How long one address may take to answer, where there are others."""


def addresses_of(host: str, port: int) -> list[str]:
    """Look up a host as the machine does; also numbers in the odd forms that it takes for an address."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return list(dict.fromkeys(str(each[4][0]) for each in found))


class HttpHooks:
    """Posts to https URLs at public addresses; ``allowed`` are the host:port that may be plain http and private.

    The host is looked up once a try, and the connection goes to an address of that answer, under the host's own name in
    TLS and in the request: a second answer, with another address in it, is never asked for. Of what comes back the status
    is read and nothing else.
    """

    def __init__(
        self,
        allowed: Collection[str],
        timeout_s: float,
        clock: Clock,
        *,
        resolve: Callable[[str, int], Sequence[str]] = addresses_of,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Give each try ``timeout_s`` in all; ``tls`` says whom to trust, by default the known authorities."""
        self._allowed, self._timeout_s, self._clock = allowed, timeout_s, clock
        self._resolve, self._tls = resolve, tls or httpx.create_ssl_context()

    def check(self, url: str) -> None:
        """Look whether a URL may be called. Raises WEBHOOK_URL_REFUSED."""
        self._admitted(url)

    def post(self, attempt: Attempt) -> Outcome:
        """Make one try; 2xx is good, 410 ends it for the endpoint, all else is a failure."""
        until = time.monotonic() + self._timeout_s
        try:
            target, addresses = self._admitted(attempt.url)
            status = self._status(attempt, target, _Pinned(addresses, until))
        except DomainError as refusal:
            return Outcome(f"the URL is not called: {refusal.metadata['why']}")
        except httpcore.TimeoutException:
            return Outcome("no answer in time")
        except (httpcore.NetworkError, httpcore.ProtocolError) as error:
            cause = next((each for each in error.args if isinstance(each, Exception)), error)
            return Outcome(f"not reached: {type(cause).__name__}")
        return Outcome() if 200 <= status < 300 else Outcome(f"answered {status}", gone=status == _GONE)

    def _admitted(self, url: str) -> tuple[Target, Sequence[str]]:
        target = target_of(url, self._allowed)
        return target, admitted(target, self._resolve(target.host, target.port))

    def _status(self, attempt: Attempt, target: Target, backend: httpcore.NetworkBackend) -> int:
        url = httpcore.URL(scheme=target.scheme, host=target.host, port=target.port, target=target.path)
        signed = attempt.headers(self._clock.now_ms())
        headers = [("host", target.authority), *_HEADERS.items(), *signed.items()]
        with (
            httpcore.ConnectionPool(ssl_context=self._tls, network_backend=backend) as pool,
            pool.stream("POST", url, headers=headers, content=attempt.body) as answer,
        ):
            return answer.status


class _Pinned(httpcore.NetworkBackend):
    """Connects to the given addresses, whatever the host's name; all that it opens ends at ``until``."""

    def __init__(self, addresses: Sequence[str], until: float) -> None:
        self._addresses, self._until = addresses, until
        self._plain = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to the first address that answers."""
        del host, timeout
        *others, last = self._addresses
        for address in others:
            left = min(_CONNECT_S, _left(self._until))
            try:
                return _Until(self._plain.connect_tcp(address, port, left, local_address, socket_options), self._until)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        stream = self._plain.connect_tcp(last, port, _left(self._until), local_address, socket_options)
        return _Until(stream, self._until)


class _Until(httpcore.NetworkStream):
    """A connection whose every step has the time that is left of the whole: an answer in drops does not last longer."""

    def __init__(self, stream: httpcore.NetworkStream, until: float) -> None:
        self._stream, self._until = stream, until

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read."""
        del timeout
        return self._stream.read(max_bytes, _left(self._until))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write."""
        del timeout
        self._stream.write(buffer, _left(self._until))

    def close(self) -> None:
        """Close it."""
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """Continue in TLS, under the name of the URL's host."""
        del timeout
        return _Until(self._stream.start_tls(ssl_context, server_hostname, _left(self._until)), self._until)

    def get_extra_info(self, info: str) -> object:
        """Tell what the connection tells."""
        return self._stream.get_extra_info(info)


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout("no time is left")
    return left
