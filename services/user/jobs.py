"""What happens at the start and at times; it calls the same use cases."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.platform import telemetry
from services.user import usecases

if TYPE_CHECKING:
    from services.platform.batcher import Batcher
    from services.user.ports import Ports

REMIND_S = 5.0
"""How often it is looked whether every service still can know which sessions ended."""
FORGET_S = 3600.0


class FirstStart:
    """Loads the signing keys and sees to it that there is an operator. A part of the App, after the Batcher."""

    def __init__(self, ports: Ports, batcher: Batcher, username: str, password: str) -> None:
        """Make the operator ``username``; "": none."""
        self._ports, self._batcher, self._username, self._password = ports, batcher, username, password

    def start(self) -> None:
        """Do it; the second time there is nothing left to do."""
        usecases.open_keys(self._ports)
        command = usecases.new_operator(self._ports, self._username, self._password) if self._username else None
        if command is None:
            return
        outcome = self._batcher.submit_all("register_users", [command])[0]
        if isinstance(outcome, Exception):
            telemetry.log.warning("operator.not_made", username=self._username, reason=str(outcome))
        else:
            telemetry.log.info("operator.made", username=self._username)

    def stop(self) -> None:
        """Nothing to let go of."""
