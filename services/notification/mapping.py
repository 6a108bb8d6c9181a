"""Protobuf <-> domain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paymesh.notification.v1 import notification_event_pb2 as events_pb
from paymesh.notification.v1 import notification_pb2
from paymesh.notification.v1 import notification_service_pb2 as pb
from services.notification import states
from services.notification.domain import Channel, Contact, Notification
from services.notification.usecases import KnowContact, SendNotification, Tell
from services.platform import wire

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    return Tell(event_id, "order.paid", "order_paid", event.user_id, values)


def payment_failed(event: payment_pb.PaymentFailed, event_id: str) -> Tell:
    """Read the event."""
    values = {
        "payment_no": event.payment_no,
        "amount": str(wire.money_from(event.amount)),
        "reason": event.failure_reason,
    }
    return Tell(event_id, "payment.failed", "payment_failed", event.user_id, values)


def payment_refunded(event: payment_pb.PaymentRefunded, event_id: str) -> Tell:
    """Read the event."""
    values = {
        "payment_no": event.payment_no,
        "refund_amount": str(wire.money_from(event.refund_amount)),
        "refunded": str(wire.money_from(event.refunded)),
    }
    return Tell(event_id, "payment.refunded", "payment_refunded", event.user_id, values)


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
