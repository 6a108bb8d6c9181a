"""What schemathesis needs to know of us: who it is, and from where it calls. Loaded by its own process."""

from __future__ import annotations

import json
import os
import re
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
        case.headers = {**(case.headers or {}), "Authorization": f"Bearer {data}"}


_FIELD = re.compile("[A-Za-z_][A-Za-z0-9_]*")


def _nameable(value: Any) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, dict):
        return {key: _nameable(inner) for key, inner in value.items() if _FIELD.fullmatch(key)}
    return [_nameable(inner) for inner in value] if isinstance(value, list) else value


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: Any) -> None:  # noqa: ANN401 - the same
    """Let unknown fields have names of a field: the edge ignores those, and calls `"": 1` no JSON of a message."""
    if case.meta and case.meta.generation.mode.is_positive and isinstance(case.body, dict):
        case.body = _nameable(case.body)


_FORM = "INVALID_ARGUMENT"
"""The reason that names fields."""


@schemathesis.check
def valid_data_are_refused_by_the_business_alone(_context: Any, response: Any, case: Any) -> None:  # noqa: ANN401 - the same
    """Let data of the document's form be refused by a rule of the business, but never for a field's form.

    A rule over several fields stands in the document as a sentence, since JSON Schema has no words for it: its violation
    names no field.
    """
    if response.status_code != 400 or not (case.meta and case.meta.generation.mode.is_positive):
        return
    details = response.json()["details"]
    (reason,) = (each["reason"] for each in details if "reason" in each)
    fields = [one["field"] for each in details for one in each.get("field_violations", ()) if one["field"]]
    if reason == "BODY_MALFORMED" or (reason == _FORM and fields):
        raise AssertionError(f"the document takes what the product refuses: {reason} {', '.join(fields)}")
