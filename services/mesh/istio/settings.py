"""The environment of a room's container: what the contract, the pod, a ConfigMap or a Secret says."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from services.mesh.istio.manifest import SETTINGS, Json, host
from services.mesh.istio.routing import MESH, MESH_PORT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.contract.model import Service

DATA = "/var/lib/paymesh"
METRICS_PORT = 9464
ORDINAL = "metadata.labels['apps.kubernetes.io/pod-index']"
"""The number of a StatefulSet's pod; no two that run have the same."""


@dataclass(frozen=True, slots=True)
class Room:
    """What Kubernetes must know of a room and the contract does not say.

    `told` are settings from the ConfigMap. `keys` are Secrets that become a folder of files which only the service reads:
    Secret -> folder below DATA. `optional` are settings from a Secret that may be missing: variable -> (Secret, key).
    """

    memory_mib: int = 256
    autoscaled: bool = False
    single: bool = False
    told: tuple[str, ...] = ()
    keys: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    fixed: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    optional: Mapping[str, tuple[str, str]] = field(default_factory=lambda: MappingProxyType({}))


ROOMS = MappingProxyType(
    {
        "user": Room(
            # Two passwords are hashed at a time, of 46 MiB each.
            memory_mib=384,
            keys={"user-keys": "keys"},
            optional={
                "PAYMESH_ADMIN_USERNAME": ("user-admin", "username"),
                "PAYMESH_ADMIN_PASSWORD": ("user-admin", "password"),
            },
        ),
        "order": Room(autoscaled=True),
        "payment": Room(
            autoscaled=True,
            told=("PAYMESH_ALIPAY_URL", "PAYMESH_WECHAT_URL", "PAYMESH_CARDS_URL", "PAYMESH_PUBLIC_URL"),
            keys={"payment-vault-keys": "vault-keys", "payment-providers": "providers"},
            fixed={
                "PAYMESH_VAULT_KEYS": f"{DATA}/vault-keys",
                "PAYMESH_PROVIDERS": f"{DATA}/providers",
                "PAYMESH_FILES": f"{DATA}/files",
            },
        ),
        "risk": Room(),
        "notification": Room(
            told=("PAYMESH_SMTP", "PAYMESH_SMS_URL", "PAYMESH_PUSH_URL"), keys={"notification-keys": "keys"}
        ),
        # It keeps leases in memory: there is one.
        "config": Room(single=True, fixed={"PAYMESH_ENVOYS": "istio"}),
        "gateway": Room(keys={"gateway-keys": "keys"}),
    }
)


def database(room: str) -> Json:
    """Say where the URL of a room's database, with its password, comes from."""
    return {"secretKeyRef": {"name": f"{room}-database", "key": "url"}}


def environment(service: Service) -> list[Json]:
    """Return the environment of a room's container."""
    room = ROOMS[service.name]
    told = {
        "POD_IP": {"fieldRef": {"fieldPath": "status.podIP"}},
        "PAYMESH_INSTANCE": {"fieldRef": {"fieldPath": ORDINAL}},
        "PAYMESH_DATABASE_URL": database(service.name),
        "PAYMESH_REDIS_URL": {"secretKeyRef": {"name": "redis", "key": "url"}},
        **{
            name: {"configMapKeyRef": {"name": SETTINGS, "key": name}}
            for name in ("PAYMESH_KAFKA", "PAYMESH_LOG_LEVEL", *room.told)
        },
        **{
            name: {"secretKeyRef": {"name": secret, "key": key, "optional": True}}
            for name, (secret, key) in room.optional.items()
        },
    }
    fixed = {
        "PAYMESH_DATA": DATA,
        "PAYMESH_LISTEN": f"127.0.0.1:{service.port}",
        "PAYMESH_MESH": f"{host(MESH)}:{MESH_PORT}",
        "PAYMESH_MESH_ADDRESS": f"$(POD_IP):{service.port}",
        "PAYMESH_METRICS_PORT": str(METRICS_PORT),
        **room.fixed,
    }
    return [
        *({"name": name, "valueFrom": source} for name, source in told.items()),
        *({"name": name, "value": value} for name, value in fixed.items()),
    ]
