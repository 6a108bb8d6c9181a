"""Clients that repeat a call with the same key until they know, and the history of what they were told."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

from tests.e2e.clients import METHODS, route_of
from tests.e2e.refusals import of_rest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_NOT_KNOWN = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "OVERLOADED", "RATE_LIMITED"})
_NOT_KNOWN_YET = frozenset({"IDEMPOTENCY_KEY_IN_FLIGHT"})
PATIENCE_S = 60.0
_PAUSE_S = 0.1


@dataclass
class Operation:
    """One intention of one client. ``outcome`` is ok, fail or unknown, in Jepsen's words.

    ``doubts`` says why an attempt left it unknown: an HTTP status with its reason, or what the connection did.
    ``token`` is whose it is, ``known_ms`` the wall clock when it was known.
    """

    method: str
    key: str
    body: Mapping[str, Any]
    outcome: str = "unknown"
    reason: str = ""
    attempts: int = 0
    doubts: list[str] = field(default_factory=list)
    answer: dict[str, Any] = field(default_factory=dict)
    content: bytes = b""
    token: str = field(default="", repr=False)
    known_ms: float = 0

    def __str__(self) -> str:
        """Say what came of it in a line."""
        said = self.content.decode()[:300] if self.outcome == "ok" else self.reason
        return f"{self.method} {self.key}: {self.outcome} {said} after {self.attempts} attempts {dict(Counter(self.doubts))}"


class Clients:
    """Many clients of the edge in one event loop. ``in_flight`` counts by service what was begun and is not answered."""

    def __init__(self, url: str, ca: Path) -> None:
        """Call the edge at ``url``, which proves itself by ``ca``."""
        trust = ssl.create_default_context(cafile=str(ca))
        limits = httpx.Limits(max_connections=100, max_keepalive_connections=100)
        self._http = httpx.AsyncClient(base_url=url, verify=trust, timeout=10, limits=limits, trust_env=False)
        self.in_flight: Counter[str] = Counter()
        self.history: list[Operation] = []

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def once(self, method: str, body: Mapping[str, Any], token: str, key: str = "") -> httpx.Response:
        """Call a method once. Raises httpx.HTTPError."""
        verb, path, sent = route_of(method, body)
        headers = {"authorization": f"Bearer {token}"} if token else {}
        if key:
            headers["idempotency-key"] = key
        service = METHODS[method].service
        self.in_flight[service] += 1
        try:
            return await self._http.request(verb, path, json=sent, headers=headers)
        finally:
            self.in_flight[service] -= 1

    async def until_known(self, method: str, body: Mapping[str, Any], token: str, key: str = "") -> Operation:
        """Call a method with the same key until the answer is one; what stays unknown is told by the history."""
        operation = Operation(method, key, body, token=token)
        self.history.append(operation)
        deadline = time.monotonic() + PATIENCE_S
        while operation.outcome == "unknown" and time.monotonic() < deadline:
            if operation.attempts:
                await asyncio.sleep(_PAUSE_S)
            operation.attempts += 1
            try:
                answer = await self.once(method, body, token, key)
            except httpx.HTTPError as error:
                operation.doubts.append(type(error).__name__)
                continue
            _learn(operation, answer)
        operation.known_ms = time.time() * 1000
        return operation


def _learn(operation: Operation, answer: httpx.Response) -> None:
    if answer.status_code == httpx.codes.OK:
        operation.outcome, operation.answer, operation.content = "ok", answer.json(), answer.content
        return
    refusal = of_rest(answer)
    if refusal.reason in _NOT_KNOWN | _NOT_KNOWN_YET:
        operation.doubts.append(f"{answer.status_code} {refusal.reason}")
    else:
        operation.outcome, operation.reason = "fail", refusal.reason
