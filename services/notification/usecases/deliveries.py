"""Deliveries of events to endpoints of the merchant: made, tried, settled, listed, sent again."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.kernel.errors import DomainError
from services.notification import states
from services.notification.domain import Attempt, Outcome, WebhookDelivery, WebhookEndpoint, pending
from services.notification.domain.webhook import DISABLED, GONE, JITTER, UNKNOWN_OUTCOME
from services.notification.usecases.endpoints import secret_of

if TYPE_CHECKING:
    from services.kernel.pages import Page
    from services.notification.ports import Ports, Store, Transaction


@dataclass(frozen=True, slots=True)
class SettleDelivery:
    """Command: how try number ``attempt`` of a delivery ended."""

    id: int
    attempt: int
    outcome: Outcome


def announced(
    ports: Ports, tx: Transaction, events: Sequence[tuple[str, str, str]], now_ms: int
) -> list[WebhookDelivery]:
    """Make a delivery of each event (id, topic, notice) to each endpoint that wants it."""
    if not events:
        return []
    endpoints = tx.enabled_endpoints()
    return [
        pending(ports.ids.next(0), endpoint_id=endpoint.id, event_id=event_id, topic=topic, body=notice, now_ms=now_ms)
        for event_id, topic, notice in events
        for endpoint in endpoints
        if endpoint.wants(topic)
    ]


def due_deliveries(ports: Ports, most: int, without: Collection[int]) -> list[tuple[int, int]]:
    """Return (delivery, endpoint) of what is to be tried now, but not to the endpoints ``without``."""
    return ports.store.due_deliveries(ports.clock.now_ms(), most, without)


def claim_deliveries(ports: Ports, delivery_ids: Sequence[int]) -> list[Attempt | None]:
    """Begin a try of each; None for those that are not to be tried now: done, in work elsewhere, pausing."""
    now_ms = ports.clock.now_ms()
    outcomes: list[Attempt | None] = []
    changed: dict[int, WebhookDelivery] = {}
    with ports.store.transaction() as tx:
        found = tx.lock_deliveries(set(delivery_ids))
        endpoints = {each.id: each for each in tx.enabled_endpoints()}
        for delivery_id in delivery_ids:
            each = changed.get(delivery_id, found.get(delivery_id))
            if each is None or not each.may_be_tried(now_ms):
                outcomes.append(None)
                continue
            endpoint = endpoints.get(each.endpoint_id)
            if endpoint is None or each.is_spent:
                changed[each.id] = each.given_up(DISABLED if endpoint is None else UNKNOWN_OUTCOME)
                outcomes.append(None)
                continue
            changed[each.id] = each.claimed(now_ms)
            outcomes.append(_attempt(ports, changed[each.id], endpoint, now_ms))
        tx.put_deliveries(list(changed.values()))
        tx.commit()
    return outcomes


def settle_deliveries(ports: Ports, commands: Sequence[SettleDelivery]) -> list[None]:
    """Note how tries ended; an endpoint that is gone is disabled, and what is pending to it is given up.

    That an event was taken is a fact, whoever's try it was; that a try failed counts only while no later one began.
    """
    now_ms = ports.clock.now_ms()
    changed: dict[int, WebhookDelivery] = {}
    gone: set[int] = set()
    with ports.store.transaction() as tx:
        found = tx.lock_deliveries({command.id for command in commands})
        for command in commands:
            each, outcome = changed.get(command.id, found.get(command.id)), command.outcome
            if each is None or each.status != states.WEBHOOK_DELIVERY_PENDING:
                continue
            if not outcome.failure:
                changed[each.id] = each.delivered(now_ms)
            elif each.attempts == command.attempt and outcome.gone:
                changed[each.id] = each.given_up(outcome.failure)
                gone.add(each.endpoint_id)
            elif each.attempts == command.attempt:
                stretch = ports.time_scale * (1 + JITTER * (2 * ports.jitter() - 1))
                changed[each.id] = each.tried(outcome.failure, now_ms, stretch)
        tx.put_deliveries(list(changed.values()))
        if gone:
            enabled = [each for each in tx.lock_endpoints(gone).values() if each.enabled]
            tx.put_endpoints([each.switched(on=False, reason=GONE) for each in enabled])
            tx.give_up_deliveries(sorted(gone), DISABLED)
        tx.commit()
    return [None] * len(commands)


def resend_webhook_deliveries(ports: Ports, delivery_ids: Sequence[int]) -> list[WebhookDelivery | DomainError]:
    """Make deliveries that failed pending again."""
    now_ms = ports.clock.now_ms()
    outcomes: list[WebhookDelivery | DomainError] = []
    changed: dict[int, WebhookDelivery] = {}
    with ports.store.transaction() as tx:
        found = tx.lock_deliveries(set(delivery_ids))
        enabled = {each.id for each in tx.enabled_endpoints()}
        for delivery_id in delivery_ids:
            each = changed.get(delivery_id, found.get(delivery_id))
            if each is None:
                outcomes.append(DomainError("WEBHOOK_DELIVERY_NOT_FOUND", delivery_id=delivery_id))
            elif each.status != states.WEBHOOK_DELIVERY_FAILED:
                reason = "WEBHOOK_DELIVERY_STATUS_CONFLICT"
                outcomes.append(DomainError(reason, delivery_id=delivery_id, status=each.status))
            elif each.endpoint_id not in enabled:
                outcomes.append(DomainError("WEBHOOK_ENDPOINT_DISABLED", endpoint_id=each.endpoint_id))
            else:
                changed[each.id] = each.resent(now_ms)
                outcomes.append(changed[each.id])
        tx.put_deliveries(list(changed.values()))
        tx.commit()
    if changed:
        ports.posted()
    return outcomes


def list_webhook_deliveries(store: Store, endpoint_id: int, page: Page) -> tuple[Sequence[WebhookDelivery], str]:
    """Return a page of the deliveries to an endpoint, newest first, and the token of the next."""
    if not store.has_endpoint(endpoint_id):
        raise DomainError("WEBHOOK_ENDPOINT_NOT_FOUND", endpoint_id=endpoint_id)
    return page.cut(store.deliveries_of(endpoint_id, page), lambda each: each.id)


def _attempt(ports: Ports, delivery: WebhookDelivery, endpoint: WebhookEndpoint, now_ms: int) -> Attempt:
    about = secret_of(endpoint.id)
    return Attempt(
        delivery_id=delivery.id,
        endpoint_id=endpoint.id,
        attempt=delivery.attempts,
        url=endpoint.url,
        webhook_id=delivery.webhook_id,
        body=delivery.body.encode(),
        secrets=tuple(ports.seal.unseal(sealed, about) for sealed in endpoint.secrets(now_ms)),
    )
