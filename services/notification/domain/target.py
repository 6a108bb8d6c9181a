"""Where webhooks may go: by https, to hosts whose every address is public. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, urlsplit

from services.kernel.errors import DomainError

URL_MAX: Final = 500
_URL: Final = re.compile(r"https?://[!-~]+")
_NAME: Final = re.compile(r"[a-z0-9._-]{1,253}")
_PORTS: Final = {"https": 443, "http": 80}

_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
"""All of IPv6 that is given out for the public; `is_global` alone lets site-local and IPv4-compatible addresses through."""
_PROTOCOLS: Final = ipaddress.IPv4Network("192.0.0.0/24")
"""For protocols, not for hosts; `is_global` knows parts of it alone."""
_6TO4: Final = ipaddress.IPv6Network("2002::/16")
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class Target:
    """A URL in the parts that a request needs. ``trusted``: the operator allows this very host and port."""

    scheme: str
    host: str
    port: int
    path: str
    trusted: bool

    @property
    def authority(self) -> str:
        """What the request says that it is for: the host, and the port where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


def target_of(url: str, allowed: Collection[str]) -> Target:
    """Take a URL apart; ``allowed`` are the host:port that may be plain http and private.

    Raises WEBHOOK_URL_REFUSED.
    """
    parts, port = _split(url)
    host = parts.hostname or ""
    is_v6 = "[" in parts.netloc
    if "@" in parts.netloc or parts.fragment or not (_is_v6(host) if is_v6 else _NAME.fullmatch(host)):
        raise _refused("url_malformed")
    trusted = f"[{host}]:{port}" in allowed if is_v6 else f"{host}:{port}" in allowed
    if parts.scheme != "https" and not trusted:
        raise _refused("not_https")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(parts.scheme, host, port, path, trusted)


def admitted(target: Target, addresses: Sequence[str]) -> Sequence[str]:
    """Return the addresses of a target's host if it may be called at all of them. Raises WEBHOOK_URL_REFUSED."""
    if not addresses:
        raise _refused("host_unknown")
    if not target.trusted and not all(map(is_public, addresses)):
        raise _refused("address_not_public")
    return addresses


def is_public(address: str) -> bool:
    """Whether an address is one of the public internet; those of IPv6 that lead to one of IPv4 are as good as that."""
    found = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or (ipaddress.IPv4Address(int(found) & 0xFFFFFFFF) if found in _NAT64 else None)
        if inner is None:
            return found in _UNICAST and found not in _6TO4 and found.is_global
        found = inner
    return found.is_global and not found.is_multicast and found not in _PROTOCOLS


def _split(url: str) -> tuple[SplitResult, int]:
    if len(url) > URL_MAX or not _URL.fullmatch(url):
        raise _refused("url_malformed")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _refused("url_malformed") from None
    if port == 0:
        raise _refused("url_malformed")
    return parts, port or _PORTS[parts.scheme]


def _is_v6(host: str) -> bool:
    try:
        return ipaddress.IPv6Address(host).scope_id is None
    except ValueError:
        return False


def _refused(why: str) -> DomainError:
    return DomainError("WEBHOOK_URL_REFUSED", why=why)
