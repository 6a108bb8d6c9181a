"""What the checks across rooms are given, and what they give."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from services.platform.audit import Finding, Notes, Since


class RoomFinding(NamedTuple):
    """A finding and the room, or the pair of rooms, that it is about."""

    room: str
    finding: Finding


@dataclass(frozen=True, slots=True)
class Look:
    """A run: when it is, whether nothing may be on its way, and what earlier ones saw (``since_ms`` 0: nothing)."""

    now_ms: int
    settled: bool
    since_ms: int
    notes: Notes
    _since: dict[str, Since] = field(default_factory=dict)

    @property
    def full(self) -> bool:
        """Whether everything is looked at."""
        return not self.since_ms

    def since(self, room: str) -> Since:
        """Return what earlier runs saw of a room, or of what is named as one."""
        return self._since.setdefault(room, Since(self.since_ms, room, self.notes))

    def save(self) -> None:
        """Note what this run has seen; it becomes true when the notes are committed."""
        for since in self._since.values():
            since.save()
