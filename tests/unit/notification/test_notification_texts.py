"""What notifications say."""

from __future__ import annotations

import jinja2
import pytest

from paymesh.order.v1 import order_event_pb2 as order_pb
from paymesh.payment.v1 import payment_event_pb2 as payment_pb
from paymesh.risk.v1 import risk_event_pb2 as risk_pb
from paymesh.type.v1.money_pb2 import Money
from paymesh.user.v1 import user_event_pb2 as user_pb
from services.notification import mapping
from services.notification.adapters.texts import _ENDING, _FOLDER, SUBJECT_MAX, TemplateTexts
from services.notification.usecases import Tell

CNY = Money(currency_code="CNY", minor_units=1234)
TOLD = (
    mapping.order_paid(order_pb.OrderPaid(user_id=7, order_no="O1", amount=CNY), "order-1"),
    mapping.payment_failed(payment_pb.PaymentFailed(user_id=7, payment_no="P1", amount=CNY, failure_reason="X"), "payment-1"),
    mapping.payment_refunded(payment_pb.PaymentRefunded(user_id=7, payment_no="P", refund_amount=CNY, refunded=CNY), "payment-2"),
    mapping.risk_alert(risk_pb.RiskAlert(alert_id=3, payment_id=1, user_id=7, amount=CNY, rules_hit=["a", "b"]), "risk-1"),
    mapping.risk_block(risk_pb.RiskBlock(assessment_id=3, payment_id=1, user_id=7, amount=CNY, rules_hit=["a"]), "risk-2"),
)  # fmt: skip


@pytest.mark.parametrize("command", TOLD, ids=lambda command: command.occasion)
def test_every_event_has_its_text_in_two_languages(command: Tell) -> None:
    """With the amount in major units, and nothing that the event does not bring."""
    text = TemplateTexts().render(command.occasion, command.values)
    assert " · " in text.subject
    for part in (text.subject, text.text):
        assert any("一" <= letter <= "鿿" for letter in part)
        assert any("a" <= letter <= "z" for letter in part)
    assert "12.34 CNY" in text.text


def test_there_is_a_text_for_every_occasion_and_no_other() -> None:
    """A template that nobody uses is a mistake, and so is an occasion without one."""
    assert {path.name.removesuffix(_ENDING) for path in _FOLDER.iterdir()} == {command.occasion for command in TOLD} | {
        "welcome"
    }


def test_risk_goes_to_the_operators_and_the_rest_to_the_user() -> None:
    """User 0 stands for the operators."""
    assert [command.user_id for command in TOLD] == [7, 7, 7, 0, 0]


def test_subject_is_one_short_line_whatever_the_values_hold() -> None:
    """A line break in a name must not become a header of the mail."""
    text = TemplateTexts().render("welcome", {"username": "a\r\nBcc: x@example.com" + "y" * 500})
    assert "\n" not in text.subject
    assert "\r" not in text.subject
    assert len(text.subject) == SUBJECT_MAX


def test_missing_value_is_an_error() -> None:
    """No mail says "Dear None"."""
    with pytest.raises(jinja2.UndefinedError):
        TemplateTexts().render("welcome", {})


def test_contact_is_read_from_both_user_events() -> None:
    """Only a new user is welcomed."""
    created = mapping.user_created(user_pb.UserCreated(user_id=7, version=1, username="ann", email="a@x.cn"), "user-1")
    updated = mapping.user_updated(
        user_pb.UserUpdated(user_id=7, version=2, email="b@x.cn", phone="+8613800000000"), "user-2"
    )
    assert (created.welcome, created.contact.email, created.contact.version) == ("ann", "a@x.cn", 1)
    assert (updated.welcome, updated.contact.phone, updated.contact.version) == ("", "+8613800000000", 2)
