"""Rows <-> domain."""

from __future__ import annotations

from typing import Any

from services.notification.domain import Channel, Notification, WebhookDelivery, WebhookEndpoint


def notification_row(each: Notification) -> dict[str, Any]:
    """Write a notification."""
    return {
        "id": each.id,
        "user_id": each.user_id,
        "channel": each.channel.value,
        "recipient": each.recipient,
        "subject": each.subject,
        "text": each.text,
        "status": each.status,
        "attempts": each.attempts,
        "failure": each.failure,
        "create_ms": each.create_ms,
        "send_ms": each.send_ms,
        "not_before_ms": each.not_before_ms,
        "push_ms": each.push_ms,
        "event_id": each.event_id,
    }


def notification(row: Any) -> Notification:  # noqa: ANN401 - a SQLAlchemy Row
    """Read a notification."""
    return Notification(
        id=row.id,
        user_id=row.user_id,
        channel=Channel(row.channel),
        recipient=row.recipient,
        subject=row.subject,
        text=row.text,
        status=row.status,
        attempts=row.attempts,
        failure=row.failure,
        create_ms=row.create_ms,
        send_ms=row.send_ms,
        not_before_ms=row.not_before_ms,
        push_ms=row.push_ms,
        event_id=row.event_id,
    )


def endpoint_row(each: WebhookEndpoint) -> dict[str, Any]:
    """Write an endpoint; topics have no spaces."""
    return {
        "id": each.id,
        "url": each.url,
        "event_types": " ".join(each.event_types),
        "description": each.description,
        "enabled": each.enabled,
        "disable_reason": each.disable_reason,
        "secret": each.secret,
        "old_secret": each.old_secret,
        "old_until_ms": each.old_until_ms,
        "create_ms": each.create_ms,
    }


def endpoint(row: Any) -> WebhookEndpoint:  # noqa: ANN401 - a SQLAlchemy Row
    """Read an endpoint."""
    return WebhookEndpoint(
        id=row.id,
        url=row.url,
        event_types=tuple(row.event_types.split()),
        description=row.description,
        enabled=row.enabled,
        disable_reason=row.disable_reason,
        secret=row.secret,
        old_secret=row.old_secret,
        old_until_ms=row.old_until_ms,
        create_ms=row.create_ms,
    )


def delivery_row(each: WebhookDelivery) -> dict[str, Any]:
    """Write a delivery."""
    return {
        "id": each.id,
        "endpoint_id": each.endpoint_id,
        "event_id": each.event_id,
        "topic": each.topic,
        "body": each.body,
        "status": each.status,
        "attempts": each.attempts,
        "spent": each.spent,
        "failure": each.failure,
        "create_ms": each.create_ms,
        "begin_ms": each.begin_ms,
        "due_ms": each.due_ms,
        "deliver_ms": each.deliver_ms,
    }


def delivery(row: Any) -> WebhookDelivery:  # noqa: ANN401 - a SQLAlchemy Row
    """Read a delivery."""
    return WebhookDelivery(
        id=row.id,
        endpoint_id=row.endpoint_id,
        event_id=row.event_id,
        topic=row.topic,
        body=row.body,
        status=row.status,
        attempts=row.attempts,
        spent=row.spent,
        failure=row.failure,
        create_ms=row.create_ms,
        begin_ms=row.begin_ms,
        due_ms=row.due_ms,
        deliver_ms=row.deliver_ms,
    )
