"""Leaf certificates of the nodes, issued from the mesh's CA for a day and again at half of it."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from services.mesh.node import EDGE
from services.mesh.snapshot import Secrets
from services.platform import pki

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.mesh.node import Node

_EDGE_NAMES = ("localhost", "127.0.0.1")
"""Names under which clients on this machine reach the edge."""


def utc_now() -> datetime:
    """The wall clock: what the peers compare a certificate's life with."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class _Issued:
    secrets: Secrets
    renew_at: datetime


class IssuedCertificates:
    """One certificate and key for each node, and one for config's own health checks. In memory alone."""

    def __init__(self, authority: pki.Authority, now: Callable[[], datetime] = utc_now) -> None:
        """Issue with ``authority``."""
        self._authority, self._now = authority, now
        self._issued: dict[str, _Issued] = {}
        self._lock = threading.Lock()

    def secrets(self, node: Node) -> Secrets:
        """Return the node's certificate, key and CAs, for the identity of its service."""
        return self._of(node.id, node.cluster)

    def of_service(self, service: str) -> Secrets:
        """Return a certificate with which this process itself speaks as ``service``."""
        return self._of(f"process of {service}", service)

    def _of(self, holder: str, service: str) -> Secrets:
        with self._lock:
            issued = self._issued.get(holder)
            if issued is None:
                names = _EDGE_NAMES if service == EDGE else ()
                pair = self._authority.issue(service, names=names, now=self._now())
                secrets = Secrets(pair.cert_pem, pair.key_pem, self._authority.cert_pem)
                issued = self._issued[holder] = _Issued(secrets, pki.half_life(pair))
            return issued.secrets

    def renew(self) -> bool:
        """Forget certificates past half of their life; the next one asked for is new. Whether there were any."""
        now = self._now()
        with self._lock:
            due = [holder for holder, issued in self._issued.items() if issued.renew_at <= now]
            for holder in due:
                del self._issued[holder]
        return bool(due)
