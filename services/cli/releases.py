"""Releases: what a service is started as. On one machine that is our code with settings of its own, or another tree."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from services.cli.exits import CommandError, Exit
from services.cli.folder import write_json

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Release:
    """A release by ``name``: ``environ`` is set beside what `up` sets, ``tree`` is where its code lies ("": here)."""

    name: str = "base"
    environ: tuple[tuple[str, str], ...] = ()
    tree: str = ""


BASE = Release()
"""What runs where nothing was ever deployed."""


class Releases:
    """Which release of each service is to run, and whose rollout is not over; in a file of DIR, for the next `up` too.

    The file names the old release until the new one has stood its last trial: a mesh that is killed in the middle of a
    rollout comes back with what served before.
    """

    def __init__(self, path: Path) -> None:
        """Read ``path``. Raises CommandError when a release's tree is gone."""
        self._path = path
        self._releases: dict[str, Release] = {}
        self.unfinished: frozenset[str] = frozenset()
        self.migrated: frozenset[str] = frozenset()
        """Services whose database the migrations of another tree have brought beyond ours."""
        if path.exists():
            self._read(json.loads(path.read_text()))

    def _read(self, said: Mapping[str, Any]) -> None:
        for service, each in said["releases"].items():
            release = Release(each["name"], tuple((name, value) for name, value in each["environ"]), each["tree"])
            if fault := tree_fault(release.tree, service):
                way_out = f"Bring it back, or remove {self._path} to run the release that paymesh was installed with."
                raise CommandError(Exit.BAD_INPUT, f"Release {release.name} of {service}: {fault}", way_out)
            self._releases[service] = release
        self.unfinished, self.migrated = frozenset(said["unfinished"]), frozenset(said["migrated"])

    def of(self, service: str) -> Release:
        """Return the release of a service."""
        return self._releases.get(service, BASE)

    def migrate(self, service: str) -> None:
        """Note that a tree's migrations are to run."""
        self.migrated |= {service}
        self._write(self._releases, self.unfinished)

    def begin(self, service: str) -> None:
        """Note that a rollout begins."""
        self._write(self._releases, self.unfinished | {service})

    def decide(self, service: str, release: Release) -> None:
        """Note that ``release`` is what is to run from now on."""
        self._write({**self._releases, service: release}, self.unfinished)

    def end(self, service: str) -> None:
        """Note that a rollout is over."""
        self._write(self._releases, self.unfinished - {service})

    def _write(self, releases: dict[str, Release], unfinished: frozenset[str]) -> None:
        said = {service: asdict(release) for service, release in releases.items()}
        write_json(self._path, {"releases": said, "unfinished": sorted(unfinished), "migrated": sorted(self.migrated)})
        self._releases, self.unfinished = releases, unfinished


def tree_fault(tree: str, service: str) -> str | None:
    """Say why a tree cannot be run; None: it can, as far as its files tell."""
    if not tree:
        return None
    missing = [
        part for part in (f"services/{service}/__main__.py", "gen/python/paymesh") if not Path(tree, part).exists()
    ]
    return f"{tree} is no tree of paymesh: it has no {' and no '.join(missing)}." if missing else None
