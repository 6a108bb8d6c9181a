"""A new CA for a mesh that runs, in three steps, each of which every Envoy has acknowledged before the next."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from services.cli.adapters import CallFailed, Rest
from services.cli.exits import CommandError, Exit

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.cli.folder import Folder

PATIENCE_S = 60.0
"""How long the Envoys may take over one step."""
_LOOK_S = 0.5
_FOLLOWING = {
    "PHASE_STABLE": "PHASE_TRUSTING_BOTH",
    "PHASE_TRUSTING_BOTH": "PHASE_ISSUING_NEW",
    "PHASE_ISSUING_NEW": "PHASE_STABLE",
}


class _Operator:
    """Calls the edge. Each time with a connection of its own: which CA the edge proves itself by changes on the way."""

    def __init__(self, record: dict[str, Any]) -> None:
        self._record, self._token = record, ""

    def call(self, verb: str, path: str, body: object = None) -> dict[str, Any]:
        rest = Rest(self._record["rest"], Path(self._record["ca"]))
        try:
            if not self._token:
                session = rest.call("POST", "/api/users/login", self._record["admin"])["session"]
                self._token = session["access_token"]
            return rest.call(verb, path, body, token=self._token)
        except CallFailed as error:
            raise CommandError(Exit.UNAVAILABLE, str(error)) from None
        finally:
            rest.close()


def change_authority(folder: Folder, say: Callable[[str], None]) -> dict[str, Any]:
    """Go on with a change of CA where it is, or begin one, to its end; returns the CA as it is then.

    Raises CommandError when an Envoy lacks a step for too long: the change stays as it is, and can be gone on with.
    """
    operator = _Operator(folder.read_record())
    phase = _settled(operator)["phase"]
    while True:
        phase = _FOLLOWING[phase]
        operator.call("POST", "/api/mesh/authority/rotate", {"phase": phase})
        say(phase)
        authority = _settled(operator)
        if phase == "PHASE_STABLE":
            return authority


def _settled(operator: _Operator) -> dict[str, Any]:
    """Wait until every Envoy has what the present phase brought; returns the CA."""
    end = time.monotonic() + PATIENCE_S
    while True:
        authority: dict[str, Any] = operator.call("GET", "/api/mesh/authority")["authority"]
        waiting = authority.get("waiting", [])
        if not waiting:
            return authority
        if time.monotonic() > end:
            lacking = f"{', '.join(waiting)} did not accept what {authority['phase']} brought."
            raise CommandError(Exit.UNAVAILABLE, f"{lacking} GET /api/mesh/nodes says why; call this again to go on.")
        time.sleep(_LOOK_S)
