"""What is told of the mesh: its health, its routes, the documents of its API."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServiceHealth:
    """One service: how many of its registered instances serve."""

    service: str
    healthy: int
    registered: int


@dataclass(frozen=True, slots=True)
class MeshHealth:
    """The services of the mesh by name."""

    services: tuple[ServiceHealth, ...]

    @property
    def serving(self) -> bool:
        """Whether every service has an instance that serves; one that has none degrades the mesh."""
        return all(service.healthy > 0 for service in self.services)


@dataclass(frozen=True, slots=True)
class Route:
    """A method as it is reached from outside. ``http`` is "" without a REST route, ``rate_limit`` "" without a limit."""

    method: str
    http: str
    auth: str
    scopes: tuple[str, ...]
    timeout_ms: int
    retries: int
    idempotency: str
    rate_limit: str
    callers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Documents:
    """The OpenAPI document (JSON) and its page (HTML), both UTF-8."""

    openapi: bytes
    page: bytes
