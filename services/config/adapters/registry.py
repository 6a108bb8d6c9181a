"""The leases, in memory."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from services.config.domain import Endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from services.config.domain import Lease, Name
    from services.config.ports import Mesh
    from services.kernel.clock import Clock


class LeaseRegistry:
    """Holds leases and shows the Envoys those that get calls. Safe to use from threads."""

    def __init__(self, mesh: Mesh, clock: Clock) -> None:
        """Begin with none."""
        self._mesh, self._clock = mesh, clock
        self._leases: dict[Name, Lease] = {}
        self._lock = threading.Lock()

    def all(self) -> Sequence[Lease]:
        """Return every lease, by name."""
        with self._lock:
            return [self._leases[name] for name in sorted(self._leases)]

    def change(self, name: Name, to: Callable[[Lease | None], Lease | None]) -> Lease | None:
        """Replace the lease of ``name`` by what ``to`` makes of it; None forgets it.

        The Envoys are shown it under the lock, so that of two changes the later one is shown last.
        """
        with self._lock:
            before = self._leases.get(name)
            after = to(before)
            if after is None:
                self._leases.pop(name, None)
            else:
                self._leases[name] = after
            if after != before:
                self._show()
        return after

    def _show(self) -> None:
        now = self._clock.monotonic()
        endpoints: dict[str, list[Endpoint]] = {}
        for name, lease in sorted(self._leases.items()):
            if lease.routable(now):
                endpoints.setdefault(name.service, []).append(Endpoint(name.instance, lease.address))
        self._mesh.show_endpoints(endpoints)
