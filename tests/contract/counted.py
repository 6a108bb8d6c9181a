"""By what limits count, as both data planes write it."""

from __future__ import annotations

from typing import Any

GLOBAL = "envoy.filters.http.ratelimit"
COUNTED = {
    "user": [{"user": ""}],
    "ip": [{"remote_address": ""}],
    "api_key": [{"api_key": ""}, {"shown": "token", "user": ""}],
}
"""Entries of the descriptors of a limit; "" is whatever value comes along."""


def counted_by(descriptors: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Read descriptors as JSON."""
    return [{entry["key"]: entry.get("value", "") for entry in each["entries"]} for each in descriptors]
