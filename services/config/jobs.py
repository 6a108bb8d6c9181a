"""Timed work: health checks, leases that end, the keys of tokens, certificates."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from services.config import usecases
from services.config.domain import CHECK_S
from services.kernel.errors import DomainError
from services.platform import follow, telemetry
from services.platform.jobs import Every

if TYPE_CHECKING:
    from services.config import ports
    from services.config.domain import Lease, Name
    from services.kernel.clock import Clock
    from services.platform.batcher import Batcher

EXPIRE_S = 1.0
KEYS_S = 60.0
"""How often the keys are read; the issuer shows a new one longer than this before it signs with it."""
_KEYS_FIRST_S = 0.25
API_KEYS_S = 0.5
API_KEYS_WAIT_S = 15.0
_NO_KEYS = '{"keys":[]}'
_LOOKS = 20
"""How often certificates are looked at in their life; they are issued again after half of it."""


class HealthChecks:
    """Checks every instance at its own pace; a slow one holds up no other. A part of the App, on the event loop."""

    def __init__(self, registry: ports.Registry, probe: ports.HealthProbe, clock: Clock) -> None:
        """Ask by ``probe`` and note it in ``registry``."""
        self._registry, self._probe, self._clock = registry, probe, clock
        self._due: dict[tuple[Name, str], float] = {}
        self._checking: dict[tuple[Name, str], asyncio.Task[None]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin."""
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End what is running."""
        tasks = [task for task in (self._task, *self._checking.values()) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._probe.forget_all_but(())

    def soon(self) -> None:
        """Check at once who was never checked. Callable from any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._woken.set)

    async def _run(self) -> None:
        while True:
            self._woken.clear()
            wait_s = await self._begin_due()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._woken.wait()

    async def _begin_due(self) -> float:
        """Begin the checks that are due; returns the seconds until the next one is."""
        now = self._clock.monotonic()
        leases = {(lease.name, lease.address): lease for lease in self._registry.all() if not lease.permanent}
        gone = self._due.keys() - leases.keys()
        for key in gone:
            del self._due[key]
        if gone:
            await self._probe.forget_all_but({lease.address for lease in leases.values()})
        wait_s = CHECK_S
        for key, lease in leases.items():
            if lease.draining or key in self._checking:
                continue
            left_s = self._due.get(key, now) - now
            if left_s <= 0:
                self._checking[key] = asyncio.create_task(self._check(lease))
            else:
                wait_s = min(wait_s, left_s)
        return wait_s

    async def _check(self, lease: Lease) -> None:
        key = (lease.name, lease.address)
        try:
            answer = await self._probe.ask(lease.name, lease.address)
            after = usecases.note_check(self._registry, lease.name, lease.address, answer)
            if after is not None and after.healthy != lease.healthy:
                telemetry.log.info(
                    "instance.health", instance=lease.name.instance, service=lease.name.service, healthy=after.healthy
                )
            self._due[key] = self._clock.monotonic() + (after.check_after if after else CHECK_S)
        finally:
            del self._checking[key]
            self._woken.set()


class TokenKeysRefresh:
    """Reads the keys of tokens: again and again until they are known, then every minute."""

    def __init__(self, keys: ports.TokenKeys, mesh: ports.Mesh, clock: Clock) -> None:
        """Ask ``keys`` and show ``mesh``."""
        self._keys, self._mesh, self._clock = keys, mesh, clock
        self._due = 0.0
        self._known = False

    def every(self) -> Every:
        """Return the thread that does it."""
        return Every(_KEYS_FIRST_S, self.refresh, "token-keys")

    def refresh(self) -> None:
        """Read them when it is time; what cannot be read stays as it was."""
        now = self._clock.monotonic()
        if now < self._due:
            return
        try:
            jwks = self._keys.jwks()
        except DomainError as error:
            telemetry.log.debug("token_keys.unavailable", reason=error.reason)
            # Once known they rarely change: no hurry then.
            self._due = now + (5.0 if self._known else 0.0)
            return
        if jwks:
            if not self._known:
                telemetry.log.info("token_keys.known")
            self._mesh.show_keys(jwks)
            self._known, self._due = True, now + KEYS_S


class ApiKeysRefresh:
    """Reads what is known of API keys, twice a second: a revocation reaches the edges within one.

    What cannot be read stays as it was. After a start an edge is not served before it is known which keys are revoked,
    unless nobody says so for a while: then it is served without any, and API keys are refused until somebody does.
    """

    def __init__(self, trust: ports.ApiKeyTrust, mesh: ports.Mesh, clock: Clock) -> None:
        """Ask ``trust`` and show ``mesh``."""
        self._trust, self._mesh, self._clock = trust, mesh, clock
        self._give_up = clock.monotonic() + API_KEYS_WAIT_S
        self._shown = False

    def every(self) -> Every:
        """Return the thread that does it."""
        return Every(API_KEYS_S, self.refresh, "api-keys")

    def refresh(self) -> None:
        """Read them once."""
        try:
            jwks, revoked = self._trust.api_keys()
        except DomainError as error:
            telemetry.log.debug("api_keys.unavailable", reason=error.reason)
            if not self._shown and self._clock.monotonic() >= self._give_up:
                telemetry.log.warning("api_keys.unknown", reason=error.reason)
                self._mesh.show_api_keys(_NO_KEYS, ())
                self._shown = True
            return
        self._mesh.show_api_keys(jwks or _NO_KEYS, revoked)
        self._shown = True


def lease_expiry(discovery: usecases.Discovery, batcher: Batcher) -> Every:
    """Forget, through the Batcher, instances whose lease ended."""

    def expire() -> None:
        ended = discovery.expired()
        if ended:
            telemetry.log.warning("leases.ended", instances=[name.instance for name in ended])
            batcher.submit_all("expire", ended)

    return Every(EXPIRE_S, expire, "leases")


def certificate_renewal(certificates: ports.Certificates, mesh: ports.Mesh, life_s: int) -> Every:
    """Issue certificates again at half of their life."""

    def renew() -> None:
        if certificates.renew():
            telemetry.log.info("certificates.renewed")
            mesh.show_identities()

    return Every(life_s / _LOOKS, renew, "certificates")


def own_log_level(configuration: usecases.Configuration, service: str) -> Every:
    """Follow the log level that is set for config itself, which asks no other."""
    follower = follow.LogLevel(service)

    def look() -> None:
        for entry in configuration.newer(follower.known):
            follower.take(entry.key, entry.value, entry.version)

    return Every(EXPIRE_S, look, "log-level")
