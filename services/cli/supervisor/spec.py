"""What a child is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Spec:
    """A child process to keep.

    ``tier`` is its place in the ordered stop: the lowest ends first. ``probe`` answers whether it does its work (asked
    until it does; without one a child is ready once it runs). ``drain`` runs before it is asked to end.
    """

    name: str
    argv: tuple[str, ...]
    environ: Mapping[str, str]
    cwd: Path
    tier: int = 0
    probe: Callable[[], Awaitable[bool]] | None = None
    drain: Callable[[], Awaitable[None]] | None = None
    grace_s: float = 10.0
    """From SIGTERM to SIGKILL."""
