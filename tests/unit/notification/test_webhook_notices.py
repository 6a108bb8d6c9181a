"""What events become: notices for the merchant beside mails for people; and the settings of webhooks."""

from __future__ import annotations

import json

import pytest
from google.protobuf import descriptor_pool

from buf.validate import validate_pb2
from paymesh.mesh.v1 import policy_pb2
from paymesh.notification.v1 import notification_service_pb2 as pb
from paymesh.order.v1 import order_event_pb2 as order_pb
from paymesh.payment.v1 import payment_event_pb2 as payment_pb
from paymesh.payment.v1 import payment_pb2
from paymesh.type.v1.money_pb2 import Money
from services.contract.load import contract
from services.notification.consumer import SUBSCRIPTIONS
from services.notification.settings import Places, Settings
from services.notification.usecases import Tell
from services.platform import wire
from services.platform.settings import SettingsError, load
from tests.unit.notification.test_notification_settings import GOOD

MERCHANT = sorted(e.topic for e in contract().events.values() if e.service in {"order", "payment"})
AMOUNT = Money(currency_code="CNY", minor_units=9_007_199_254_740_993)
SOME = Money(currency_code="CNY", minor_units=1234)
PAID = payment_pb.PaymentSuccess(
    payment_id=2**62,
    version=2,
    event_time=wire.timestamp(1_800_000_000_123),
    payment_no="P1",
    order_id=5,
    user_id=7,
    amount=AMOUNT,
    method=payment_pb2.Payment.METHOD_BALANCE,
)


def told(message: object) -> Tell:
    """What the room's subscription makes of an event."""
    [found] = [each for each in SUBSCRIPTIONS if isinstance(message, each.message)]
    command = found.command(message, "event-1")
    assert isinstance(command, Tell)
    return command


def test_every_topic_of_orders_and_payments_can_be_had() -> None:
    """A topic that is added to the contract is named `notification` as its consumer, and listed in CreateWebhookEndpoint."""
    field = pb.CreateWebhookEndpointRequest.DESCRIPTOR.fields_by_name["event_types"]
    rules = field.GetOptions().Extensions[validate_pb2.field].repeated.items.string
    assert list(getattr(rules, "in")) == MERCHANT
    subscribed = {contract().events[each.message.DESCRIPTOR.full_name].topic for each in SUBSCRIPTIONS}
    assert set(MERCHANT) <= subscribed


@pytest.mark.parametrize("topic", MERCHANT)
def test_notice_has_no_personal_data(topic: str) -> None:
    """Whatever leaves by webhook is on the merchant's side of the line: no field of these events has a data class."""
    [event] = [each for each in contract().events.values() if each.topic == topic]
    waiting = [descriptor_pool.Default().FindMessageTypeByName(event.message)]
    while waiting:
        for field in waiting.pop().fields:
            assert not field.GetOptions().Extensions[policy_pb2.data_class]
            waiting += [field.message_type] if field.message_type else []


def test_notice_is_the_event_in_the_json_of_the_edge() -> None:
    """Proto field names, 64-bit numbers as strings, enums by name, times as RFC 3339; nothing lost, nothing put away."""
    body = json.loads(told(PAID).notice)
    assert body == {
        "type": "payment.success",
        "timestamp": "2027-01-15T08:00:00.123Z",
        "data": {
            "payment_id": str(2**62),
            "version": "2",
            "event_time": "2027-01-15T08:00:00.123Z",
            "payment_no": "P1",
            "order_id": "5",
            "user_id": "7",
            "amount": {"currency_code": "CNY", "minor_units": "9007199254740993"},
            "method": "METHOD_BALANCE",
        },
    }
    assert told(PAID).occasion == ""


@pytest.mark.parametrize(
    ("event", "occasion"),
    [
        (order_pb.OrderPaid(order_id=5, order_no="O5", amount=SOME, user_id=7), "order_paid"),
        (payment_pb.PaymentFailed(payment_id=5, payment_no="P5", amount=SOME, user_id=7), "payment_failed"),
        (
            payment_pb.PaymentRefunded(payment_id=5, amount=SOME, refund_amount=SOME, refunded=SOME, user_id=7),
            "payment_refunded",
        ),
        (order_pb.OrderCreated(order_id=5), ""),
        (order_pb.OrderCancelled(order_id=5), ""),
        (order_pb.OrderRefunded(order_id=5), ""),
        (order_pb.OrderPaymentRejected(order_id=5), ""),
        (payment_pb.PaymentInitiated(payment_id=5), ""),
    ],
)
def test_event_is_told_to_whom_it_concerns(event: order_pb.OrderPaid, occasion: str) -> None:
    """The user by mail where there is a text for it, the merchant of all."""
    command = told(event)
    assert command.occasion == occasion
    assert (command.user_id, bool(command.values)) == ((7, True) if occasion else (0, False))
    assert json.loads(command.notice)["type"] == command.topic


def test_settings_of_webhooks_are_read() -> None:
    """By default nothing private is allowed and the schedule is that of Standard Webhooks."""
    plain = load(Settings, GOOD)
    assert (plain.webhook_allow, plain.webhook_time_scale, plain.webhook_timeout_s) == (Places(), 1.0, 15.0)
    allowed = load(Settings, GOOD | {"PAYMESH_WEBHOOK_ALLOW": "127.0.0.1:8080, Shop.local:443"})
    assert sorted(allowed.webhook_allow) == ["127.0.0.1:8080", "shop.local:443"]
    with pytest.raises(SettingsError) as raised:
        load(Settings, GOOD | {"PAYMESH_WEBHOOK_ALLOW": "127.0.0.1", "PAYMESH_WEBHOOK_TIME_SCALE": "2"})
    assert [fault.partition("=")[0] for fault in raised.value.faults] == [
        "PAYMESH_WEBHOOK_ALLOW",
        "PAYMESH_WEBHOOK_TIME_SCALE",
    ]
