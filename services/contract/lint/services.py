"""Rules of a service's policy: its name, its place, and the limits that its callers keep."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from services.contract.lint.view import room_of
from services.contract.options import ms

if TYPE_CHECKING:
    from services.contract.lint.view import Said, View


def names(view: View) -> Said:
    """A service has the name of its room, and a comment."""
    for service, policy in view.services():
        if policy.name != room_of(service.file):
            yield service, f'is called {policy.name!r}; write `name: "{room_of(service.file)}"`, its room'
        if not view.comment(service):
            yield service, "has no comment; write what it is for"


def ports(view: View) -> Said:
    """Each service listens at a port of its own that needs no privilege."""
    taken = Counter(policy.port for _, policy in view.services())
    for service, policy in view.services():
        if not 1024 < policy.port < 65536 or taken[policy.port] > 1:
            free = max(taken) + 1 if max(taken) > 1024 else 50051
            yield service, f"has the port {policy.port}; write one of its own: `port: {free}`"


def balancing(view: View) -> Said:
    """Callers know how to choose an instance."""
    for service, policy in view.services():
        if not policy.load_balancing:
            yield (
                service,
                "does not say how an instance is chosen; write `load_balancing: LOAD_BALANCING_LEAST_REQUEST`",
            )


def circuit_breaker(view: View) -> Said:
    """No caller drowns a service, and retries are a part of what is in flight."""
    for service, policy in view.services():
        said = policy.circuit_breaker
        if not min(said.connections_max, said.pending_max, said.requests_max):
            yield (
                service,
                (
                    "has no limit of connections, of waiting or of requests; write `circuit_breaker: {connections_max: 256 "
                    "pending_max: 512 requests_max: 1024 retry_budget_percent: 20}`"
                ),
            )
        elif not 0 < said.retry_budget_percent <= 100:
            yield service, "has no budget for retries; write `retry_budget_percent: 20`, of at most 100"


def outlier_detection(view: View) -> Said:
    """An instance that fails is left out, for a time, and never all of them."""
    for service, policy in view.services():
        said = policy.outlier_detection
        whole = said.consecutive_failures and ms(said.interval) > 0 and ms(said.ejection_time) > 0
        if not whole or not 0 < said.ejection_percent_max <= 100:
            yield (
                service,
                (
                    "does not say when an instance is left out; write `outlier_detection: {consecutive_failures: 5 interval: "
                    "{seconds: 5} ejection_time: {seconds: 5} ejection_percent_max: 50}`"
                ),
            )


RULES = (names, ports, balancing, circuit_breaker, outlier_detection)
