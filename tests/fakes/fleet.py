"""A mesh's instances, and what config was told of them, in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.cli.exits import CommandError, Exit
from services.cli.fleet import NotServing
from services.cli.layout import Instance

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.cli.releases import Release

CLOSED_PORT = 1
"""Where no Envoy answers: nothing was counted."""


class FakeFleet:
    """The port Instances. Releases in ``stillborn`` do not come to serve, those in ``dying`` start again and again."""

    def __init__(self, count: int, release: Release) -> None:
        """Begin with ``count`` instances of payment."""
        self.instances = [self._made("payment", number, release) for number in range(1, count + 1)]
        self.stillborn: set[str] = set()
        self.dying: set[str] = set()
        self.least = self.most = count
        self._starts = 1

    @staticmethod
    def _made(service: str, number: int, release: Release) -> Instance:
        return Instance(service, number, CLOSED_PORT, CLOSED_PORT, 0, release)

    def of(self, service: str) -> tuple[Instance, ...]:
        """Return those of a service by number."""
        return tuple(sorted((i for i in self.instances if i.service == service), key=lambda each: each.number))

    def starts(self, instance: Instance) -> int:
        """Count, where it dies, a start more at each look."""
        self._starts += instance.release.name in self.dying
        return self._starts

    async def add(self, service: str, release: Release) -> Instance:
        """Add one with the lowest free number."""
        taken = {each.number for each in self.of(service)}
        made = self._made(service, min(set(range(1, 16)) - taken), release)
        self.instances.append(made)
        self.most = max(self.most, len(self.instances))
        if release.name in self.stillborn:
            raise NotServing(f"{made.name} cannot be started")
        return made

    async def remove(self, instance: Instance) -> None:
        """Take one away."""
        self.instances.remove(instance)
        self.least = min(self.least, len(self.instances))


class FakeShares:
    """The port Shares: remembers what it was told, in order; from the call of number ``away_from`` on it fails."""

    def __init__(self, away_from: int = 1_000) -> None:
        """Begin with nothing told."""
        self.told: list[dict[str, int]] = []
        self._calls, self._away_from = 0, away_from

    async def set(self, service: str, weights: Mapping[str, int], **said: object) -> None:
        """Remember, or fail."""
        self._calls += 1
        if self._calls >= self._away_from:
            raise CommandError(Exit.UNAVAILABLE, "Config was not told.")
        self.told.append(dict(weights))
