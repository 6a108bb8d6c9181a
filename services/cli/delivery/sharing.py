"""How the calls of a service are shared, told to config as its operator would: an entry, with a history and an event each."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

from services.cli.exits import CommandError, Exit

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PATIENCE_S = 60.0
"""Config, or what is on the way to it, may be starting again."""
_AGAIN_S = 0.5
KEY = "mesh.rollout."


class Sharing:
    """Sets entries over REST, each try until it succeeds or patience ends."""

    def __init__(self, url: str, ca: Path, admin: Mapping[str, str]) -> None:
        """Ask the edge at ``url`` as the operator ``admin``."""
        self._url, self._ca, self._admin = url, ca, dict(admin)
        self._token = ""

    async def set(self, service: str, weights: Mapping[str, int], **said: object) -> None:
        """Share the calls by ``weights`` (none: all instances are alike); ``said`` is for who reads the entry.

        Raises CommandError when config does not take it in time; the Envoys then keep the weights that they have.
        """
        from services.cli.adapters import CallFailed  # noqa: PLC0415 - see _put

        value = json.dumps({"weights": dict(weights), **said})
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                await asyncio.to_thread(self._put, KEY + service, value)
            except CallFailed as error:
                self._token = ""  # it may be too old
                if time.monotonic() > until:
                    raise CommandError(Exit.UNAVAILABLE, f"Config was not told how to share calls: {error}.") from None
                await asyncio.sleep(_AGAIN_S)
            else:
                return

    def _put(self, key: str, value: str) -> None:
        # httpx would stay in the memory of a supervisor that is never asked for a rollout.
        from services.cli.adapters import Rest  # noqa: PLC0415

        rest = Rest(self._url, self._ca)
        try:
            if not self._token:
                session: dict[str, Any] = rest.call("POST", "/api/users/login", self._admin)["session"]
                self._token = session["access_token"]
            rest.call("PUT", f"/api/config/{key}", {"value": value}, token=self._token)
        finally:
            rest.close()
