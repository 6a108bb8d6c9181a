"""The policy model: what the contracts say, in plain frozen dataclasses. Times are milliseconds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Auth(StrEnum):
    """Who may call a method."""

    PUBLIC = "public"
    USER = "user"
    SCOPES = "scopes"
    INTERNAL = "internal"


class Idempotency(StrEnum):
    """What a method promises about repeats."""

    NONE = "none"
    OPTIONAL = "optional"
    REQUIRED = "required"


class RetryOn(StrEnum):
    """A failure after which the caller's side may repeat a call."""

    CONNECT_FAILURE = "connect_failure"
    REFUSED_STREAM = "refused_stream"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class RateLimit:
    """Calls let through per time, counted ``by`` user, ip or api_key."""

    requests: int
    per_ms: int
    by: str
    is_global: bool

    def __str__(self) -> str:
        """Render for people: ``600/60s by user``, with ``, globally`` where all edges count together."""
        return f"{self.requests}/{self.per_ms // 1000}s by {self.by}{', globally' if self.is_global else ''}"


@dataclass(frozen=True, slots=True)
class Http:
    """The REST mapping. ``body`` is "", "*" or a field; ``response_body`` is "" or a field."""

    verb: str
    path: str
    body: str
    response_body: str


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose data a method reaches: a request ``field`` equal to the subject, or a ``resource`` predicate."""

    field: str
    resource: bool
    lifted_by: str


@dataclass(frozen=True, slots=True)
class Method:
    """A method and its policy. ``path`` is the gRPC path; types are full names."""

    service: str
    name: str
    full_name: str
    path: str
    request: str
    response: str
    comment: str
    http: Http | None
    auth: Auth
    scopes: tuple[str, ...]
    callers: tuple[str, ...]
    owner: Owner | None
    timeout_ms: int
    retry_attempts: int
    retry_on: tuple[RetryOn, ...]
    idempotency: Idempotency
    idempotency_reason: str
    rate_limit: RateLimit | None
    audit: bool
    api_key: bool = False


@dataclass(frozen=True, slots=True)
class CircuitBreaker:
    """Limits of one caller towards one service."""

    connections_max: int
    pending_max: int
    requests_max: int
    retry_budget_percent: int


@dataclass(frozen=True, slots=True)
class Outlier:
    """When a failing instance is left out, and for how long."""

    consecutive_failures: int
    interval_ms: int
    ejection_time_ms: int
    ejection_percent_max: int


@dataclass(frozen=True, slots=True)
class Service:
    """A service and its policy. ``name`` is the room, ``full_name`` the protobuf service."""

    name: str
    full_name: str
    comment: str
    callers: tuple[str, ...]
    on_behalf: tuple[str, ...]
    port: int
    load_balancing: str
    circuit_breaker: CircuitBreaker
    outlier: Outlier
    methods: tuple[Method, ...]


@dataclass(frozen=True, slots=True)
class Event:
    """An event message: its topic, the names of its key and version fields, how long it is kept, who handles it."""

    message: str
    topic: str
    key: str
    version: str
    retention_ms: int
    service: str
    consumers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reason:
    """An error reason: its google.rpc.Code by name and number, its texts with ``{metadata}`` places."""

    name: str
    number: int
    code: str
    code_number: int
    en: str
    zh: str
    metadata: tuple[str, ...]
    business: bool


@dataclass(frozen=True, slots=True, eq=False)
class Contract:
    """Everything that the contracts say. Services by room, methods by gRPC path, events by message, reasons by name.

    Equal to itself alone, and so a key of caches: it is read once.
    """

    services: dict[str, Service]
    methods: dict[str, Method]
    events: dict[str, Event]
    reasons: dict[str, Reason]
    scopes: tuple[str, ...]
