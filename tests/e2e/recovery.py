"""What comes after a kill: the process again, its place in the balancing, and books on which nothing is on its way."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from typing import TYPE_CHECKING, Any

import httpx

from tests.e2e.mesh import until

if TYPE_CHECKING:
    from tests.e2e.clients import Plane
    from tests.e2e.mesh import Mesh

SETTLE_S = 60.0


def admin(mesh: Mesh, node_id: str, path: str) -> Any:  # noqa: ANN401 - JSON
    """Ask the Envoy of a node."""
    (at,) = [each["admin"] for group in mesh.record["envoys"].values() for each in group if each["id"] == node_id]
    return httpx.get(f"http://{at}{path}", trust_env=False, timeout=5).raise_for_status().json()


async def restarted(mesh: Mesh, instance: str, dead: int) -> float:
    """Wait until the supervisor has started an instance again; returns how long that took, in seconds."""
    began = time.monotonic()
    while mesh.pid(instance) in {0, dead}:
        await asyncio.sleep(0.02)
        assert time.monotonic() - began < 10, f"{instance} was not started again"
    return time.monotonic() - began


async def serving(mesh: Mesh, instance: str) -> None:
    """Wait until an instance takes connections and the edge sends it requests (again)."""
    service = instance.rpartition("-")[0]
    (place,) = [each for each in mesh.record["services"][service] if each["name"] == instance]
    deadline = time.monotonic() + 40
    while not (_accepts(place["socket"]) and _is_balanced_to(mesh, service, place["mesh"])):
        assert time.monotonic() < deadline, f"{instance} did not come back into the balancing"
        await asyncio.sleep(0.1)


def _accepts(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == 0


def _is_balanced_to(mesh: Mesh, service: str, address: str) -> bool:
    for cluster in admin(mesh, "edge-1", "/clusters?format=json")["cluster_statuses"]:
        if cluster["name"] == service:
            for host in cluster.get("host_statuses", []):
                at = host["address"]["socket_address"]
                if f"{at['address']}:{at['port_value']}" == address:
                    return bool(host["health_status"] == {"eds_health_status": "HEALTHY"})
    return False


def settled(mesh: Mesh) -> tuple[float, int]:
    """Wait until verify holds with nothing on its way; returns how long it took and how many rows it examined."""
    said: dict[str, Any] = {}

    def holds() -> bool:
        code, found = mesh.verify("--settled")
        said.update(found)
        return code == 0

    try:
        took_s = until(holds, SETTLE_S)
    except AssertionError:
        raise AssertionError(f"not settled within {SETTLE_S:g} s: {json.dumps(said['faults'], indent=1)}") from None
    return took_s, sum(each["examined"] for each in said["findings"])


def every(plane: Plane, method: str, name: str, token: str, **body: str) -> list[dict[str, Any]]:
    """Read every page of a list."""
    found: list[dict[str, Any]] = []
    page: dict[str, Any] = {"next_page_token": ""}
    while True:
        asked = {**body, "page_size": 100, "page_token": page["next_page_token"]}
        page = plane.call(method, asked, token=token)
        found += page[name]
        if not page["next_page_token"]:
            return found
