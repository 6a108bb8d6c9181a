"""Protobuf <-> domain."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from google.protobuf.json_format import MessageToDict

from paymesh.notification.v1 import notification_event_pb2 as events_pb
from paymesh.notification.v1 import notification_pb2, webhook_pb2
from paymesh.notification.v1 import notification_service_pb2 as pb
from services.contract.load import contract
from services.notification import states
from services.notification.domain import Channel, Contact, Notification, WebhookDelivery, WebhookEndpoint
from services.notification.domain.webhook import secret_text
from services.notification.usecases import (
    CreateWebhookEndpoint,
    KnowContact,
    RotateWebhookSecret,
    SendNotification,
    Tell,
    UpdateWebhookEndpoint,
)
from services.platform import wire

if TYPE_CHECKING:
    from collections.abc import Sequence

    from google.protobuf.message import Message

    from paymesh.order.v1 import order_event_pb2 as order_pb
    from paymesh.payment.v1 import payment_event_pb2 as payment_pb
    from paymesh.risk.v1 import risk_event_pb2 as risk_pb
    from paymesh.user.v1 import user_event_pb2 as user_pb
    from services.platform.interceptor import Call

_CHANNELS = {
    Channel.SMS: notification_pb2.Notification.CHANNEL_SMS,
    Channel.EMAIL: notification_pb2.Notification.CHANNEL_EMAIL,
    Channel.PUSH: notification_pb2.Notification.CHANNEL_PUSH,
}
_STATUSES = {
    states.QUEUED: notification_pb2.Notification.STATUS_QUEUED,
    states.SENT: notification_pb2.Notification.STATUS_SENT,
    states.FAILED: notification_pb2.Notification.STATUS_FAILED,
}
_DELIVERY_STATUSES = {
    states.WEBHOOK_DELIVERY_PENDING: webhook_pb2.WebhookDelivery.STATUS_PENDING,
    states.WEBHOOK_DELIVERY_DELIVERED: webhook_pb2.WebhookDelivery.STATUS_DELIVERED,
    states.WEBHOOK_DELIVERY_FAILED: webhook_pb2.WebhookDelivery.STATUS_FAILED,
}


def send_sms(call: Call, request: pb.SendSmsRequest) -> SendNotification:
    """Read the command."""
    key = wire.idempotency_key(call, request)
    return SendNotification(request.user_id, Channel.SMS, request.phone, "", request.text, key)


def send_email(call: Call, request: pb.SendEmailRequest) -> SendNotification:
    """Read the command."""
    key = wire.idempotency_key(call, request)
    return SendNotification(request.user_id, Channel.EMAIL, request.email, request.subject, request.text, key)


def send_push(call: Call, request: pb.SendPushRequest) -> SendNotification:
    """Read the command."""
    key = wire.idempotency_key(call, request)
    return SendNotification(request.user_id, Channel.PUSH, request.device_token, request.subject, request.text, key)


def user_created(event: user_pb.UserCreated, event_id: str) -> KnowContact:
    """Read the event."""
    contact = Contact(event.user_id, event.email, event.phone, event.version)
    return KnowContact(event_id, "user.created", contact, welcome=event.username)


def user_updated(event: user_pb.UserUpdated, event_id: str) -> KnowContact:
    """Read the event."""
    return KnowContact(event_id, "user.updated", Contact(event.user_id, event.email, event.phone, event.version))


def order_paid(event: order_pb.OrderPaid, event_id: str) -> Tell:
    """Read the event."""
    values = {"order_no": event.order_no, "amount": str(wire.money_from(event.amount))}
    return Tell(event_id, "order.paid", "order_paid", event.user_id, values, _notice(event))


def payment_failed(event: payment_pb.PaymentFailed, event_id: str) -> Tell:
    """Read the event."""
    values = {
        "payment_no": event.payment_no,
        "amount": str(wire.money_from(event.amount)),
        "reason": event.failure_reason,
    }
    return Tell(event_id, "payment.failed", "payment_failed", event.user_id, values, _notice(event))


def payment_refunded(event: payment_pb.PaymentRefunded, event_id: str) -> Tell:
    """Read the event."""
    values = {
        "payment_no": event.payment_no,
        "refund_amount": str(wire.money_from(event.refund_amount)),
        "refunded": str(wire.money_from(event.refunded)),
    }
    return Tell(event_id, "payment.refunded", "payment_refunded", event.user_id, values, _notice(event))


def happened(event: Message, event_id: str) -> Tell:
    """Read an event that is for the merchant alone."""
    return Tell(event_id, contract().events[event.DESCRIPTOR.full_name].topic, notice=_notice(event))


def _notice(event: Message) -> str:
    """Render what endpoints are posted: the event in the JSON that the edge speaks."""
    policy = contract().events[event.DESCRIPTOR.full_name]
    data = MessageToDict(event, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    body = {"type": policy.topic, "timestamp": event.event_time.ToJsonString(), "data": data}  # type: ignore[attr-defined] # the contract's rule for events
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))


def risk_alert(event: risk_pb.RiskAlert, event_id: str) -> Tell:
    """Read the event; it is for the operators."""
    return Tell(event_id, "risk.alert", "risk_alert", 0, _judged(event) | {"alert_id": str(event.alert_id)})


def risk_block(event: risk_pb.RiskBlock, event_id: str) -> Tell:
    """Read the event; it is for the operators."""
    return Tell(event_id, "risk.block", "risk_block", 0, _judged(event) | {"assessment_id": str(event.assessment_id)})


def _judged(event: risk_pb.RiskAlert | risk_pb.RiskBlock) -> dict[str, str]:
    return {
        "payment_id": str(event.payment_id),
        "user_id": str(event.user_id),
        "amount": str(wire.money_from(event.amount)),
        "rules": ", ".join(event.rules_hit),
    }


def answer(made: Notification) -> bytes:
    """Render the answer of the Send method of its channel, as it is kept for repeats."""
    message = notification(made)
    if made.channel is Channel.SMS:
        return pb.SendSmsResponse(notification=message).SerializeToString()
    if made.channel is Channel.EMAIL:
        return pb.SendEmailResponse(notification=message).SerializeToString()
    return pb.SendPushResponse(notification=message).SerializeToString()


def notification(found: Notification) -> notification_pb2.Notification:
    """Render a notification."""
    return notification_pb2.Notification(
        id=found.id,
        user_id=found.user_id,
        channel=_CHANNELS[found.channel],
        recipient=found.recipient,
        subject=found.subject,
        text=found.text,
        status=_STATUSES[found.status],
        attempts=found.attempts,
        failure=found.failure,
        create_time=wire.timestamp(found.create_ms),
        send_time=None if found.send_ms is None else wire.timestamp(found.send_ms),
    )


def notifications(found: Sequence[Notification], next_page_token: str) -> pb.ListUserNotificationsResponse:
    """Render a page."""
    listed = [notification(each) for each in found]
    return pb.ListUserNotificationsResponse(notifications=listed, next_page_token=next_page_token)


def failed(given_up: Notification, now_ms: int) -> events_pb.NotificationFailed:
    """Render the event of a notification that was given up."""
    return events_pb.NotificationFailed(
        notification_id=given_up.id,
        version=1,
        event_time=wire.timestamp(now_ms),
        user_id=given_up.user_id,
        failure=given_up.failure,
    )


def create_webhook_endpoint(call: Call, request: pb.CreateWebhookEndpointRequest) -> CreateWebhookEndpoint:
    """Read the command."""
    key = wire.idempotency_key(call, request)
    assert key is not None
    return CreateWebhookEndpoint(request.url, tuple(request.event_types), request.description, key)


def update_webhook_endpoint(request: pb.UpdateWebhookEndpointRequest) -> UpdateWebhookEndpoint:
    """Read the command."""
    return UpdateWebhookEndpoint(request.id, request.enabled)


def rotate_webhook_secret(call: Call, request: pb.RotateWebhookSecretRequest) -> RotateWebhookSecret:
    """Read the command."""
    key = wire.idempotency_key(call, request)
    assert key is not None
    return RotateWebhookSecret(request.id, key)


def webhook_created(made: WebhookEndpoint, secret: bytes) -> bytes:
    """Render the answer that tells a new endpoint's secret."""
    message = pb.CreateWebhookEndpointResponse(endpoint=webhook_endpoint(made), secret=secret_text(secret))
    return message.SerializeToString()


