"""The folder in which points are armed."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


class Points:
    """Arms points, one at a time, and learns who died of them."""

    def __init__(self, folder: Path) -> None:
        """Make the folder."""
        self.folder = folder
        folder.mkdir()

    def arm(self, name: str, passes: int = 0) -> None:
        """Arm a point that is passed ``passes`` times before."""
        self._hit(name).unlink(missing_ok=True)
        draft = self.folder / f".{name}"
        draft.write_text(str(passes or ""))
        draft.rename(self.folder / name)

    def disarm(self, name: str) -> None:
        """Let nobody die of it any more."""
        (self.folder / name).unlink(missing_ok=True)

    def _hit(self, name: str) -> Path:
        return self.folder / f"{name}.hit"

    async def met(self, name: str, seconds: float) -> dict[str, Any] | None:
        """Wait for a point to be met; returns what was written there, None: nobody came by."""
        deadline = time.monotonic() + seconds
        while (found := self.told(name)) is None and time.monotonic() < deadline:  # noqa: ASYNC110 - it happens in another process
            await asyncio.sleep(0.02)
        return found

    def told(self, name: str) -> dict[str, Any] | None:
        """Return what the one who died of a point has written, None: nobody has yet."""
        try:
            found: dict[str, Any] = json.loads(self._hit(name).read_text())
        except (FileNotFoundError, json.JSONDecodeError):  # it is renamed first, then written
            return None
        return found
