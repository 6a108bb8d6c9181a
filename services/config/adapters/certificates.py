"""Leaf certificates of the nodes, issued from the mesh's CA for a day and again at half of it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from services.mesh.node import EDGE
from services.mesh.snapshot import Secrets
from services.platform import pki
from services.platform.identity import instance_name

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

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
    not_after: datetime


class IssuedCertificates:
    """One certificate and key for each node, and one for config's own health checks. In memory alone."""

    def __init__(
        self, trust: pki.Trust, now: Callable[[], datetime] = utc_now, *, life: timedelta = pki.LEAF_LIFE
    ) -> None:
        """Issue with the CA that signs, for ``life``."""
        self._trust, self._now, self._life = trust, now, life
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
                own = (instance_name(holder, service),) if holder.startswith(f"{service}-") else ()
                names = (*own, *(_EDGE_NAMES if service == EDGE else ()))
                pair = self._trust.issuer.issue(service, names=names, now=self._now(), life=self._life)
                secrets = Secrets(pair.cert_pem, pair.key_pem, self._trust.pem)
                issued = self._issued[holder] = _Issued(secrets, pki.half_life(pair), pair.not_after)
            return issued.secrets

    def use(self, trust: pki.Trust) -> None:
        """Have everybody trust what ``trust`` says, and issue anew when another CA signs."""
        with self._lock:
            if trust.issuer.certificate != self._trust.issuer.certificate:
                self._issued.clear()
            self._trust = trust
            for holder, issued in self._issued.items():
                self._issued[holder] = replace(issued, secrets=replace(issued.secrets, ca_pem=trust.pem))

    def ends_ms(self, node_id: str) -> int:
        """When the certificate of a node ends, in milliseconds since 1970 UTC; 0: it has none."""
        with self._lock:
            issued = self._issued.get(node_id)
        return int(issued.not_after.timestamp() * 1000) if issued else 0

    def renew(self) -> bool:
        """Forget certificates past half of their life; the next one asked for is new. Whether there were any."""
        now = self._now()
        with self._lock:
            due = [holder for holder, issued in self._issued.items() if issued.renew_at <= now]
            for holder in due:
                del self._issued[holder]
        return bool(due)
