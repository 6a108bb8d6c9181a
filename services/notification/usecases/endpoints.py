"""Endpoints of the merchant: made, listed, switched, deleted, given other secrets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from services.kernel.errors import DomainError
from services.kernel.idempotency import Answer, IdempotencyKey, Once, Scope, Stored
from services.notification.domain import WebhookEndpoint
from services.notification.domain.webhook import BY_OPERATOR, DISABLED, ENDPOINTS_MAX, SECRET_BYTES

if TYPE_CHECKING:
    from services.kernel.pages import Page
    from services.notification.ports import Ports, Store, Transaction


@dataclass(frozen=True, slots=True)
class CreateWebhookEndpoint:
    """Command: post events of some topics to a URL, unless its check ended with a ``refusal``."""

    url: str
    event_types: tuple[str, ...]
    description: str
    key: IdempotencyKey
    refusal: DomainError | None = None


@dataclass(frozen=True, slots=True)
class UpdateWebhookEndpoint:
    """Command: enable an endpoint, or disable it."""

    id: int
    enabled: bool


@dataclass(frozen=True, slots=True)
class RotateWebhookSecret:
    """Command: sign what goes to an endpoint with another secret."""

    id: int
    key: IdempotencyKey


def checked(ports: Ports, command: CreateWebhookEndpoint) -> CreateWebhookEndpoint:
    """Look whether the URL may be called. Hosts are looked up for this, so it never runs in the Batcher's thread."""
    try:
        ports.hooks.check(command.url)
    except DomainError as refusal:
        return replace(command, refusal=refusal)
    return command


def create_webhook_endpoints(ports: Ports, commands: Sequence[CreateWebhookEndpoint]) -> list[Answer]:
    """Store endpoints with their secrets sealed."""
    now_ms = ports.clock.now_ms()
    made: list[WebhookEndpoint] = []
    with ports.store.transaction() as tx:
        once = Once([command.key for command in commands], _opened(ports, tx, [command.key for command in commands]))
        count = tx.endpoint_count() if once.fresh else 0
        for place in once.fresh:
            command = commands[place]
            if command.refusal is not None:
                once.settle(place, command.refusal)
            elif count + len(made) >= ENDPOINTS_MAX:
                once.settle(place, DomainError("WEBHOOK_ENDPOINT_LIMIT_EXCEEDED", limit=ENDPOINTS_MAX))
            else:
                secret = ports.random_bytes(SECRET_BYTES)
                made.append(_made(ports, command, secret, now_ms))
                once.settle(place, ports.render_created(made[-1], secret))
        tx.add_endpoints(made)
        tx.keep(_closed(ports, once.kept(business=ports.business)), now_ms)
        tx.commit()
    return once.done()


def rotate_webhook_secrets(ports: Ports, commands: Sequence[RotateWebhookSecret]) -> list[Answer]:
    """Store new secrets; those before sign for a day more."""
    now_ms = ports.clock.now_ms()
    changed: dict[int, WebhookEndpoint] = {}
    with ports.store.transaction() as tx:
        once = Once([command.key for command in commands], _opened(ports, tx, [command.key for command in commands]))
        found = tx.lock_endpoints({commands[place].id for place in once.fresh})
        for place in once.fresh:
            endpoint_id = commands[place].id
            each = changed.get(endpoint_id, found.get(endpoint_id))
            if each is None:
                once.settle(place, _not_found(endpoint_id))
                continue
            secret = ports.random_bytes(SECRET_BYTES)
            changed[each.id] = each.rotated(ports.seal.seal(secret, secret_of(each.id)), now_ms)
            once.settle(place, ports.render_rotated(changed[each.id], secret))
        tx.put_endpoints(list(changed.values()))
        tx.keep(_closed(ports, once.kept(business=ports.business)), now_ms)
        tx.commit()
    return once.done()


def update_webhook_endpoints(
    ports: Ports, commands: Sequence[UpdateWebhookEndpoint]
) -> list[WebhookEndpoint | DomainError]:
    """Enable endpoints, or disable them and give up what is pending to them."""
    outcomes: list[WebhookEndpoint | DomainError] = []
    changed: dict[int, WebhookEndpoint] = {}
    with ports.store.transaction() as tx:
        found = tx.lock_endpoints({command.id for command in commands})
        for command in commands:
            each = changed.get(command.id, found.get(command.id))
            if each is None:
                outcomes.append(_not_found(command.id))
                continue
            if each.enabled != command.enabled:  # disabled is disabled: why stays as it was
                each = each.switched(on=command.enabled, reason=BY_OPERATOR)
            changed[each.id] = each
            outcomes.append(each)
        tx.put_endpoints(list(changed.values()))
        tx.give_up_deliveries([each.id for each in changed.values() if not each.enabled], DISABLED)
        tx.commit()
    return outcomes


def delete_webhook_endpoints(ports: Ports, endpoint_ids: Sequence[int]) -> list[DomainError | None]:
    """Remove endpoints, and with them all that was or is on its way to them."""
    with ports.store.transaction() as tx:
        left = set(tx.lock_endpoints(set(endpoint_ids)))
        tx.remove_endpoints(sorted(left))
        tx.commit()
    outcomes: list[DomainError | None] = []
    for endpoint_id in endpoint_ids:
        outcomes.append(None if endpoint_id in left else _not_found(endpoint_id))
        left.discard(endpoint_id)
    return outcomes


def list_webhook_endpoints(store: Store, page: Page) -> tuple[Sequence[WebhookEndpoint], str]:
    """Return a page of the endpoints, newest first, and the token of the next."""
    return page.cut(store.endpoints(page), lambda each: each.id)


def secret_of(endpoint_id: int) -> str:
    """Return what a sealed secret is about."""
    return f"webhook.secret|{endpoint_id}"


def _made(ports: Ports, command: CreateWebhookEndpoint, secret: bytes, now_ms: int) -> WebhookEndpoint:
    endpoint_id = ports.ids.next(0)
    return WebhookEndpoint(
        id=endpoint_id,
        url=command.url,
        event_types=command.event_types,
        description=command.description,
        enabled=True,
        disable_reason="",
        secret=ports.seal.seal(secret, secret_of(endpoint_id)),
        old_secret=b"",
        old_until_ms=0,
        create_ms=now_ms,
    )


def _opened(ports: Ports, tx: Transaction, keys: Iterable[IdempotencyKey]) -> Mapping[Scope, Stored]:
    """Read stored answers. They hold secrets, so they are sealed, each about its key."""
    return {
        scope: Stored(stored.fingerprint, ports.seal.unseal(stored.answer, _answer_of(scope)))
        if isinstance(stored.answer, bytes)
        else stored
        for scope, stored in tx.stored(keys).items()
    }


def _closed(ports: Ports, kept: Iterable[tuple[IdempotencyKey, Answer]]) -> list[tuple[IdempotencyKey, Answer]]:
    return [
        (key, ports.seal.seal(answer, _answer_of(key.scope)) if isinstance(answer, bytes) else answer)
        for key, answer in kept
    ]


def _answer_of(scope: Scope) -> str:
    return f"webhook.answer|{scope.subject}|{scope.method}|{scope.key}"


def _not_found(endpoint_id: int) -> DomainError:
    return DomainError("WEBHOOK_ENDPOINT_NOT_FOUND", endpoint_id=endpoint_id)
