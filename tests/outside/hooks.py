"""What schemathesis needs to know of us: who it is, and from where it calls. Loaded by its own process."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import httpx
import schemathesis

RECORD = json.loads(Path(os.environ["OUTSIDE_RECORD"]).read_text())
"""What `paymesh up --ready-file` says."""
REFRESH_S = 600
"""An access token lives for 15 minutes."""


@schemathesis.auth(refresh_interval=REFRESH_S)
class Operator:
    """The first operator, who has every scope: what needs a token is reached."""

    def get(self, _case: Any, _context: Any) -> str:  # noqa: ANN401 - types of schemathesis that it does not export
        """Log in."""
        who = {name: RECORD["admin"][name] for name in ("username", "password")}
        with httpx.Client(base_url=RECORD["rest"], verify=RECORD["ca"]) as client:
            return str(client.post("/api/users/login", json=who).raise_for_status().json()["session"]["access_token"])

    def set(self, case: Any, data: str, _context: Any) -> None:  # noqa: ANN401 - the same
        """Send the token along."""
        case.headers = {**(case.headers or {}), "authorization": f"Bearer {data}"}
