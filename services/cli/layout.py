"""Where everything of one mesh is on this machine: sockets, ports, environments. Chosen once, at the start of `up`."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import paymesh
import services
from services.cli.ports import free_ports
from services.cli.releases import BASE, Release
from services.cli.settings import INSTANCES_MAX, ROOMS
from services.mesh.node import Edge, Sidecar

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from services.cli.folder import Folder
    from services.cli.settings import UpSettings

EDGE = "edge-1"
EMBEDDED_UNREAD_MAX = 2_000
"""Messages of a partition that wait in the embedded broker: it drops what is beyond 5 MB, an event has less than 1 KiB."""
_KEPT = ("PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR", "VIRTUAL_ENV", "COVERAGE_PROCESS_START")
_DROPPED = frozenset({"PYTHONDONTWRITEBYTECODE"})
"""Ten processes import the same modules: whoever compiles one does it for all, and for the next start."""
_KEYS_OF_FILES = "PAYMESH_S3_"
_KEPT_PREFIXES = ("LC_", "LD_", "PYTHON", "FAKETIME", "MALLOC_", "GRPC_", "PAYMESH_")


@dataclass(frozen=True, slots=True)
class Instance:
    """An instance of a service and the Envoy beside it. Ports are on loopback; ``metrics`` is 0 where nobody scrapes."""

    service: str
    number: int
    mesh: int
    admin: int
    metrics: int
    release: Release = BASE

    @property
    def name(self) -> str:
        """Name of the instance, and id of its Envoy."""
        return f"{self.service}-{self.number}"


@dataclass(frozen=True, slots=True)
class Layout:
    """A whole mesh. ``kafka`` is host:port of the broker, embedded or not."""

    folder: Folder
    settings: UpSettings
    instances: tuple[Instance, ...]
    rest: int
    grpc: int
    edge_admin: int
    sandbox_http: int
    sandbox_smtp: int
    kafka: str

    def socket(self, instance: Instance) -> Path:
        """Path on which a service listens for its own Envoy."""
        return self.folder.run / f"{instance.name}.sock"

    def outbound(self, instance: Instance) -> Path:
        """Path on which its Envoy takes the service's own calls."""
        return self.folder.run / f"{instance.name}.out.sock"

    @property
    def xds(self) -> Path:
        """Path on which config serves all Envoys."""
        return self.folder.run / "xds.sock"

    @property
    def valkey(self) -> Path:
        """Path of the embedded Valkey: a socket in a closed folder needs no password and takes no port."""
        return self.folder.run / "valkey.sock"

    @property
    def redis_url(self) -> str:
        """URL of Redis, embedded or not."""
        return self.settings.redis_url or f"unix://{self.valkey}?db=0"

    @property
    def rest_url(self) -> str:
        """URL of the edge, by a name that its certificate has; providers call back there, too."""
        return f"https://127.0.0.1:{self.rest}"

    @property
    def sandbox_url(self) -> str:
        """URL of the outside world: the providers, and what they received."""
        return f"http://127.0.0.1:{self.sandbox_http}"

    def database_url(self, service: str) -> str:
        """SQLAlchemy URL of a service's database: SQLite in DIR where the user names no other."""
        return self.settings.databases.get(service) or f"sqlite:///{self.folder.path / service}.db"

    def node(self, instance: Instance) -> Sidecar:
        """Describe the Envoy beside an instance."""
        return Sidecar(
            id=instance.name,
            service=instance.service,
            inbound=f"127.0.0.1:{instance.mesh}",
            service_socket=str(self.socket(instance)),
            outbound_socket=str(self.outbound(instance)),
        )

    @property
    def edge(self) -> Edge:
        """Describe the Envoy that clients reach."""
        return Edge(id=EDGE, rest=f"127.0.0.1:{self.rest}", grpc=f"127.0.0.1:{self.grpc}")

    def of(self, services_wanted: Iterable[str]) -> tuple[Instance, ...]:
        """Return the instances of some services."""
        wanted = frozenset(services_wanted)
        return tuple(each for each in self.instances if each.service in wanted)

    def service_environ(self, instance: Instance, admin: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of a service; the operator's password is told to user alone."""
        extra = {
            "config": {
                "PAYMESH_XDS_LISTEN": f"unix:{self.xds}",
                "PAYMESH_CA_DIR": str(self.folder.pki),
                "PAYMESH_JOIN_TOKENS": str(self.folder.tokens),
            },
            "notification": {
                "PAYMESH_SMTP": f"127.0.0.1:{self.sandbox_smtp}",
                "PAYMESH_SMS_URL": f"{self.sandbox_url}/sms",
                "PAYMESH_PUSH_URL": f"{self.sandbox_url}/pushes",
            },
            "payment": {
                "PAYMESH_PROVIDERS": str(self.folder.providers / "merchant"),
                "PAYMESH_ALIPAY_URL": f"{self.sandbox_url}/alipay/gateway.do",
                "PAYMESH_WECHAT_URL": self.sandbox_url,
                "PAYMESH_CARDS_URL": self.sandbox_url,
                "PAYMESH_PUBLIC_URL": self.rest_url,
                "PAYMESH_VAULT_KEYS": str(self.folder.vault_keys),
                "PAYMESH_FILES": os.environ.get("PAYMESH_FILES") or str(self.folder.files),
                **{name: value for name, value in os.environ.items() if name.startswith(_KEYS_OF_FILES)},
            },
            "user": {"PAYMESH_ADMIN_USERNAME": admin["username"], "PAYMESH_ADMIN_PASSWORD": admin["password"]},
        }
        return {
            **base_environ(),
            "PAYMESH_DATA": str(self.folder.path),
            "PAYMESH_INSTANCE": str(instance.number),
            "PAYMESH_LISTEN": f"unix:{self.socket(instance)}",
            "PAYMESH_MESH": f"unix:{self.outbound(instance)}",
            "PAYMESH_MESH_ADDRESS": f"127.0.0.1:{instance.mesh}",
            "PAYMESH_DATABASE_URL": self.database_url(instance.service),
            "PAYMESH_REDIS_URL": self.redis_url,
            "PAYMESH_KAFKA": self.kafka,
            "PAYMESH_LOG_LEVEL": self.settings.log_level,
            "PAYMESH_METRICS_PORT": str(instance.metrics),
            **({} if self.settings.kafka else {"PAYMESH_RELAY_UNREAD_MAX": str(EMBEDDED_UNREAD_MAX)}),
            **extra.get(instance.service, {}),
            **of_release(instance.release),
        }

    def with_instance(self, service: str, release: Release) -> tuple[Layout, Instance]:
        """Return the layout with a further instance, and that: with the lowest free number, on ports that are free now."""
        taken = {each.number for each in self.of({service})}
        number = min(number for number in range(1, INSTANCES_MAX + 1) if number not in taken)
        mesh, admin, metrics = free_ports(3)
        made = Instance(service, number, mesh, admin, metrics if self.settings.metrics else 0, release)
        ordered = sorted((*self.instances, made), key=lambda each: (ROOMS.index(each.service), each.number))
        return replace(self, instances=tuple(ordered)), made

    def without(self, instance: Instance) -> Layout:
        """Return the layout without an instance."""
        return replace(self, instances=tuple(each for each in self.instances if each != instance))


RESERVED = frozenset(
    f"PAYMESH_{name}"
    for name in (
        "DATA", "INSTANCE", "LISTEN", "MESH", "MESH_ADDRESS", "DATABASE_URL", "REDIS_URL", "KAFKA", "METRICS_PORT",
        "XDS_LISTEN", "CA_DIR", "JOIN_TOKENS", "VAULT_KEYS", "FILES", "PUBLIC_URL",
    )
)  # fmt: skip
"""What makes an instance one of this mesh: no release has its own."""


def of_release(release: Release) -> dict[str, str]:
    """Return what a release sets beside: its settings, and where its code is found before ours."""
    roots = [release.tree, str(Path(release.tree, "gen", "python"))] if release.tree else []
    path = {"PYTHONPATH": os.pathsep.join([*roots, base_environ()["PYTHONPATH"]])} if roots else {}
    return {**dict(release.environ), **path}


def base_environ() -> dict[str, str]:
    """Return what every child keeps of our environment, and how it finds the code: it runs in a folder of its own.

    External databases are told to each service alone, since their URLs hold passwords; the key of files to payment.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if (name in _KEPT or name.startswith(_KEPT_PREFIXES))
        and name not in _DROPPED
        and not name.endswith("_DATABASE_URL")
        and not name.startswith(_KEYS_OF_FILES)
    }
    roots = [str(Path(package.__path__[0]).parent) for package in (services, paymesh)]
    path = os.pathsep.join(filter(None, [*dict.fromkeys(roots), kept.get("PYTHONPATH")]))
    # An arena of malloc for each thread would cost every service tens of MiB.
    return {"MALLOC_ARENA_MAX": "2", **kept, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


def python(*arguments: str) -> tuple[str, ...]:
    """Return the command that runs our Python; -P keeps the folder that it runs in from being imported from."""
    return (sys.executable, "-P", *arguments)


def lay_out(folder: Folder, settings: UpSettings, kafka: str, releases: Mapping[str, Release] | None = None) -> Layout:
    """Choose ports, all free now, for every service (as the release given, or BASE) and what is around them."""
    places = [(room, number) for room in ROOMS for number in range(1, settings.instances[room] + 1)]
    ports = iter(free_ports(5 + 3 * len(places)))
    instances = tuple(
        Instance(
            room,
            number,
            next(ports),
            next(ports),
            next(ports) if settings.metrics else 0,
            (releases or {}).get(room, BASE),
        )
        for room, number in places
    )
    rest, grpc = settings.rest_port or next(ports), settings.grpc_port or next(ports)
    return Layout(folder, settings, instances, rest, grpc, next(ports), next(ports), next(ports), kafka)
