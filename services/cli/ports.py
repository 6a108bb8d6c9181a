"""Loopback ports: free ones to take, and who has one that is taken."""

from __future__ import annotations

import contextlib
import random
import socket

FIRST, LAST = 20_000, 32_000
"""Below the range from which the kernel picks ports for outgoing connections: a port stays free while its owner restarts."""


def is_free(port: int) -> bool:
    """Whether a server could listen on 127.0.0.1 at ``port``, as Envoy would."""
    with contextlib.closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError:
            return False
        return True


def free_ports(count: int) -> list[int]:
    """Pick ``count`` free ports, all different, at random: two meshes that start at once must not pick the same."""
    found: list[int] = []
    for port in random.sample(range(FIRST, LAST), LAST - FIRST):
        if is_free(port):
            found.append(port)
        if len(found) == count:
            return found
    raise OSError(f"{count} free ports between {FIRST} and {LAST} were not found")


def owner(port: int) -> str:
    """Say who listens on ``port``, such as ``nginx, pid 71``; "" when that cannot be seen."""
    import psutil  # noqa: PLC0415 - only for the message

    with contextlib.suppress(psutil.Error, OSError):
        for each in psutil.net_connections("tcp"):
            if each.status == psutil.CONN_LISTEN and each.laddr and each.laddr.port == port and each.pid:
                return f"{psutil.Process(each.pid).name()}, pid {each.pid}"
    return ""
