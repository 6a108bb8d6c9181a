"""Composition root of config."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from paymesh.config.v1 import config_service_pb2_grpc as rpc
from services.config import jobs
from services.config.adapters.admission import JoinTokens
from services.config.adapters.authority import AuthorityFiles
from services.config.adapters.cache import RedisEntries
from services.config.adapters.certificates import IssuedCertificates
from services.config.adapters.envoys import Envoys
from services.config.adapters.health import GrpcHealthProbe
from services.config.adapters.registry import LeaseRegistry
from services.config.clients import GatewayKeys, UserKeys
from services.config.domain import Lease, Name, own
from services.config.servicer.config import Config
from services.config.servicer.watch import Turns
from services.config.servicer.xds import DeltaDiscovery, XdsServer
from services.config.settings import OWN
from services.config.store import OUTBOX, RELAY_LEASE, SqlStore
from services.config.usecases import Configuration, Discovery, Trust
from services.contract.load import contract
from services.kernel.clock import SystemClock
from services.kernel.ids import IdMaker
from services.mesh import snapshot
from services.mesh.node import EDGE
from services.platform import cache, pki
from services.platform.batcher import Batcher
from services.platform.client import MeshChannel
from services.platform.database import Database
from services.platform.process import App, Closing
from services.platform.reads import ReadPool
from services.platform.relay import Relay
from services.platform.revocation import RevokedSessions

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.config.settings import ConfigSettings
    from services.platform.process import Part

SERVICE = "config"


@dataclass(frozen=True)
class ConfigApp(App):
    """The App, and the server of the Envoys: who runs it can ask whether a node has taken all that there is for it."""

    discovery: DeltaDiscovery | None = None


@dataclass(frozen=True)
class _Recovery:
    """The first part to work: what was known before a restart is known before anybody asks."""

    recover: Callable[[], None]

    def start(self) -> None:
        self.recover()

    def stop(self) -> None:
        """Nothing to undo."""


def build(settings: ConfigSettings) -> ConfigApp:
    """Make the service; nothing runs yet."""
    clock = SystemClock()
    database = Database(settings.database_url or f"sqlite:///{settings.data / 'config.db'}")
    client = cache.connect(settings.redis_url)
    store = SqlStore(database, IdMaker(clock, settings.instance), clock)
    own = settings.envoys == OWN
    certificates = _certificates(settings)
    envoys = Envoys(partial(snapshot.make, contract()), certificates, settings.origins)
    registry = LeaseRegistry(envoys, clock)
    probe = GrpcHealthProbe(partial(certificates.of_service, SERVICE) if own else None)
    checks = jobs.HealthChecks(registry, probe, clock)

    relay = Relay(SERVICE, database, (OUTBOX, RELAY_LEASE), settings.kafka, clock, unread_max=settings.relay_unread_max)
    turns = Turns()

    def committed() -> None:
        relay.nudge()
        turns.turn()

    configuration = Configuration(store, RedisEntries(client), clock, committed, envoys, {*contract().services, EDGE})
    instances = Discovery(store, registry, checks, clock, tuple(contract().services))
    xds = DeltaDiscovery(envoys, JoinTokens(settings.join_tokens))
    trust = Trust(AuthorityFiles(settings.ca_dir, certificates.use) if own else None, certificates, xds, envoys)
    batcher = Batcher(
        {
            "set": configuration.set_configs,
            "register": instances.register_instances,
            "deregister": instances.deregister_instances,
            "expire": instances.expire_leases,
            "rotate": trust.rotate_authorities,
        }
    )
    renewal = jobs.certificate_renewal(certificates, envoys, settings.leaf_life_s)
    reads, revoked = ReadPool(), RevokedSessions(settings.redis_url)
    servicer = Config(batcher, reads, configuration, instances, trust, turns, clock)
    parts: list[Part] = [
        Closing(client.close),
        Closing(database.stop),
        _Recovery(configuration.recover),
        _Recovery(partial(instances.recover, _own_lease(settings))),
        relay,
        batcher,
        reads,
        revoked,
        turns,
        envoys,
        *([XdsServer(settings.xds_listen, xds)] if own else []),
        checks,
        jobs.own_log_level(configuration, SERVICE),
        jobs.lease_expiry(instances, batcher),
        *([renewal, *_token_keys(settings, envoys)] if own else []),
    ]
    return ConfigApp(
        name=SERVICE,
        # Without the address the platform registers no instance: config knows its own, and may not call itself.
        settings=replace(settings, mesh_address=""),
        register=lambda server: rpc.add_ConfigServiceServicer_to_server(servicer, server),
        parts=parts,
        revoked=revoked,
        discovery=xds,
    )


def _certificates(settings: ConfigSettings) -> IssuedCertificates:
    if settings.envoys == OWN:
        return IssuedCertificates(pki.load_trust(settings.ca_dir), life=timedelta(seconds=settings.leaf_life_s))
    # Istio issues its own; what is issued from a CA that nobody else has seen is shown to nobody.
    unseen = pki.make_authority()
    return IssuedCertificates(pki.Trust(unseen, (unseen.certificate,)))


def _own_lease(settings: ConfigSettings) -> Lease | None:
    if not settings.mesh_address:
        return None
    return own(Name(SERVICE, f"{SERVICE}-{settings.instance}"), settings.mesh_address)


def _token_keys(settings: ConfigSettings, envoys: Envoys) -> list[Part]:
    if not settings.mesh:
        return []
    channel = MeshChannel(settings.mesh)
    return [
        Closing(channel.stop),
        jobs.TokenKeysRefresh(UserKeys(channel), envoys, SystemClock()).every(),
        jobs.ApiKeysRefresh(GatewayKeys(channel), envoys, SystemClock()).every(),
    ]
