"""What the environment tells `paymesh up`; every fault is found before anything starts."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import TYPE_CHECKING

from services.platform.settings import PREFIX, SettingsError, load, setting

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOMS = ("config", "user", "order", "payment", "risk", "notification", "gateway")
"""Every service, in the order in which they are started: config renders for the others."""
INSTANCES = MappingProxyType({"payment": 2})
"""How many instances of a service run where it is not said; one where it is not here."""
INSTANCES_MAX = 15
SINGLE = frozenset({"config"})
"""Services of which there is one: all Envoys know its socket."""

_SCHEMES = ("sqlite", "mysql", "mariadb", "postgresql")
_ADDRESS = re.compile(r"[A-Za-z0-9.\-\[\]:]+:[0-9]{1,5}")


@dataclass(frozen=True, kw_only=True)
class _Plain:
    rest_port: int = setting("Loopback port of the edge for REST; 0: a free one.", 8443, low=0, high=65535)
    grpc_port: int = setting("Loopback port of the edge for gRPC; 0: a free one.", 8444, low=0, high=65535)
    redis_url: str = setting("URL of a Redis to use; empty: an embedded Valkey is started.", "")
    kafka: str = setting("host:port of a Kafka to use; empty: the embedded broker.", "")
    log_level: str = setting("Lowest level that is logged; the services say which there are.", "info")
    metrics: bool = setting(
        "Whether each service gets a loopback port for Prometheus; they stand in run.json.", default=False
    )
    sandbox_time_scale: float = setting(
        "Length of the waits of the providers in the sandbox (repeats of callbacks, late outcomes): 1 is their published "
        "schedule of hours; a hundredth of it is one that somebody who tries things out can wait for.",
        0.01,
        low=0,
        high=1,
    )


@dataclass(frozen=True, slots=True)
class UpSettings:
    """A mesh as the user wants it. ``databases`` and ``instances`` are by service; the first has the external ones alone."""

    rest_port: int
    grpc_port: int
    redis_url: str
    kafka: str
    log_level: str
    metrics: bool
    sandbox_time_scale: float
    databases: Mapping[str, str] = field(default_factory=dict)
    instances: Mapping[str, int] = field(default_factory=dict)


def up_settings(environ: Mapping[str, str]) -> UpSettings:
    """Read the settings. Raises SettingsError with every fault at once."""
    faults: list[str] = []
    try:
        plain = load(_Plain, environ)
    except SettingsError as error:
        faults += error.faults
        plain = _Plain(  # what is wrong with these is said too
            redis_url=environ.get("PAYMESH_REDIS_URL", ""),
            kafka=environ.get("PAYMESH_KAFKA", ""),
        )
    faults += _shape_faults(plain)
    databases, instances = {}, {}
    for room in ROOMS:
        name = f"PAYMESH_{room.upper()}_DATABASE_URL"
        if url := environ.get(name):
            databases[room] = url
            if not url.startswith(_SCHEMES) or "://" not in url:
                faults.append(f"{name} must be an SQLAlchemy URL of {', '.join(_SCHEMES)}.")  # it may hold a password
        name = f"PAYMESH_{room.upper()}_INSTANCES"
        high = 1 if room in SINGLE else INSTANCES_MAX
        text = environ.get(name) or str(INSTANCES.get(room, 1))
        if text.isascii() and text.isdecimal() and 1 <= int(text) <= high:
            instances[room] = int(text)
        else:
            faults.append(f"{name}={text!r}: must be a number from 1 to {high}. Instances of {room} to run.")
    if faults:
        raise SettingsError(faults)
    return UpSettings(
        plain.rest_port,
        plain.grpc_port,
        plain.redis_url,
        plain.kafka,
        plain.log_level,
        plain.metrics,
        plain.sandbox_time_scale,
        databases,
        instances,
    )


def up_names() -> set[str]:
    """Return the variables that `up` reads itself."""
    by_room = {f"{PREFIX}{room.upper()}_{what}" for room in ROOMS for what in ("DATABASE_URL", "INSTANCES")}
    return by_room | {PREFIX + each.name.upper() for each in fields(_Plain)}


def _shape_faults(plain: _Plain) -> list[str]:
    faults = []
    if plain.rest_port and plain.rest_port == plain.grpc_port:
        faults.append(f"PAYMESH_REST_PORT and PAYMESH_GRPC_PORT are both {plain.rest_port}: the edge needs two ports.")
    if plain.redis_url and not plain.redis_url.startswith(("redis://", "rediss://", "unix://")):
        faults.append("PAYMESH_REDIS_URL must begin with redis://, rediss:// or unix://.")
    if plain.kafka and not all(_ADDRESS.fullmatch(each) for each in plain.kafka.split(",")):
        faults.append(f"PAYMESH_KAFKA={plain.kafka!r}: must be host:port, several joined by a comma.")
    return faults