def webhook_rotated(changed: WebhookEndpoint, secret: bytes) -> bytes:
    """Render the answer that tells an endpoint's other secret."""
    message = pb.RotateWebhookSecretResponse(endpoint=webhook_endpoint(changed), secret=secret_text(secret))
    return message.SerializeToString()


def webhook_endpoint(found: WebhookEndpoint) -> webhook_pb2.WebhookEndpoint:
    """Render an endpoint, without its secrets."""
    return webhook_pb2.WebhookEndpoint(
        id=found.id,
        url=found.url,
        event_types=found.event_types,
        description=found.description,
        enabled=found.enabled,
        disable_reason=found.disable_reason,
        create_time=wire.timestamp(found.create_ms),
        old_secret_expire_time=wire.timestamp(found.old_until_ms) if found.old_secret else None,
    )


def webhook_endpoints(found: Sequence[WebhookEndpoint], next_page_token: str) -> pb.ListWebhookEndpointsResponse:
    """Render a page."""
    listed = [webhook_endpoint(each) for each in found]
    return pb.ListWebhookEndpointsResponse(endpoints=listed, next_page_token=next_page_token)


def webhook_delivery(found: WebhookDelivery) -> webhook_pb2.WebhookDelivery:
    """Render a delivery."""
    waits = found.status == states.WEBHOOK_DELIVERY_PENDING
    return webhook_pb2.WebhookDelivery(
        id=found.id,
        endpoint_id=found.endpoint_id,
        event_type=found.topic,
        webhook_id=found.webhook_id,
        status=_DELIVERY_STATUSES[found.status],
        attempts=found.attempts,
        failure=found.failure,
        create_time=wire.timestamp(found.create_ms),
        next_attempt_time=wire.timestamp(found.due_ms) if waits else None,
        deliver_time=None if found.deliver_ms is None else wire.timestamp(found.deliver_ms),
    )


def webhook_deliveries(found: Sequence[WebhookDelivery], next_page_token: str) -> pb.ListWebhookDeliveriesResponse:
    """Render a page."""
    listed = [webhook_delivery(each) for each in found]
    return pb.ListWebhookDeliveriesResponse(deliveries=listed, next_page_token=next_page_token)
